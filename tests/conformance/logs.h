/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TEST_CONFORMANCE_LOGS_H
#define BDRV_TEST_CONFORMANCE_LOGS_H

/*
 * Stacks with blklogwrites: the disk DIR/disk or simdisk ID, the log DIR/log or simdisk ID-log. Whenever the
 * image is closed, the log replayed onto what the disk was at the start must give what the disk is.
 */

#include "files.h"

void conformance_file_log_setup(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir,
                                uint8_t *content);
void conformance_file_log_teardown(const ConformanceStack *stack, const char *id, const char *dir);
void conformance_file_log_inspect(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir);
void conformance_sim_log_inspect(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir);

#endif
