# SPDX-License-Identifier: MIT
"""Every kind of image: made and written by either, read, checked and overwritten by the other."""

import pytest
from tools import OURS, THEIRS

FORMATS = [("v2", 16)] + [("v3", bits) for bits in (1, 2, 4, 8, 16, 32, 64)]
# Lengths end inside a cluster. With 512-byte clusters and wide refcounts the refcount table grows.
LENGTHS = {512: (5 << 20) + 1536, 4096: (8 << 20) + 1536, 65536: (16 << 20) + 2560, 2 << 20: (21 << 20) + 3584}
CLUSTERS = {512: "512", 4096: "4k", 65536: "64k", 2 << 20: "2M"}
BACKINGS = ["none", "raw", "chain"]


def make_layer(pair, side, name, fmt, length, below=None, options=()):
    """A layer with some data, some zeroes and some holes."""
    arguments = ["-b", below[0], "-F", below[1]] if below else []
    pair.must(side, "img", "create", "-q", "-f", fmt, *options, *arguments, name, length)
    history = pair.history(length, 65536)
    commands = []
    for _ in range(30):
        commands += pair.rng.choice([history.write, history.write_unaligned, history.zero])()
    args = [word for command in commands for word in ("-c", command)]
    pair.must(side, "io", "-f", fmt, "-t", "unsafe", *args, name)


def make_backing(pair, backing, length, cluster):
    """Options of create for the image above. Layers are shorter, equal or longer than what is above them."""
    def some_length():
        return int(length * pair.rng.choice([0.5, 1, 1.25])) // 512 * 512

    if backing == "none":
        return []
    if backing == "raw":
        make_layer(pair, THEIRS, "base", "raw", some_length())
        return ["-b", "base", "-F", "raw"]
    make_layer(pair, THEIRS, "base", "qcow2", some_length(), options=["-o", "cluster_size=%d" % cluster])
    make_layer(pair, OURS, "middle", "qcow2", some_length(), ("base", "qcow2"), ["-o", "cluster_size=4k"])
    return ["-b", "middle", "-F", "qcow2"]


@pytest.mark.parametrize("backing", BACKINGS)
@pytest.mark.parametrize("cluster", CLUSTERS, ids=CLUSTERS.values())
@pytest.mark.parametrize("version, bits", FORMATS, ids=["%s refcount %d" % row for row in FORMATS])
def test_tools_take_turns(pair, version, bits, cluster, backing):
    length = LENGTHS[cluster]
    options = "compat=%s,cluster_size=%d" % (version, cluster)
    if version == "v3":
        options += ",refcount_bits=%d" % bits
    pair.create(*make_backing(pair, backing, length, cluster), "-o", options, "%", str(length))
    # The real tool cannot grow a version 2 image that ends inside a written cluster.
    pair.alternate(pair.history(length, cluster), grow=0.3 if version == "v3" else 0)
