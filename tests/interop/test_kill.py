# SPDX-License-Identifier: MIT
"""
kill -9 at random moments under load, every engine in every cache mode: what was acknowledged as durable is there,
all else is old or new, both tools find leaks at most, and the image goes on being written.

The page cache survives its process: this proves recovery from what a process leaves behind, not durability.
That is for tests/crash, which takes the power away.
"""

import os
import subprocess
import time

import pytest
from tools import OURS, THEIRS, run

LENGTH = 3 << 20
SECTOR = 512
SECTORS = LENGTH // SECTOR
MARKER = b"3 MiB\n"  # what "length" answers
LEAKS = 3  # exit code of check
BEHIND = 2  # of a dirty image
KILLS = 3
OPTIONS = {
    "plain": "cluster_size=64k",
    "small": "cluster_size=512,refcount_bits=64",
    "1 bit": "cluster_size=4k,refcount_bits=1",
    "v2": "cluster_size=4k,compat=v2",
    "lazy": "cluster_size=4k,lazy_refcounts=on",
}
CACHES = ["writeback", "none", "writethrough", "directsync", "unsafe"]
PAIRS = [(engine, cache) for engine in ("auto", "threads", "io_uring") for cache in CACHES] + \
    [("native", "none"), ("native", "directsync")]


class Load:
    """
    The commands of one process: batches of requests that run at once and do not overlap. Each batch
    ends with a marker in the output, after which it is done, and durable if it was flushed.
    """

    def __init__(self, rng, cluster, cache):
        self.rng, self.cluster, self.cache = rng, cluster, cache
        self.commands, self.batches = [], []
        for _ in range(150):
            self.batch()

    def batch(self):
        at, changes = self.rng.randrange(SECTORS), []
        for _ in range(self.rng.randrange(1, 10)):
            end = min(at + self.rng.choice([1, 3, 40, 200, max(self.cluster // SECTOR, 1)]), SECTORS)
            if at < end:
                changes.append((at, end, self.command(at, end)))
            at = end + self.rng.choice([0, 0, 5])
        flush = self.rng.random() < 0.4
        self.commands += ["aio_flush"] + ["flush"] * flush + ["length"]
        self.batches.append((self.is_durable(flush), changes))

    def is_durable(self, flush):
        return self.cache in ("writethrough", "directsync") or (flush and self.cache != "unsafe")

    def command(self, at, end):
        """Returns what the sectors may hold when it is done; None: what they held, too."""
        where = "%d %d" % (at * SECTOR, (end - at) * SECTOR)
        kind, value = self.rng.random(), self.rng.randrange(1, 256)
        if kind < 0.7:
            self.commands.append("aio_write -q -P %d %s" % (value, where))
            return value
        if kind < 0.85:
            self.commands.append("aio_write -q -z -u " + where)
            return 0
        self.commands.append("discard " + where)
        return None

    def possible(self, content, markers):
        """What each sector may hold if it held @content first and so many markers were seen."""
        now = [{value} for value in content]
        possible = list(now)
        for number, (durable, changes) in enumerate(self.batches):
            for first, end, value in changes:
                for sector in range(first, end):
                    now[sector] = now[sector] | {0} if value is None else {value}
                    possible[sector] = possible[sector] | now[sector]
            if durable and number < markers:
                possible = list(now)
        return possible


def content_of(pair):
    """A value for each sector, as both tools read them."""
    for side in (OURS, THEIRS):
        pair.must(side, "img", "convert", "-f", "qcow2", "-O", "raw", "a", side["io"].split("/")[-1] + ".raw")
    ours, theirs = [(pair.directory / (name + ".raw")).read_bytes() for name in ("bdrv-io", "qemu-io")]
    assert ours == theirs, pair.told("the tools read different content")
    sectors = [ours[at:at + SECTOR] for at in range(0, LENGTH, SECTOR)]
    for number, sector in enumerate(sectors):
        assert sector == sector[:1] * SECTOR, pair.told("sector %d is torn" % number)
    return [sector[0] for sector in sectors]


def wait_for_locks(pair):
    """The kernel takes down a killed process's io_uring, and with it the locks of its files, a little later."""
    for _ in range(500):
        if run([THEIRS["img"], "check", "-f", "qcow2", "a"], pair.directory).returncode in (0, LEAKS, BEHIND):
            break
        time.sleep(0.01)


def is_dirty(pair):
    """With lazy refcounts: their counts are behind."""
    return (pair.directory / "a").read_bytes()[72 + 7] & 1


def run_and_kill(pair, load, options, markers, delay):
    """Kill the process @delay s after so many markers. Returns how many there were in the end."""
    argv = [OURS["io"], "-f", "qcow2", "-d", "unmap", *options, "a"]
    pair.log.append(argv + ["<<"] + load.commands)
    (pair.directory / "commands").write_text("\n".join(load.commands) + "\n")
    with open(pair.directory / "commands", "rb") as commands:
        process = subprocess.Popen(argv, cwd=pair.directory, stdin=commands, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, bufsize=0)
    seen = b""
    while seen.count(MARKER) < markers:
        data = process.stdout.read(65536)
        assert data, pair.told("bdrv-io ended early: %s%s" % (seen[-300:], process.stderr.read()))
        seen += data
    time.sleep(delay)
    process.kill()
    seen += process.stdout.read()
    process.communicate()
    wait_for_locks(pair)
    return seen.count(MARKER)


def cells():
    """Every engine in every cache mode, with two of the images; with BDRV_TEST_LONG with each."""
    for number, (engine, cache) in enumerate(PAIRS):
        for offset in range(len(OPTIONS) if os.environ.get("BDRV_TEST_LONG") else 2):
            name = list(OPTIONS)[(number + offset) % len(OPTIONS)]
            yield pytest.param(engine, cache, OPTIONS[name], id="%s, %s, %s" % (engine, cache, name))


@pytest.mark.parametrize("engine,cache,options", cells())
def test_a_killed_process_loses_nothing_that_was_flushed(pair, engine, cache, options):
    cluster = {"64k": 65536, "4k": 4096, "512": 512}[options.split(",")[0].split("=")[1]]
    argv = ["-t", cache] + (["-i", engine] if engine != "auto" else [])
    pair.must(OURS, "img", "create", "-q", "-f", "qcow2", "-o", options, "a", str(LENGTH))
    content = [0] * SECTORS
    for _ in range(KILLS):
        load = Load(pair.rng, cluster, cache)
        markers = run_and_kill(pair, load, argv, pair.rng.randrange(0, 100), pair.rng.choice([0, 0.001, 0.004]))
        if is_dirty(pair):
            assert "lazy" in options, pair.told("dirty without lazy refcounts")
            pair.io(pair.rng.choice([OURS, THEIRS]), "a", ["read 0 512"])  # opened for writing
            assert not is_dirty(pair)
            pair.check("a")
        pair.sound("a")
        found = content_of(pair)
        for sector, possible in enumerate(load.possible(content, markers)):
            assert found[sector] in possible, pair.told("%d markers: sector %d is %d, not of %s" % (
                markers, sector, found[sector], possible))
        content = found
    pair.io(OURS, "a", ["write -P 7 0 3M", "flush"])
    pair.sound("a")
    assert content_of(pair) == [7] * SECTORS
