# SPDX-License-Identifier: MIT
"""Our writes are cut short by a file that must not grow. The real tool finds nothing but leaks."""

import resource
import signal
import subprocess

import pytest
from tools import OURS, THEIRS

MIB = 1 << 20
OPTIONS = {
    "plain": "cluster_size=64k",
    "small": "cluster_size=512,refcount_bits=64",
    "1 bit": "cluster_size=4k,refcount_bits=1",
    "v2": "cluster_size=4k,compat=v2",
}
images = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())


def arguments(commands, *more):
    words = [word for command in commands for word in ("-c", command)]
    return [OURS["io"], "-f", "qcow2", "-d", "unmap", *more] + words


def start(pair, options, length):
    pair.create("-o", options, "%", str(length))
    pair.round((OURS, THEIRS), ["write -P 1 0 %d" % (length // 3)])
    return pair.history(length, 4096)


@images
@pytest.mark.parametrize("cache", ["writeback", "unsafe"])
def test_a_file_that_cannot_grow_leaves_leaks_at_most(pair, options, cache):
    history = start(pair, options, 4 * MIB)

    def limit(bytes_):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes past the limit fail with EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_))

    for _ in range(8):
        size = (pair.directory / "a").stat().st_size
        most = size + pair.rng.choice([0, 512, 1000, 4096, 65536, 200000])
        argv = arguments(history.commands(60), "-t", cache, "a")
        pair.log.append(argv)
        result = subprocess.run(argv, cwd=pair.directory, capture_output=True, text=True, timeout=60,
                                preexec_fn=lambda: limit(most), check=False)
        assert result.returncode in (0, 1), pair.told("%d %s" % (result.returncode, result.stderr[-2000:]))
        pair.sound("a")
    # It can be used again.
    everything = ["write -P 5 0 4M"] + history.commands(60)
    pair.io(OURS, "a", everything)
    pair.io(THEIRS, "b", everything)
    pair.same("a", "b")
    pair.sound("a")
