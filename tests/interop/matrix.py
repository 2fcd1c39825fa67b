# SPDX-License-Identifier: MIT
"""
The factors of the matrix and what never meets. A new feature of the format is a factor, or a value of one, here; what
it adds to "create" is in options(). A new operation is a function in operations.py.
"""

import operations

MIB, TIB = 1 << 20, 1 << 40
CLUSTERS = {"512": 512, "4k": 4096, "64k": 65536, "2M": 2 << 20}
OURS_OR_THEIRS = ["ours", "theirs"]

FACTORS = {
    "operation": list(operations.ALL),
    "size": ["0", "512", "odd", "cluster", "tables", "1T"],
    "cluster": list(CLUSTERS),
    "refcount_bits": [1, 2, 8, 16, 64],
    "backing": ["none", "raw", "qcow2", "shorter", "longer"],
    "preallocation": ["off", "metadata", "falloc", "full"],
    "data_file": ["none", "file", "raw"],
    "compat": ["1.1", "0.10"],
    "extended_l2": ["off", "on"],
    "lazy_refcounts": ["off", "on"],
    "compression_type": ["zlib", "zstd"],
    "encryption": ["none", "luks", "aes"],
    "bitmap": ["none", "tracking"],
    "open": ["default", "two slices", "overlap", "writethrough", "direct", "lazy"],
    "creator": OURS_OR_THEIRS,
    "writer": OURS_OR_THEIRS,
    "operator": OURS_OR_THEIRS,
}

# Passphrases, by their names; the first one opens the images.
SECRETS = ["key", "new", "wrong"]
ENCRYPTION = {
    "luks": "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10",
    "aes": "encrypt.format=aes,encrypt.key-secret=key",
}

# How the image is opened by the tools of the cell: (command line, options of the driver).
OPEN = {
    "default": ([], []),
    "two slices": ([], ["l2-cache-size=1k,l2-cache-entry-size=512,refcount-cache-size=2k"]),
    "overlap": ([], ["overlap-check=all"]),
    "writethrough": (["-t", "writethrough"], []),
    "direct": (["-t", "none"], []),
    "lazy": ([], ["lazy-refcounts=on"]),
}

ENCRYPTED, PREALLOCATED, BACKED = ["luks", "aes"], ["metadata", "falloc", "full"], ["raw", "qcow2", "shorter", "longer"]

# Combinations that creating an image refuses, as values of some factors.
REFUSED = [
    {"compat": ["0.10"], "refcount_bits": [1, 2, 8, 64]},
    {"compat": ["0.10"], "extended_l2": ["on"]},
    {"compat": ["0.10"], "lazy_refcounts": ["on"]},
    {"compat": ["0.10"], "compression_type": ["zstd"]},
    {"compat": ["0.10"], "data_file": ["file", "raw"]},
    {"extended_l2": ["on"], "cluster": ["512", "4k"]},
    {"extended_l2": ["off"], "backing": BACKED, "preallocation": PREALLOCATED},
    {"backing": BACKED, "data_file": ["raw"]},
    {"cluster": ["512"], "size": ["1T"]},
]

# What is left out where the tools are meant to differ: (reason, combination). These, DIFFERENCES below and the one of
# operations.TRACKED_WIDER are all.
APART = [
    ("ours refuses VM state where there is a data file; the real tool writes it behind the disk in there",
     {"operation": ["vmstate"], "data_file": ["file", "raw"]}),
    ("the real tool loses the bitmap of an empty disk", {"operation": ["bitmap"], "size": ["0"]}),
    ("the real tool loses the bitmap of an empty disk", {"bitmap": ["tracking"], "size": ["0"]}),
    ("version 2 has no bitmaps; of an image that becomes one the real tool loses them, ours refuses",
     {"bitmap": ["tracking"], "compat": ["0.10"]}),
    ("ours refuses compressed writes here; the real tool stores what can be read without the key",
     {"encryption": ENCRYPTED, "operation": ["write_compressed"]}),
    ("ours refuses it: the data file would not be raw", {"encryption": ENCRYPTED, "data_file": ["raw"]}),
    ("preallocated space reads as noise with the real tool", {"encryption": ENCRYPTED, "preallocation": PREALLOCATED}),
    ("preallocated space reads as noise with the real tool",
     {"encryption": ENCRYPTED, "operation": ["grow_preallocated"]}),
    ("the real tool lets a new backing file show where there was none", {"operation": ["rebase"], "backing": ["none"]}),
]

# What is left out for other reasons.
LEFT_OUT = [
    # Without zero clusters and lazy refcounts these options of opening are refused.
    {"compat": ["0.10"], "open": ["lazy"]},
    # Hours, or more space than there is.
    {"preallocation": PREALLOCATED, "size": ["1T"]},
    {"data_file": ["raw"], "size": ["1T"]},
    {"data_file": ["raw"], "size": ["tables"], "cluster": ["2M"]},
    {"preallocation": PREALLOCATED, "size": ["tables"], "cluster": ["64k", "2M"]},
    # The real tool leaks a cluster when it cannot count a second reference to it.
    {"operation": ["vmstate", "snapshot_create", "snapshot_apply", "snapshot_delete"], "refcount_bits": [1]},
    # The real tool aborts at the status of an encrypted disk where one L2 table has more than 2 GiB of a kind.
    {"encryption": ENCRYPTED, "cluster": ["2M"], "size": ["1T", "tables"]},
    # What these would do to a disk without content, keys or backing file is done by others.
    {"operation": ["compare", "dd", "shrink"], "size": ["0", "512"]},
    {"operation": ["shrink"], "size": ["cluster"], "cluster": ["512"]},
    {"operation": ["key_slots"], "encryption": ["none"]},
    # The real tool takes minutes.
    {"operation": ["shrink", "rebase"], "size": ["1T"]},
    {"operation": ["rebase"], "size": ["tables"], "cluster": ["2M"]},
    {"operation": ["amend"], "cluster": ["2M"]},
]
NEVER = REFUSED + LEFT_OUT + [combination for _, combination in APART]


# Where the tools differ, and are meant to: (reason, the operation, whether it is this).
DIFFERENCES = [
    ("an image of version 2 has no zero clusters: qemu-img cannot hide what a longer backing file holds there", "grow",
     lambda row, ours, theirs: row["compat"] == "0.10" and "zero out new clusters" in theirs.stderr),
    ("qemu-io marks bitmaps as in use when it opens an image, ours when something changes", "tell",
     lambda row, ours, theirs: "in-use" in theirs.stdout and "in-use" not in ours.stdout),
]


def known_difference(row, ours, theirs):
    """The reason; None: it is none of those that are known."""
    for reason, operation, applies in DIFFERENCES:
        if row["operation"].startswith(operation) and applies(row, ours, theirs):
            return reason
    return None


def refused_rows():
    """A row for each combination of REFUSED, that breaks no other rule."""
    plain = {name: values[0] for name, values in FACTORS.items()}
    plain.update(size="cluster", cluster="64k", refcount_bits=16)
    for rule in REFUSED:
        for value in range(max(map(len, rule.values()))):
            yield {**plain, **{name: values[min(value, len(values) - 1)] for name, values in rule.items()}}


def cluster_of(row):
    return CLUSTERS[row["cluster"]]


def coverage(row):
    """Bytes of the disk that one L2 table describes."""
    return cluster_of(row) * (cluster_of(row) // (16 if row["extended_l2"] == "on" else 8))


def length_of(row):
    cluster = cluster_of(row)
    return {"0": 0, "512": 512, "odd": 7 * cluster + 1536, "cluster": cluster,
            "tables": coverage(row) * 5 // 2 // 512 * 512 + 512, "1T": TIB}[row["size"]]


def format_of_base(row):
    return "qcow2" if row["backing"] in ("qcow2", "shorter") else "raw"


def options(row):
    """The options of create."""
    words = ["compat=" + row["compat"], "cluster_size=" + row["cluster"]]
    if row["refcount_bits"] != 16:
        words.append("refcount_bits=%d" % row["refcount_bits"])
    words += ["%s=%s" % (name, row[name]) for name in ("extended_l2", "lazy_refcounts", "preallocation")
              if row[name] != "off"]
    if row["compression_type"] != "zlib":
        words.append("compression_type=" + row["compression_type"])
    if row["data_file"] != "none":
        words.append("data_file=%s.data,data_file_raw=" + ("on" if row["data_file"] == "raw" else "off"))
    if row["encryption"] != "none":
        words.append(ENCRYPTION[row["encryption"]])
    return ",".join(words)
