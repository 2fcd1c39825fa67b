# SPDX-License-Identifier: MIT
"""bdrv-img does what qemu-img does: same output, exit code, JSON and images."""

import json
import os
import random
import re
import subprocess

import pytest

from tools import OURS, run

CREATE = [
    ["-f", "qcow2", "x", "64M"],
    ["-f", "raw", "x", "10M"],
    ["x", "1M"],
    ["-q", "-f", "qcow2", "x", "1.5G"],
    ["-f", "qcow2", "-o", "size=1M,cluster_size=4k", "x"],
    ["-f", "qcow2", "-o", "cluster_size=512", "x", "1M"],
    ["-f", "qcow2", "-o", "cluster_size=2M", "x", "1G"],
    ["-f", "qcow2", "-o", "compat=0.10", "x", "1M"],
    ["-f", "qcow2", "-o", "compat=v3,refcount_bits=1", "x", "1M"],
    ["-f", "qcow2", "-o", "refcount_bits=64", "x", "1M"],
    ["-f", "qcow2", "-o", "refcount_bits=3", "x", "1M"],
    ["-f", "qcow2", "-o", "compat=0.10,refcount_bits=1", "x", "1M"],
    ["-f", "qcow2", "-o", "cluster_size=3", "x", "1M"],
    ["-f", "qcow2", "-o", "preallocation=metadata", "x", "64M"],
    ["-f", "qcow2", "-o", "preallocation=falloc", "x", "4M"],
    ["-f", "qcow2", "-o", "preallocation=full", "x", "4M"],
    ["-f", "qcow2", "-o", "preallocation=foo", "x", "4M"],
    ["-f", "qcow2", "-o", "extended_l2=on", "x", "64M"],
    ["-f", "qcow2", "-o", "extended_l2=on,cluster_size=16k,preallocation=metadata", "x", "64M"],
    ["-f", "qcow2", "-o", "extended_l2=on,cluster_size=8k", "x", "64M"],
    ["-f", "qcow2", "-o", "extended_l2=on,compat=0.10", "x", "64M"],
    ["-f", "qcow2", "-o", "extended_l2=on,preallocation=falloc", "-b", "base.qcow2", "-F", "qcow2", "x"],
    ["-f", "qcow2", "-o", "preallocation=metadata", "-b", "base.qcow2", "-F", "qcow2", "x"],
    ["-f", "raw", "-o", "preallocation=full", "x", "1M"],
    ["-f", "raw", "-o", "preallocation=falloc", "x", "1M"],
    ["-f", "qcow2", "x", "1000"],
    ["-f", "raw", "x", "1000"],
    ["-f", "qcow2", "x", "0"],
    ["-f", "qcow2", "x"],
    ["-f", "foo", "x", "1M"],
    ["-f", "qcow2", "-o", "foo=1", "x", "1M"],
    ["-f", "qcow2", "x", "--", "-1"],
    ["-f", "qcow2", "x", "1Z"],
    ["-f", "qcow2", "x", "1M", "2M"],
    [],
    ["-f", "qcow2", "nonexistent/x", "1M"],
    ["-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "x"],
    ["-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "x", "128M"],
    ["-f", "qcow2", "-b", "base.raw", "-F", "raw", "x"],
    ["-f", "qcow2", "-b", "base.qcow2", "x"],
    ["-f", "qcow2", "-b", "nope", "-F", "qcow2", "x"],
    ["-u", "-f", "qcow2", "-b", "nope", "-F", "qcow2", "x"],
    ["-u", "-f", "qcow2", "-b", "nope", "-F", "qcow2", "x", "1M"],
    ["-f", "qcow2", "-o", "backing_file=base.qcow2,backing_fmt=qcow2", "x"],
    ["-f", "raw", "-b", "base.raw", "-F", "raw", "x", "1M"],
    ["-f", "qcow2", "-b", 'json:{"driver":"raw","file":{"driver":"file","filename":"base.raw"}}', "-F", "raw", "x"],
    ["-f", "qcow2", "-b", "file:base.raw", "-F", "raw", "x"],
    ["-f", "qcow2", "-F", "qcow2", "x", "1M"],
    ["-f", "qcow2", "-F", "qcow2", "x"],
    ["-f", "qcow2", "-o", "nocow=on", "x", "1M"],
    ["-f", "file", "x", "1M"],
    ["-f", "file", "-o", "nocow=off", "x", "1M"],
    ["-f", "qcow2", "json:{}", "1M"],
    ["-o", "help"],
    ["-f", "qcow2", "-o", "help"],
    ["-f", "raw", "-o", "help", "x"],
    ["-f", "qcow2", "-o", "?", "x"],
    ["-Z"],
]


@pytest.mark.parametrize("arguments", CREATE, ids=" ".join)
def test_create(twin, arguments):
    twin.make("-f", "qcow2", "base.qcow2", "4M")
    twin.make("-f", "raw", "base.raw", "2M")
    result = twin.same("img", "create", *arguments)
    if result.returncode == 0 and "help" not in result.args and "?" not in result.args:
        twin.same("img", "info", "-U", "--output=json", "x", json_output=True, ignore=["actual-size"])
        if "nope" not in arguments:
            fmt = arguments[arguments.index("-f") + 1] if "-f" in arguments else "raw"
            twin.same_content("x", fmt)


def populate(twin):
    """A base with data, zeroes and holes; an overlay; a raw file; a compressed image."""
    twin.make("-f", "qcow2", "base.qcow2", "8M")
    twin.prepare("base.qcow2", "write -P 1 0 1M", "write -z 2M 64k", "write -P 2 3M 100k")
    twin.make("-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "over.qcow2")
    twin.prepare("over.qcow2", "write -P 3 512k 1M", "discard 3M 64k")
    twin.make("-f", "qcow2", "-o", "cluster_size=512", "-b", "over.qcow2", "-F", "qcow2", "top.qcow2", "10M")
    twin.prepare("top.qcow2", "write -P 4 7M 1k", "write -z 100k 5k")
    twin.make("-f", "qcow2", "-o", "extended_l2=on", "-b", "base.qcow2", "-F", "qcow2", "sub.qcow2")
    twin.prepare("sub.qcow2", "write -P 3 500k 100k", "write -z 2M 2k", "write -P 5 5M 1k", "discard 64k 64k")
    data = random.Random(1).randbytes(1 << 20)
    twin.write("disk.raw", data + bytes(1 << 20) + data[:5000] + bytes(1 << 19))
    twin.write("odd.raw", data[:70001])
    os.system(f"cd {twin.theirs} && qemu-img convert -c -O qcow2 base.qcow2 packed.qcow2 && "
              f"qemu-img convert -c -o compression_type=zstd -O qcow2 base.qcow2 zstd.qcow2 && "
              f"qemu-img snapshot -c first base.qcow2")
    twin.copy()


IMAGES = ["base.qcow2", "over.qcow2", "top.qcow2", "sub.qcow2", "disk.raw", "odd.raw", "packed.qcow2", "zstd.qcow2"]

READING = [
    ["info", "{}"],
    ["info", "-U", "{}"],
    ["info", "--backing-chain", "{}"],
    ["check", "{}"],
    ["check", "-q", "{}"],
    ["map", "{}"],
    ["map", "-s", "64k", "-l", "1M", "{}"],
    ["compare", "{}", "{}"],
    ["compare", "-s", "{}", "over.qcow2"],
    ["compare", "-q", "{}", "disk.raw"],
    ["compare", "-p", "{}", "base.qcow2"],
    ["info", "-f", "raw", "{}"],
    ["bench", "-c", "100", "-d", "4", "{}"],
    ["bench", "-c", "10", "-s", "512", "-S", "1024", "-o", "4096", "-q", "{}"],
]


@pytest.mark.parametrize("image", IMAGES)
def test_reading_subcommands(twin, image):
    populate(twin)
    for command in READING:
        if command[0] == "bench" and image == "odd.raw":
            continue  # a request across the end fails there; ours starts over at the beginning
        twin.same("img", *[word.format(image) for word in command])
    twin.same("img", "info", "--output=json", image, json_output=True, ignore=["actual-size"])
    twin.same("img", "info", "--output=json", "--backing-chain", image, json_output=True, ignore=["actual-size"])
    twin.same("img", "check", "--output=json", image, json_output=True)
    twin.same("img", "map", "--output=json", image)


@pytest.mark.parametrize("command", [[], ["foo"]], ids=" ".join)
def test_there_is_no_such_subcommand(twin, command):
    twin.same("img", *command)


CONVERT = [
    ["-O", "qcow2"], ["-O", "raw"], ["-p", "-O", "raw"], ["-O", "qcow2", "-o", "cluster_size=4k"],
    ["-O", "qcow2", "-o", "compat=0.10"], ["-O", "qcow2", "-o", "refcount_bits=1,cluster_size=512"], ["-S", "0", "-O", "raw"],
    ["-S", "0", "-O", "qcow2"], ["-S", "64k", "-O", "qcow2"], ["-m", "1", "-O", "qcow2"], ["-m", "16", "-W", "-O", "qcow2"],
    ["-t", "none", "-T", "none", "-O", "qcow2"], ["-t", "writethrough", "-O", "raw"], ["-C", "-O", "raw"], ["--salvage", "-O", "raw"],
    ["-U", "-O", "raw"], ["-O", "qcow2", "-o", "preallocation=metadata"], ["-O", "qcow2", "-o", "preallocation=full"],
]


@pytest.mark.parametrize("options", CONVERT, ids=" ".join)
def test_convert(twin, options):
    populate(twin)
    fmt = options[options.index("-O") + 1]
    for image in IMAGES:
        twin.same("img", "convert", *options, image, "x")
        twin.same_content("x", fmt)
        os.unlink(twin.ours / "x")
        os.unlink(twin.theirs / "x")


def test_progress_is_printed_alike(twin):
    """Byte for byte, where both find the same extents: clusters of the default size."""
    populate(twin)
    twin.make("-f", "qcow2", "full.qcow2", "8M")
    twin.prepare("full.qcow2", "write -P 1 0 8M")
    twin.make("-f", "qcow2", "small.qcow2", "3M")
    twin.make("-f", "qcow2", "none.qcow2", "0")
    run(["qemu-img", "convert", "-c", "-O", "qcow2", "full.qcow2", "tight.qcow2"], twin.theirs).check_returncode()
    twin.copy()
    images = ["base.qcow2", "over.qcow2", "packed.qcow2", "full.qcow2", "tight.qcow2", "small.qcow2", "none.qcow2"]
    commands = [["convert", "-p", *options, "-O", "raw", image, "x"] for image in images for options in ([], ["-S", "0"])]
    commands += [["compare", "-p", image, other] for image in images for other in images]
    for command in commands:
        ours, theirs = twin.both("img", *command)
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), command


def test_convert_joins_several_inputs(twin):
    populate(twin)
    twin.same("img", "convert", "-O", "qcow2", "over.qcow2", "disk.raw", "top.qcow2", "x")
    twin.same_content("x", "qcow2")


def test_convert_keeps_a_backing_file(twin):
    populate(twin)
    twin.same("img", "convert", "-O", "qcow2", "-B", "base.qcow2", "-F", "qcow2", "over.qcow2", "x")
    twin.same("img", "map", "--output=json", "x")
    twin.same_content("x", "qcow2")


def test_convert_with_a_backing_file_further_down_copies_what_lies_between(twin):
    populate(twin)
    ours, _ = twin.both("img", "convert", "-O", "qcow2", "-B", "base.qcow2", "-F", "qcow2", "top.qcow2", "x")
    assert ours.returncode == 0, ours.stderr
    os.system(f"cd {twin.theirs} && qemu-img convert -O raw top.qcow2 flat && cp flat {twin.ours}/flat")
    assert os.system(f"cd {twin.ours} && qemu-img compare -q -f qcow2 -F raw x flat && qemu-img check -q x") == 0


def test_convert_takes_a_backing_file_from_the_options(twin):
    populate(twin)
    twin.same("img", "convert", "-O", "qcow2", "-o", "backing_file=base.qcow2,backing_fmt=qcow2", "over.qcow2", "x")
    twin.same("img", "map", "--output=json", "x")
    twin.same_content("x", "qcow2")


@pytest.mark.parametrize("options", [["-O", "raw"], ["-O", "qcow2"], ["-O", "raw", "-S", "0"], ["-O", "raw", "-t", "none", "-T", "none"],
                                     ["-C", "-O", "raw"], ["-W", "-O", "qcow2"]], ids=" ".join)
def test_convert_joins_inputs_that_are_no_whole_sectors(twin, options):
    rng = random.Random(7)
    for name, length in (("a", 1000), ("b", 70001), ("empty", 0), ("c", 3 << 20), ("d", 1)):
        twin.write(name, rng.randbytes(length))
    twin.same("img", "convert", "-f", "raw", *options, "a", "b", "empty", "a", "c", "d", "x")
    twin.same_content("x", options[options.index("-O") + 1])


def stored_ranges(extents):
    """Where a map has data, wherever in the file."""
    ranges = []
    for extent in extents:
        if extent["data"]:
            if ranges and ranges[-1][1] == extent["start"]:
                ranges[-1][1] += extent["length"]
            else:
                ranges.append([extent["start"], extent["start"] + extent["length"]])
    return ranges


@pytest.mark.parametrize("sparse", ["0", "512", "1536", "4k", "5k", "64k", "96k", "1M"])
def test_convert_leaves_out_the_same_runs_of_zeroes(twin, sparse):
    seed = int(os.environ.get("BDRV_TEST_SEED", "0"), 0) or random.SystemRandom().getrandbits(32)
    print("seed", seed)
    rng = random.Random(seed)
    disk = bytearray()
    while len(disk) < 5 << 20:
        sectors = rng.choice((1, 2, 7, 8, 9, 15, 127, 128, rng.randrange(1, 300)))
        disk += bytes(512 * sectors) if rng.random() < 0.5 else bytes(511) + b"d" + rng.randbytes(512 * (sectors - 1))
    twin.write("src", disk)
    twin.same("img", "convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=512", "-S", sparse, "src", "x")
    twin.same_content("x", "qcow2")
    ours, theirs = (json.loads(result.stdout) for result in twin.both("img", "map", "--output=json", "x"))
    assert stored_ranges(ours) == stored_ranges(theirs)


@pytest.mark.parametrize("size", ["1M", "8M", "8388608"])
@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
@pytest.mark.parametrize("options", [[], ["-S", "0"], ["-W"], ["--target-is-zero"]], ids=" ".join)
def test_convert_over_old_content(twin, options, fmt, size):
    twin.make("-f", "raw", "src", "4M")
    twin.prepare("src", "write -P 7 4k 1M", "write -P 3 3M 512")
    twin.make("-f", fmt, "x", size)
    if "--target-is-zero" not in options:
        twin.prepare("x", "write -P 0xff 0 " + size)
    twin.same("img", "convert", "-n", *options, "-f", "raw", "-O", fmt, "src", "x")
    twin.same_content("x", fmt)


def test_convert_into_an_existing_target(twin):
    populate(twin)
    twin.make("-f", "qcow2", "x", "8M")
    twin.prepare("x", "write -P 9 0 8M")
    twin.same("img", "convert", "-n", "-O", "qcow2", "base.qcow2", "x")
    twin.same_content("x", "qcow2")
    twin.same("img", "convert", "-n", "-O", "qcow2", "top.qcow2", "x")


@pytest.mark.parametrize("size", ["0", "100", "512", "1M"])
@pytest.mark.parametrize("preallocation", ["off", "falloc", "full"])
def test_a_new_raw_file_takes_the_same_space(twin, size, preallocation):
    twin.same("img", "create", "-f", "raw", "-o", f"preallocation={preallocation}", "x", size)
    ours, theirs = ((directory / "x").stat() for directory in (twin.ours, twin.theirs))
    assert (ours.st_size, ours.st_blocks) == (theirs.st_size, theirs.st_blocks)


DD = [
    [], ["bs=64k"], ["bs=64k", "count=3"], ["bs=64k", "count=3", "skip=1"], ["bs=1M", "skip=3"], ["count=1"],
    ["bs=100", "count=7"], ["bs=1M", "skip=99999"],
]


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
@pytest.mark.parametrize("operands", DD, ids=" ".join)
def test_dd(twin, operands, fmt):
    populate(twin)
    twin.same("img", "dd", "-O", fmt, *operands, "if=top.qcow2", "of=x")
    twin.same_content("x", fmt)
    twin.same("img", "info", "--output=json", "x", json_output=True, ignore=["actual-size"])


def exact_info(twin, *arguments):
    """The very text, but for the space that an image takes."""
    ours, theirs = twin.both("img", "info", *arguments)
    assert ours.returncode == theirs.returncode == 0, ours.stderr
    size = re.compile(r'("actual-size": |disk size: ).*')
    assert size.sub("", ours.stdout) == size.sub("", theirs.stdout)


def test_info_prints_the_same_text_for_all_that_an_image_can_have(twin):
    populate(twin)
    twin.make("-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "bitmaps.qcow2", "4M")
    for arguments in (["b0"], ["-g", "4k", "b1"]):
        run(["qemu-img", "bitmap", "--add", *arguments[:-1], "bitmaps.qcow2", arguments[-1]], twin.theirs).check_returncode()
    run(["qemu-img", "bitmap", "--disable", "bitmaps.qcow2", "b1"], twin.theirs).check_returncode()
    run(["qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=x", "-o",
         "encrypt.format=aes,encrypt.key-secret=s", "-b", "base.qcow2", "-F", "qcow2", "aes.qcow2", "1M"], twin.theirs)
    twin.copy()
    for image in [*IMAGES, "bitmaps.qcow2", "aes.qcow2"]:
        if (twin.theirs / image).exists():
            for options in ([], ["--output=json"], ["--backing-chain"], ["--backing-chain", "--output=json"]):
                exact_info(twin, *options, image)


# Offset and value of 8 bytes: (refcount of a free cluster, of a used one, L2 entries: …)
DAMAGE = {
    "leak": [(0x20000 + 2 * 40, 1 << 48)], "refcount too high": [(0x20000 + 8, 0x0001000200010001)],
    "refcount zero": [(0x20000 + 8, 0x0001000000010001)], "both": [(0x20000 + 8, 0x0001000000010001), (0x20000 + 2 * 40, 1 << 48)],
    "L2 entry unaligned": [(0x40000, 1 << 63 | 0x50200)], "L2 entry past the end": [(0x40000 + 8 * 20, 1 << 63 | 1 << 28)],
    "two owners": [(0x40000 + 8, 1 << 63 | 0x50000)], "L1 entry past the end": [(0x30000, 1 << 63 | 1 << 28)],
    "L1 entry unaligned": [(0x30000, 1 << 63 | 0x40200)], "compressed": [(0x40000 + 8 * 30, 1 << 62 | 0x50064)], "dirty": [(72, 1)],
    "corrupt": [(72, 2)],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_image_is_told_alike(twin, damage):
    twin.make("-f", "qcow2", "x", "8M")
    twin.prepare("x", "write -P 1 0 1M", "write -P 2 5M 300k", "write -z 3M 64k")
    image = bytearray((twin.ours / "x").read_bytes())
    for offset, value in DAMAGE[damage]:
        image[offset:offset + 8] = value.to_bytes(8, "big")
    twin.write("x", image)
    for command in (["check"], ["check", "-q"], ["check", "--output=json"], ["map"], ["map", "--output=json"], ["compare", "x"]):
        twin.same("img", *command, "x")
    exact_info(twin, "x")


@pytest.mark.parametrize("arguments", [[], ["-s", "1M"], ["-s", "100M"], ["-l", "0"], ["-s", "4k", "-l", "1"]], ids=" ".join)
def test_map_of_nothing_and_little(twin, arguments):
    twin.make("-f", "qcow2", "x", "1M")
    twin.write("empty", b"")
    for image in ("x", "empty"):
        twin.same("img", "map", *arguments, image)
        twin.same("img", "map", "--output=json", *arguments, image)


JSON_LOCAL = 'json:{"driver":"qcow2","file":{"driver":"file","filename":"base.qcow2"}}'


def test_a_json_backing_name_of_local_files_works_as_a_plain_one(twin):
    populate(twin)
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", JSON_LOCAL, "-F", "qcow2", "x"], twin.theirs).check_returncode()
    twin.prepare("x", "write -P 8 100k 200k")
    for command in (["check", "x"], ["map", "--output=json", "x"], ["compare", "x", "base.qcow2"], ["convert", "x", "y"]):
        twin.same("img", *command)
    exact_info(twin, "--backing-chain", "x")
    twin.same_content("y", "raw")


@pytest.mark.parametrize("name", ['json:{"driver":"null-co"}', 'json:{"driver":"file","fd":0}', "null-co://",
                                  'json:{"driver":"file","filename":"base.qcow2","locking":"off"}'])
def test_an_image_does_not_decide_how_files_are_opened(twin, name):
    populate(twin)
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", name, "-F", "raw", "x", "1M"], twin.ours).check_returncode()
    for command in (["check", "x"], ["map", "x"], ["convert", "x", "y"], ["info", "--backing-chain", "x"]):
        result = run([OURS["img"], *command], twin.ours)
        assert result.returncode == 1 and "may name only such files" in result.stderr, command
        assert not result.stdout
    assert run([OURS["img"], "info", "x"], twin.ours).returncode == 0


RESIZE = [
    ["base.qcow2", "20M"], ["base.qcow2", "+1M"], ["base.qcow2", "+0"], ["-q", "top.qcow2", "+5M"],
    ["--preallocation=metadata", "base.qcow2", "16M"], ["--preallocation=full", "packed.qcow2", "9M"],
    ["--preallocation=falloc", "packed.qcow2", "9M"],
    ["-f", "raw", "disk.raw", "20M"], ["-f", "raw", "--shrink", "disk.raw", "1M"], ["-f", "raw", "disk.raw", "1M"],
    ["-f", "raw", "--preallocation=full", "disk.raw", "+1M"], ["top.qcow2", "10G"],
    ["--shrink", "base.qcow2", "1M"], ["base.qcow2", "1M"], ["--shrink", "top.qcow2", "1000000"], ["--shrink", "packed.qcow2", "512"],
    ["--shrink", "base.qcow2", "-1M"], ["--shrink", "base.qcow2", "0"], ["--shrink", "--preallocation=full", "base.qcow2", "1M"],
]


@pytest.mark.parametrize("arguments", RESIZE, ids=" ".join)
def test_resize(twin, arguments):
    populate(twin)
    if "base.qcow2" in arguments:
        os.system(f"cd {twin.theirs} && qemu-img snapshot -d first base.qcow2")
        twin.copy()
    twin.same("img", "resize", *arguments)
    name = next(word for word in arguments if "." in word)
    twin.same_content(name, "raw" if "raw" in arguments else "qcow2")


@pytest.mark.parametrize("size", ["64k", "1000000", "3M"])
def test_shrinking_leaves_snapshots_as_they_are(twin, size):
    populate(twin)
    twin.same("img", "resize", "--shrink", "base.qcow2", size)
    twin.same_content("base.qcow2", "qcow2")
    for directory in (twin.ours, twin.theirs):
        run(["qemu-img", "snapshot", "-a", "first", "base.qcow2"], directory).check_returncode()
    twin.same_content("base.qcow2", "qcow2")


def test_bench_writes(twin):
    twin.make("-f", "qcow2", "x", "8M")
    twin.same("img", "bench", "-w", "-c", "500", "-d", "4", "--pattern=5", "x")
    twin.same("img", "bench", "-w", "-c", "500", "-d", "4", "--flush-interval=50", "x")
    twin.same("img", "bench", "-w", "-c", "500", "-d", "4", "--flush-interval=50", "--no-drain", "x")
    twin.same("img", "bench", "-w", "-n", "-i", "native", "-c", "500", "-s", "64k", "x")


@pytest.mark.parametrize("arguments", [
    ["-f", "raw", "a.raw", "a.raw"], ["-f", "raw", "a.raw", "hard.raw"], ["-f", "raw", "a.raw", "link.raw"],
    ["-f", "raw", "file:a.raw", "a.raw"], ["--image-opts", "driver=raw,file.filename=a.raw", "a.raw"],
    ["-n", "-f", "raw", "a.raw", "a.raw"], ["-f", "qcow2", "over.qcow2", "a.raw"], ["-f", "qcow2", "over.qcow2", "hard.raw"],
    ["-n", "-f", "qcow2", "over.qcow2", "a.raw"], ["-O", "qcow2", "over.qcow2", "a.raw"],
], ids=" ".join)
def test_convert_never_writes_over_what_it_reads(twin, arguments):
    twin.make("-f", "raw", "a.raw", "1M")
    twin.prepare("a.raw", "write -P 7 4k 1020k")
    twin.make("-f", "qcow2", "-b", "a.raw", "-F", "raw", "over.qcow2")
    for directory in (twin.ours, twin.theirs):
        os.link(directory / "a.raw", directory / "hard.raw")
        os.symlink("a.raw", directory / "link.raw")
    twin.same("img", "convert", *arguments)
    twin.same_content("a.raw", "raw")
    assert (twin.ours / "a.raw").read_bytes() == bytes(4096) + b"\7" * 0xff000


def test_convert_refuses_a_source_that_is_being_written(twin):
    twin.make("-f", "raw", "a.raw", "1M")
    writer = subprocess.Popen(["qemu-io", "-f", "raw", twin.ours / "a.raw"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    try:
        assert writer.stdout.read(8) == b"qemu-io>"
        assert run([OURS["img"], "convert", "-f", "raw", "a.raw", "x"], twin.ours).returncode == 1
        assert run([OURS["img"], "convert", "-U", "-f", "raw", "a.raw", "x"], twin.ours).returncode == 0
    finally:
        writer.communicate(b"quit\n")


OPTION_VALUES = [
    "", ",", "size=1M,", ",size=1M", "size=1M", "size=1M,size=2M", "size", "size=", "size=-1", "size=x", "size=1.5M", "size=513",
    "foo", "foo=1", "=", "cluster_size", "cluster_size=", "cluster_size=0", "cluster_size=-1", "cluster_size=1", "cluster_size=600",
    "cluster_size=4M", "cluster_size=64K,cluster_size=4k", "compat=v3", "compat=2", "compat=", "preallocation=foo",
    "lazy_refcounts=maybe", "refcount_bits=3", "refcount_bits=0", "refcount_bits=128", "refcount_bits=-1",
    "compat=0.10,refcount_bits=8", "backing_file=", "backing_fmt=raw", "backing_file=a.raw",
    "backing_file=a.raw,backing_fmt=foo", "backing_file=a.raw,backing_fmt=raw", "backing_file=nope,backing_fmt=raw",
    "extended_l2=x", "extended_l2=on", "extended_l2=on,cluster_size=8k", "compression_type=foo", "nocow=on",
]


@pytest.mark.parametrize("size", [[], ["1M"]], ids=" ".join)
@pytest.mark.parametrize("options", OPTION_VALUES)
def test_create_takes_and_refuses_the_same_option_values(twin, options, size):
    twin.make("-f", "raw", "a.raw", "1M")
    twin.same("img", "create", "-q", "-f", "qcow2", "-o", options, "x", *size)
    if (twin.ours / "x").exists() and (twin.theirs / "x").exists():
        twin.same("img", "info", "--output=json", "x", json_output=True, ignore=["actual-size"])


SIZES = ["0", "1", "511", "513", "1k", "1.5k", "1b", "1K", "1KB", "-1", "+1", "", "x", "1e3", "0x1000", "0x", "9223372036854775807",
         "9223372036854775808", "18446744073709551615", "7E", "8E", "1T", " 5", "5 ", "nan", "inf", ".5k", "1.k", "077", "1,5k"]


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
@pytest.mark.parametrize("size", SIZES)
def test_create_reads_sizes_alike(twin, size, fmt):
    twin.same("img", "create", "-f", fmt, "x", size)


@pytest.mark.parametrize("size", ["4M", "+0", "-0", "0", "-4M", "-5M", "1", "4194305", "+1", "x", "", "+", "-", "+x", "-x", "8E",
                                  "+8E", "9223372036854775807", "-1", "+ 1", "5000000"])
def test_resize_reads_sizes_alike(twin, size):
    twin.make("-f", "raw", "x", "4M")
    twin.prepare("x", "write -P 7 4k 1M")
    twin.same("img", "resize", "-f", "raw", "--shrink", "x", size)
    twin.same_content("x", "raw")


@pytest.mark.parametrize("operands", [
    "bs=-1", "bs=1x", "bs=", "bs=2G", "count=-1", "count=x", "count=", "count=0", "skip=-1", "skip=0", "skip=x", "skip=1000000",
    "skip=99999999999999999999", "count=9223372036854775807", "skip=9223372036854775807",
    "bs=1M count=9223372036854775807 skip=1", "conv=x", "bs=513 count=3", "bs=1000 skip=1", "if=", "of=",
])
def test_dd_reads_operands_alike(twin, operands):
    twin.make("-f", "raw", "a.raw", "4M")
    twin.prepare("a.raw", "write -P 7 4k 1M")
    twin.same("img", "dd", "-f", "raw", "if=a.raw", "of=x", *operands.split())
    if (twin.theirs / "x").exists():
        twin.same_content("x", "raw")


@pytest.mark.parametrize("backing", ["./self", "other/../self", "link", "next", "nope", "nbd:localhost:1", "a:b"])
def test_info_of_a_broken_chain_prints_nothing_but_the_error(twin, backing):
    """The real tool never comes to an end with some of them."""
    for name, below in (("self", backing), ("next", "self")):
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", below, "-F", "qcow2", name, "1M"],
            twin.ours).check_returncode()
    (twin.ours / "other").mkdir()
    os.symlink("self", twin.ours / "link")
    for output in ("human", "json"):
        result = run([OURS["img"], "info", f"--output={output}", "--backing-chain", "self"], twin.ours, timeout=10)
        assert result.returncode == 1 and result.stderr and not result.stdout
        assert run([OURS["img"], "info", f"--output={output}", "self"], twin.ours, timeout=10).returncode == 0
    for command in (["check", "self"], ["map", "self"], ["convert", "self", "x"]):
        run([OURS["img"], *command], twin.ours, timeout=10)


def test_convert_refuses_inputs_that_are_too_long_together(twin):
    huge = "driver=null-co,size=7E,read-zeroes=on"
    result = run([OURS["img"], "convert", "--image-opts", huge, huge, "x"], twin.ours, timeout=10)
    assert result.returncode == 1 and "in all" in result.stderr
    assert not (twin.ours / "x").exists()


def test_info_graph_shows_the_nodes_and_what_each_uses(tmp_path):
    def img(*args):
        return run([OURS["img"], *args], tmp_path)
    img("create", "-q", "-f", "qcow2", "base", "1M")
    img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top")
    lines = img("info", "--graph", "top").stdout.splitlines()
    assert [re.sub(r' "#block\d+"', "", line) for line in lines] == [
        "top -> qcow2 [top] ro  uses read, denies -",
        "  file -> file [top] ro  uses read, denies write,resize",
        "  backing -> qcow2 [base] ro  uses read, denies -",
        "    file -> file [base] ro  uses read, denies write,resize"]


@pytest.mark.parametrize("option", ["--backing-chain", "--output=json"])
def test_info_graph_goes_with_no_other_form(tmp_path, option):
    run([OURS["img"], "create", "-q", "-f", "qcow2", "disk", "1M"], tmp_path)
    result = run([OURS["img"], "info", "--graph", option, "disk"], tmp_path)
    assert result.returncode == 1 and result.stdout == "" and "--graph" in result.stderr


@pytest.mark.parametrize("name", ["file:a:b", "./a:b", "file:./a:b", "file:plain", "a:b"])
def test_a_name_with_a_colon_is_told_so_that_it_can_be_used(twin, name):
    twin.make("-f", "qcow2", "./a:b", "1M")
    twin.make("-f", "qcow2", "plain", "1M")
    twin.same("img", "info", "--output=json", name)
    twin.same("img", "info", name)
    twin.same("img", "create", "-f", "qcow2", "-b", name, "-F", "qcow2", "top")
    twin.same("img", "info", "--backing-chain", "top")
    twin.same("img", "map", "--output=json", name)
