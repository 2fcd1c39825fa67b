# SPDX-License-Identifier: MIT
"""An image that somebody else has open is refused, and the message names who that is."""

import fcntl
import os
import struct
import subprocess

import pytest

from tools import OURS, THEIRS, run

F_OFD_GETLK = 36

# Commands that have the image open for writing until they are ended.
HOLDERS = {
    "bdrv-io": [OURS["io"], "-f", "qcow2", "-c", "length", "-c", "sleep 1000000", "disk.qcow2"],
    "qemu-io": [THEIRS["io"], "-f", "qcow2", "-c", "length", "-c", "sleep 1000000", "disk.qcow2"],
    "bdrv-img": [OURS["img"], "bench", "-w", "-c", "2000000000", "-f", "qcow2", "disk.qcow2"],
    "qemu-img": [THEIRS["img"], "bench", "-w", "-c", "2000000000", "-f", "qcow2", "disk.qcow2"],
}


def is_locked(path, byte):
    """Whether anybody has a lock on the byte; asking takes none, unlike opening the image."""
    with path.open("rb") as file:
        lock = fcntl.fcntl(file, F_OFD_GETLK, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    return struct.unpack("hhqqi", lock)[0] != fcntl.F_UNLCK


@pytest.fixture(params=HOLDERS)
def holder(request, tmp_path):
    run([THEIRS["img"], "create", "-q", "-f", "qcow2", "disk.qcow2", "8M"], tmp_path).check_returncode()
    process = subprocess.Popen(HOLDERS[request.param], cwd=tmp_path, stdout=subprocess.DEVNULL)
    while not is_locked(tmp_path / "disk.qcow2", 101):
        assert process.poll() is None
    yield process.pid, request.param, tmp_path
    process.kill()
    process.wait()


def test_the_holder_of_a_lock_is_named(holder):
    pid, name, directory = holder
    held = f"held by process {pid} ({name});"
    for command, lock in (("info", 'shared "write"'), ("resize", '"write"'), ("check", 'shared "write"')):
        arguments = ["disk.qcow2"] + (["9M"] if command == "resize" else [])
        result = run([OURS["img"], command, *arguments], directory)
        assert result.returncode == 1 and held in result.stderr, result.stderr
        assert f"Failed to get {lock} lock" in result.stderr, result.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="cannot become somebody who may not look")
@pytest.mark.parametrize("holder", ["qemu-io"], indirect=True)
def test_a_holder_that_may_not_be_looked_at_is_not_guessed(holder):
    _, _, directory = holder
    for path in (directory, *directory.parents):
        if path.stat().st_uid == os.getuid() and path.stat().st_mode & 0o5 != 0o5:
            path.chmod(0o755)
    (directory / "disk.qcow2").chmod(0o666)
    result = subprocess.run([OURS["img"], "info", "disk.qcow2"], cwd=directory, capture_output=True, text=True,
                            user=65534, group=65534, extra_groups=[])
    assert result.returncode == 1, result.stdout
    assert "held by another process, but /proc does not show which" in result.stderr, result.stderr
