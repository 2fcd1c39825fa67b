# SPDX-License-Identifier: MIT
"""Images with an external data file, made and written by either tool."""

import pytest
from layers import make_backing
from test_subclusters import same_map
from tools import OURS, THEIRS

MIB = 1 << 20
LENGTHS = {512: 2 * MIB + 1536, 65536: 8 * MIB + 2560, 2 << 20: 11 * MIB + 3584}


def options(cluster, extended):
    return "data_file=%%.data,cluster_size=%d,extended_l2=%s" % (cluster, extended)


@pytest.mark.parametrize("cluster, extended, backing", [
    (512, "off", "none"), (512, "off", "chain"), (65536, "on", "raw"), (65536, "off", "chain"), (2 << 20, "on", "none"),
])
def test_tools_take_turns(pair, cluster, extended, backing):
    length = LENGTHS[cluster]
    pair.create(*make_backing(pair, backing, length, cluster), "-o", options(cluster, extended), "%", str(length))
    pair.alternate(pair.history(length, cluster), grow=0.3)
    same_map(pair)


@pytest.mark.parametrize("cluster, extended", [(512, "off"), (65536, "on"), (2 << 20, "off")])
def test_a_raw_data_file_is_the_disk_whoever_writes(pair, cluster, extended):
    length = LENGTHS[cluster]
    pair.create("-o", options(cluster, extended) + ",data_file_raw=on", "%", str(length))
    history = pair.history(length, cluster)
    for _ in range(3):
        pair.alternate(history, rounds=1, grow=0.3, first=pair.rng.choice([OURS, THEIRS]))
        for image in "ab":
            pair.same(image + ".data", image, ("raw", "qcow2"))
