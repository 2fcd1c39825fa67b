# SPDX-License-Identifier: MIT
"""blklogwrites with qemu-io and with bdrv-io: the same log, byte for byte."""

import random
import re

import pytest

from tools import OURS, run

NODE = "driver=blklogwrites,file.filename=disk,log.filename=log"

HISTORIES = {
    "each kind": ["write -P 1 0 4k", "write -z 8k 4k", "flush", "discard 64k 64k", "flush", "write -z -u 100k 32k",
                  "writev 0 512 1k 4k", "flush", "flush", "aio_write -P 3 4k 4k", "aio_flush", "read 0 1M"],
    "unaligned": ["write -P 1 5 7", "write -P 2 700 5000", "write -z 3 5", "write -z -u 100k 33"],
    "nothing": ["read 0 4k", "flush"],
    "one large": ["write -P 1 0 1M"],
    "no close": ["write 0 1k", "flush", "write 0 1k", "abort"],
    "past the end": ["write 1M 1k", "discard 1M 512", "write -z 2M 1k"],
}


def commands(history):
    return [word for command in history for word in ("-c", command)]


def same_logs(twin):
    assert (twin.ours / "log").read_bytes() == (twin.theirs / "log").read_bytes()
    assert (twin.ours / "disk").read_bytes() == (twin.theirs / "disk").read_bytes()


def prepare(twin, size="1M"):
    twin.make("-f", "raw", "disk", size)
    twin.write("log", b"")


@pytest.mark.parametrize("options", ["", ",log-sector-size=4096", ",log-sector-size=32", ",log-super-update-interval=1",
                                     ",log-super-update-interval=3", ",log-append=on"])
@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES.keys())
def test_a_history_leaves_the_same_log(twin, history, options):
    prepare(twin)
    run_both = twin.both if "abort" in history else twin.same  # what the real tool printed is lost then
    run_both("io", "-t", "writeback", *commands(history), "--image-opts", NODE + options)
    same_logs(twin)


def test_an_unaligned_discard_is_logged_in_whole_sectors(twin):
    """The real tool aborts here."""
    prepare(twin)
    run([OURS["io"], "-c", "write 0 64k", "-c", "discard 5 70000", "-c", "write 0 1k", "--image-opts", NODE],
        twin.ours).check_returncode()
    listed = run([OURS["log-replay"], "--log", "log", "--list"], twin.ours).stdout
    assert " discard 69120 bytes at 512\n" in listed


@pytest.mark.parametrize("size", ["1000", "1024", "1500"])
def test_a_disk_that_ends_inside_a_sector_leaves_the_same_log(twin, size):
    twin.write("disk", b"\7" * int(size))
    twin.write("log", b"")
    twin.same("io", "-t", "writeback", *commands(["write 0 512", "write 900 100", "flush", "truncate 4000", "write 3900 100"]),
              "--image-opts", NODE)
    same_logs(twin)


@pytest.mark.parametrize("sector_size", ["512", "4k"])
def test_a_log_is_gone_on_with_by_either(twin, sector_size):
    """The tools take turns on one log, and leave what the real one leaves alone."""
    prepare(twin)
    tools = [OURS["io"], "qemu-io"]
    random.Random(sector_size).shuffle(tools)
    for turn, history in enumerate(HISTORIES.values()):
        if "abort" in history:
            continue
        options = ",log-append=on" if turn else f",log-sector-size={sector_size}"
        run([tools[turn % 2], "-t", "writeback", *commands(history), "--image-opts", NODE + options], twin.ours)
        run(["qemu-io", "-t", "writeback", *commands(history), "--image-opts", NODE + options], twin.theirs)
    same_logs(twin)


@pytest.mark.parametrize("options", [
    "log-sector-size=0", "log-sector-size=1", "log-sector-size=16", "log-sector-size=513", "log-sector-size=x",
    "log-sector-size=16M", "log-append=on,log-sector-size=512", "log-append=x", "log-super-update-interval=0",
    "nonsense=1", "log-sector-size=65536",
])
def test_options_are_taken_and_refused_alike(twin, options):
    prepare(twin)
    twin.same("io", "-t", "writeback", "-c", "write 0 64k", "--image-opts", f"{NODE},{options}")
    same_logs(twin)


@pytest.mark.parametrize("node", [
    "driver=blklogwrites,file.filename=disk", "driver=blklogwrites,log.filename=log",
    "driver=blklogwrites,file.filename=disk,log.file.filename=log", "driver=blklogwrites,file.filename=nope,log.filename=log",
    "driver=blklogwrites,file.filename=disk,log.filename=nope",
    "driver=blklogwrites,file.driver=raw,file.file.filename=disk,log.driver=raw,log.file.filename=log",
    "driver=raw,file.driver=blklogwrites,file.file.filename=disk,file.log.filename=log",
])
def test_children_are_given_alike(twin, node):
    prepare(twin)
    twin.same("io", "-t", "writeback", "-c", "write 0 4k", "-c", "map", "-c", "info", "--image-opts", node)
    same_logs(twin)


@pytest.mark.parametrize("at,value", [(0, 0), (8, 2), (24, 1), (25, 0x10)])
def test_what_is_no_log_is_not_gone_on_with(twin, at, value):
    prepare(twin)
    twin.same("io", "-t", "writeback", "-c", "write 0 4k", "--image-opts", NODE)
    log = bytearray((twin.ours / "log").read_bytes())
    log[at] = value
    twin.write("log", bytes(log))
    twin.same("io", "-t", "writeback", "-c", "write 0 4k", "--image-opts", NODE + ",log-append=on")
    same_logs(twin)


def test_it_is_mapped_as_the_disk_is(twin):
    prepare(twin)
    for directory in (twin.ours, twin.theirs):
        with open(directory / "disk", "wb") as disk:  # with holes
            disk.truncate(1 << 20)
            disk.seek(1 << 16)
            disk.write(b"x" * 65536)
    twin.same("img", "map", "--output", "json", "--image-opts", NODE)


def test_read_only_it_leaves_the_log_alone(twin):
    prepare(twin)
    twin.same("io", "-t", "writeback", "-r", "-c", "write 0 4k", "-c", "read 0 4k", "--image-opts", NODE)
    same_logs(twin)


def test_it_is_reopened(tmp_path):
    """The real one cannot be."""
    (tmp_path / "disk").write_bytes(bytes(1 << 16))
    (tmp_path / "log").touch()
    result = run([OURS["io"], "-t", "writeback", *commands(["write 0 4k", "reopen -r", "write 0 4k", "reopen -w", "write 4k 4k"]), "--image-opts",
                  NODE], tmp_path)
    assert result.stdout.count("wrote") == 2 and "read-only" in result.stderr
    listed = run([OURS["log-replay"], "--log", "log", "--list"], tmp_path).stdout
    assert re.sub(r"entry \d+ at \d+: ", "", listed).splitlines() == [
        "write 4096 bytes at 0", "flush", "write 4096 bytes at 4096", "flush"]
