# SPDX-License-Identifier: MIT
"""Our writes are cut short: by a kill, or by a file that must not grow. The real tool finds nothing but leaks."""

import resource
import signal
import subprocess
import time

import pytest
from tools import OURS, THEIRS, run

MIB = 1 << 20
LEAKS = 3  # exit code of check: leaked clusters, no corruptions
OPTIONS = {
    "plain": "cluster_size=64k",
    "small": "cluster_size=512,refcount_bits=64",
    "1 bit": "cluster_size=4k,refcount_bits=1",
    "v2": "cluster_size=4k,compat=v2",
}
images = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())


def arguments(commands, *more):
    return [OURS["io"], "-f", "qcow2", "-d", "unmap", *more] + [word for command in commands for word in ("-c", command)]


def still_sound(pair, image):
    for side in (OURS, THEIRS):
        pair.must(side, "img", "check", "-f", "qcow2", image, accept=(0, LEAKS))


def kill(pair, process, image):
    """The kernel takes down a killed process's io_uring, and with it the locks of its files, a little later."""
    process.kill()
    process.wait()
    for _ in range(500):
        if run([THEIRS["img"], "check", "-f", "qcow2", image], pair.directory).returncode in (0, LEAKS):
            break
        time.sleep(0.01)


def start(pair, options, length):
    pair.create("-o", options, "%", str(length))
    pair.round((OURS, THEIRS), ["write -P 1 0 %d" % (length // 3)])
    return pair.history(length, 4096)


@images
@pytest.mark.parametrize("cache", ["writeback", "none"])
def test_a_killed_process_leaves_leaks_at_most(pair, options, cache):
    history = start(pair, options, 3 * MIB)
    for _ in range(12):
        argv = arguments(history.commands(400), "-t", cache, "a")
        pair.log.append(argv)
        process = subprocess.Popen(argv, cwd=pair.directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=pair.rng.uniform(0.001, 0.15))
        except subprocess.TimeoutExpired:
            kill(pair, process, "a")
        still_sound(pair, "a")
        pair.io(THEIRS, "a", history.commands(20), ("-t", "unsafe"))
        still_sound(pair, "a")


@images
def test_what_was_flushed_survives_a_kill(pair, options):
    history = start(pair, options, 3 * MIB)
    commands = history.commands(80)
    pair.io(THEIRS, "b", commands)
    process = subprocess.Popen(arguments(commands + ["flush", "length", "sleep 60000"], "a"), cwd=pair.directory,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
    try:
        seen = b""
        while b"3 MiB\n" not in seen:
            data = process.stdout.read(4096)
            assert data, pair.told("bdrv-io ended early: %s" % seen[-500:])
            seen = seen[-100:] + data
    finally:
        kill(pair, process, "a")
    still_sound(pair, "a")
    pair.same("a", "b")


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
        still_sound(pair, "a")
    # It can be used again.
    everything = ["write -P 5 0 4M"] + history.commands(60)
    pair.io(OURS, "a", everything)
    pair.io(THEIRS, "b", everything)
    pair.same("a", "b")
    still_sound(pair, "a")
