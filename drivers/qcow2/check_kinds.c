/* SPDX-License-Identifier: MIT */
/* What the findings of a check mean: for people (bdrv-img check --explain), and for the check itself. */

#include "drivers/qcow2/check_kinds.h"

#define CORRUPTION(name, title, risk, repair) .words = { BDRV_CHECK_CORRUPTION, name, title, risk, repair }
#define ERROR(name, title, risk, repair) .words = { BDRV_CHECK_ERROR, name, title, risk, repair }

const Qcow2CheckKindInfo qcow2_check_kinds[QCOW2_CHECK_KINDS] = {
    [QCOW2_CHECK_NOTE] = {
        .words = { BDRV_CHECK_NOTE, "note", "What a repair does", "Nothing.", "It is a part of the repair." },
    },
    [QCOW2_CHECK_LEAKED_CLUSTER] = {
        .words = {
            BDRV_CHECK_LEAK, "leaked-cluster",
            "A cluster of the file is counted as used more often than anything refers to it",
            "Space only: the cluster is never used again. No data is wrong.",
            "-r leaks and -r all lower the refcount, so that the cluster can be used again.",
        },
    },
    [QCOW2_CHECK_REFCOUNT_TOO_LOW] = {
        CORRUPTION("refcount-too-low", "A cluster is counted as used less often than something refers to it",
                   "What the cluster holds: it may be taken for free and given to other data, or be written in place "
                   "though a snapshot shares it. Do not write to the image before it is repaired.",
                   "-r all raises the refcount. Where two owners claim the cluster that cannot share it, one of them "
                   "gets a copy."),
    },
    [QCOW2_CHECK_REFCOUNT_OVERFLOW] = {
        CORRUPTION("refcount-overflow", "More entries refer to a cluster than its refcount can count",
                   "What the cluster holds: it may be freed or overwritten while some of them still need it.",
                   "-r all gives those that are too many a copy of the cluster."),
        .is_damage = true,
    },
    [QCOW2_CHECK_COPIED_FLAG_SET] = {
        CORRUPTION("copied-flag-set", "An entry says that its cluster has one owner, but the refcount is not 1",
                   "What shares the cluster, as a snapshot does: it is written in place, which changes all of them.",
                   "-r all makes flag and refcount agree; so does -r leaks if nothing worse is found."),
    },
    [QCOW2_CHECK_COPIED_FLAG_MISSING] = {
        CORRUPTION("copied-flag-missing",
                   "An entry does not say that its cluster has one owner, but the refcount is 1",
                   "Speed and space: the cluster is copied when it is written next. No data is wrong.",
                   "-r all sets the flag; so does -r leaks if nothing worse is found."),
    },
    [QCOW2_CHECK_OUTSIDE_FILE] = {
        CORRUPTION("outside-file", "Something refers to a place that lies past the end of the file",
                   "What was stored there is not in the file: it was cut short, or the pointer is wrong.",
                   "-r all makes what an entry has lost read as zeroes, gives up bitmaps that are not there, and "
                   "writes lost refcounts anew. Look for a longer copy of the file before."),
        .is_damage = true,
    },
    [QCOW2_CHECK_NOT_ALIGNED] = {
        CORRUPTION("not-aligned", "An entry refers to a place at which no cluster starts",
                   "The data that the entry maps: where it lies is not known. Reading it fails.",
                   "-r all makes what the entry mapped read as zeroes."),
        .is_damage = true,
    },
    [QCOW2_CHECK_RESERVED_BITS] = {
        CORRUPTION("reserved-bits", "An entry has bits set that mean nothing in this version of the format",
                   "The data that the entry maps: it may have been overwritten by something else.",
                   "-r all writes the entry without them, and keeps the data to which it leads."),
        .is_damage = true,
    },
    [QCOW2_CHECK_L2_LAYOUT] = {
        CORRUPTION("l2-layout", "The header does not say which kind of entries the L2 tables have",
                   "All data: entries are taken for what they are not, and nothing else can be checked.",
                   "-r all puts the bit of the header right, checks all once more and repairs what else is found."),
    },
    [QCOW2_CHECK_SUBCLUSTER_BITMAP] = {
        CORRUPTION("subcluster-bitmap",
                   "The bits of an entry that tell its subclusters contradict each other or the entry",
                   "The data of this cluster: what reads as zeroes and what as data is not certain.",
                   "-r all keeps as data what a bit calls data, if there is a cluster; else it reads as zeroes."),
        .is_damage = true,
    },
    [QCOW2_CHECK_COMPRESSED_ENTRY] = {
        CORRUPTION("compressed-entry", "An entry of a compressed cluster has bits set, or is where, none may be",
                   "The data of this cluster: reading it may fail.",
                   "-r all clears the bits and keeps the data; in an image with a data file, where nothing can be "
                   "compressed, the entry is given its place in the data file."),
        .is_damage = true,
    },
    [QCOW2_CHECK_DATA_FILE_OFFSET] = {
        CORRUPTION("data-file-offset", "A cluster is not at the place in the data file that belongs to it",
                   "The data of this cluster, and the cluster whose place it took.",
                   "-r all makes the entry refer to its own place; what that holds is read from then on."),
        .is_damage = true,
    },
    [QCOW2_CHECK_RAW_DATA_FILE_BIT] = {
        CORRUPTION("raw-data-file-bit", "The header says that the data file is a raw image, but there is no data file",
                   "Nothing while it lies still; programs may refuse the image.",
                   "Any repair clears the bit."),
    },
    [QCOW2_CHECK_SNAPSHOT_TABLE] = {
        CORRUPTION("snapshot-table", "The table of snapshots, or an entry of it, is damaged",
                   "The snapshots: those that cannot be found are lost, and their clusters look like leaks.",
                   "-r all writes a new table of those that can be found. Of some only the data can be kept, under the "
                   "name repaired-N; the others are given up."),
        .is_damage = true,
    },
    [QCOW2_CHECK_BITMAPS] = {
        CORRUPTION("bitmaps", "The directory of dirty bitmaps, or a bitmap, is damaged",
                   "Incremental backups: what has changed since the last one is not known. The disk itself is not "
                   "affected.",
                   "-r all gives up all bitmaps; make a full backup afterwards."),
        .is_damage = true,
    },
    [QCOW2_CHECK_REFCOUNT_TABLE] = {
        CORRUPTION("refcount-table", "The header does not lead to a refcount table",
                   "All data, once the image is written to: which clusters are free is not known. Reading works.",
                   "-r all counts all references and writes the refcounts anew."),
    },
    [QCOW2_CHECK_REFCOUNT_BLOCK] = {
        CORRUPTION("refcount-block",
                   "An entry of the refcount table is damaged, or its block has another owner besides",
                   "All data whose refcounts the block holds, once the image is written to. Reading works.",
                   "-r all counts all references and writes the refcounts anew, to another place."),
    },
    [QCOW2_CHECK_REFCOUNTS_UNREAD] = {
        ERROR("refcounts-unread", "Refcounts cannot be read",
              "All data whose refcounts they are, once the image is written to. Reading works.",
              "-r all counts all references and writes the refcounts anew, to another place. Errors of the disk "
              "under the file stay: copy the file to a sound one."),
    },
    [QCOW2_CHECK_TABLE_UNREAD] = {
        ERROR("table-unread", "A table cannot be read, so what it refers to is not known",
              "All that the table leads to. What looks like a leak may be its data.",
              "Nothing is repaired while there are such tables. Copy the file to a sound disk as far as it can be "
              "read, and check the copy."),
        .hides_references = true,
    },
    [QCOW2_CHECK_FLAGS_UNREAD] = {
        ERROR("flags-unread", "A table could not be read once more to look at its COPIED flags",
              "Nothing that is known; the flags were not checked.",
              "Check again; if that finds the same, copy the file to a sound disk."),
    },
};
