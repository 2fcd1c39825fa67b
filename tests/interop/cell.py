# SPDX-License-Identifier: MIT
"""One cell of the matrix: an image in directory "a" of its tools, its twin of the real tools in "b"."""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import pathlib

import matrix
import operations
from tools import OURS, THEIRS, normalise, run

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tools"))
import bitmaps  # noqa: E402
from damage import COPIED, Image  # noqa: E402

BLOCK = 65536
TOOLS = {"ours": OURS, "theirs": THEIRS}
HERE = "{here}"  # in a command: the directory of the image
SMALL = 64 << 20
TIMEOUT = 300
DATES = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
FORMAT = ["-f", "qcow2"]
SECRETS = [word for name in matrix.SECRETS for word in ("--object", "secret,id=%s,data=phrase of %s" % (name, name))]


class KnownDifference(Exception):
    """The tools differ here and are meant to; what comes after cannot be compared."""


def data_of(file):
    """[(offset, bytes)] of what is not a hole, in blocks."""
    end, at = os.fstat(file.fileno()).st_size, 0
    while at < end:
        try:
            at = os.lseek(file.fileno(), at, os.SEEK_DATA)
        except OSError:  # nothing but a hole is left
            return
        hole = os.lseek(file.fileno(), at, os.SEEK_HOLE)
        at -= at % BLOCK
        while at < hole:
            yield at, min(BLOCK, end - at)
            at += BLOCK


def content(path):
    """The same for the same bytes, wherever the holes are."""
    digest = hashlib.sha256(b"%d" % path.stat().st_size)
    with path.open("rb") as file:
        for at, bytes_ in data_of(file):
            block = os.pread(file.fileno(), bytes_, at)
            if block.strip(b"\0"):
                digest.update(b"%d" % at + block)
    return digest.hexdigest()


def merged(entries):
    """Of a map: where one entry ends is nobody's promise."""
    found = []
    for entry in entries:
        last = found[-1] if found else {}
        place = last["offset"] + last["length"] if "offset" in last else None
        if all(last.get(key) == entry[key] for key in ("depth", "present", "zero", "data")) and \
                entry.get("offset") == place:
            last["length"] += entry["length"]
        else:
            found.append(entry)
    return found


def answer(result):
    """Standard output, JSON by value."""
    if result.stdout[:1] in "[{" and result.stdout[:1]:
        value = json.loads(result.stdout)
        if isinstance(value, list) and value and "depth" in value[0]:
            return merged(value)
        for image in value if isinstance(value, list) else [value]:
            image.pop("actual-size", None)
        return value
    return DATES.sub("DATE", normalise(result.stdout))


class Cell:
    def __init__(self, directory, row, seed):
        self.row, self.seed, self.rng = row, seed, random.Random(seed)
        self.a, self.b = directory / "a", directory / "b"
        self.cluster, self.length = matrix.cluster_of(row), matrix.length_of(row)
        self.coverage = matrix.coverage(row)
        self.side = row["creator"]
        self.log = []
        self.base_format = matrix.format_of_base(row)
        self.encrypted = {"image", "again"} if row["encryption"] != "none" else set()
        for place in (self.a, self.b):
            place.mkdir()

    # ---- how the tools are told about an image ----

    def spec(self, name, *options, secret="key"):
        """For --image-opts."""
        key = ["encrypt.key-secret=" + secret] if name in self.encrypted else []
        return ",".join(["driver=" + ("raw" if name == "raw" else "qcow2"), *options, *key, "file.filename=" + name])

    def where(self, name="image"):
        return ["--image-opts", self.spec(name)] if name in self.encrypted else [*FORMAT, name]

    def beside(self, name):
        """A name for rebase: the real tool finds no relative ones beside an encrypted image, which it calls json:{...}."""
        return "%s/%s" % (HERE, name) if self.encrypted else name

    def named(self):
        """The image, for what takes no format."""
        return self.where() if self.encrypted else ["image"]

    def both(self, a, b):
        """Two images, for compare."""
        if {a, b} & self.encrypted:
            return ["--image-opts", self.spec(a), self.spec(b)]
        return ["-f", "qcow2", "-F", "raw" if b == "raw" else "qcow2", a, b]

    def told(self, what):
        return "%s\n%s\n%s" % (what, self.row, "\n".join(self.log))

    def once(self, place, side, tool, words):
        words = [word.replace(HERE, str(place)) for word in words]
        self.log.append("%s$ %s %s" % (place.name, TOOLS[side][tool], " ".join("'%s'" % word for word in words)))
        if self.encrypted:
            words = [*SECRETS, *words] if tool == "io" else [words[0], *SECRETS, *words[1:]]
        return run([TOOLS[side][tool], *words], place, timeout=TIMEOUT)

    def agree(self, words, ours, theirs, accept, told=True):
        same = ours.returncode == theirs.returncode and (not told or answer(ours) == answer(theirs))
        reason = None if same and ours.returncode in accept else matrix.known_difference(self.row, ours, theirs)
        if reason:
            raise KnownDifference(reason)
        assert same, self.told("answers differ: %d %s%s\n%d %s%s" % (
            ours.returncode, ours.stdout[-2000:], ours.stderr[-1000:],
            theirs.returncode, theirs.stdout[-2000:], theirs.stderr[-1000:]))
        assert ours.returncode in accept, self.told("exit code %d: %s%s" % (
            ours.returncode, ours.stdout[-1000:], ours.stderr[-1000:]))
        return ours

    def img(self, *words, accept=(0,), told=True):
        return self.agree(words, self.once(self.a, self.side, "img", words), self.once(self.b, "theirs", "img", words),
                          accept, told)

    def io(self, *commands, accept=(0,), options=True, told=True):
        cache, driver = matrix.OPEN[self.row["open"]] if options else ([], [])
        words = [word for command in commands for word in ("-c", command)]
        if driver or self.encrypted:
            words += ["--image-opts", self.spec("image", "discard=unmap", "file.discard=unmap", *driver)]
        else:
            words += [*FORMAT, "-d", "unmap", "image"]
        # The twin's flushes are not under test.
        return self.agree(words, self.once(self.a, self.side, "io", cache + words),
                          self.once(self.b, "theirs", "io", ["-t", "unsafe"] + words), accept, told)

    def on_copies(self, *words, accept=(0,)):
        """By both tools on each image: ours on the image, the real one on a copy of it."""
        for place in (self.a, self.b):
            copy = place.parent / "copy"
            subprocess.run(["cp", "-r", place, copy], check=True)
            self.agree(words, self.once(place, "ours", "img", words), self.once(copy, "theirs", "img", words), accept)
            subprocess.run(["rm", "-r", copy], check=True)

    def options(self, name):
        return matrix.options(self.row).replace("%s", name)

    def amend(self, words, accept=(0, 1)):
        return self.img("amend", "-o", words, *self.where(), accept=accept)

    def is_small(self):
        return self.length <= SMALL

    def exists(self, name):
        return (self.a / name).exists() and (self.b / name).exists()

    def swap(self):
        """The other tool goes on."""
        self.side = "theirs" if self.side == "ours" else "ours"

    def resize(self, length, *words, accept=(0,)):
        if self.img("resize", *words, *self.where(), str(length), accept=accept).returncode == 0:
            self.length = length

    def damage(self):
        """A cluster that nobody uses is counted; the first table or data cluster lacks its COPIED flag."""
        for place in (self.a, self.b):
            image = Image(place / "image")
            end = -(-len(image.data) // image.cluster)
            image.data += bytes((end + 1) * image.cluster - len(image.data))
            bits, counted = image.refcount_bits, image.cluster * 8 // image.refcount_bits
            block = image.get(image.reftable + end // counted * 8, 8)
            at = block * 8 + end % counted * bits
            if block and bits < 8:
                image.data[at // 8] |= 1 << at % 8
            elif block:
                image.put(at // 8, bits // 8, 1)
            if image.l1_entries:
                entry = image.l1_entries[0][0]
                image.put(entry, 8, image.get(entry, 8) & ~COPIED)
            image.save()

    # ---- what both tools tell of both images ----

    def asked(self, place, *words, accept=(0,)):
        ours, theirs = (self.once(place, side, "img", words) for side in TOOLS)
        if words[0] == "map" and answer(ours) != answer(theirs):
            # Reserved space that one of them brought into the page cache, reading ahead, counts as data from then on.
            ours, theirs = (self.once(place, side, "img", words) for side in TOOLS)
        return self.agree(words, ours, theirs, accept)

    def snapshots(self, name):
        told = json.loads(self.asked(self.a, "info", "--output=json", *FORMAT, name).stdout)
        return [snapshot["name"] for snapshot in told.get("snapshots", [])]

    def same_bitmaps(self, name="image"):
        a, b = (bitmaps.read(place / name) for place in (self.a, self.b))
        for found, twin in zip(a.values(), b.values()):
            wide, strict = (found, twin) if self.row["operation"] == "rebase" else (twin, found)
            if None not in (found[2], twin[2]) and self.row["operation"] in operations.TRACKED_WIDER:
                wide[2].intersection_update(strict[2])
        assert a == b, self.told("bitmaps differ")

    def same_content(self, name, *words, sides=TOOLS, fmt="qcow2"):
        seen = set()
        for place in (self.a, self.b):
            for side in sides:
                where = self.where(name) if fmt == "qcow2" else ["-f", fmt, name]
                done = self.once(place, side, "img", ["convert", *words, "-O", "raw", *where, "content"])
                assert done.returncode == 0, self.told(done.stderr)
                seen.add(content(place / "content"))
                (place / "content").unlink()
        assert len(seen) == 1, self.told("content differs")

    def same_keys(self):
        """The same passphrases open both images, as both tools find."""
        for secret in matrix.SECRETS:
            where = ["--image-opts", self.spec("image", secret=secret)]
            told = {self.once(place, side, "io", ["-c", "read 0 512", *where]).returncode
                    for place in (self.a, self.b) for side in TOOLS}
            assert len(told) == 1, self.told("a passphrase of %s" % secret)

    def same_files(self, name):
        assert content(self.a / name) == content(self.b / name), self.told("%s differs" % name)

    def clean(self, name):
        for place in (self.a, self.b):
            self.asked(place, "check", "--output=json", *self.where(name))

    def verify(self, name="image"):
        self.clean(name)
        for place in (self.a, self.b):
            self.asked(place, "info", "--output=json", *FORMAT, name)
            self.asked(place, "map", "--output=json", *self.where(name))
        self.same_content(name)
        for snapshot in self.snapshots(name):
            self.same_content(name, "-l", "snapshot.name=" + snapshot)
        self.same_bitmaps(name)
        if self.row["data_file"] == "raw" and name == "image":
            for place in (self.a, self.b):
                self.asked(place, "compare", "-f", "raw", "-F", "qcow2", "image.data", "image")

    # ---- the cell ----

    def make_base(self, name, fmt, length, first):
        self.img("create", "-q", "-f", fmt, name, str(length))
        whole, self.length = self.length, length
        words = [word for command in operations.commands(self, "write -P %", 512, first) for word in ("-c", command)]
        self.length = whole
        for place in (self.a, self.b):
            assert not words or self.once(place, "theirs", "io", ["-f", fmt, *words, name]).returncode == 0
        return ["-b", name, "-F", fmt]

    def make_backing(self):
        kind = self.row["backing"]
        if kind == "none":
            return []
        share = {"shorter": 0.6, "longer": 1.5}.get(kind, 1)
        length = int(self.length * share) // 512 * 512 + (0 if share == 1 else 1024)
        return self.make_base("base", self.base_format, length, 220)

    def create(self, accept=(0,)):
        backing = self.make_backing()
        return self.img("create", *FORMAT, "-o", self.options("image"), *backing, "image", str(self.length),
                        accept=accept)

    def play(self):
        self.create()
        if self.row["bitmap"] != "none":
            self.img("bitmap", "--add", "-g", "4k", *self.where(), "tracking")
        self.side = self.row["writer"]
        self.io(*operations.prepare(self))
        self.side = self.row["operator"]
        operations.ALL[self.row["operation"]](self)
        self.verify()
        self.swap()
        self.io(*operations.commands(self, "write -P %", 1, 210))
        self.clean("image")
        self.same_content("image", sides=["ours"])  # the real one takes long to read a large disk
