/* SPDX-License-Identifier: MIT */
/* bdrv-log-replay: play a log of writes onto an image, or look into it. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/log-replay/walk.h"

static const char help_text[] =
    "Usage: %s --log LOG [--replay IMAGE] [OPTIONS]...\n"
    "Replay a log in the dm-log-writes format, as blklogwrites and dm-log-writes write it.\n"
    "\n"
    "  --log LOG          the log\n"
    "  --replay IMAGE     write what the log tells to this raw image (made if it does not exist)\n"
    "  --list             print the entries\n"
    "  --find             print NUMBER@SECTOR of the entry where the walk stops\n"
    "  --num-entries      print how many entries the log has\n"
    "\n"
    "From where to where (all of the log if nothing is said):\n"
    "  --start-entry N    from entry N on (the first is 0)\n"
    "  --start-mark NAME  from this mark on\n"
    "  --limit N          at most N entries\n"
    "  --end-mark NAME    up to this mark\n"
    "  --next-flush       up to and including the first flush\n"
    "  --next-fua         up to and including the first FUA write\n"
    "\n"
    "  --fsck COMMAND     check the image by a shell command, which must end with 0; BDRV_LOG_ENTRY is in\n"
    "                     its environment\n"
    "  --check WHEN       behind each flush, each fua, or each N entries\n"
    "  --no-discard       leave discards out (else what they cover becomes zeroes)\n"
    "  -v                 print the entries that are replayed\n"
    "  -h, --help, -V, --version\n";

enum { LOG = 256, REPLAY, LIST, FIND, NUM_ENTRIES, START_ENTRY, START_MARK, LIMIT, END_MARK, NEXT_FLUSH, NEXT_FUA, FSCK,
       CHECK, NO_DISCARD };

static const struct option long_options[] = {
    { "log", required_argument, NULL, LOG },
    { "replay", required_argument, NULL, REPLAY },
    { "list", no_argument, NULL, LIST },
    { "find", no_argument, NULL, FIND },
    { "num-entries", no_argument, NULL, NUM_ENTRIES },
    { "start-entry", required_argument, NULL, START_ENTRY },
    { "start-mark", required_argument, NULL, START_MARK },
    { "limit", required_argument, NULL, LIMIT },
    { "end-mark", required_argument, NULL, END_MARK },
    { "next-flush", no_argument, NULL, NEXT_FLUSH },
    { "next-fua", no_argument, NULL, NEXT_FUA },
    { "fsck", required_argument, NULL, FSCK },
    { "check", required_argument, NULL, CHECK },
    { "no-discard", no_argument, NULL, NO_DISCARD },
    { "help", no_argument, NULL, 'h' },
    { "version", no_argument, NULL, 'V' },
    { NULL },
};

static void fail(const char *message)
{
    tool_error("%s; try '%s --help'", message, tool_name());
    exit(1);
}

static uint64_t parse_number(const char *option, const char *text, uint64_t least)
{
    uint64_t value;

    if (!g_ascii_string_to_unsigned(text, 10, least, G_MAXINT64, &value, NULL)) {
        tool_error("%s: '%s' is not a number from %" G_GUINT64_FORMAT " on", option, text, least);
        exit(1);
    }
    return value;
}

static void parse_check(LogWalk *walk, const char *when)
{
    if (strcmp(when, "flush") == 0) {
        walk->check_flags |= BDRV_LOG_FLUSH;
    } else if (strcmp(when, "fua") == 0) {
        walk->check_flags |= BDRV_LOG_FUA;
    } else {
        walk->check_every = parse_number("--check (flush, fua or how many entries)", when, 1);
    }
}

static void parse_option(LogWalk *walk, int option)
{
    switch (option) {
    case LOG: walk->log = optarg; break;
    case REPLAY: walk->replay = optarg; break;
    case LIST: walk->list = true; break;
    case FIND: walk->find = true; break;
    case NUM_ENTRIES: walk->num_entries = true; break;
    case START_ENTRY: walk->start_entry = parse_number("--start-entry", optarg, 0); break;
    case START_MARK: walk->start_mark = optarg; break;
    case LIMIT: walk->limit = parse_number("--limit", optarg, 1); break;
    case END_MARK: walk->end_mark = optarg; break;
    case NEXT_FLUSH: walk->stop_flags |= BDRV_LOG_FLUSH; break;
    case NEXT_FUA: walk->stop_flags |= BDRV_LOG_FUA; break;
    case FSCK: walk->fsck = optarg; break;
    case CHECK: parse_check(walk, optarg); break;
    case NO_DISCARD: walk->no_discard = true; break;
    case 'v': walk->verbose = true; break;
    case 'h': printf(help_text, tool_name()); exit(0);
    case 'V': printf("%s (libbdrv) 0.1.0\n", tool_name()); exit(0);
    default: exit(1); /* getopt has said why */
    }
}

static void check_options(const LogWalk *walk, int rest)
{
    bool checks = walk->check_every || walk->check_flags;

    if (rest > 0 || !walk->log) {
        fail(rest > 0 ? "unexpected argument" : "--log LOG is missing");
    }
    if (!walk->replay && !walk->list && !walk->find && !walk->num_entries) {
        fail("say what to do: --replay IMAGE, --list, --find or --num-entries");
    }
    if (walk->replay && (walk->list || walk->find || walk->num_entries)) {
        fail("--replay changes an image, --list, --find and --num-entries only look: use one of them");
    }
    if (walk->start_mark && walk->start_entry) {
        fail("--start-mark and --start-entry are two places");
    }
    if (!walk->fsck != !checks || (checks && !walk->replay)) {
        fail("--fsck, --check and --replay go together");
    }
    if (walk->find && !walk->end_mark && !walk->stop_flags) {
        fail("--find needs --end-mark, --next-flush or --next-fua");
    }
}

int main(int argc, char **argv)
{
    LogWalk walk = { 0 };
    int option;

    tool_init(argv[0]);
    while ((option = getopt_long(argc, argv, "vhV", long_options, NULL)) != -1) {
        parse_option(&walk, option);
    }
    check_options(&walk, argc - optind);
    return log_walk(&walk);
}
