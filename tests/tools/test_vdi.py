# SPDX-License-Identifier: MIT
"""VDI images: the real tools and ours make the same ones and read each other's."""

import json
import random
import struct

import pytest
from tools import OURS, THEIRS, run

BLOCK = 1 << 20
AT = {"version": 68, "type": 76, "map_offset": 340, "data_offset": 344, "sector_size": 360, "disk_size": 368,
      "block_size": 376, "block_extra": 380, "blocks": 384, "blocks_in_file": 388, "link": 424, "parent": 440}
KINDS = ["dynamic", "static"]


def options(kind):
    return ["-o", "static=on"] if kind == "static" else []


def field(path, name):
    data = path.read_bytes()
    return struct.unpack_from("<Q" if name == "disk_size" else "<I", data, AT[name])[0]


def patch(path, at, *values, form="<I"):
    with open(path, "r+b") as image:
        image.seek(AT.get(at, at))
        for value in values:
            image.write(struct.pack(form, value))


def entries(path):
    data = path.read_bytes()
    return struct.unpack_from(f"<{field(path, 'blocks')}I", data, field(path, "map_offset"))


@pytest.mark.parametrize("size", ["0", "512", "1M", "3000000", "5M", "130M"])
@pytest.mark.parametrize("kind", KINDS)
def test_create_makes_the_same_image(twin, kind, size):
    twin.same("img", "create", "-f", "vdi", *options(kind), "x", size)
    ours, theirs = (d / "x" for d in (twin.ours, twin.theirs))
    assert ours.stat().st_size == theirs.stat().st_size
    a, b = ours.read_bytes(), theirs.read_bytes()
    # The text in front, the size of the header and the UUIDs are the writer's.
    assert a[64:72] == b[64:72] and a[76:392] == b[76:392] and a[424:] == b[424:]
    twin.same("img", "info", "x", json_output=False)
    for directory in (twin.ours, twin.theirs):
        for tools in (OURS, THEIRS):
            assert run([tools["img"], "check", "x"], directory).returncode == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["falloc", "full"])
def test_preallocation_gives_each_block_a_place_and_the_file_its_space(tmp_path, kind, mode):
    run([OURS["img"], "create", "-q", "-f", "vdi", "-o", f"preallocation={mode}", *options(kind), "x", "3500k"],
        tmp_path).check_returncode()
    assert entries(tmp_path / "x") == (0, 1, 2, 3)
    assert (tmp_path / "x").stat().st_blocks * 512 >= 4 * BLOCK
    run([OURS["img"], "create", "-q", "-f", "raw", "y", "3500k"], tmp_path).check_returncode()
    for arguments in (["check", "x"], ["compare", "x", "y"]):
        assert run(["qemu-img", *arguments], tmp_path).returncode == 0


def test_a_static_image_takes_no_space_before_it_is_written(tmp_path):
    run([OURS["img"], "create", "-q", "-f", "vdi", "-o", "static=on", "x", "8M"], tmp_path).check_returncode()
    assert (tmp_path / "x").stat().st_blocks * 512 < BLOCK


def test_what_create_refuses(twin):
    for arguments in (["x"], ["-o", "static=maybe", "x", "1M"], ["-b", "y", "x", "1M"], ["x", "9P"],
                      ["-o", "nosuch=1", "x", "1M"]):
        ours, theirs = twin.both("img", "create", "-f", "vdi", *arguments)
        assert ours.returncode == theirs.returncode == 1, ours.stderr + theirs.stderr
    for size in ("1000", "256", "512M"):
        result = run([OURS["img"], "create", "-f", "vdi", "-o", f"block_size={size}", "x", "1M"], twin.ours)
        assert result.returncode == 1 and "block_size" in result.stderr, result.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_commands_give_the_same_image(twin, kind):
    draw = random.Random(7)
    twin.make("-f", "vdi", *options(kind), "x", "9M")
    for i in range(25):
        offset = draw.randrange(0, 9 * 2048) * 512
        size = min(draw.choice([512, 4096, 65536, 3 << 20]), (9 << 20) - offset)
        command = draw.choice([f"write -P {i + 1} {offset} {size}", f"write -z {offset} {size}",
                               f"read {offset} {size}", f"write -P {i + 1} {offset + 100} 412"])
        twin.same("io", "-f", "vdi", "-c", command, "x")
    twin.same_content("x", "vdi")
    twin.same_of_each("img", "map", "--output=json", "x")
    twin.same_of_each("img", "map", "x")
    twin.same_of_each("img", "check", "x")
    twin.same_of_each("img", "info", "x")


@pytest.mark.parametrize("kind", KINDS)
def test_both_convert_to_and_from_it(twin, kind):
    twin.make("-f", "qcow2", "x", "7M")
    twin.prepare("x", "write -P 1 0 64k", "write -P 2 2M 1M", "write -P 3 5000k 100k", "write -P 4 7339520 512")
    twin.same("img", "convert", "-O", "vdi", *options(kind), "x", "y")
    twin.same_content("y", "vdi")
    twin.same_of_each("img", "check", "y")
    twin.same("img", "compare", "x", "y")
    twin.same("img", "convert", "-O", "raw", "y", "z")
    assert (twin.ours / "z").read_bytes() == (twin.theirs / "z").read_bytes()
    assert entries(twin.ours / "y") == entries(twin.theirs / "y")


def test_info_as_json_is_the_same(twin):
    twin.make("-f", "vdi", "x", "5M")
    twin.same("img", "info", "--output=json", "x", json_output=True, ignore=["children", "actual-size"])


DAMAGE = {
    "count too low": [("blocks_in_file", 1)],
    "shared place": [(512 + 4 * 4, 0)],
    "past the end": [(512 + 4 * 4, 77)],
    "two of them": [(512 + 4 * 4, 77), (512 + 4 * 5, 1)],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_repaired(twin, damage):
    twin.make("-f", "vdi", "x", "8M")
    twin.prepare("x", "write -P 1 0 1M", "write -P 2 2M 64k", "write -P 3 3M 1M")
    for directory in (twin.ours, twin.theirs):
        for at, value in DAMAGE[damage]:
            patch(directory / "x", at, value)
    ours, theirs = twin.both("img", "check", "x")
    assert ours.returncode == theirs.returncode == 2, ours.stdout
    before = run([OURS["img"], "convert", "-O", "raw", "x", "before"], twin.ours)
    if damage in ("shared place", "past the end", "two of them"):
        refused = run([OURS["io"], "-c", "write 0 512", "x"], twin.ours)
        assert refused.returncode == 1 and "bdrv-img check" in refused.stderr
    dry = run([OURS["img"], "check", "--dry-run", "-r", "all", "x"], twin.ours)
    assert dry.returncode == 0, dry.stdout + dry.stderr
    assert run([OURS["img"], "check", "x"], twin.ours).returncode == 2
    repaired = run([OURS["img"], "check", "-r", "all", "x"], twin.ours)
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    for tools in (OURS, THEIRS):
        assert run([tools["img"], "check", "x"], twin.ours).returncode == 0
    run([OURS["img"], "convert", "-O", "raw", "x", "after"], twin.ours).check_returncode()
    if before.returncode == 0:
        assert (twin.ours / "before").read_bytes() == (twin.ours / "after").read_bytes()


def test_leaks_are_found_and_the_file_is_made_shorter(twin):
    twin.make("-f", "vdi", "x", "8M")
    twin.prepare("x", *(f"write -P {i + 1} {i}M 1M" for i in range(6)))
    x = twin.ours / "x"
    patch(x, 512 + 4 * 1, 0xffffffff, 0xffffffff)
    run([OURS["img"], "convert", "-O", "raw", "x", "before"], twin.ours).check_returncode()
    result = run([OURS["img"], "check", "--output=json", "x"], twin.ours)
    assert result.returncode == 3 and json.loads(result.stdout)["leaks"] == 2
    assert run([OURS["img"], "check", "-r", "leaks", "x"], twin.ours).returncode == 0
    assert x.stat().st_size == 1024 + 4 * BLOCK
    assert sorted(e for e in entries(x) if e != 0xffffffff) == [0, 1, 2, 3]
    for tools in (OURS, THEIRS):
        assert run([tools["img"], "check", "x"], twin.ours).returncode == 0
    run([THEIRS["img"], "convert", "-O", "raw", "x", "after"], twin.ours).check_returncode()
    assert (twin.ours / "before").read_bytes() == (twin.ours / "after").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_resizing_keeps_the_data_and_new_space_reads_as_zeroes(tmp_path, kind):
    run(["qemu-img", "create", "-q", "-f", "vdi", *options(kind), "x", "3M"], tmp_path).check_returncode()
    run(["qemu-img", "create", "-q", "-f", "raw", "model", "3M"], tmp_path).check_returncode()

    def both(*args):
        for name, fmt in (("x", "vdi"), ("model", "raw")):
            result = run([OURS[args[0]], *args[1:-1], "-f", fmt, name, args[-1]] if args[0] == "img" else
                         [OURS["io"], "-f", fmt, "-c", args[1], name], tmp_path)
            assert result.returncode == 0, result.stderr
        for tools in (OURS, THEIRS):
            result = run([tools["img"], "compare", "-f", "vdi", "-F", "raw", "x", "model"], tmp_path)
            assert result.returncode == 0, f"{args}: {result.stdout}{result.stderr}"
            result = run([tools["img"], "check", "-f", "vdi", "x"], tmp_path)
            assert result.returncode == 0, f"{args}: {result.stdout}{result.stderr}"

    both("io", "write -P 1 0 3M")
    both("img", "resize", "3500k")
    both("io", "write -P 2 3100k 400k")
    both("img", "resize", "--shrink", "3300k")
    both("img", "resize", "7M")
    both("io", "write -P 3 6M 1M")
    both("img", "resize", "--shrink", "1536k")
    both("img", "resize", "140M")   # the map needs a second sector and more
    both("io", "write -P 4 139M 1M")
    both("io", "write -P 5 1M 2M")
    both("img", "resize", "--shrink", "1k")
    both("img", "resize", "2M")
    assert run([OURS["img"], "resize", "--preallocation=full", "x", "9M"], tmp_path).returncode == 1
    assert run([OURS["img"], "resize", "x", "33T"], tmp_path).returncode == 1


def test_measure_tells_the_size_of_the_file(tmp_path):
    run([OURS["img"], "create", "-q", "-f", "qcow2", "x", "20M"], tmp_path).check_returncode()
    run([OURS["io"], "-c", "write 3M 1M", "-c", "write 10M 512", "x"], tmp_path).check_returncode()
    for extra in ([], ["-o", "static=on"]):
        measured = json.loads(run([OURS["img"], "measure", "--output=json", "-O", "vdi", *extra, "x"], tmp_path).stdout)
        run([OURS["img"], "convert", "-O", "vdi", *extra, "x", "y"], tmp_path).check_returncode()
        assert measured["required"] == (tmp_path / "y").stat().st_size
        assert measured["fully-allocated"] == 1024 + 20 * BLOCK


HOSTILE = [
    ("version", 0x00010000, "version 1.0"), ("type", 3, "type 3"), ("type", 0, "type 0"),
    ("map_offset", 511, "0x1ff"), ("map_offset", 0, "0x0"), ("map_offset", 0x40000000, "0x40000200"),
    ("data_offset", 1025, "0x401"), ("data_offset", 512, "0x200"), ("sector_size", 4096, "sector size 4096"),
    ("block_size", 0, "block size 0"), ("block_size", 3 << 20, "block size 3145728"), ("block_extra", 8, "8 extra bytes"),
    ("blocks", 4, "room for 4194304"), ("blocks", 0xffffffff, "4294967295 blocks"), ("blocks", 1 << 25, "block map"),
    ("link", 1, "link UUID"), ("parent", 1, "parent UUID"),
]


@pytest.mark.parametrize("name, value, words", HOSTILE)
def test_a_hostile_header_is_refused_by_field_and_value(tmp_path, name, value, words):
    run(["qemu-img", "create", "-q", "-f", "vdi", "x", "5M"], tmp_path).check_returncode()
    patch(tmp_path / "x", name, value)
    for arguments in (["info", "x"], ["check", "x"], ["convert", "-O", "raw", "x", "y"]):
        result = run([OURS["img"], *arguments], tmp_path)
        assert result.returncode == 1 and words in result.stderr, result.stderr


def test_a_hostile_disk_size_is_refused(tmp_path):
    run(["qemu-img", "create", "-q", "-f", "vdi", "x", "5M"], tmp_path).check_returncode()
    patch(tmp_path / "x", "disk_size", 0xffffffffffffffff, form="<Q")
    result = run([OURS["img"], "info", "x"], tmp_path)
    assert result.returncode == 1 and "18446744073709551615" in result.stderr


def test_random_bytes_in_header_and_map_crash_nothing(tmp_path):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    draw = random.Random(seed)
    run(["qemu-img", "create", "-q", "-f", "vdi", "good", "5M"], tmp_path).check_returncode()
    run(["qemu-io", "-c", "write 1M 2M", "good"], tmp_path).check_returncode()
    good = (tmp_path / "good").read_bytes()
    for _ in range(25):
        head = bytearray(good[:1024])
        for _ in range(draw.randrange(1, 5)):
            at = draw.choice([draw.randrange(340, 400), draw.randrange(512, 532), draw.randrange(64, 1024)])
            head[at] = draw.randrange(256)
        (tmp_path / "x").write_bytes(head + good[1024:])
        for argv in ([OURS["img"], "check", "-f", "vdi", "-r", "all", "x"],
                     [OURS["io"], "-f", "vdi", "-c", "read 0 5M", "-c", "write 0 3M", "x"]):
            result = run(argv, tmp_path)
            assert result.returncode in (0, 1, 2, 3), f"seed {seed}: {result.returncode} {result.stderr}"


def test_other_block_sizes_work(tmp_path):
    run([OURS["img"], "create", "-q", "-f", "vdi", "-o", "block_size=64k", "x", "1000k"], tmp_path).check_returncode()
    run([OURS["io"], "-c", "write -P 1 100k 500k", "-c", "read -P 1 100k 500k", "-c", "read -P 0 0 100k", "x"],
        tmp_path).check_returncode()
    assert json.loads(run([OURS["img"], "info", "--output=json", "x"], tmp_path).stdout)["cluster-size"] == 65536
    assert run([OURS["img"], "check", "x"], tmp_path).returncode == 0
