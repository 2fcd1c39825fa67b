# SPDX-License-Identifier: MIT
"""Images made to take memory: sparse files whose tables are as large as they may be and name clusters far apart."""

import array
import multiprocessing
import os
import struct
import subprocess

import pytest

from tools import OURS

LIMIT_KIB = 64 << 10
# meson sets MALLOC_PERTURB_, which touches all that is allocated and counts as taken what nobody uses.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "MALLOC_PERTURB_"}
COPIED = 1 << 63


def table(count, entry):
    numbers = array.array("Q", map(entry, range(count)))
    numbers.byteswap()
    return numbers.tobytes()


def make(path, cluster_bits, l1_size, table_clusters, length, l1=None, refcounts=None, size=None):
    cluster = 1 << cluster_bits
    l1_offset = max(cluster, 4096)
    table_offset = l1_offset + (l1_size * 8 + cluster - 1) // cluster * cluster
    size = size or min(l1_size * (cluster // 8) * cluster, (1 << 62))
    header = struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, cluster_bits, size, 0, l1_size, l1_offset,
                         table_offset, table_clusters, 0, 0, 0, 0, 0, 4, 104)
    with open(path, "wb") as image:
        image.write(header)
        image.truncate(length)
        if l1:
            image.seek(l1_offset)
            image.write(table(l1_size, l1))
        if refcounts:
            image.seek(table_offset)
            image.write(table(table_clusters * cluster // 8, refcounts))


def far(i):
    return (100000 + i * 4096) * 512


IMAGES = {
    "an empty L1 table of 32 MiB": dict(cluster_bits=9, l1_size=4 << 20, table_clusters=1, length=1 << 33),
    "a full L1 table of 32 MiB": dict(cluster_bits=9, l1_size=4 << 20, table_clusters=1, length=1 << 33,
                                      l1=lambda i: COPIED | ((100000 + i) * 512)),
    "L2 tables far apart": dict(cluster_bits=9, l1_size=4 << 20, table_clusters=1, length=1 << 43,
                                l1=lambda i: COPIED | far(i)),
    "refcount blocks far apart": dict(cluster_bits=9, l1_size=1, table_clusters=16384, length=1 << 42, refcounts=far),
    "both far apart": dict(cluster_bits=9, l1_size=4 << 20, table_clusters=16384, length=1 << 43,
                           l1=lambda i: COPIED | far(i), refcounts=lambda i: far(i) + 512),
    "all L2 tables in one cluster": dict(cluster_bits=9, l1_size=4 << 20, table_clusters=1, length=1 << 33,
                                         l1=lambda i: COPIED | 1 << 32),
    "large clusters": dict(cluster_bits=21, l1_size=2 << 20, table_clusters=4, length=1 << 43, size=1 << 60,
                           l1=lambda i: COPIED | (100 + i) << 21),
}


@pytest.mark.parametrize("name", IMAGES)
def test_no_image_makes_the_tool_take_more_than_64_mib(tmp_path, name):
    image = tmp_path / "hostile.qcow2"
    # By a process of its own: what this one takes at most would be counted for the tool that it starts.
    maker = multiprocessing.get_context("fork").Process(target=make, args=[image], kwargs=IMAGES[name])
    maker.start()
    maker.join()
    assert maker.exitcode == 0
    for command in (["info", image], ["map", "--max-length=1M", image], ["bench", "-c", "1", image],
                    ["bench", "-w", "-c", "1", image]):
        process = subprocess.Popen([OURS["img"], *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                   env=ENVIRONMENT)
        told = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode in (0, 1), told
        assert process.returncode == 0 or told.startswith("bdrv-img: "), told
        assert usage.ru_maxrss <= LIMIT_KIB, (command, usage.ru_maxrss, told)
