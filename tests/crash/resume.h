/* SPDX-License-Identifier: MIT */
#ifndef TEST_CRASH_RESUME_H
#define TEST_CRASH_RESUME_H

/* How far a search is, in a file (GKeyFile) that is replaced whole: a search that was stopped goes on from there. The
 * states that are known are in it as well, so that it counts in the end what a search in one go counts. */

#include "tests/crash/search.h"

typedef struct Resume {
    const char *path; /* NULL: nothing is kept */
    GKeyFile *file;
} Resume;

/** resume_open() - read @path, if it is there; false with @errp set if it is of a search with other options */
bool resume_open(Resume *resume, const char *path, const SearchOptions *options, GError **errp);
void resume_close(Resume *resume);
/** resume_load() - where the search of search->image goes on, with its totals so far and what is known
 * Returns: false if what the file says of it makes no sense. */
bool resume_load(const Resume *resume, Search *search);
/** resume_save() - write where it is */
void resume_save(Resume *resume, const Search *search);

#endif
