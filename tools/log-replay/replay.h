/* SPDX-License-Identifier: MIT */
#ifndef BDRV_LOG_REPLAY_REPLAY_H
#define BDRV_LOG_REPLAY_REPLAY_H

#include "tools/log-replay/reader.h"

/**
 * log_replay_entry() - do to @target what the entry tells
 * @discard: what is discarded reads as zeroes afterwards; false: leave it
 * A write past the end makes @target longer, if it was opened so.
 */
bool blocking_fn log_replay_entry(LogReader *reader, const LogEntry *entry, BlockBackend *target, bool discard,
                                  GError **errp);

#endif
