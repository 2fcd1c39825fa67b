# SPDX-License-Identifier: MIT
"""Persistent dirty bitmaps beside the real tools: each goes on with what the other made; a reader of its own compares."""

import re
import shutil
import struct

import pytest

import bitmaps
from tools import OURS, THEIRS, normalise, run

KINDS = ["cluster_size=64k", "cluster_size=512", "cluster_size=16k,extended_l2=on", "refcount_bits=64,cluster_size=256k",
         "cluster_size=4k,lazy_refcounts=on"]
ORDERS = ["turns", "ours", "turns the other way"]
AUTOCLEAR = 88
DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def img(tools, directory, *args, code=0):
    result = run([tools["img"], *args], directory)
    assert result.returncode == code, f"{args}: {result.stdout}{result.stderr}"
    return result.stdout


def io(tools, directory, name, *commands):
    argv = [tools["io"]]
    for command in commands:
        argv += ["-c", command]
    result = run([*argv, name], directory)
    assert result.returncode == 0 and "fail" not in result.stdout.lower(), f"{commands}: {result.stdout}{result.stderr}"


def clean(directory, name):
    for tools in (THEIRS, OURS):
        assert img(tools, directory, "check", name).startswith("No errors were found"), tools["img"]


def patch(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


STEPS = [
    ("bitmap", "--add", "a.qcow2", "coarse"), ("bitmap", "--add", "-g", "512", "a.qcow2", "fine"),
    ("io", "write 0 64k"), ("io", "write 1000 1"), ("io", "write 2M 10k"), ("bitmap", "--disable", "a.qcow2", "fine"),
    ("io", "write -z 3M 64k"), ("bitmap", "--enable", "a.qcow2", "fine"), ("io", "discard 1M 128k"),
    ("io", "write 3999k 3k"), ("resize", "a.qcow2", "+3000k"), ("io", "write 6M 256k"), ("snapshot", "-c", "s", "a.qcow2"),
    ("bitmap", "--add", "--disable", "--merge", "coarse", "-g", "1M", "a.qcow2", "merged"), ("io", "write 5M 1"),
    ("bitmap", "--clear", "a.qcow2", "coarse"), ("io", "write 0 512"), ("resize", "--shrink", "a.qcow2", "2500k"),
    ("snapshot", "-d", "s", "a.qcow2"), ("resize", "a.qcow2", "4M"), ("bitmap", "--remove", "a.qcow2", "coarse"),
    ("bitmap", "--merge", "fine", "--enable", "a.qcow2", "merged"), ("io", "write 0 4M"),
    ("bitmap", "--remove", "--add", "a.qcow2", "fine"), ("bitmap", "--remove", "a.qcow2", "merged"),
    ("bitmap", "--remove", "a.qcow2", "fine"),
]


@pytest.mark.parametrize("kind,order", list(zip(KINDS, ORDERS * 3)))
def test_bitmaps_are_those_of_the_real_tool(twin, kind, order):
    """The same steps by the real tools, and by ours or by turns of both: the same bits are set after each."""
    twin.make("-f", "qcow2", "-o", kind, "a.qcow2", "4M")
    # A part of a cluster is not discarded. The real tool sets its bits all the same.
    for number, step in enumerate(step for step in STEPS if "discard" not in step[1] or "256k" not in kind):
        mine = OURS if order == "ours" or (number % 2 == 0) == (order == "turns") else THEIRS
        for tools, directory in ((THEIRS, twin.theirs), (mine, twin.ours)):
            if step[0] == "io":
                io(tools, directory, "a.qcow2", step[1])
            else:
                img(tools, directory, *step)
        assert bitmaps.read(twin.ours / "a.qcow2") == bitmaps.read(twin.theirs / "a.qcow2"), step
        if step[0] != "io":
            clean(twin.ours, "a.qcow2")
        if step[0] == "bitmap":
            ours, theirs = (normalise(DATE.sub("DATE", result.stdout)) for result in twin.both("img", "info", "a.qcow2"))
            assert ours == theirs, step
            twin.same("img", "info", "--output=json", "a.qcow2", json_output=True,
                      ignore=("actual-size", "snapshots"))


def test_compressed_writes_set_bits(twin):
    twin.make("-f", "qcow2", "a.qcow2", "4M")
    for tools, directory in ((THEIRS, twin.theirs), (OURS, twin.ours)):
        img(tools, directory, "bitmap", "--add", "-g", "4k", "a.qcow2", "b")
        io(tools, directory, "a.qcow2", "write -c 1M 192k")
    assert bitmaps.read(twin.ours / "a.qcow2") == bitmaps.read(twin.theirs / "a.qcow2")
    clean(twin.ours, "a.qcow2")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """What the command lines are tried on."""
    directory = tmp_path_factory.mktemp("images")
    for name, size, *options in (("a.qcow2", "4M"), ("other.qcow2", "4M"), ("small.qcow2", "1M"),
                                 ("old.qcow2", "1M", "-o", "compat=0.10"),
                                 ("orphan.qcow2", "1M", "-u", "-b", "not-there", "-F", "qcow2")):
        img(THEIRS, directory, "create", "-q", "-f", "qcow2", *options, name, size)
    (directory / "disk.raw").write_bytes(bytes(1 << 20))
    for name, bitmap in (("a.qcow2", "b"), ("a.qcow2", "off"), ("other.qcow2", "m"), ("small.qcow2", "b")):
        img(THEIRS, directory, "bitmap", "--add", name, bitmap)
        io(THEIRS, directory, name, "write 64k 100k")
    img(THEIRS, directory, "bitmap", "--disable", "a.qcow2", "off")
    shutil.copy(directory / "a.qcow2", directory / "broken.qcow2")
    run([THEIRS["io"], "-c", "write 0 64k", "-c", "abort", "broken.qcow2"], directory)
    return directory


@pytest.mark.parametrize("arguments", [
    [], ["a.qcow2", "b"], ["--add"], ["--add", "a.qcow2"], ["--add", "a.qcow2", "b", "c"], ["--add", "a.qcow2", "b"],
    ["--add", "a.qcow2", "new"], ["--add", "--disable", "a.qcow2", "new"], ["--add", "--add", "a.qcow2", "new"],
    ["--remove", "--add", "a.qcow2", "b"], ["--add", "--remove", "a.qcow2", "new"], ["--add", "a.qcow2", ""],
    ["--add", "a.qcow2", "x" * 1023], ["--add", "a.qcow2", "x" * 1024], ["--remove", "a.qcow2", "no"],
    ["--clear", "a.qcow2", "no"], ["--enable", "a.qcow2", "no"], ["--disable", "a.qcow2", "no"],
    ["--merge", "no", "a.qcow2", "b"], ["--merge", "b", "a.qcow2", "no"], ["--merge", "b", "a.qcow2", "b"],
    ["--merge", "off", "--disable", "a.qcow2", "b"], ["--enable", "--disable", "--enable", "a.qcow2", "off"],
    ["--add", "-g", "0", "a.qcow2", "g"], ["--add", "-g", "256", "a.qcow2", "g"], ["--add", "-g", "1000", "a.qcow2", "g"],
    ["--add", "-g", "2G", "a.qcow2", "g"], ["--add", "-g", "4G", "a.qcow2", "g"], ["--add", "-g", "12x", "a.qcow2", "g"],
    ["--add", "-g", "-1", "a.qcow2", "g"], ["-g", "64k", "--clear", "a.qcow2", "b"], ["-g", "64k", "--add", "--clear", "a.qcow2", "n"],
    ["--add", "--granularity=8k", "a.qcow2", "g"], ["--merge", "b", "-b", "small.qcow2", "a.qcow2", "b"],
    ["--merge", "m", "-b", "other.qcow2", "a.qcow2", "b"], ["--merge", "m", "-b", "other.qcow2", "-F", "qcow2", "a.qcow2", "b"],
    ["--merge", "m", "-b", "other.qcow2", "-F", "raw", "a.qcow2", "b"], ["--merge", "m", "-b", "no.qcow2", "a.qcow2", "b"],
    ["--merge", "no", "-b", "other.qcow2", "a.qcow2", "b"], ["-b", "other.qcow2", "--clear", "a.qcow2", "b"],
    ["-F", "qcow2", "--clear", "a.qcow2", "b"], ["--merge", "b", "-b", "a.qcow2", "a.qcow2", "b"],
    ["--merge", "m", "--source-file=other.qcow2", "--source-format=qcow2", "a.qcow2", "b"],
    ["--add", "-f", "qcow2", "a.qcow2", "n"], ["--add", "-f", "raw", "a.qcow2", "n"], ["--add", "-f", "no", "a.qcow2", "n"],
    ["--add", "--image-opts", "driver=qcow2,file.filename=a.qcow2", "n"], ["--add", "--image-opts", "a.qcow2", "n"],
    ["--add", "--image-opts", "-f", "qcow2", "a.qcow2", "n"], ["--add", "old.qcow2", "n"], ["--add", "disk.raw", "n"],
    ["--add", "no.qcow2", "n"], ["--add", "orphan.qcow2", "n"], ["--object", "secret,id=s,data=x", "--clear", "a.qcow2", "b"],
    ["--object", "nonsense", "--clear", "a.qcow2", "b"], ["--frobnicate", "a.qcow2", "b"], ["--merge"], ["-x"],
    ["--clear", "--merge", "off", "a.qcow2", "b"], ["--remove", "a.qcow2", "b"], ["--add", "--clear", "--enable", "a.qcow2", "n"],
    ["--clear", "broken.qcow2", "b"], ["--enable", "broken.qcow2", "b"], ["--disable", "broken.qcow2", "b"],
    ["--merge", "b", "broken.qcow2", "off"], ["--merge", "off", "broken.qcow2", "b"], ["--add", "broken.qcow2", "b"],
    ["--add", "broken.qcow2", "n"], ["--remove", "broken.qcow2", "b"], ["--remove", "--add", "broken.qcow2", "b"],
], ids=lambda arguments: " ".join(arguments)[:60] or "nothing")
def test_bitmap_command_lines(twin, images, arguments):
    """Exit code, output, and what the bitmaps are afterwards."""
    shutil.copytree(images, twin.theirs, dirs_exist_ok=True)
    twin.copy()
    ours, theirs = twin.both("img", "bitmap", *arguments)
    told = f"{arguments}\nours: {ours.stderr}\ntheirs: {theirs.stderr}"
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), told
    assert bool(ours.stderr) == (ours.returncode != 0), told
    for name in ("a.qcow2", "broken.qcow2", "orphan.qcow2", "old.qcow2"):
        path = twin.ours / name
        assert bitmaps.read(path) == bitmaps.read(twin.theirs / name), told
        if name in arguments and path.read_bytes() != (images / name).read_bytes() and name != "orphan.qcow2":
            clean(twin.ours, name)


@pytest.mark.parametrize("commands", [["write 0 64k", "flush"], ["write -z 1M 64k"], ["discard 1M 64k"], ["write -c 0 64k"],
                                      ["read 0 64k"]], ids=lambda commands: commands[0])
def test_bitmap_is_in_use_after_a_crash(twin, commands):
    """Whoever changes the disk and does not close it leaves enabled bitmaps inconsistent, and others as they were."""
    twin.make("-f", "qcow2", "a.qcow2", "4M")
    for name in ("on", "off"):
        img(OURS, twin.ours, "bitmap", "--add", "a.qcow2", name)
    io(OURS, twin.ours, "a.qcow2", "write 2M 1M")
    img(OURS, twin.ours, "bitmap", "--disable", "a.qcow2", "off")
    before = bitmaps.read(twin.ours / "a.qcow2")
    argv = [OURS["io"]]
    for command in commands:
        argv += ["-c", command]
    assert run([*argv, "-c", "abort", "a.qcow2"], twin.ours).returncode < 0
    after = bitmaps.read(twin.ours / "a.qcow2")
    changes = not commands[0].startswith("read")
    assert after["off"] == before["off"]
    assert after["on"] == ((bitmaps.AUTO | bitmaps.IN_USE, 65536, None) if changes else before["on"])
    human = [img(tools, twin.ours, "info", "a.qcow2") for tools in (OURS, THEIRS)]
    assert human[0] == human[1] and ("in-use" in human[0]) == changes
    if changes:
        img(OURS, twin.ours, "resize", "a.qcow2", "8M", code=1)
        result = run([OURS["img"], "bitmap", "--enable", "a.qcow2", "on"], twin.ours)
        assert result.returncode == 1 and "inconsistent" in result.stderr and "--remove" in result.stderr
    img(OURS, twin.ours, "bitmap", "--remove", "a.qcow2", "on")
    img(OURS, twin.ours, "check", "-r", "leaks", "a.qcow2")
    clean(twin.ours, "a.qcow2")
    assert list(bitmaps.read(twin.ours / "a.qcow2")) == ["off"]


def test_snapshots_are_not_applied_to_images_with_bitmaps(twin):
    twin.make("-f", "qcow2", "a.qcow2", "4M")
    for arguments in (["snapshot", "-c", "s"], ["bitmap", "--add", "--disable"]):
        img(THEIRS, twin.theirs, *arguments, "a.qcow2", *(["b"] if arguments[0] == "bitmap" else []))
    twin.copy()
    twin.same("img", "snapshot", "-a", "s", "a.qcow2")


def test_convert_copies_bitmaps(twin):
    """With the flags that they have, of any granularity; target and command lines as the real tool has them."""
    twin.make("-f", "qcow2", "a.qcow2", "4M")
    for name, granularity in (("on", "4k"), ("off", "64k"), ("coarse", "2M")):
        img(THEIRS, twin.theirs, "bitmap", "--add", "-g", granularity, "a.qcow2", name)
    io(THEIRS, twin.theirs, "a.qcow2", "write -P 1 10k 100k", "write -P 2 3M 5k")
    img(THEIRS, twin.theirs, "bitmap", "--disable", "a.qcow2", "off")
    img(THEIRS, twin.theirs, "snapshot", "-c", "s", "a.qcow2")
    twin.make("-f", "qcow2", "large.qcow2", "8M")
    twin.make("-f", "qcow2", "plain.qcow2", "4M")
    twin.write("disk.raw", bytes(1 << 20))
    (twin.theirs / "broken.qcow2").write_bytes((twin.theirs / "a.qcow2").read_bytes())
    run([THEIRS["io"], "-c", "write 0 64k", "-c", "abort", "broken.qcow2"], twin.theirs)
    twin.copy()
    both = ["--bitmaps", "--skip-broken-bitmaps"]
    for number, arguments in enumerate([
            ["--bitmaps", "a.qcow2"], ["--bitmaps", "-o", "cluster_size=512", "a.qcow2"], [*both, "a.qcow2"],
            ["--bitmaps", "-o", "compat=0.10", "a.qcow2"], ["--skip-broken-bitmaps", "a.qcow2"], ["--bitmaps", "-c", "a.qcow2"],
            ["--bitmaps", "broken.qcow2"], [*both, "broken.qcow2"], ["--bitmaps", "a.qcow2", "a.qcow2"],
            ["--bitmaps", "disk.raw"], ["--bitmaps", "plain.qcow2"], ["--bitmaps", "-l", "s", "a.qcow2"],
            ["--bitmaps", "-W", "-m", "4", "a.qcow2"]]):
        target = f"out{number}"
        twin.same("img", "convert", "-O", "qcow2", *arguments, target)
        there = [(directory / target).exists() for directory in (twin.ours, twin.theirs)]
        assert there[0] == there[1], arguments
        if there[0]:
            assert bitmaps.read(twin.ours / target) == bitmaps.read(twin.theirs / target), arguments
            twin.same_content(target, "qcow2")
    twin.same("img", "convert", "-O", "raw", "--bitmaps", "a.qcow2", "raw.out")
    for target, code in (("plain.qcow2", 0), ("plain.qcow2", 1), ("large.qcow2", 1)):
        result = twin.same("img", "convert", "-n", "-O", "qcow2", "--bitmaps", "a.qcow2", target)
        assert result.returncode == code
        assert bitmaps.read(twin.ours / target) == bitmaps.read(twin.theirs / target), target


def test_merging_from_another_image(twin):
    twin.make("-f", "qcow2", "a.qcow2", "4M")
    twin.make("-f", "qcow2", "-o", "cluster_size=4k", "other.qcow2", "4M")
    for name, granularity in (("a.qcow2", "512"), ("other.qcow2", "32k")):
        img(THEIRS, twin.theirs, "bitmap", "--add", "-g", granularity, name, "b")
    io(THEIRS, twin.theirs, "a.qcow2", "write 0 1k")
    io(THEIRS, twin.theirs, "other.qcow2", "write 100k 1k", "write 3M 1M")
    twin.copy()
    twin.same("img", "bitmap", "--merge", "b", "-b", "other.qcow2", "a.qcow2", "b")
    twin.same("img", "bitmap", "--merge", "b", "-b", "a.qcow2", "other.qcow2", "b")
    for name in ("a.qcow2", "other.qcow2"):
        assert bitmaps.read(twin.ours / name) == bitmaps.read(twin.theirs / name)
        clean(twin.ours, name)


# ---- what only a crafted image has ----

def crafted(twin, *names):
    """An image of the real tool with bitmaps in which something is set."""
    twin.make("-f", "qcow2", "a.qcow2", "4M")
    for name in names:
        img(THEIRS, twin.theirs, "bitmap", "--add", "a.qcow2", name)
    io(THEIRS, twin.theirs, "a.qcow2", "write 1M 200k")
    twin.copy()
    return twin.ours / "a.qcow2"


def entry_of(path, name):
    return next((at, entry) for at, entry in bitmaps.entries(path.read_bytes()) if entry["name"] == name)


def test_bitmaps_without_their_feature_bit_mean_nothing(twin):
    """Somebody wrote to the image who does not know them: they are neither shown nor kept."""
    path = crafted(twin, "b")
    patch(path, AUTOCLEAR, bytes(8))
    assert "bitmaps" not in img(OURS, twin.ours, "info", "a.qcow2")
    io(OURS, twin.ours, "a.qcow2", "write 0 64k")
    assert bitmaps.read(path) == {}
    img(OURS, twin.ours, "bitmap", "--add", "a.qcow2", "b")
    assert bitmaps.read(path) == {"b": (bitmaps.AUTO, 65536, set())}
    img(OURS, twin.ours, "check", "-r", "leaks", "a.qcow2")
    clean(twin.ours, "a.qcow2")


def test_unknown_kinds_and_extra_data_are_kept(twin):
    """Their entries, tables and bits stay what they are whatever is done to the disk and to other bitmaps."""
    path = crafted(twin, "b", "kind", "extra-is-no-harm", "extra-must-be-known")
    size, = struct.unpack_from(">Q", path.read_bytes(), bitmaps.extension_at(path.read_bytes()) + 8)
    directory = entry_of(path, "b")[0]
    old = bitmaps.entries(path.read_bytes())
    blob, extra = b"", {"extra-is-no-harm": b"0123456789", "extra-must-be-known": b"secret"}
    for _, e in old:
        name, data = e["name"].encode(), extra.get(e["name"], b"")
        flags = e["flags"] | (bitmaps.EXTRA_COMPATIBLE if e["name"] == "extra-is-no-harm" else 0)
        entry = struct.pack(">QIIBBHI", e["table"], e["table_size"], flags, 77 if e["name"] == "kind" else 1, 16,
                            len(name), len(data)) + data + name
        blob += entry + bytes(-len(entry) % 8)
    patch(path, directory, blob)
    patch(path, bitmaps.extension_at(path.read_bytes()) + 8, struct.pack(">Q", len(blob)))
    assert size != len(blob)
    before = dict(map(lambda found: (found[1]["name"], found[1]), bitmaps.entries(path.read_bytes())))
    bits = bitmaps.read(path)
    io(OURS, twin.ours, "a.qcow2", "write 3M 64k")
    img(OURS, twin.ours, "bitmap", "--add", "a.qcow2", "new")
    img(OURS, twin.ours, "bitmap", "--remove", "a.qcow2", "new")
    after = dict(map(lambda found: (found[1]["name"], found[1]), bitmaps.entries(path.read_bytes())))
    for name in ("kind", "extra-must-be-known"):
        assert after[name] == before[name] and bitmaps.read(path)[name] == bits[name]
        result = run([OURS["img"], "bitmap", "--clear", "a.qcow2", name], twin.ours)
        assert result.returncode == 1 and ("type 77" in result.stderr or "extra data" in result.stderr)
    assert after["extra-is-no-harm"]["extra"] == extra["extra-is-no-harm"]
    for name in ("b", "extra-is-no-harm"):
        assert bitmaps.read(path)[name][2] == bits[name][2] | {48}
    assert img(OURS, twin.ours, "check", "a.qcow2").startswith("No errors were found")
    for name in before:
        img(OURS, twin.ours, "bitmap", "--remove", "a.qcow2", name)
    clean(twin.ours, "a.qcow2")


@pytest.mark.parametrize("at,data,message", [
    (12, struct.pack(">I", 8), r"flags are 0x8, of which 0x8 are reserved"),
    (17, b"\x08", r"granularity_bits 8 is out of range; 9 to 31"),
    (17, b"\x20", r"granularity_bits 32 is out of range"),
    (8, struct.pack(">I", 2), r"the table has 2 entries; a disk of 4194304 bytes needs 1"),
    (8, struct.pack(">I", 0xFFFFFFFF), r"the table has 4294967295 entries; at most 8192"),
    (0, struct.pack(">Q", 0x10200), r"table offset 66048 is not a multiple of the cluster size 65536"),
    (0, struct.pack(">Q", 0), r"table offset 0 is the image header"),
    (0, struct.pack(">Q", 1 << 40), r"reaches past the end of the image file"),
    (18, struct.pack(">H", 0), r"a name of 0 bytes; 1 to 1023"),
    (18, struct.pack(">H", 2000), r"ends inside an entry"),
    (20, struct.pack(">I", 0xFFFFFFF0), r"ends inside an entry"),
    (24, b"two", r"the name 'two' is that of another one, too"),
    (24, b"o\0e", r"one of which is 0"),
])
def test_damaged_directory_is_refused_and_given_up_by_a_repair(twin, at, data, message):
    path = crafted(twin, "two", "one")
    patch(path, entry_of(path, "one")[0] + at, data)
    result = run([OURS["img"], "info", "a.qcow2"], twin.ours)
    assert result.returncode == 1 and re.search(message, result.stderr), result.stderr
    img(OURS, twin.ours, "check", "a.qcow2", code=2)
    result = run([OURS["img"], "check", "-r", "all", "a.qcow2"], twin.ours)
    assert result.returncode == 0 and "given up" in result.stdout + result.stderr, result.stdout + result.stderr
    assert bitmaps.read(path) == {}
    clean(twin.ours, "a.qcow2")
    assert run([OURS["io"], "-r", "-c", "read -P 205 1M 200k", "a.qcow2"], twin.ours).returncode == 0


@pytest.mark.parametrize("word", [1 << 63, 2, 0x10200, (1 << 40) | 1, 1 << 40])
def test_damaged_table_stops_writing_but_not_reading(twin, word):
    path = crafted(twin, "b")
    patch(path, entry_of(path, "b")[1]["table"], struct.pack(">Q", word))
    img(OURS, twin.ours, "info", "a.qcow2")
    img(OURS, twin.ours, "convert", "-O", "raw", "a.qcow2", "out.raw")
    result = run([OURS["io"], "-c", "write 0 1", "a.qcow2"], twin.ours)
    assert result.returncode == 1 and re.search(r"bitmap 'b': table entry 0 is 0x\w+", result.stderr), result.stderr
    img(OURS, twin.ours, "check", "-r", "all", "a.qcow2")
    clean(twin.ours, "a.qcow2")
    io(OURS, twin.ours, "a.qcow2", "write 0 1")


def test_all_ones_need_no_cluster(twin):
    """Both tools read a table entry that says so."""
    path = crafted(twin, "b")
    io(OURS, twin.ours, "a.qcow2", "write 0 4M")
    before = bitmaps.read(path)["b"][2]
    assert before == set(range(64))
    patch(path, entry_of(path, "b")[1]["table"], struct.pack(">Q", 1))
    for tools in (OURS, THEIRS):
        img(tools, twin.ours, "bitmap", "--add", "--merge", "b", "a.qcow2", "copy")
        assert bitmaps.read(path)["copy"][2] == before
        img(tools, twin.ours, "bitmap", "--remove", "a.qcow2", "copy")


def test_many_bitmaps(twin):
    """A directory of several clusters, each entry of another length."""
    twin.make("-f", "qcow2", "-o", "cluster_size=512", "a.qcow2", "1M")
    for number in range(40):
        mine = OURS if number % 2 else THEIRS
        img(mine, twin.ours, "bitmap", "--add", "a.qcow2", f"{number:02}" + "n" * (number * 7))
    io(OURS, twin.ours, "a.qcow2", "write 8k 4k")
    found = bitmaps.read(twin.ours / "a.qcow2")
    assert len(found) == 40 and all(bits == {2} for _, _, bits in found.values())
    assert img(OURS, twin.ours, "info", "a.qcow2") == img(THEIRS, twin.ours, "info", "a.qcow2")
    clean(twin.ours, "a.qcow2")
