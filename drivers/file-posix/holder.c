/* SPDX-License-Identifier: MIT */
/*
 * Who holds a lock that is in the way. The kernel does not say it: locks of open file descriptions have no process
 * in F_OFD_GETLK and -1 in /proc/locks. But /proc/PID/fdinfo/FD tells the locks of each descriptor, so all of them
 * are gone through, as far as this process may look. See proc_pid_fdinfo(5).
 *
 * Descriptors of our own open file description (duplicates, perhaps in the process that passed it) are told from
 * others by a lock on a byte that nobody else takes. The same lock shows how the kernel writes this file's device and
 * inode there, which is not always what stat(2) says (btrfs).
 */

#include "drivers/file-posix/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Behind all data and all other locks; together with process and descriptor it is nobody else's. */
#define MARKER_BASE (INT64_C(1) << 62)

/* Files of /proc that are read at most, lines of each, and holders that are named. */
#define MAX_FILES 100000
#define MAX_LINES 4096
#define MAX_NAMED 4

typedef struct Search {
    off_t first, last; /* bytes that the lock looked for has one of */
    bool write_only;   /* read locks are not in the way */
    off_t marker;
    char inode[64]; /* as in fdinfo */
    unsigned files_left;
    unsigned named;
    GString *holders;
} Search;

typedef struct LockLine {
    char kind[16], mode[16], inode[64];
    long long first, last;
} LockLine;

static bool parse_lock(const char *line, LockLine *lock)
{
    char last[32];

    if (sscanf(line, "lock: %*s %15s %*s %15s %*s %63s %lld %31s", lock->kind, lock->mode, lock->inode, &lock->first,
               last) != 5) {
        return false;
    }
    lock->last = strcmp(last, "EOF") == 0 ? INT64_MAX : g_ascii_strtoll(last, NULL, 10);
    return strcmp(lock->kind, "OFDLCK") == 0 || strcmp(lock->kind, "POSIX") == 0;
}

/* Whether a descriptor has a lock that is in the way. Our own has none; @own: it is the one whose inode is wanted. */
static bool has_lock(Search *search, const char *directory, const char *fd, bool own)
{
    g_autofree char *path = g_build_filename(directory, fd, NULL);
    FILE *info = fopen(path, "re");
    bool found = false, marked = false;
    LockLine lock;
    char line[256];

    for (unsigned i = 0; info && i < MAX_LINES && fgets(line, sizeof(line), info); i++) {
        if (!parse_lock(line, &lock)) {
            continue;
        }
        bool marker = lock.first == search->marker;
        if (marker && own) {
            g_strlcpy(search->inode, lock.inode, sizeof(search->inode));
        }
        marked = marked || marker;
        found = found || (strcmp(lock.inode, search->inode) == 0 && lock.first <= search->last &&
                          lock.last >= search->first && (!search->write_only || strcmp(lock.mode, "WRITE") == 0));
    }
    if (info) {
        fclose(info);
    }
    return found && !marked;
}

static void add_holder(Search *search, long process)
{
    g_autofree char *path = g_strdup_printf("/proc/%ld/comm", process), *name = NULL, *shown = NULL;

    g_string_append(search->holders, search->named ? ", " : "");
    if (search->named++ == MAX_NAMED) {
        g_string_append(search->holders, "and others");
    } else if (process == getpid()) {
        g_string_append(search->holders, "this process itself, which has the file open as another node");
    } else {
        g_file_get_contents(path, &name, NULL, NULL);
        shown = g_strescape(name ? g_strchomp(name) : "?", NULL); /* anybody may call himself anything */
        g_string_append_printf(search->holders, "process %ld (%s)", process, shown);
    }
}

static void look_at_process(Search *search, long process)
{
    g_autofree char *directory = g_strdup_printf("/proc/%ld/fdinfo", process);
    DIR *descriptors = opendir(directory); /* fails if it has ended or may not be looked at */
    bool found = false;

    for (struct dirent *entry; descriptors && !found && (entry = readdir(descriptors)) && search->files_left;) {
        if (g_ascii_isdigit(entry->d_name[0])) {
            search->files_left--;
            found = has_lock(search, directory, entry->d_name, false);
        }
    }
    if (descriptors) {
        closedir(descriptors);
    }
    if (found) {
        add_holder(search, process);
    }
}

static void look_at_all(Search *search)
{
    DIR *processes = opendir("/proc");

    for (struct dirent *entry; processes && search->named <= MAX_NAMED && (entry = readdir(processes));) {
        if (g_ascii_isdigit(entry->d_name[0])) {
            look_at_process(search, strtol(entry->d_name, NULL, 10));
        }
    }
    if (processes) {
        closedir(processes);
    }
}

char *file_lock_holders(const FileState *s, off_t first, off_t last, bool write_only)
{
    g_autofree char *own = g_strdup_printf("%d", s->lock_fd);
    Search search = {
        .first = first,
        .last = last,
        .write_only = write_only,
        .marker = MARKER_BASE + ((off_t)getpid() << 24) + s->lock_fd,
        .files_left = MAX_FILES,
        .holders = g_string_new(NULL),
    };
    struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = search.marker, .l_len = 1 };
    struct stat st;

    if (s->calls->lock(s->lock_fd, F_OFD_SETLK, &lock) == 0) {
        has_lock(&search, "/proc/self/fdinfo", own, true);
        look_at_all(&search);
        lock.l_type = F_UNLCK;
        s->calls->lock(s->lock_fd, F_OFD_SETLK, &lock);
    } else if (fstat(s->lock_fd, &st) == 0) {
        /* Somebody has the whole file locked for writing: surely not we. */
        g_snprintf(search.inode, sizeof(search.inode), "%02x:%02x:%ju", major(st.st_dev), minor(st.st_dev),
                   (uintmax_t)st.st_ino);
        look_at_all(&search);
    }
    return g_string_free(search.holders, search.named == 0);
}
