/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TEST_CONFORMANCE_FILES_H
#define BDRV_TEST_CONFORMANCE_FILES_H

/* Stacks whose disk is the file "disk" in the run's directory, made by the library's own image creation. */

#include "tests/lib/conformance.h"

/* ConformanceStack.data; NULL: a raw image */
typedef struct ConformanceFile {
    const char *format, *options, *backing; /* create options; format of a backing file of random content */
    int64_t extra;                          /* bytes that the file is longer than the disk */
} ConformanceFile;

void conformance_file_setup(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir,
                            uint8_t *content);
/** conformance_file_teardown() - lets the real tool check a qcow2 image before it goes */
void conformance_file_teardown(const ConformanceStack *stack, const char *id, const char *dir);

/** conformance_check_image() - an inspect function: the image's own check must find nothing */
void conformance_check_image(const ConformanceStack *stack, BdrvGraph *graph, const char *id,
                             const char *dir);

/** conformance_check_raw_data() - the same, and the data file ("data", on simdisks "ID-data") holds what the guest reads */
void conformance_check_raw_data(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir);

#endif
