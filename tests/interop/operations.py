# SPDX-License-Identifier: MIT
"""
What a cell of the matrix does to its image, after it was made and written: one function each, named in ALL.

cell.img() and cell.io() run a command on the cell's image by its tool and on the other by the real one: same answers.
"""

from history import History

MIB = 1 << 20
REQUEST = 3 * MIB  # bytes at most


def ranges(cell, grain=1):
    """[(offset, bytes)] at the beginning, in the middle, in other L2 tables, and at the end: in a disk of any size."""
    length, cluster = cell.length, cell.cluster
    wanted = [(0, 5 * cluster // 2), (length // 2 + 1000, cluster + 100), (cell.coverage, 2 * cluster),
              (length // 3, 300), (length - 3 * cluster // 2, 2 * cluster)]
    for offset, bytes_ in wanted:
        offset = max(0, min(offset, length))
        offset -= offset % grain
        bytes_ = min(-(-bytes_ // grain) * grain, REQUEST, length - offset)
        if bytes_ > 0:
            yield offset, bytes_


def commands(cell, command, grain=1, first=1):
    return [command.replace("%", str(first + i)) + " %d %d" % place for i, place in enumerate(ranges(cell, grain))]


def prepare(cell):
    """Data, zeroes and holes."""
    yield from commands(cell, "write -P %")
    if cell.length > 8 * cell.cluster:
        yield "write -z %d %d" % (3 * cell.cluster, cell.cluster)
        yield "write -P 77 %d 700" % (6 * cell.cluster - 300)


def write(cell):
    cell.io(*commands(cell, "write -P %", 512, 20), "flush", *commands(cell, "write -f -P %", 1, 30))


def write_zeroes(cell):
    cell.io(*commands(cell, "write -z"), *commands(cell, "write -z", cell.cluster), *commands(cell, "read -P 0"))


def write_zeroes_unmap(cell):
    cell.io(*commands(cell, "write -z -u"), *commands(cell, "write -P %", 4096, 40),
            *commands(cell, "write -z -u", cell.cluster))


def discard(cell):
    cell.io(*commands(cell, "discard"), *commands(cell, "discard", cell.cluster), *commands(cell, "write -P %", 1, 50))


def write_compressed(cell):
    places = [offset - offset % cell.cluster for offset, _ in ranges(cell)]
    places = [(at, min(cell.cluster, cell.length - at)) for at in dict.fromkeys(places) if at < cell.length]
    lines = ["write -c -P %d %d %d" % (60 + i, *place) for i, place in enumerate(places)]
    cell.io("discard 0 %d" % min(cell.length, REQUEST), *lines, *lines, "flush",
            *commands(cell, "write -P %", 1, 70), accept=(0, 1))


def overwrite(cell):
    """As commit does it: the disk from the beginning to the end."""
    step = max(65536, cell.cluster // 2)
    cell.io(*["write -P %d %d %d" % (at // step % 255 + 1, at, min(step, cell.length - at))
              for at in range(0, min(cell.length, 4 * MIB), step)], "flush")


def grow(cell):
    cell.resize(cell.length + cell.cluster * 3 // 2 // 512 * 512 + 512)
    cell.io(*commands(cell, "write -P %", 1, 80), *commands(cell, "read -v -q"))


def grow_much(cell):
    """More L2 tables; where the L1 table has no place for them, it moves."""
    most = 64 * MIB if cell.row["data_file"] == "raw" else 1 << 42  # all of a raw data file is data, to be read
    cell.resize(cell.length + 9 * min(cell.coverage, most))
    cell.io(*commands(cell, "write -P %", 1, 90))


def grow_preallocated(cell):
    mode = ["metadata", "falloc", "full"][cell.seed % 3]
    cell.resize(cell.length + 2 * min(cell.cluster, MIB), "--preallocation=" + mode, accept=(0, 1))
    cell.io(*commands(cell, "write -P %", 1, 100))


def shrink(cell):
    length = cell.length * 5 // 9 // 512 * 512
    assert cell.img("resize", "image", str(length), accept=(1,)).returncode == 1  # not without --shrink
    cell.resize(length, "--shrink")
    cell.io(*commands(cell, "write -P %", 1, 110))


def take(cell, name):
    return cell.img("snapshot", "-c", name, "image", accept=(0, 1)).returncode == 0


def list_snapshots(cell):
    cell.img("snapshot", "-l", "image")


def snapshot_create(cell):
    if take(cell, "one"):
        cell.io(*commands(cell, "write -P %", 1, 120))
        take(cell, "two")
    list_snapshots(cell)


def snapshot_apply(cell):
    if take(cell, "one"):
        cell.io(*commands(cell, "write -P %", 512, 130), *commands(cell, "discard", cell.cluster))
        cell.img("snapshot", "-a", "one", "image")
        cell.io(*commands(cell, "write -P %", 1, 140))
    cell.img("snapshot", "-a", "none", "image", accept=(1,))


def snapshot_delete(cell):
    if take(cell, "one"):
        cell.io(*commands(cell, "write -P %", 512, 150))
        take(cell, "two")
        cell.img("snapshot", "-d", "one", "image")
        cell.io(*commands(cell, "write -P %", 1, 160))
    cell.img("snapshot", "-d", "none", "image", accept=(1,))
    list_snapshots(cell)


def vmstate(cell):
    """In a snapshot it stays as it was; it lies behind the disk."""
    cell.io("write -b -P 170 0 100k", "write -b -P 171 1M 3k", "read -b -v -q 0 2M", accept=(0, 1))
    if take(cell, "one"):
        cell.io("write -b -P 172 512 70k", *commands(cell, "write -P %", 1, 173))
        cell.img("snapshot", "-a", "one", "image")
        cell.io("read -b -P 170 0 100k", "read -b -P 171 1M 3k")


def bitmap(cell):
    """Bits set by one tool are kept by the other, through a resize too."""
    if cell.img("bitmap", "--add", "image", "b", accept=(0, 1)).returncode:
        return
    cell.io(*commands(cell, "write -P %", 1, 200), *commands(cell, "write -z", 512))
    cell.img("bitmap", "--add", "-g", "1M", "image", "wide")
    cell.same_bitmaps()
    cell.swap()
    cell.img("bitmap", "--add", "--disable", "--merge", "b", "-g", "4k", "image", "merged")
    cell.resize(cell.length + MIB)
    cell.io(*commands(cell, "write -P %", 1, 210))
    cell.same_bitmaps()
    cell.swap()
    cell.img("bitmap", "--clear", "--merge", "wide", "image", "b")
    cell.img("bitmap", "--remove", "image", "wide")
    cell.same_bitmaps()


def repair(cell):
    """A leak and a missing COPIED flag, both found and mended by both."""
    cell.damage()
    for mode in ("leaks", "all"):
        cell.on_copies("check", "-r", mode, "--output=json", "image", accept=(0, 2, 3))


def kill(cell):
    """What was flushed is there, whoever opens it next."""
    cell.io(*commands(cell, "write -P %", 1, 180), "flush", *commands(cell, "write -P %", 4096, 190), "flush", "abort",
            accept=(-6,), told=False)
    cell.io(*commands(cell, "write -z", 4096))


def convert_in(cell):
    cell.img("convert", "-f", "qcow2", "-O", "raw", "image", "raw")
    cell.img("convert", "-f", "raw", "-O", "qcow2", "-o", cell.options("again"), "raw", "again")
    cell.verify("again")
    cell.img("convert", "-f", "qcow2", "-O", "qcow2", "-n", "image", "again")
    cell.verify("again")


def convert_compressed(cell):
    cell.img("convert", "-c", "-f", "qcow2", "-O", "qcow2", "-o", cell.options("again"), "image", "again",
             accept=(0, 1))
    if cell.exists("again"):
        cell.verify("again")


def convert_out(cell):
    cell.img("convert", "-f", "qcow2", "-O", "qcow2", "-o", "cluster_size=16k,extended_l2=on", "image", "other")
    cell.verify("other")
    cell.img("convert", "-f", "qcow2", "-O", "qcow2", "-o", "compat=0.10", "-S", "0" if cell.is_small() else "4k",
             "other", "old")
    cell.verify("old")


def measure(cell):
    size = str(cell.length)
    for words in (["-f", "qcow2", "image"], ["-f", "qcow2", "-O", "raw", "image"], ["--size", size],
                  ["-o", cell.options("x"), "--size", size], ["-o", cell.options("x"), "-f", "qcow2", "image"]):
        cell.img("measure", *words, accept=(0, 1))
        cell.img("measure", "--output=json", *words, accept=(0, 1))


def tell(cell):
    """All that only tells something."""
    for words in (["info", "image"], ["info", "--backing-chain", "image"], ["map", "image"],
                  ["map", "--output=json", "--start-offset", str(cell.length // 3), "--max-length", "1M", "image"],
                  ["check", "image"], ["info", "--output=json", "--backing-chain", "image"]):
        cell.on_copies(*words, accept=(0, 1))
    cell.io("info", "length", "map", *commands(cell, "alloc"), *commands(cell, "read -v -q"), options=False)


def compare(cell):
    cell.img("convert", "-f", "qcow2", "-O", "raw", "image", "raw")
    cell.img("compare", "-f", "qcow2", "-F", "raw", "image", "raw")
    # Where the raw file has holes is its writer's business.
    cell.img("compare", "-s", "-f", "qcow2", "-F", "raw", "image", "raw", accept=(0, 1), told=False)
    cell.io("write -P 200 %d 100" % (cell.length // 2))
    cell.img("compare", "-f", "qcow2", "-F", "raw", "image", "raw", accept=(1,))


def dd(cell):
    cell.img("dd", "-f", "qcow2", "-O", "raw", "bs=1000", "count=70", "skip=3", "if=image", "of=part")
    cell.same_files("part")
    if cell.is_small():
        cell.img("dd", "-f", "qcow2", "-O", "qcow2", "bs=64k", "if=image", "of=copy")
        cell.verify("copy")


def turns(cell):
    """Random requests, by one tool and by the other."""
    for _ in range(4 if cell.length else 0):
        cell.io(*History(cell.rng, cell.length, cell.cluster).commands(60))
        cell.clean("image")
        cell.swap()


ALL = {f.__name__: f for f in [
    write, write_zeroes, write_zeroes_unmap, discard, write_compressed, overwrite, grow, grow_much, grow_preallocated,
    shrink, snapshot_create, snapshot_apply, snapshot_delete, vmstate, bitmap, repair, kill, convert_in, convert_compressed,
    convert_out, measure, tell, compare, dd, turns]}
