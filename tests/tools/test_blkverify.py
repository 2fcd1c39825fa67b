# SPDX-License-Identifier: MIT
"""blkverify with qemu-io and with bdrv-io."""

import re

import pytest

from tools import OURS, run

IMAGES = "driver=blkverify,raw.filename=raw,test.driver=qcow2,test.file.filename=test"


@pytest.fixture
def pair(twin):
    twin.make("-f", "raw", "raw", "1M")
    twin.make("-f", "qcow2", "test", "1M")
    return twin


@pytest.mark.parametrize("arguments", [
    ["blkverify:raw:test"], ["-f", "raw", "blkverify:raw:test"], ["-r", "blkverify:raw:test"],
    ["blkverify:raw"], ["blkverify::"], ["blkverify:"], ["blkverify:nope:test"], ["blkverify:raw:nope"],
    ["-f", "blkverify", "raw"],
    ["--image-opts", IMAGES],
    ["--image-opts", "driver=blkverify,raw.filename=raw,test.file.filename=test"],
    ["--image-opts", "driver=blkverify,raw.filename=raw,test.filename=test"],
    ["--image-opts", "driver=blkverify,raw.file.filename=raw,test.file.filename=test"],
    ["--image-opts", "driver=blkverify,raw.driver=raw,raw.file.filename=raw,test.driver=qcow2,test.file.filename=test"],
    ["--image-opts", "driver=blkverify,raw.filename=raw"], ["--image-opts", "driver=blkverify,test.file.filename=test"],
    ["--image-opts", "driver=blkverify,x-raw=raw,x-image=test"],
    ["--image-opts", "driver=blkverify,x-raw=raw,x-image=test,nonsense=1"],
    ["--image-opts", "driver=blkverify,x-raw=raw,x-image=file:test"],
    ["-c", "open -o driver=raw,file.driver=blkverify,file.raw.filename=raw test"],
    ["-c", "open -o driver=blkverify,raw.filename=raw test"],
], ids=" ".join)
def test_how_it_is_opened(pair, arguments):
    pair.same("io", *arguments[:-1], *(arguments[-1:] if "-c" in arguments else []), "-c", "length", "-c", "write 4k 4k",
              *([] if "-c" in arguments else arguments[-1:]))
    pair.same_content("test", "qcow2")
    pair.same_content("raw", "raw")


@pytest.mark.parametrize("history", [
    ["write -P 1 0 64k", "read -P 1 0 64k", "read 0 1M", "map", "alloc 0 1M"],
    ["write -P 1 5 700", "read -v 0 16", "writev -P 2 1k 1k 2k", "readv 0 512 5k", "flush", "read 1M 1k", "write 1M 1k"],
    ["aio_write -P 3 0 64k", "aio_flush", "aio_read -P 3 0 64k", "aio_flush"],
    ["write 0 1M", "discard 0 64k", "read -P 0xcd 0 1M"],
    ["write -f 0 4k", "flush", "length"],
], ids=" ".join)
@pytest.mark.parametrize("name", [["-f", "raw", "blkverify:raw:test"], ["--image-opts", IMAGES]], ids=" ".join)
def test_a_history_prints_the_same_and_leaves_the_same_images(pair, history, name):
    pair.same("io", *name[:-1], *[word for command in history for word in ("-c", command)], name[-1])
    pair.same_content("test", "qcow2")
    pair.same_content("raw", "raw")
    assert run(["qemu-img", "compare", "raw", "test"], pair.ours).returncode == 0


@pytest.mark.parametrize("command", ["info", "info --output json", "map --output json", "check"])
def test_images_are_described_alike(pair, command):
    for directory in (pair.ours, pair.theirs):
        with open(directory / "raw", "wb") as raw:  # with holes
            raw.truncate(1 << 20)
    pair.same("io", "-f", "raw", "-c", "write 64k 64k", "blkverify:raw:test")
    words = command.split()
    pair.same("img", *words, "--image-opts", IMAGES, json_output="json" in words and "info" in words,
              ignore=["actual-size"])


def test_it_is_reopened(pair):
    """The real one cannot be."""
    result = run([OURS["io"], "-c", "reopen -r", "-c", "write 0 4k", "-c", "reopen -w", "-c", "write 4k 4k", "--image-opts",
                  IMAGES], pair.ours)
    assert result.stdout.count("wrote") == 1 and "read-only" in result.stderr
    assert run(["qemu-img", "compare", "raw", "test"], pair.ours).returncode == 0


@pytest.mark.parametrize("offset", [0, 511, 512, 700, 65535, 1048575])
def test_a_difference_is_told_and_ends_in_failure(pair, offset):
    pair.prepare("raw", f"write -P 7 {offset} 1")
    ours, theirs = pair.both("io", "-f", "raw", "-c", "read 0 1M", "-c", "read 0 1M", "blkverify:raw:test")
    assert ours.returncode == theirs.returncode == 1
    told = re.search(r"^blkverify: .*$", theirs.stderr, re.M).group()
    assert f"mismatch at offset {offset}" in told
    assert ours.stderr.splitlines().count(told) == 1  # once, and the request fails; the real tool ends here
    assert ours.stdout == "read failed: Input/output error\n" * 2


def test_a_difference_that_probing_finds_is_told(pair):
    pair.prepare("raw", "write -P 7 9 1")
    ours = run([OURS["io"], "-c", "length", "blkverify:raw:test"], pair.ours)
    assert ours.returncode == 1 and "contents mismatch at offset 9" in ours.stderr


def test_zeroes_are_written_to_both(pair):
    """The real tool aborts here."""
    run([OURS["io"], "-c", "write 0 1M", "-c", "write -z 64k 64k", "-c", "write -z -u 300k 64k", "-c", "read -P 0 64k 64k",
         "--image-opts", IMAGES], pair.ours).check_returncode()
    assert run(["qemu-img", "compare", "raw", "test"], pair.ours).returncode == 0
    pair.clean("test", "qcow2")
