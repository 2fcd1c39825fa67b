# SPDX-License-Identifier: MIT
"""bdrv-log-replay: reading logs, of both tools; and a qcow2 history replayed to every flush and FUA write."""

import os
import random
import re
import shutil
import struct

import pytest

from tools import OURS, THEIRS, run

NODE = "driver=blklogwrites,file.filename=disk,log.filename=log"
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8


def replay(directory, *arguments, code=0):
    result = run([OURS["log-replay"], "--log", "log", *arguments], directory)
    assert result.returncode == code, result.stdout + result.stderr
    assert code == 0 or result.stderr
    return result.stdout


def make_log(entries, sector_size=512):
    """Entries: (sector, data or count of sectors, flags, text of a mark)."""
    log = struct.pack("<QQQI", 0x6a736677736872, 1, len(entries), sector_size).ljust(sector_size, b"\0")
    for sector, data, flags, mark in entries:
        count = data if isinstance(data, int) else len(data) // sector_size
        log += (struct.pack("<QQQQ", sector, count, flags, len(mark)) + mark).ljust(sector_size, b"\0")
        log += b"" if isinstance(data, int) else data
    return log


def sectors(byte, count=1):
    return bytes([byte]) * 512 * count


SAMPLE = [(0, sectors(1, 2), 0, b""), (0, 0, FLUSH, b""), (0, 0, MARK, b"mkfs"), (4, sectors(2), FUA, b""),
          (0, 1, DISCARD, b""), (0, 0, FLUSH, b""), (8, sectors(3), FLUSH | FUA, b""), (0, 0, MARK, b"dm-log-writes-end")]


@pytest.fixture
def sample(tmp_path):
    (tmp_path / "log").write_bytes(make_log(SAMPLE))
    return tmp_path


def test_the_entries_are_listed(sample):
    assert replay(sample, "--list").splitlines() == [
        "entry 0 at 512: write 1024 bytes at 0", "entry 1 at 2048: flush", 'entry 2 at 2560: mark "mkfs"',
        "entry 3 at 3072: write 512 bytes at 2048 fua", "entry 4 at 4096: discard 512 bytes at 0",
        "entry 5 at 4608: flush", "entry 6 at 5120: flush write 512 bytes at 4096 fua",
        'entry 7 at 6144: mark "dm-log-writes-end"']
    assert replay(sample, "--num-entries") == "8\n"


@pytest.mark.parametrize("arguments,found", [
    ("--next-flush", "1@4"), ("--next-flush --start-entry 2", "5@9"), ("--next-fua", "3@6"),
    ("--next-fua --start-entry 4", "6@10"), ("--end-mark mkfs", "2@5"), ("--start-mark mkfs --next-flush", "5@9"),
    ("--next-flush --next-fua --start-entry 2", "3@6"), ("--end-mark dm-log-writes-end --limit 8", "7@12"),
])
def test_places_are_found(sample, arguments, found):
    assert replay(sample, "--find", *arguments.split()) == found + "\n"


@pytest.mark.parametrize("arguments", ["--end-mark nope", "--next-fua --start-entry 7", "--next-flush --limit 1",
                                       "--start-mark nope --next-flush", "--next-flush --start-entry 100"])
def test_what_is_not_there_is_not_found(sample, arguments):
    assert replay(sample, "--find", *arguments.split(), code=1) == ""


@pytest.mark.parametrize("arguments,content", [
    ("", sectors(0) + sectors(1) + sectors(0, 2) + sectors(2) + sectors(0, 3) + sectors(3)),
    ("--limit 1", sectors(1, 2)),
    ("--next-flush", sectors(1, 2)),
    ("--end-mark mkfs", sectors(1, 2)),
    ("--next-fua", sectors(1, 2) + sectors(0, 2) + sectors(2)),
    ("--start-mark mkfs --limit 2", sectors(0, 4) + sectors(2)),
    ("--start-entry 5", sectors(0, 8) + sectors(3)),
    ("--no-discard --limit 6", sectors(1, 2) + sectors(0, 2) + sectors(2)),
])
def test_a_part_is_replayed(sample, arguments, content):
    replay(sample, "--replay", "image", *arguments.split())
    assert (sample / "image").read_bytes() == content


def test_a_longer_image_keeps_what_the_log_does_not_touch(sample):
    (sample / "image").write_bytes(b"\7" * 8192)
    replay(sample, "--replay", "image", "--limit", "2")
    assert (sample / "image").read_bytes() == sectors(1, 2) + sectors(7, 14)


@pytest.mark.parametrize("when,entries", [("flush", [1, 5, 6]), ("fua", [3, 6]), ("3", [2, 5]), ("1", list(range(8)))])
def test_the_image_is_checked_at_the_places_asked_for(sample, when, entries):
    replay(sample, "--replay", "image", "--check", when, "--fsck", "echo $BDRV_LOG_ENTRY $(stat -c %s image) >> seen")
    seen = [line.split() for line in (sample / "seen").read_text().splitlines()]
    assert [int(entry) for entry, _ in seen] == entries
    sizes = [1024, 1024, 1024, 2560, 2560, 2560, 4608, 4608]
    assert [int(size) for _, size in seen] == [sizes[entry] for entry in entries]


@pytest.mark.parametrize("command,told", [("exit 3", "exit code 3"), ("kill -9 $$", "signal 9")])
def test_a_failed_check_ends_the_replay_there(sample, command, told):
    result = run([OURS["log-replay"], "--log", "log", "--replay", "image", "--check", "flush",
                  "--fsck", f"test $BDRV_LOG_ENTRY != 5 || {{ {command}; }}"], sample)
    assert result.returncode == 1 and f"the check failed behind entry 5: {told}" in result.stderr
    assert (sample / "image").stat().st_size == 2560


@pytest.mark.parametrize("arguments", ["", "--list x", "--foo", "--replay i --list", "--replay i --check flush",
                                       "--replay i --fsck true", "--list --fsck true --check 1", "--find",
                                       "--replay i --check 0 --fsck true", "--replay i --limit x", "--list --limit 0",
                                       "--list --start-entry -1", "--start-mark a --start-entry 2 --list"])
def test_wrong_options_are_refused(sample, arguments):
    assert replay(sample, *arguments.split(), code=1) == ""
    assert not (sample / "i").exists()


@pytest.mark.parametrize("change,told", [
    (lambda log: b"", "too short"), (lambda log: log[:20], "sector size 0"), (lambda log: b"x" + log[1:], "magic"),
    (lambda log: log[:8] + b"\2" + log[9:], "version 2"), (lambda log: log[:24] + b"\1" + log[25:], "sector size 513"),
    (lambda log: log[:700], "log entry 0 of 8 at 512"), (lambda log: log[:16] + b"\xff" * 8 + log[24:], "log entry 8 of"),
    (lambda log: log[:528] + b"\x20" + log[529:], "unknown flags 0x20"),
    (lambda log: log[:519] + b"\x7f" + log[520:], "more than a disk can have"),
    (lambda log: log[:2584] + b"\xff\xff" + log[2586:], "a mark of 65535 bytes"),
])
def test_a_damaged_log_is_told_of(sample, change, told):
    (sample / "log").write_bytes(change(make_log(SAMPLE)))
    result = run([OURS["log-replay"], "--log", "log", "--list"], sample)
    assert result.returncode == 1 and told in result.stderr


def random_history(rng, size, count, unit=512):
    """Offsets and lengths are multiples of @unit, but for some writes: the real tool aborts at other discards."""
    history = []
    for _ in range(count):
        offset = rng.randrange(size // unit) * unit
        length = min(rng.choice([unit, 2 * unit, 4096, 5 * 4096, 65536]), size - offset)
        history.append(rng.choice([f"write -P {rng.randrange(1, 256)} {offset} {length - rng.choice([0, 0, 5])}"] * 4 + [
            f"write -f -P {rng.randrange(1, 256)} {offset} {length}", f"write -z {offset} {length}",
            f"write -z -u {offset} {length}", f"discard {offset} {length}", "flush"]))
    return history


def commands(history):
    return [word for command in history for word in ("-c", command)]


@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("tool", [OURS["io"], THEIRS["io"]], ids=["ours", "theirs"])
def test_a_log_replayed_is_what_was_written(tmp_path, tool, sector_size):
    seed = int(os.environ.get("BDRV_TEST_SEED", random.randrange(1 << 32)))
    print(f"BDRV_TEST_SEED={seed}")
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    (tmp_path / "image").write_bytes(bytes(1 << 20))
    (tmp_path / "log").touch()
    run([tool, "-t", "writeback", *commands(random_history(random.Random(seed), 1 << 20, 60, sector_size)), "--image-opts",
         f"{NODE},log-sector-size={sector_size}"], tmp_path).check_returncode()
    replay(tmp_path, "--replay", "image")
    assert (tmp_path / "image").read_bytes() == (tmp_path / "disk").read_bytes()


def test_fua_writes_are_marked_as_such(tmp_path):
    (tmp_path / "disk").write_bytes(bytes(1 << 16))
    (tmp_path / "log").touch()
    run([OURS["io"], "-t", "writeback", *commands(["write -f 0 1k", "write -z -f 4k 512"]), "--image-opts", NODE],
        tmp_path).check_returncode()
    assert replay(tmp_path, "--list").splitlines()[:2] == [
        "entry 0 at 512: write 1024 bytes at 0 fua", "entry 1 at 2048: write 512 bytes at 4096 fua"]


# ---- power loss on real files, in the order of completion ----

CREATED = {"plain": "", "512-byte clusters": "cluster_size=512", "1-bit refcounts": "cluster_size=1k,refcount_bits=1",
           "version 2": "compat=0.10,cluster_size=4k"}
CHECK = ('for check in "$BDRV_IMG" qemu-img; do "$check" check -f qcow2 image >check.out 2>&1; code=$?; '
         'test $code = 0 || test $code = 3 || { cat check.out; exit $code; }; done')  # 3: leaks, which a crash may leave


def content(directory, name):
    run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", name, "content"], directory).check_returncode()
    return (directory / "content").read_bytes()


@pytest.mark.parametrize("backing", [False, True], ids=["alone", "with a backing file"])
@pytest.mark.parametrize("options", CREATED.values(), ids=CREATED.keys())
def test_a_qcow2_history_is_consistent_at_every_flush_and_fua(tmp_path, options, backing):
    seed = int(os.environ.get("BDRV_TEST_SEED", random.randrange(1 << 32)))
    print(f"BDRV_TEST_SEED={seed}")
    rng = random.Random(seed)
    argv = [OURS["img"], "create", "-q", "-f", "qcow2", *(["-o", options] if options else [])]
    if backing:
        (tmp_path / "base").write_bytes(rng.randbytes(1 << 18))
        argv += ["-b", "base", "-F", "raw"]
    run([*argv, "disk", "256k"], tmp_path).check_returncode()
    shutil.copy(tmp_path / "disk", tmp_path / "start")
    (tmp_path / "log").touch()
    closed = []  # at each close: entries of the log so far, and what the image holds
    node = "driver=qcow2,discard=unmap,file.driver=blklogwrites,file.file.filename=disk,file.log.filename=log,file.log-append=on"
    for _ in range(3):
        run([OURS["io"], "-t", "writeback", *commands(random_history(rng, 1 << 18, 12)), "--image-opts", node],
            tmp_path).check_returncode()
        closed.append((int(replay(tmp_path, "--num-entries")), content(tmp_path, "disk")))

    shutil.copy(tmp_path / "start", tmp_path / "image")
    begun = 0
    for entries, expected in closed:
        replay(tmp_path, "--replay", "image", "--start-entry", str(begun), "--limit", str(entries - begun),
               "--check", "flush", "--check", "fua", "--fsck", CHECK)
        result = run(["qemu-img", "check", "-f", "qcow2", "image"], tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr  # closed: not even leaks
        assert content(tmp_path, "image") == expected
        begun = entries
    flushes = len(re.findall(r": flush$", replay(tmp_path, "--list"), re.M))
    assert flushes >= 6  # two for each close at the least


def test_every_single_write_leaves_an_image_that_opens(tmp_path):
    run([OURS["img"], "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "disk", "64k"], tmp_path).check_returncode()
    shutil.copy(tmp_path / "disk", tmp_path / "image")
    (tmp_path / "log").touch()
    run([OURS["io"], *commands(["write 0 4k", "flush", "write -P 1 2k 9k", "discard 0 2k", "flush", "write 0 1k"]),
         "--image-opts", "driver=qcow2,file.driver=blklogwrites,file.file.filename=disk,file.log.filename=log"],
        tmp_path).check_returncode()
    replay(tmp_path, "--replay", "image", "--check", "1", "--fsck", CHECK)
