# SPDX-License-Identifier: MIT
"""Images with extended L2 entries, made and written by either tool."""

import json

import pytest
from cell import merged
from layers import make_backing
from test_kinds import Snapshots, some_content
from tools import OURS, THEIRS

MIB = 1 << 20
CLUSTERS = {16384: "16k", 65536: "64k", 2 << 20: "2M"}
LENGTHS = {16384: 4 * MIB + 1536, 65536: 8 * MIB + 2560, 2 << 20: 11 * MIB + 3584}
clusters = pytest.mark.parametrize("cluster", CLUSTERS, ids=CLUSTERS.values())


def same_map(pair):
    """Both tools tell the same of every subcluster."""
    for image in "ab":
        ours, theirs = [merged(json.loads(pair.must(side, "img", "map", "--output=json", "-f", "qcow2", image).stdout))
                        for side in (OURS, THEIRS)]
        assert ours == theirs, pair.told("map of " + image)


@clusters
@pytest.mark.parametrize("bits, backing", [(16, "none"), (1, "raw"), (16, "chain"), (64, "chain")])
def test_tools_take_turns(pair, bits, cluster, backing):
    length = LENGTHS[cluster]
    options = "extended_l2=on,cluster_size=%d,refcount_bits=%d" % (cluster, bits)
    pair.create(*make_backing(pair, backing, length, cluster), "-o", options, "%", str(length))
    pair.alternate(pair.history(length, cluster), grow=0.3)
    same_map(pair)


@clusters
@pytest.mark.parametrize("preallocation, backing", [("metadata", "raw"), ("falloc", "none"), ("full", "raw")])
def test_the_backing_file_shows_in_preallocated_space(pair, cluster, preallocation, backing):
    length = LENGTHS[cluster]
    options = "extended_l2=on,cluster_size=%d,preallocation=%s" % (cluster, preallocation)
    pair.create(*make_backing(pair, backing, length, cluster), "-o", options, "%", str(length))
    pair.verify()
    pair.alternate(pair.history(length, cluster), grow=0.3)
    same_map(pair)


@clusters
def test_snapshots_share_parts_of_clusters(pair, cluster):
    length = LENGTHS[cluster]
    (pair.directory / "base").write_bytes(some_content(pair.rng, length // 2))
    pair.create("-b", "base", "-F", "raw", "-o", "extended_l2=on,cluster_size=%d" % cluster, "%", str(length))
    history, snapshots = pair.history(length, cluster), Snapshots(pair)
    for _ in range(3):
        pair.alternate(history, rounds=1, first=pair.rng.choice([OURS, THEIRS]))
        snapshots.take()
    pair.alternate(history, rounds=2)
    snapshots.verify()
    snapshots.delete("s1")
    pair.alternate(history, rounds=2, commands=20)
    snapshots.verify()
    same_map(pair)


@clusters
@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_compressed_clusters_have_no_subclusters(pair, cluster, compression):
    length = LENGTHS[cluster]
    (pair.directory / "raw").write_bytes(some_content(pair.rng, length))
    options = "extended_l2=on,cluster_size=%d,compression_type=%s" % (cluster, compression)
    for side, image in ((OURS, "a"), (THEIRS, "b")):
        pair.must(side, "img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, "raw", image)
        pair.check(image)
        pair.same(image, "raw", ("qcow2", "raw"))
    pair.alternate(pair.history(length, cluster))
    same_map(pair)
