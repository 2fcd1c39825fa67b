# SPDX-License-Identifier: MIT
"""
Two images with one history: each round is run on one image by qemu-io and on the other by bdrv-io.

    BDRV_TEST_SEED=n      the same run again
    BDRV_TEST_ROUNDS=n    rounds per image (default 4)
    BDRV_TEST_COMMANDS=n  commands per round (default 60)
    BDRV_TEST_KEEP=1      keep the directory of a test that failed
"""

import os
import pathlib
import random
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "lib"))
from tools import OURS, THEIRS, normalise, run  # noqa: E402
from history import History  # noqa: E402

SEED = int(os.environ.get("BDRV_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
ROUNDS = int(os.environ.get("BDRV_TEST_ROUNDS", 4))
COMMANDS = int(os.environ.get("BDRV_TEST_COMMANDS", 60))
BOTH = (OURS, THEIRS)  # in this order for images "a" and "b"
TIMEOUT = 300
LEAKS = 3  # exit code of check: leaked clusters, no corruptions


if not all(map(shutil.which, THEIRS.values())):
    # 77: skipped, for meson.
    pytest.exit("qemu-img and qemu-io are not installed", 1 if os.environ.get("CI") else 77)


class Pair:
    """Images "a" and "b" in one directory, meant to be equal."""

    def __init__(self, directory, name):
        self.directory = directory
        self.rng = random.Random("%d %s" % (SEED, name))
        self.log = []

    def must(self, side, tool, *args, accept=(0,)):
        argv = [side[tool], *map(str, args)]
        self.log.append(argv)
        result = run(argv, self.directory, timeout=TIMEOUT)
        assert result.returncode in accept, self.told("exit code %d\n%s%sof %s" % (
            result.returncode, result.stdout[-300:], result.stderr[-1000:], " ".join(argv)[:300]))
        return result

    def told(self, what):
        script = self.directory / "script"
        script.write_text("".join(" ".join("'%s'" % word for word in argv) + "\n" for argv in self.log))
        return "BDRV_TEST_SEED=%d: %s" % (SEED, what)

    def io(self, side, image, commands, options=()):
        """Run commands; the standard output without timings."""
        args = ["-f", "qcow2", "-d", "unmap", *options]
        for command in commands:
            if side is THEIRS:
                # One after the other: zeroes and data written at once next to each other in one cluster
                # of an overlay make qemu-io 7.2 keep what the backing file has where zeroes belong.
                command = command.replace("aio_write", "write").replace("aio_flush", "flush")
            args += ["-c", command]
        return normalise(self.must(side, "io", *args, image).stdout)

    def cache_mode(self, side):
        # The real tool's flushes are not under test: save them.
        return "-t", "unsafe" if side is THEIRS else self.rng.choice(["writeback", "none", "unsafe"])

    def create(self, *options):
        """"a" by us, "b" by the real tool."""
        for side, image in zip(BOTH, "ab"):
            self.must(side, "img", "create", "-q", "-f", "qcow2", *[word.replace("%", image) for word in options])

    def round(self, sides, commands):
        """@commands on "a" by sides[0] and on "b" by sides[1]: same answers, same content, both clean."""
        outputs = [self.io(side, image, commands, self.cache_mode(side)) for side, image in zip(sides, "ab")]
        if outputs[0] != outputs[1]:
            lines = [text.splitlines() for text in outputs]
            differ = [pair for pair in zip(*lines) if pair[0] != pair[1]][:4] or [len(text) for text in lines]
            assert outputs[0] == outputs[1], self.told("answers differ: %s" % (differ,))
        self.verify()

    def verify(self):
        for image in "ab":
            self.check(image)
        self.same("a", "b")

    def check(self, image):
        for side in BOTH:
            self.must(side, "img", "check", "-f", "qcow2", image)

    def sound(self, image):
        """Nothing but leaked clusters."""
        for side in BOTH:
            self.must(side, "img", "check", "-f", "qcow2", image, accept=(0, LEAKS))

    def same(self, a, b, formats=("qcow2", "qcow2")):
        """Same content, as either tool reads it."""
        for side in BOTH:
            self.must(side, "img", "compare", "-f", formats[0], "-F", formats[1], a, b)

    def alternate(self, history, rounds=None, commands=None, grow=0.0, first=OURS):
        """Rounds in which the tools swap the images; @first begins with "a"."""
        sides = BOTH if first is OURS else BOTH[::-1]
        for _ in range(rounds or ROUNDS):
            self.round(sides, history.commands(commands or COMMANDS, self.rng.random() < grow))
            sides = sides[::-1]

    def history(self, length, cluster):
        return History(self.rng, length, cluster)


@pytest.fixture
def pair(request, tmp_path):
    pair = Pair(tmp_path, request.node.name)
    failed = request.session.testsfailed
    yield pair
    if not (os.environ.get("BDRV_TEST_KEEP") and request.session.testsfailed > failed):
        shutil.rmtree(tmp_path, ignore_errors=True)


def pytest_report_header(config):
    return "BDRV_TEST_SEED=%d" % SEED
