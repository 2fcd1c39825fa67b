/* SPDX-License-Identifier: MIT */
/* The command line of each subcommand: see syntax.h. */
#include <stdio.h>
#include <string.h>

#include "tools/img/syntax.h"

#define HELP { 'h', "help", NULL, "print this and exit" }
#define OBJECT { IMG_OPTION_OBJECT, "object", "secret,id=ID,...", "a secret that image options name by its id" }
#define IMAGE_OPTS { IMG_OPTION_IMAGE_OPTS, "image-opts", NULL, "FILENAME is driver=...,... instead of a name" }
#define FORCE_SHARE { 'U', "force-share", NULL, "open it though another process writes to it; what is read may be inconsistent" }
#define FORMAT { 'f', NULL, "FMT", "format of the image; else its content tells" }
#define LOOK_FORMAT { 'f', "format", "FMT", "format of the image; else its content tells" }
#define OUTPUT { IMG_OPTION_OUTPUT, "output", "human|json", "for people, or for programs" }
#define PROGRESS { 'p', NULL, NULL, "show the progress" }
#define QUIET { 'q', NULL, NULL, "print nothing but errors" }
#define CACHE { 't', NULL, "CACHE", "cache mode of the image (writeback)" }
#define SOURCE_CACHE { 'T', NULL, "CACHE", "cache mode of what is only read (writeback)" }
#define OUTPUT_FORMAT { 'O', NULL, "FMT", "format of the target (raw)" }
#define BACKING_FORMAT { 'F', NULL, "FMT", "format of the backing file" }
#define SNAPSHOT { 'l', NULL, "SNAPSHOT", "show this internal snapshot: its id or name, or snapshot.id=ID,snapshot.name=NAME" }
#define DRY_RUN { IMG_OPTION_DRY_RUN, "dry-run", NULL, "tell what would be done, and change nothing" }
#define RATE { 'r', NULL, "RATE", "at most so many bytes a second" }
#define END { 0, NULL, NULL, NULL }

static const ImgOption amend_options[] = {
    { 'o', NULL, "OPTIONS", "what to change, as KEY=VALUE,...; 'help' lists what can be changed" },
    FORMAT, IMAGE_OPTS, OBJECT, CACHE,
    { IMG_OPTION_FORCE, "force", NULL, "do what may lose data: erase the last key slot, for one" },
    PROGRESS, QUIET, HELP, END,
};

static const ImgOption bench_options[] = {
    { 'c', NULL, "COUNT", "number of requests (75000)" },
    { 'd', NULL, "DEPTH", "requests under way at a time (64)" },
    { 's', NULL, "SIZE", "bytes of a request (4096)" },
    { 'S', NULL, "STEP", "bytes from the start of one request to the next (those of a request)" },
    { 'o', NULL, "OFFSET", "where the first one starts (0)" },
    { 'w', NULL, NULL, "write instead of reading" },
    { IMG_OPTION_PATTERN, "pattern", "BYTE", "with -w, what to write: 0 to 255 (0)" },
    { IMG_OPTION_FLUSH_INTERVAL, "flush-interval", "COUNT", "with -w, flush each time so many requests are done (never)" },
    { IMG_OPTION_NO_DRAIN, "no-drain", NULL, "flush without waiting for the requests under way" },
    { 'i', NULL, "threads|native|io_uring", "how to reach files (threads)" },
    { 'n', NULL, NULL, "the same as -i native" },
    FORMAT, IMAGE_OPTS, CACHE, FORCE_SHARE, QUIET, HELP, END,
};

static const ImgOption bitmap_options[] = {
    { IMG_OPTION_ADD, "add", NULL, "make BITMAP, empty and enabled" },
    { IMG_OPTION_REMOVE, "remove", NULL, "remove it" },
    { IMG_OPTION_CLEAR, "clear", NULL, "clear all its bits" },
    { IMG_OPTION_ENABLE, "enable", NULL, "let it record writes from now on" },
    { IMG_OPTION_DISABLE, "disable", NULL, "let it record no more" },
    { IMG_OPTION_MERGE, "merge", "SOURCE", "set those bits too that are set in the bitmap SOURCE" },
    { 'b', "source-file", "FILE", "for --merge: the image that SOURCE is in" },
    { 'F', "source-format", "FMT", "format of that" },
    { 'g', "granularity", "SIZE", "for --add: bytes that a bit stands for, a power of two from 512 to 2G (64k)" },
    FORMAT, IMAGE_OPTS, OBJECT, HELP, END,
};

static const ImgOption check_options[] = {
    { 'r', "repair", "leaks|all", "free what nothing refers to; or mend all that is wrong" },
    { IMG_OPTION_DRY_RUN, "dry-run", NULL, "with -r: tell what would be repaired and what left, and change nothing" },
    { IMG_OPTION_EXPLAIN, "explain", NULL,
      "tell of each kind of finding what it is, what is at risk, and what a repair would do" },
    LOOK_FORMAT, IMAGE_OPTS, OBJECT, OUTPUT, SOURCE_CACHE, FORCE_SHARE, QUIET, HELP, END,
};

static const ImgOption commit_options[] = {
    { 'b', NULL, "FILE", "an image further down the chain to commit to; keeps FILENAME as it is" },
    { 'd', NULL, NULL, "keep FILENAME as it is instead of emptying it" },
    DRY_RUN, RATE, FORMAT, IMAGE_OPTS, OBJECT, CACHE, PROGRESS, QUIET, HELP, END,
};

static const ImgOption compare_options[] = {
    { 'f', NULL, "FMT", "format of the first image; else its content tells" },
    { 'F', NULL, "FMT", "format of the second one" },
    { 's', NULL, NULL, "strict: different lengths and allocation are differences too" },
    IMAGE_OPTS, OBJECT, SOURCE_CACHE, FORCE_SHARE, PROGRESS, QUIET, HELP, END,
};

static const ImgOption convert_options[] = {
    { 'f', NULL, "FMT", "format of the sources; else their content tells" },
    OUTPUT_FORMAT,
    { 'o', NULL, "OPTIONS", "options of the target, as KEY=VALUE,...; 'help' lists them" },
    { 'B', NULL, "FILE", "give the target this backing file, and leave out what is the same there" },
    BACKING_FORMAT,
    { 'c', NULL, NULL, "compress" },
    SNAPSHOT,
    { 'n', NULL, NULL, "write into a target that exists" },
    { IMG_OPTION_TARGET_IS_ZERO, "target-is-zero", NULL, "with -n: the target reads as zeroes, so those need not be written" },
    { 'S', NULL, "SIZE", "leave zeroes unwritten in runs of so many bytes (4k); 0 writes all, and allocates" },
    { 'm', NULL, "COUNT", "requests under way at a time: 1 to 16 (8)" },
    { 'W', NULL, NULL, "write in the order in which reads are done, not from start to end" },
    { 'C', NULL, NULL, "let the system copy, without the data passing through this program" },
    RATE,
    { IMG_OPTION_RESUME, "resume", NULL,
      "go on where the same command was stopped; TARGET.bdrv-resume tells how far it is, until all is done" },
    { IMG_OPTION_SALVAGE, "salvage", NULL, "go on after read errors, with zeroes in place of what cannot be read" },
    { IMG_OPTION_BITMAPS, "bitmaps", NULL, "copy the persistent bitmaps" },
    { IMG_OPTION_SKIP_BROKEN_BITMAPS, "skip-broken-bitmaps", NULL, "with --bitmaps: leave out those that are inconsistent" },
    IMAGE_OPTS,
    { IMG_OPTION_TARGET_IMAGE_OPTS, "target-image-opts", NULL, "with -n: TARGET is driver=...,... instead of a name" },
    OBJECT,
    { 't', NULL, "CACHE", "cache mode of the target (unsafe, and what is written does not stay in the page cache)" },
    SOURCE_CACHE, FORCE_SHARE, PROGRESS, QUIET, HELP, END,
};

static const ImgOption create_options[] = {
    { 'f', NULL, "FMT", "format (raw)" },
    { 'o', NULL, "OPTIONS", "its options, as KEY=VALUE,...; 'help' lists them" },
    { 'b', NULL, "FILE", "backing file: what is not written reads as it does there" },
    BACKING_FORMAT,
    { 'u', NULL, NULL, "do not look at the backing file: it need not exist, but then SIZE must be given" },
    OBJECT, QUIET, HELP, END,
};

static const ImgOption dd_options[] = {
    { 'f', NULL, "FMT", "format of the input; else its content tells" },
    OUTPUT_FORMAT, IMAGE_OPTS, OBJECT, FORCE_SHARE, HELP, END,
};

static const ImgOption info_options[] = {
    { IMG_OPTION_BACKING_CHAIN, "backing-chain", NULL, "tell about the backing files, too" },
    { IMG_OPTION_GRAPH, "graph", NULL, "show the tree of nodes that the image is opened as, with what each uses" },
    LOOK_FORMAT, IMAGE_OPTS, OBJECT, OUTPUT, FORCE_SHARE, HELP, END,
};

static const ImgOption map_options[] = {
    { 's', "start-offset", "OFFSET", "where to start (0)" },
    { 'l', "max-length", "SIZE", "how far to go (to the end)" },
    { IMG_OPTION_OUTPUT, "output", "human|json|svg", "for people, for programs, or as a picture" },
    LOOK_FORMAT, IMAGE_OPTS, OBJECT, FORCE_SHARE, HELP, END,
};

static const ImgOption measure_options[] = {
    OUTPUT_FORMAT,
    { 'o', NULL, "OPTIONS", "options that the target would have, as KEY=VALUE,..." },
    { IMG_OPTION_SIZE, "size", "SIZE", "measure for an empty disk of this size instead of an image" },
    SNAPSHOT, FORMAT, IMAGE_OPTS, OBJECT, OUTPUT, FORCE_SHARE, HELP, END,
};

static const ImgOption rebase_options[] = {
    { 'b', NULL, "FILE", "the new backing file; \"\" for none" },
    BACKING_FORMAT,
    { 'u', NULL, NULL, "change the name only; right if the new one holds the same, or the old one has moved" },
    DRY_RUN, FORMAT, IMAGE_OPTS, OBJECT, CACHE, SOURCE_CACHE, FORCE_SHARE, PROGRESS, QUIET, HELP, END,
};

static const ImgOption resize_options[] = {
    { IMG_OPTION_SHRINK, "shrink", NULL, "needed to make it smaller: what lies past the new end is lost" },
    { IMG_OPTION_PREALLOCATION, "preallocation", "off|metadata|falloc|full", "how the new space is allocated (off)" },
    DRY_RUN, FORMAT, IMAGE_OPTS, OBJECT, QUIET, HELP, END,
};

static const ImgOption snapshot_options[] = {
    { 'l', NULL, NULL, "list the snapshots" },
    { 'a', NULL, "SNAPSHOT", "apply one, by id or name: the disk is what it was then" },
    { 'c', NULL, "NAME", "create one" },
    { 'd', NULL, "SNAPSHOT", "delete one, by id or name" },
    IMAGE_OPTS, OBJECT, FORCE_SHARE, QUIET, HELP, END,
};

const ImgSyntax img_syntaxes[] = {
    { "amend", "FILENAME", "Change options of an image that were chosen when it was made.",
      "Either all that is asked for is changed, or nothing.",
      "# make an image readable for old programs\n"
      "amend -f qcow2 -o compat=0.10 disk.qcow2\n",
      amend_options },
    { "bench", "FILENAME", "Read or write one request after the other, and tell how long that takes.", NULL,
      "# 10000 reads of 64 KiB, 16 at a time\n"
      "bench -c 10000 -d 16 -s 64k disk.qcow2\n"
      "# the same written; what the image holds is lost\n"
      "bench -w -c 10000 -d 16 -s 64k -t none -i io_uring disk.qcow2\n",
      bench_options },
    { "bitmap", "FILENAME BITMAP", "Change a persistent dirty bitmap of an image.",
      "A bitmap records what is written while it is enabled, for backups that take only what has changed. Several actions "
      "are taken in the order in which they are given.",
      "# record from now on what is written\n"
      "bitmap --add -f qcow2 disk.qcow2 since-monday\n"
      "# after a backup\n"
      "bitmap --clear -f qcow2 disk.qcow2 since-monday\n",
      bitmap_options },
    { "check", "FILENAME", "Look for errors in an image, and repair them.",
      "Exit status: 0 no errors, 1 the check could not be made, 2 corruptions, 3 leaked clusters only, 63 the format has no "
      "check.",
      "# is all well?\n"
      "check disk.qcow2\n"
      "# what do the findings mean?\n"
      "check --explain disk.qcow2\n"
      "# what would a repair do?\n"
      "check --dry-run -r all disk.qcow2\n"
      "# free clusters that nothing refers to; this is safe\n"
      "check -r leaks disk.qcow2\n",
      check_options },
    { "commit", "FILENAME", "Write what an image holds into its backing file.",
      "Afterwards the image is empty, and reads as before. Images made upon the backing file by others do not read as before.",
      "# how much would be written into the backing file?\n"
      "commit --dry-run overlay.qcow2\n"
      "# into the backing file\n"
      "commit overlay.qcow2\n"
      "# into an image further down the chain\n"
      "commit -b base.qcow2 overlay.qcow2\n",
      commit_options },
    { "compare", "FILENAME1 FILENAME2", "Compare what two images hold.",
      "Exit status: 0 they are the same, 1 they differ, more: an error.",
      "# is the copy good?\n"
      "compare disk.raw disk.qcow2\n",
      compare_options },
    { "convert", "SOURCE... TARGET", "Copy images into a new one, of any format.",
      "Several sources are put one behind the other. With -c, -o takes compression_level=N besides what '-o help' lists: "
      "1 (fast) to 9 (small), of zstd to 22. The default is faster than any of them where ISA-L is built in, and a few percent "
      "larger than 6.",
      "# from raw to qcow2, and back\n"
      "convert -p -O qcow2 disk.raw disk.qcow2\n"
      "convert -p -f qcow2 -O raw disk.qcow2 disk.raw\n"
      "# as small as can be\n"
      "convert -c -O qcow2 -o compression_type=zstd,compression_level=19 disk.raw small.qcow2\n"
      "# can be stopped, and goes on when it is begun again\n"
      "convert -p --resume -O qcow2 disk.raw copy.qcow2\n"
      "# what a snapshot holds\n"
      "convert -l before-update -O qcow2 disk.qcow2 old.qcow2\n",
      convert_options },
    { "create", "FILENAME [SIZE]", "Make an empty image.",
      "Without SIZE it is as large as its backing file.",
      "# a disk of 20 GiB that takes up space as it is written\n"
      "create -f qcow2 disk.qcow2 20G\n"
      "# one that holds only what differs from another\n"
      "create -f qcow2 -b disk.qcow2 -F qcow2 overlay.qcow2\n"
      "# encrypted\n"
      "create --object secret,id=key,file=passphrase -f qcow2 -o encrypt.format=luks,encrypt.key-secret=key secret.qcow2 20G\n",
      create_options },
    { "dd", "[bs=SIZE] [count=BLOCKS] [skip=BLOCKS] if=FILE of=FILE", "Copy an image, or the part of it from some block on.",
      "A block is bs bytes (512). The target is made anew.",
      "# all but the first MiB\n"
      "dd -f qcow2 -O raw bs=1M skip=1 if=disk.qcow2 of=rest.raw\n",
      dd_options },
    { "info", "FILENAME", "Tell what an image is.",
      "Nothing that the image names is opened, unless --backing-chain or --graph asks for it.",
      "# the image and all that it lies on, for a program\n"
      "info --backing-chain --output=json overlay.qcow2\n"
      "# what is stacked upon what\n"
      "info --graph overlay.qcow2\n",
      info_options },
    { "map", "FILENAME", "Tell which parts of the disk are data or zeroes, and where they lie.", NULL,
      "# for a program\n"
      "map --output=json disk.qcow2\n"
      "# a picture, for any browser\n"
      "map --output=svg disk.qcow2\n",
      map_options },
    { "measure", "[FILENAME]", "Tell how large a file a new image would need.", NULL,
      "# will the copy fit?\n"
      "measure -O qcow2 disk.raw\n"
      "# a new disk, all of it written\n"
      "measure -O qcow2 --size 20G\n",
      measure_options },
    { "rebase", "FILENAME", "Give an image another backing file.",
      "What the image reads stays the same: what the old and the new backing file do not share is copied into it, unless -u "
      "is given.",
      "# lie on another image\n"
      "rebase -b new-base.qcow2 -F qcow2 overlay.qcow2\n"
      "# lie on none\n"
      "rebase -b \"\" overlay.qcow2\n"
      "# the backing file has been renamed\n"
      "rebase -u -b renamed.qcow2 -F qcow2 overlay.qcow2\n",
      rebase_options },
    { "resize", "FILENAME [+|-]SIZE", "Make an image larger or smaller.",
      "File systems and partitions on the disk stay as they are: they grow afterwards, and must be made smaller before.",
      "# ten GiB more\n"
      "resize disk.qcow2 +10G\n"
      "# exactly five; what lies behind is lost\n"
      "resize --shrink disk.qcow2 5G\n"
      "# how much would be lost?\n"
      "resize --dry-run --shrink disk.qcow2 5G\n",
      resize_options },
    { "snapshot", "FILENAME", "Create, apply, delete or list internal snapshots.", NULL,
      "# before something dangerous\n"
      "snapshot -c before-update disk.qcow2\n"
      "# back to it\n"
      "snapshot -a before-update disk.qcow2\n",
      snapshot_options },
    { NULL, NULL, NULL, NULL, NULL, NULL },
};

const ImgTopic img_topics[] = {
    { "Image names",
      "A file, \"json:{...}\" with the options that open it, or with --image-opts a list \"driver=qcow2,file.filename=...\". "
      "Backing files that an image names start at the directory of that image. A name with a colon in it is taken for "
      "PROTOCOL:..., unless a slash comes before: write ./a:b." },
    { "Sizes",
      "Bytes, or a number with one of the suffixes k, M, G, T, P and E: powers of 1024." },
    { "Cache modes",
      "writeback: through the page cache; a flush makes it durable. none: past the page cache. writethrough: each write is "
      "durable when it is done. directsync: both. unsafe: never flushed; the image is lost if power is." },
    { "Secrets",
      "--object secret,id=ID,file=PATH or data=TEXT gives a passphrase; with format=base64 it is decoded first. Image options "
      "name it: encrypt.key-secret=ID, key-secret=ID." },
    { NULL, NULL },
};

const ImgSyntax *img_find_syntax(const char *name)
{
    const ImgSyntax *syntax = img_syntaxes;

    while (syntax->name && strcmp(syntax->name, name) != 0) {
        syntax++;
    }
    return syntax->name ? syntax : NULL;
}

void img_option_text(const ImgOption *option, char *text, size_t size)
{
    const char *value = option->value ? option->value : "", *between = option->value ? " " : "";

    if (option->id < IMG_OPTION_OUTPUT) {
        snprintf(text, size, "-%c%s%s", option->id, between, value);
    } else {
        snprintf(text, size, "--%s%s%s", option->name, between, value);
    }
}
