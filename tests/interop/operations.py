# SPDX-License-Identifier: MIT
"""
What a cell of the matrix does to its image, after it was made and written: one function each, named in ALL.

cell.img() and cell.io() run a command on the cell's image by its tool and on the other by the real one: same answers.
"""

from history import History

MIB = 1 << 20
REQUEST = 3 * MIB  # bytes at most
MOST_CLUSTERS = 1 << 26


def ranges(cell, grain=1):
    """[(offset, bytes)] at the beginning, in the middle, in other L2 tables, and at the end: in a disk of any size."""
    length, cluster = cell.length, cell.cluster
    wanted = [(0, 5 * cluster // 2), (length // 2 + 1000, cluster + 100), (cell.coverage, 2 * cluster),
              (length // 3, 300), (length - 3 * cluster // 2, 2 * cluster)]
    for offset, bytes_ in wanted:
        offset = max(0, min(offset, length))
        offset -= offset % grain
        bytes_ = min(-(-bytes_ // grain) * grain, REQUEST - REQUEST % grain, length - offset)
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
    assert cell.img("resize", *cell.where(), str(length), accept=(1,)).returncode == 1  # not without --shrink
    cell.resize(length, "--shrink")
    cell.io(*commands(cell, "write -P %", 1, 110))


def take(cell, name):
    return cell.img("snapshot", "-c", name, *cell.named(), accept=(0, 1)).returncode == 0


def apply(cell, name):
    """Refused where there are bitmaps."""
    return cell.img("snapshot", "-a", name, *cell.named(), accept=(0, 1)).returncode == 0


def list_snapshots(cell):
    cell.img("snapshot", "-l", *cell.named())


def snapshot_create(cell):
    if take(cell, "one"):
        cell.io(*commands(cell, "write -P %", 1, 120))
        take(cell, "two")
    list_snapshots(cell)


def snapshot_apply(cell):
    if take(cell, "one"):
        cell.io(*commands(cell, "write -P %", 512, 130), *commands(cell, "discard", cell.cluster))
        apply(cell, "one")
        cell.io(*commands(cell, "write -P %", 1, 140))
    cell.img("snapshot", "-a", "none", *cell.named(), accept=(1,))


def snapshot_delete(cell):
    if take(cell, "one"):
        cell.io(*commands(cell, "write -P %", 512, 150))
        take(cell, "two")
        cell.img("snapshot", "-d", "one", *cell.named())
        cell.io(*commands(cell, "write -P %", 1, 160))
    cell.img("snapshot", "-d", "none", *cell.named(), accept=(1,))
    list_snapshots(cell)


def vmstate(cell):
    """In a snapshot it stays as it was; it lies behind the disk."""
    cell.io("write -b -P 170 0 100k", "write -b -P 171 1M 3k", "read -b -v -q 0 2M", accept=(0, 1))
    if take(cell, "one"):
        cell.io("write -b -P 172 512 70k", *commands(cell, "write -P %", 1, 173))
        if apply(cell, "one"):
            cell.io("read -b -P 170 0 100k", "read -b -P 171 1M 3k")


def bitmap(cell):
    """Bits set by one tool are kept by the other, through a resize too."""
    def change(*words, accept=(0,)):
        return cell.img("bitmap", *words[:-1], *cell.where(), words[-1], accept=accept).returncode == 0

    if not change("--add", "b", accept=(0, 1)):
        return
    cell.io(*commands(cell, "write -P %", 1, 200), *commands(cell, "write -z", 512))
    change("--add", "-g", "1M", "wide")
    change("--add", "--disable", "-g", "64k", "still")
    cell.same_bitmaps()
    cell.swap()
    change("--add", "--disable", "--merge", "b", "-g", "4k", "merged")
    change("--disable", "b")
    cell.resize(cell.length + MIB)
    cell.io(*commands(cell, "write -P %", 1, 210), *commands(cell, "discard", cell.cluster))
    cell.same_bitmaps()
    cell.swap()
    change("--clear", "--merge", "wide", "b")
    change("--enable", "b")
    change("--enable", "still")
    change("--remove", "wide")
    change("--remove", "none", accept=(1,))
    cell.io("write -P 3 0 %d" % min(cell.length, 100000))
    cell.same_bitmaps()


def amend(cell):
    """Each option that can change, by both tools. Version 2 has no bitmaps: the real tool loses them, ours refuses."""
    versions = ["compat=0.10", "compat=1.1"] if cell.row["bitmap"] == "none" else []
    for words in ("lazy_refcounts=on", "refcount_bits=8", "refcount_bits=64", *versions, "lazy_refcounts=off",
                  "size=%d" % (cell.length + MIB), "data_file_raw=off", "cluster_size=8k"):
        done = cell.amend(words)
        if words.startswith("size") and done.returncode == 0:
            cell.length += MIB
        cell.io(*commands(cell, "write -P %", 4096, 215))
        cell.clean("image")
        cell.swap()


def amend_backing(cell):
    """The name of the backing file, and that there is none."""
    cell.amend("backing_file=base,backing_fmt=" + cell.base_format)
    cell.io(*commands(cell, "write -P %", 1, 130))
    cell.amend("backing_file=", accept=(0, 1))


def commit(cell):
    """Into the backing file; what was committed is not in the image any more, unless it has to be."""
    raised = cell.row["backing"] != "none"
    accept = (0,) if raised else (1,)
    for words in ([], ["-d"], ["-b", "base"]):
        cell.img("commit", *words, *cell.where(), accept=accept)
        if raised:
            cell.same_content("base", fmt=cell.base_format)
        cell.verify()
        cell.io(*commands(cell, "write -P %", 512, 90), *commands(cell, "write -z", cell.cluster))
        cell.swap()


def rebase(cell):
    """To a file of other content, then without looking at what is there, then to none."""
    *_, other_format = cell.make_base("other", "raw", max(cell.length - cell.cluster, 0), 60)
    other = ["-b", cell.beside("other"), "-F", other_format]
    base = ["-b", cell.beside("base"), "-F", cell.base_format]
    for words in (other, ["-u", *base], [*other, "-t", "unsafe"], ["-b", ""]):
        cell.img("rebase", *words, *cell.where())
        cell.verify()
        cell.swap()
    cell.io(*commands(cell, "write -P %", 1, 90))


def key_slots(cell):
    """Keys added and erased by either tool, for both."""
    def change(*words, accept=(0,)):
        told = ",".join("encrypt." + word for word in words)
        cell.amend(told, accept if cell.row["encryption"] == "luks" else (1,))
        cell.swap()

    change("state=active", "new-secret=new", "iter-time=10")
    change("state=active", "new-secret=wrong", "keyslot=5", "iter-time=10")
    change("state=inactive", "old-secret=wrong")
    if cell.row["encryption"] == "luks":
        cell.same_keys()
    change("state=active", "new-secret=wrong", "keyslot=7", "iter-time=10")
    change("state=inactive", "keyslot=1")
    change("state=inactive", "keyslot=3", accept=(1,))


def repair(cell):
    """A leak and a missing COPIED flag, both found and mended by both."""
    cell.damage()
    for mode in ("leaks", "all"):
        cell.on_copies("check", "-r", mode, "--output=json", *cell.where(), accept=(0, 2, 3))


def kill(cell):
    """What was flushed is there, whoever opens it next."""
    cell.io(*commands(cell, "write -P %", 1, 180), "flush", *commands(cell, "write -P %", 4096, 190), "flush", "abort",
            accept=(-6,), told=False)
    cell.io(*commands(cell, "write -z", 4096))


def convert_in(cell):
    cell.img("convert", "-O", "raw", *cell.where(), "raw")
    cell.img("convert", "-f", "raw", "-O", "qcow2", "-o", cell.options("again"), "raw", "again")
    cell.verify("again")
    if cell.length // cell.cluster > MOST_CLUSTERS:
        return  # all of them become zero clusters
    target = ["--target-image-opts", cell.spec("again")] if cell.encrypted else ["-O", "qcow2", "again"]
    cell.img("convert", "-n", *cell.where(), *target)
    cell.verify("again")


def convert_compressed(cell):
    cell.img("convert", "-c", "-O", "qcow2", "-o", cell.options("again"), *cell.where(), "again", accept=(0, 1))
    if cell.exists("again"):
        cell.verify("again")


def convert_out(cell):
    bitmaps = [] if cell.row["bitmap"] == "none" else ["--bitmaps"]
    cell.img("convert", *bitmaps, "-O", "qcow2", "-o", "cluster_size=16k,extended_l2=on", *cell.where(), "other")
    cell.verify("other")
    cell.img("convert", "-f", "qcow2", "-O", "qcow2", "-o", "compat=0.10", "-S", "0" if cell.is_small() else "4k",
             "other", "old")
    cell.verify("old")


def measure(cell):
    size = str(cell.length)
    for words in (cell.where(), ["-O", "raw", *cell.where()], ["--size", size],
                  ["-o", cell.options("x"), "--size", size], ["-o", cell.options("x"), *cell.where()]):
        cell.img("measure", *words, accept=(0, 1))
        cell.img("measure", "--output=json", *words, accept=(0, 1))


def tell(cell):
    """All that only tells something."""
    part = ["--start-offset", str(cell.length // 3), "--max-length", "1M"]
    for words in (["info", "image"], ["info", "--backing-chain", "image"], ["map", *cell.where()],
                  ["map", "--output=json", *part, *cell.where()],
                  ["check", *cell.where()], ["info", "--output=json", "--backing-chain", "image"]):
        for place in (cell.a, cell.b):
            cell.asked(place, *words, accept=(0, 1))
    info = [] if cell.row["encryption"] == "luks" else ["info"]  # the keys, of two images
    cell.io(*info, "length", "map", *commands(cell, "alloc"), *commands(cell, "read -v -q"), options=False)


def compare(cell):
    cell.img("convert", "-O", "raw", *cell.where(), "raw")
    cell.img("compare", *cell.both("image", "raw"))
    # With another format the real tool also holds against each other how far extents reach.
    cell.img("compare", "-s", *cell.both("image", "image"))
    cell.io("write -P 200 %d 100" % (cell.length // 2))
    cell.img("compare", *cell.both("image", "raw"), accept=(1,))


def dd(cell):
    *flags, source = cell.where()
    cell.img("dd", *flags, "-O", "raw", "bs=1000", "count=70", "skip=3", "if=" + source, "of=part")
    cell.same_files("part")
    if cell.is_small():
        cell.img("dd", *flags, "-O", "qcow2", "bs=64k", "if=" + source, "of=copy")
        cell.verify("copy")


def turns(cell):
    """Random requests, by one tool and by the other."""
    for _ in range(4 if cell.length else 0):
        cell.io(*History(cell.rng, cell.length, cell.cluster).commands(60))
        cell.clean("image")
        cell.swap()


# Where one tool sets bits though nothing was changed that a guest can see: the real one of parts of clusters, which no
# discard frees; ours of all of a cluster that rebase keeps.
TRACKED_WIDER = ["discard", "write_compressed", "turns", "rebase"]

ALL = {f.__name__: f for f in [
    write, write_zeroes, write_zeroes_unmap, discard, write_compressed, overwrite, grow, grow_much, grow_preallocated,
    shrink, snapshot_create, snapshot_apply, snapshot_delete, vmstate, bitmap, amend, amend_backing, commit,
    rebase, key_slots, repair, kill, convert_in, convert_compressed, convert_out, measure, tell, compare, dd, turns]}
