# SPDX-License-Identifier: MIT
"""
Every field of every structure (fields.py) damaged by every flipped bit and hostile value: a check sees it or opening
refuses it by name; a repair keeps what is not damaged, and then the real tool calls the image clean.

    BDRV_TEST_LONG=1      every value, else a few of each field
    BDRV_TEST_SEED=n      the same few
"""

import os
import pathlib
import random
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "lib"))
import damage  # noqa: E402
import fields  # noqa: E402
from tools import OURS, run  # noqa: E402

SEED = int(os.environ.get("BDRV_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
LONG = bool(os.environ.get("BDRV_TEST_LONG"))
FEW = 2
REFUSED, CORRUPT, LEAKS = 1, 2, 3  # exit codes of check


class Sound:
    """A sound image of a shape, and what it reads as."""

    def __init__(self, directory, shape):
        self.directory, self.shape = directory, shape
        self.snapshots = damage.SNAPSHOTS if shape == "snapshots" else ()
        directory.mkdir()
        damage.make(directory, shape)
        self.image = damage.Image(directory / "image")
        self.content = {name: self.read("image", name) for name in (None, *self.snapshots)}

    def read(self, name, snapshot=None):
        """What cannot be read, compressed data that is none, reads as zeroes."""
        where = ["-f", "qcow2", name]
        if self.shape in damage.ENCRYPTED:
            where = [*damage.SECRET, "--image-opts", "driver=qcow2,encrypt.key-secret=key,file.filename=" + name]
        picked = ["-l", "snapshot.name=" + snapshot] if snapshot else []
        result = run(["qemu-img", "convert", "--salvage", "-O", "raw", *picked, *where, "content"], self.directory)
        assert result.returncode == 0, result.stderr
        return (self.directory / "content").read_bytes()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("sound"), {}

    def get(shape):
        if shape not in made:
            made[shape] = Sound(root / shape.replace(" ", "-"), shape)
        return made[shape]
    return get


def check(directory, *options):
    result = run([OURS["img"], "check", "-f", "qcow2", "-T", "unsafe", *options, "x"], directory)
    assert result.returncode in (0, REFUSED, CORRUPT, LEAKS), result.stderr
    return result


def same_content(sound, image, lost, field):
    for snapshot, expected in sound.content.items():
        if field.loses(snapshot):
            continue
        found = sound.read("x", snapshot)
        for at in range(0, min(len(expected), len(found)), image.cluster):
            kept = found[at:at + image.cluster] == expected[at:at + image.cluster][:len(found) - at]
            assert kept or at // image.cluster in lost, "guest cluster %d of %s" % (at // image.cluster, snapshot)


def examine(sound, field, value):
    """Asserts; the caller tells what it was."""
    image = damage.Image(sound.directory / "image")
    place, lost = field.place(image)
    old = image.get(place, field.width)
    image.put(place, field.width, value)
    image.save(sound.directory / "x")
    seen, repaired = check(sound.directory), check(sound.directory, "-r", "all")
    if repaired.returncode == REFUSED:
        assert field.may_be_refused() and field.is_named(repaired.stderr), "refused, or not by name: " + repaired.stderr
        assert (sound.directory / "x").read_bytes() == bytes(image.data), "refused, and written: " + repaired.stderr
        return
    assert seen.returncode or not (old ^ value) & ~field.free, "a check sees nothing"
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    theirs = run(["qemu-img", "check", "-f", "qcow2", "x"], sound.directory)
    if "key-secret' is required" in theirs.stderr or field.is_beyond_qemu(value):
        return  # it may be encrypted now: a check need not care
    assert theirs.returncode == 0, theirs.stdout + theirs.stderr
    same_content(sound, image, lost, field)


@pytest.mark.parametrize("field", fields.ALL, ids=str)
def test_damage_is_seen_and_mended(sound, field):
    good = sound(field.shape)
    values = field.values(good.image)
    for value in values if LONG else random.Random("%d %s" % (SEED, field)).sample(values, min(FEW, len(values))):
        told = "BDRV_TEST_SEED=%d, %s: %#x becomes %#x: " % (
            SEED, field, good.image.get(field.place(good.image)[0], field.width), value)
        try:
            examine(good, field, value)
        except AssertionError as error:
            raise AssertionError(told + str(error)) from error
