/* SPDX-License-Identifier: MIT */
#ifndef BDRV_LOG_REPLAY_WALK_H
#define BDRV_LOG_REPLAY_WALK_H

#include "tools/common/tool.h"
#include "tools/log-replay/replay.h"

/* What the command line asks for. */
typedef struct LogWalk {
    const char *log, *replay, *fsck;
    const char *start_mark, *end_mark;
    uint64_t start_entry, limit; /* limit 0: none */
    uint64_t check_every;        /* entries; 0: not by count */
    unsigned check_flags;        /* BDRV_LOG_FLUSH or BDRV_LOG_FUA: check behind such entries */
    unsigned stop_flags;         /* the same: stop behind the first such entry */
    bool find, list, num_entries, no_discard, verbose;
} LogWalk;

/** log_walk() - exit code: 0; 1 with a message: an error, a failed check, or nothing found */
int blocking_fn log_walk(const LogWalk *walk);

#endif
