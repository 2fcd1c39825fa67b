# SPDX-License-Identifier: MIT
"""qcow2 images in several shapes, and damage done to their metadata, for tests of check and repair."""

import pathlib

from tools import run

COPIED, COMPRESSED, ZERO = 1 << 63, 1 << 62, 1
OFFSET = 0x00FFFFFFFFFFFE00
EXTENDED_L2 = 16  # of the incompatible features
SIZE = 1 << 20

# name: options of qemu-img create
SHAPES = {
    "plain": "cluster_size=4k",
    "small": "cluster_size=512",
    "large": "cluster_size=64k",
    "metadata": "cluster_size=4k,preallocation=metadata",
    "bits1": "cluster_size=4k,refcount_bits=1",
    "bits8": "cluster_size=4k,refcount_bits=8",
    "bits64": "cluster_size=4k,refcount_bits=64",
    "v2": "cluster_size=4k,compat=0.10",
    "backing": "cluster_size=4k",
    "v2backing": "cluster_size=4k,compat=0.10",
    "compressed": "cluster_size=4k",
    "snapshots": "cluster_size=4k",
    "bitmaps": "cluster_size=4k",
    "subclusters": "cluster_size=16k,extended_l2=on",
    "subclusters backing": "cluster_size=16k,extended_l2=on",
}
# For systematic damage only.
MORE_SHAPES = {
    "bits2": "cluster_size=4k,refcount_bits=2",
    "bits4": "cluster_size=4k,refcount_bits=4",
    "bits32": "cluster_size=4k,refcount_bits=32",
    "data file": "cluster_size=4k,data_file=data",
    "luks": "cluster_size=4k,encrypt.format=luks,encrypt.iter-time=10,encrypt.key-secret=key",
    "aes": "cluster_size=4k,encrypt.format=aes,encrypt.key-secret=key",
    "zstd compressed": "cluster_size=4k,compression_type=zstd",
    "raw data file": "cluster_size=4k,data_file=data,data_file_raw=on",
}
ENCRYPTED = ("luks", "aes")
SECRET = ["--object", "secret,id=key,data=passphrase"]
SNAPSHOTS = ("one", "two")


def tool(directory, *argv):
    run(argv, directory).check_returncode()


def io(directory, name, *commands, where=None):
    argv = ["qemu-io"]
    for command in commands:
        argv += ["-c", command]
    tool(directory, *argv, *(where or ["-f", "qcow2", name]))


def make(directory, shape, name="image"):
    """An image of this shape with data in it."""
    directory = pathlib.Path(directory)
    options = ["-o", {**SHAPES, **MORE_SHAPES}[shape]]
    writes = ["write -P 1 0 300k", "write -P 2 500k 100k", "write -z 600k 40k", "write -P 3 700k 9k",
              "write -P 4 900k 124k"]
    if "backing" in shape:
        (directory / "base").write_bytes(bytes([9]) * SIZE)
        tool(directory, "qemu-img", "create", "-q", "-f", "qcow2", *options, "-b", "base", "-F", "raw", name)
        io(directory, name, *[w for w in writes if "-z" not in w or shape != "v2backing"])
        return
    key = SECRET if shape in ENCRYPTED else []
    tool(directory, "qemu-img", "create", "-q", *key, "-f", "qcow2", *options, name, str(SIZE))
    if shape == "v2":
        writes = [w for w in writes if "-z" not in w]
    where = [*key, "--image-opts", "driver=qcow2,encrypt.key-secret=key,file.filename=" + name] if key else None
    io(directory, name, *writes, where=where)
    if "compressed" in shape:
        text = b"".join(b"%d " % (i * i) for i in range(SIZE // 6))[:SIZE // 2]
        (directory / "text").write_bytes(text + bytes(SIZE - len(text)))
        tool(directory, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", *options, "text", name)
        io(directory, name, "write -P 5 8k 8k", "write -P 6 600k 8k")
    elif shape == "snapshots":
        for number, snapshot in enumerate(SNAPSHOTS):
            tool(directory, "qemu-img", "snapshot", "-c", snapshot, name)
            io(directory, name, f"write -P {10 + number} {number * 100}k 40k", "write -P 7 800k 4k")
    elif shape == "bitmaps":
        for bitmap in ("first", "second"):
            tool(directory, "qemu-img", "bitmap", "--add", "-g", "4k", name, bitmap)
        io(directory, name, "write -P 8 400k 8k")


class Image:
    """The bytes of an image, and where its structures lie."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.data = bytearray(self.path.read_bytes())
        self.version = self.get(4, 4)
        self.cluster_bits = self.get(20, 4)
        self.cluster = 1 << self.cluster_bits
        self.l1_size, self.l1 = self.get(36, 4), self.get(40, 8)
        self.reftable, self.reftable_clusters = self.get(48, 8), self.get(56, 4)
        self.refcount_bits = 1 << (self.get(96, 4) if self.version >= 3 else 4)
        extended = self.version >= 3 and self.get(72, 8) & EXTENDED_L2
        self.l2_entry_bytes = 16 if extended else 8
        self.snapshot_entries = self.find_snapshot_entries()
        self.l1_entries = self.find_l1_entries()
        self.l2_entries = self.find_l2_entries()
        self.refblocks = self.find_refblocks()

    def get(self, offset, width):
        return int.from_bytes(self.data[offset:offset + width], "big")

    def put(self, offset, width, value):
        self.data[offset:offset + width] = value.to_bytes(width, "big")

    def save(self, path=None):
        pathlib.Path(path or self.path).write_bytes(self.data)

    def l1_tables(self):
        """[(offset, entries)] of the active one and those of snapshots."""
        entries = [(self.get(at, 8), self.get(at + 8, 4)) for at in self.snapshot_entries]
        return [(self.l1, self.l1_size), *entries]

    def find_snapshot_entries(self):
        entries, at = [], self.get(64, 8)
        for _ in range(self.get(60, 4)):
            entries.append(at)
            length = 40 + self.get(at + 36, 4) + self.get(at + 12, 2) + self.get(at + 14, 2)
            at += (length + 7) // 8 * 8
        return entries

    def find_l1_entries(self):
        """[(place, guest clusters)] of entries in use."""
        per_table = self.cluster // self.l2_entry_bytes
        found = []
        for offset, entries in self.l1_tables():
            found += [(offset + 8 * i, range(i * per_table, (i + 1) * per_table)) for i in range(entries)
                      if self.get(offset + 8 * i, 8)]
        return found

    def find_l2_entries(self):
        """[(place, guest cluster)] of entries in use."""
        found = {}
        for place, guest in self.l1_entries:
            table = self.get(place, 8) & OFFSET
            for i, cluster in enumerate(guest):
                place = table + self.l2_entry_bytes * i
                if self.get(place, self.l2_entry_bytes):
                    found[place] = cluster
        return sorted(found.items())

    def find_refblocks(self):
        offsets = [self.get(self.reftable + i, 8) for i in range(0, self.reftable_clusters * self.cluster, 8)]
        return [offset for offset in offsets if offset]


def some_value(rng, image, old):
    """What a damaged pointer may hold."""
    tables = [image.l1, image.reftable, image.refblocks[0], image.get(image.l1_entries[0][0], 8) & OFFSET]
    kind = rng.randrange(8)
    if kind == 0:
        return 0
    if kind == 1:
        return rng.getrandbits(64)
    if kind == 2:
        return COPIED | rng.choice(tables)
    if kind == 3:
        return COPIED | rng.randrange(1, len(image.data) // image.cluster + 2) * image.cluster
    if kind == 4:
        return COMPRESSED | rng.randrange(len(image.data))
    return old ^ 1 << rng.randrange(64)


def damage_l1(rng, image):
    place, guest = rng.choice(image.l1_entries)
    image.put(place, 8, some_value(rng, image, image.get(place, 8)) & ~(COMPRESSED))
    return set(guest)


def damage_l2(rng, image):
    place, guest = rng.choice(image.l2_entries)
    if image.l2_entry_bytes == 16 and rng.random() < 0.5:
        old = image.get(place + 8, 8)
        image.put(place + 8, 8, rng.choice([0, rng.getrandbits(64), old ^ 1 << rng.randrange(64), old | old << 32 & 2**64 - 1]))
        return {guest}
    image.put(place, 8, some_value(rng, image, image.get(place, 8)))
    return {guest}


def damage_reftable(rng, image):
    place = image.reftable + 8 * rng.randrange(3 if rng.random() < 0.5 else image.cluster // 8)
    image.put(place, 8, some_value(rng, image, image.get(place, 8)))
    return set()


def damage_refblock(rng, image):
    block = rng.choice(image.refblocks)
    used = min(image.cluster, len(image.data) // image.cluster * image.refcount_bits // 8 + 1)
    for _ in range(rng.randrange(1, 20)):
        image.put(block + rng.randrange(used), 1, rng.getrandbits(8))
    return set()


def damage_refcount_header(rng, image):
    offset, width = rng.choice([(48, 8), (56, 4)])
    old = image.get(offset, width)
    image.put(offset, width, rng.choice([0, old ^ 1 << rng.randrange(8 * width), rng.getrandbits(8 * width)]))
    return set()


def damage_snapshot(rng, image):
    """A field of one entry; what was lost is the snapshot's name."""
    if image.get(60, 4) == 0:
        return set()
    number = rng.randrange(len(SNAPSHOTS))
    at = image.snapshot_entries[number]
    offset, width = rng.choice([(0, 8), (8, 4), (12, 2), (14, 2), (36, 4)])
    old = image.get(at + offset, width)
    image.put(at + offset, width, rng.choice([0, old ^ 1 << rng.randrange(8 * width), rng.getrandbits(8 * width)]))
    return {SNAPSHOTS[number]}


def damage_snapshot_count(rng, image):
    if image.get(60, 4):
        image.put(60, 4, image.get(60, 4) ^ 1 << rng.randrange(2, 32))
    return set()


DAMAGES = [damage_l1, damage_l2, damage_l2, damage_l2, damage_reftable, damage_refblock, damage_refcount_header,
           damage_snapshot, damage_snapshot_count]
