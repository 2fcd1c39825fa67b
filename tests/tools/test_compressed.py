# SPDX-License-Identifier: MIT
"""Compressed writes: write -c and convert -c, beside the real tools, and what the streams must keep to."""

import json
import os
import random
import zlib

import pytest
from deflate_window import Image, inflate_in_steps
from tools import OURS, THEIRS, run


def text(rng, length):
    """Compresses to about a third, with repeats at every distance."""
    words = [rng.randbytes(rng.randrange(2, 9)).hex().encode() for _ in range(400)]
    return b" ".join(rng.choice(words) for _ in range(length // 8))[:length].ljust(length, b"x")


def mixed(seed, length):
    """Text, noise and zeroes, in parts that end anywhere."""
    rng, parts, left = random.Random(seed), [], length
    while left > 0:
        n = min(left, rng.randrange(1, 200000))
        parts.append([lambda: text(rng, n), lambda: text(rng, n), lambda: rng.randbytes(n), lambda: bytes(n)][rng.randrange(4)]())
        left -= n
    return b"".join(parts)


def same_map(twin, image):
    """The same but for where things lie in the file."""
    def extents(text):
        merged = []
        for extent in json.loads(text):
            extent.pop("offset", None)
            start, length = extent.pop("start"), extent.pop("length")
            if merged and merged[-1][2] == extent:
                merged[-1][1] += length
            else:
                merged.append([start, length, extent])
        return merged
    ours, theirs = twin.both("img", "map", "--output=json", image)
    assert extents(ours.stdout) == extents(theirs.stdout)


WRITES = [
    ["write -c 0 64k"], ["write -c -P 7 0 64k", "write -c -P 8 64k 128k"], ["write -c 512 64k"], ["write -c 0 512"],
    ["write -c 64k 4k"], ["write -c 64k 36k"], ["write -c 32k 64k"], ["write -c 60k 40k"], ["write -c 0 0"],
    ["write -c -z 0 64k"], ["write -c -z -u 0 64k"], ["write -c -n 0 64k"], ["write -c -u 0 64k"], ["write -f -c 0 64k"],
    ["write -f -c -z -P 5 0 64k"], ["write -cq 0 64k"], ["write -c -C 0 64k"], ["write -c -s pattern 0 64k"],
    ["write -c -z -P 5 0 64k"], ["writev -c 0 64k"], ["aio_write -c 0 64k"],
    ["write -c 192k 64k"], ["write -c 64k 1M"], ["write -c 1M 64k"], ["write -c 0 3G"],
    ["write 0 64k", "write -c 0 64k"], ["write -c 0 64k", "write -c 0 64k"], ["write -z 0 64k", "write -c 0 64k"],
    ["write -z -u 0 64k", "write -c 0 64k"], ["write 0 64k", "write -z 0 64k", "write -c 0 64k"],
    ["write 0 64k", "discard 0 64k", "write -c 0 64k"], ["write -c 0 64k", "discard 0 64k", "write -c -P 9 0 64k"],
    ["write -c -P 3 0 64k", "write -P 4 1000 5000", "read -P 4 1000 5000", "read -P 3 6000 59536"],
    ["write -c -P 3 0 64k", "flush", "write -z 4k 4k", "read -P 0 4k 4k", "read -P 3 0 4k", "read -P 3 8k 56k"],
    ["write -c -P 3 0 64k", "reopen", "write -c -P 5 64k 64k", "read -P 3 0 64k", "read -P 5 64k 64k", "map", "alloc 0 128k"],
]


@pytest.mark.parametrize("size", ["256K", "100K"])
@pytest.mark.parametrize("commands", WRITES, ids=", ".join)
def test_write_compressed(twin, commands, size):
    twin.make("-f", "qcow2", "disk", size)
    twin.write("pattern", b"some content of a file")
    twin.same("io", "-d", "unmap", *[word for command in commands for word in ("-c", command)], "disk")
    twin.same_content("disk", "qcow2")
    same_map(twin, "disk")
    ours, theirs = twin.both("img", "check", "disk")
    assert ours.stdout.splitlines()[:2] == theirs.stdout.splitlines()[:2]  # not where it ends


def test_what_cannot_compress_says_so(twin):
    twin.make("-f", "raw", "disk", "256K")
    twin.make("-f", "qcow2", "image", "256K")
    twin.same("io", "-f", "raw", "-c", "write -c 0 64k", "disk")
    twin.same("io", "-f", "raw", "-c", "write -c 0 64k", "image")
    for arguments in (["-O", "raw", "disk", "x"], ["-n", "-O", "raw", "disk", "image"], ["-C", "-O", "qcow2", "disk", "x"],
                      ["-O", "qcow2", "-o", "preallocation=metadata", "disk", "x"], ["-O", "nosuch", "disk", "x"],
                      ["-O", "qcow2", "-o", "compression_type=nosuch", "disk", "x"],
                      ["-O", "qcow2", "-o", "compression_type=zstd,compat=0.10", "disk", "x"]):
        twin.same("img", "convert", "-c", "-f", "raw", *arguments)
        assert not (twin.ours / "x").exists() and not (twin.theirs / "x").exists()


CLUSTERS = ["512", "4k", "64k", "2M"]
OPTIONS = ["compat=0.10", "refcount_bits=1", "refcount_bits=2", "refcount_bits=64", "compression_type=zstd"]


def size_of(path):
    return os.stat(path).st_size


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("options", OPTIONS)
def test_convert_compressed(twin, options, cluster):
    length = {"512": 1 << 20, "4k": 3 << 20, "64k": 6 << 20, "2M": 13 << 20}[cluster] + 1000
    twin.write("raw", mixed(options + cluster, length))
    arguments = ["-c", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=%s,%s" % (cluster, options)]
    twin.same("img", "convert", *arguments, "raw", "x")
    twin.same_content("x", "qcow2")
    same_map(twin, "x")
    ours, theirs = size_of(twin.ours / "x"), size_of(twin.theirs / "x")
    if options != "refcount_bits=1":  # the real tool has no count for two in a cluster, either
        assert ours <= theirs * 1.03 + 65536, (ours, theirs)
    for more in (["-W"], ["-m", "1"], ["-m", "16"], ["-t", "none"]):
        run([OURS["img"], "convert", *arguments, *more, "raw", "y"], twin.ours).check_returncode()
        for tool in (OURS, THEIRS):
            assert run([tool["img"], "compare", "-F", "raw", "y", "raw"], twin.ours).returncode == 0, more
            assert run([tool["img"], "check", "y"], twin.ours).returncode == 0, more
        assert more == ["-W"] or (twin.ours / "x").read_bytes() == (twin.ours / "y").read_bytes(), more


@pytest.mark.parametrize("options", [["-S", "0"], ["-S", "1M"], ["-p"], ["--salvage"], ["-r", "1G"], ["-t", "none", "-T", "none"]],
                         ids=" ".join)
def test_convert_compressed_with(twin, options):
    twin.write("raw", mixed("with", 3 << 20))
    twin.same("img", "convert", "-c", *options, "-f", "raw", "-O", "qcow2", "raw", "x")
    twin.same_content("x", "qcow2")
    same_map(twin, "x")


def test_convert_compressed_joins_inputs_that_end_inside_a_cluster(twin):
    rng = random.Random(3)
    for name, length in (("a", 1000), ("b", 70001), ("c", 3 << 20), ("empty", 0), ("d", 1)):
        twin.write(name, text(rng, length))
    twin.write("zeroes", bytes(1 << 20))
    twin.same("img", "convert", "-c", "-f", "raw", "-O", "qcow2", "a", "b", "zeroes", "empty", "a", "c", "d", "x")
    twin.same_content("x", "qcow2")
    same_map(twin, "x")


def test_convert_compressed_keeps_a_backing_file(twin):
    twin.make("-f", "qcow2", "base", "3M")
    twin.prepare("base", "write -P 1 0 300k", "write -P 2 900k 100k")
    twin.make("-f", "qcow2", "-b", "base", "-F", "qcow2", "over", "3M")
    twin.prepare("over", "write -P 3 100k 1k", "write -z 200k 64k", "write -P 4 1234k 100k")
    for backing in (["-B", "base", "-F", "qcow2"], []):
        twin.same("img", "convert", "-c", "-O", "qcow2", *backing, "over", "x")
        twin.same_content("x", "qcow2")
        same_map(twin, "x")
        for directory in (twin.ours, twin.theirs):
            os.unlink(directory / "x")


def test_convert_compressed_into_an_existing_target(twin):
    twin.write("raw", mixed("existing", 2 << 20))
    twin.make("-f", "qcow2", "empty", "2M")
    twin.make("-f", "qcow2", "full", "2M")
    twin.prepare("full", "write -P 9 0 2M")
    for arguments in (["empty"], ["full"], ["empty"]):
        twin.same("img", "convert", "-c", "-n", "-f", "raw", "-O", "qcow2", "raw", *arguments)
    twin.make("-f", "qcow2", "known", "2M")
    twin.same("img", "convert", "-c", "-n", "--target-is-zero", "-f", "raw", "-O", "qcow2", "raw", "known")
    twin.same_content("known", "qcow2")
    twin.same_content("empty", "qcow2")


def test_the_last_part_of_a_cluster_goes_into_a_larger_target_as_it_is(twin):
    """The real tool fails there: EINVAL."""
    twin.write("raw", text(random.Random(5), 100000))
    twin.make("-f", "qcow2", "large", "1M")
    ours, theirs = twin.both("img", "convert", "-c", "-n", "-f", "raw", "-O", "qcow2", "raw", "large")
    assert (ours.returncode, theirs.returncode) == (0, 1)
    assert run([THEIRS["img"], "compare", "-f", "raw", "raw", "large"], twin.ours).returncode == 0
    twin.clean("large", "qcow2")


def test_an_image_of_each_compression_type_is_told_alike(twin):
    for compression in ("zlib", "zstd"):
        twin.same("img", "create", "-f", "qcow2", "-o", "compression_type=" + compression, compression, "1M")
        twin.same("io", "-c", "write -c -P 3 0 128k", "-c", "read -P 3 0 128k", compression)
        twin.same("img", "info", compression)
        twin.same("img", "check", compression)
        for image in (compression,):
            run([THEIRS["io"], "-c", "write -P 5 1000 100000", image], twin.ours).check_returncode()
            run([OURS["io"], "-c", "write -P 5 1000 100000", image], twin.theirs).check_returncode()
        twin.same_content(compression, "qcow2")


# ---- the window of deflate ----

def far_repeats(length):
    """Noise that repeats after 6000 bytes: a window of 4 KiB does not reach back so far."""
    block = random.Random(11).randbytes(6000)
    return (block * (length // len(block) + 1))[:length // 2] + bytes(length - length // 2)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_streams_need_no_more_than_a_window_of_4_kib(twin, cluster):
    length = (2 << 20) if cluster != "2M" else (8 << 20)
    data = mixed("window" + cluster, length // 2) + far_repeats(length // 2)
    twin.write("raw", data)
    run([OURS["img"], "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=" + cluster, "raw", "x"],
        twin.ours).check_returncode()
    image = Image(twin.ours / "x")
    assert image.compressed
    for guest, content in image.inflate_all().items():
        assert content == data[guest:guest + image.cluster_size].ljust(image.cluster_size, b"\0"), guest


def test_a_stream_that_needs_a_larger_window_is_found(twin):
    """The test of the test: with one cluster's stream made with a window of 32 KiB, only decoding in steps fails."""
    data = far_repeats(64 << 10)
    twin.write("raw", data)
    run([OURS["img"], "convert", "-c", "-f", "raw", "-O", "qcow2", "raw", "x"], twin.ours).check_returncode()
    image = Image(twin.ours / "x")
    (guest, host, size), = image.compressed
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    wide = deflater.compress(data) + deflater.flush()
    assert len(wide) <= size
    with open(twin.ours / "x", "r+b") as file:
        file.seek(host)
        file.write(wide)
    assert run([THEIRS["img"], "compare", "-f", "raw", "raw", "x"], twin.ours).returncode == 0  # one shot hides it
    with pytest.raises(zlib.error, match="too far back"):
        Image(twin.ours / "x").inflate_all()
    assert inflate_in_steps(image.stream(host, size), len(data)) == data


LEVELS = [("zlib", 1, 9), ("zstd", 1, 22)]


def packed(twin, *options, name="x"):
    argv = [OURS["img"], "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", ",".join(options), "raw", name]
    return run(argv, twin.ours)


@pytest.mark.parametrize("kind, fast, small", LEVELS)
def test_a_higher_level_compresses_better_and_all_of_them_can_be_read(twin, kind, fast, small):
    twin.write("raw", text(random.Random("levels"), 2 << 20))
    sizes = []
    for level in (fast, small):
        packed(twin, "compression_type=" + kind, f"compression_level={level}").check_returncode()
        run([THEIRS["img"], "compare", "-f", "raw", "-F", "qcow2", "raw", "x"], twin.ours).check_returncode()
        twin.clean("x", "qcow2")
        sizes.append((twin.ours / "x").stat().st_size)
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("kind, level", [("zlib", "0"), ("zlib", "10"), ("zstd", "23"), ("zstd", "-1"), ("zlib", "x"), ("zlib", "")])
def test_a_level_that_there_is_not_is_refused_with_those_that_there_are(twin, kind, level):
    twin.write("raw", bytes(65536))
    twin.write("x", b"precious")
    for name in ("x", "new"):
        result = packed(twin, "compression_type=" + kind, "compression_level=" + level, name=name)
        assert result.returncode == 1 and f"compression_level '{level}'" in result.stderr, result.stderr
        assert f"{kind} has levels from 1 to" in result.stderr
    assert (twin.ours / "x").read_bytes() == b"precious" and not (twin.ours / "new").exists()


def test_a_level_has_no_meaning_where_nothing_is_compressed(twin):
    twin.write("raw", bytes(65536))
    for argv in (["convert", "-O", "qcow2", "-o", "compression_level=3", "raw", "x"],
                 ["create", "-f", "qcow2", "-o", "compression_level=3", "x", "1M"]):
        result = run([OURS["img"], *argv], twin.ours)
        assert result.returncode == 1 and "compression_level" in result.stderr
        assert not (twin.ours / "x").exists()


def test_an_open_image_is_given_another_level(twin):
    twin.make("-f", "qcow2", "x", "1M")
    text = mixed("reopened", 65536)
    twin.write("pattern", text)
    result = run([OURS["io"], "-c", "write -c -s pattern 0 64k", "-c", "reopen -o compression-level=1", "-c",
                  "write -c -s pattern 64k 64k", "-c", "reopen -o compression-level=10", "x"], twin.ours)
    assert "has levels from 1 to 9" in result.stdout + result.stderr
    twin.clean("x", "qcow2")
