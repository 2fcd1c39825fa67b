# SPDX-License-Identifier: MIT
"""examples/minivmm: a guest and its disks, on KVM where that runs a guest, and with the guest's program in the process.

The images are judged by both check commands and compared with a model of what the guest wrote. BDRV_TEST_LONG=1 kills
many more times.
"""

import os
import pathlib
import random
import re
import shlex
import signal
import struct
import subprocess
import sys
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "lib"))
from tools import OURS, run  # noqa: E402

MINIVMM = os.environ["MINIVMM"]
SOURCE = pathlib.Path(__file__).parents[2] / "examples" / "minivmm"
LONG = os.environ.get("BDRV_TEST_LONG") == "1"
SECTOR = 512
TIMEOUT = 240  # a nested hypervisor on a busy machine may take 50 us for an instruction


def why_no_kvm():
    """None if KVM runs a guest here; it may be there and not work, or never come back."""
    if not (pathlib.Path(MINIVMM).parent / "guest" / "guest.bin").exists():
        return "this compiler cannot build the guest"
    process = subprocess.Popen([MINIVMM, "--probe"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output, _ = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        return "a guest of 2000 instructions does not end in 20 s"
    return None if process.returncode == 0 else output.strip()


@pytest.fixture(scope="session", params=["process", "kvm"])
def accel(request):
    if request.param == "kvm":
        why = why_no_kvm()
        if why:
            pytest.skip(f"KVM runs no guest here, the same ran without: {why}")
    return request.param


def minivmm(directory, accel, *arguments):
    result = run([MINIVMM, "--accel", accel, *arguments], directory, timeout=TIMEOUT)
    return result, [line[7:] for line in result.stdout.splitlines() if line.startswith("guest: ")]


def pattern(seed, sector):
    word = ((sector + 1) * 0x9E3779B1 ^ seed * 0x01000193) & 0xFFFFFFFF
    return struct.pack("<I", word) * (SECTOR // 4)


def content(seed, sectors):
    return b"".join(pattern(seed, sector) for sector in range(sectors))


def img(directory, *arguments):
    result = run(["qemu-img", *arguments], directory)
    assert result.returncode == 0, result.stdout + result.stderr


def read_all(directory, name):
    """What the real tool reads of an image and its chain."""
    img(directory, "convert", "-f", "qcow2", "-O", "raw", name, "all.raw")
    return (directory / "all.raw").read_bytes()


def assert_no_corruption(directory, name, allow_leaks=False):
    for tool in ("qemu-img", OURS["img"]):
        result = run([tool, "check", "-f", "qcow2", name], directory)
        # The kernel ends io_uring requests of a killed process after it: they hold the file's locks a little longer.
        while "lock" in result.stderr:
            time.sleep(0.05)
            result = run([tool, "check", "-f", "qcow2", name], directory)
        assert result.returncode == 0 or allow_leaks and result.returncode == 3, result.stdout + result.stderr


def make_chain(directory, sectors=2048):
    """top.qcow2 on middle.qcow2 on base.qcow2, which has the patterns of 1."""
    (directory / "base.raw").write_bytes(content(1, sectors))
    img(directory, "convert", "-f", "raw", "-O", "qcow2", "base.raw", "base.qcow2")
    img(directory, "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "middle.qcow2")
    img(directory, "create", "-q", "-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2", "top.qcow2")


def after_verify(chunks, sectors):
    """The disk after the scenario 'verify CHUNKS 1'."""
    return b"".join(pattern(2 if s % 2 and s < chunks * 8 else 1, s) for s in range(sectors))


VERIFIED = ["the disk is as it was left", "written and flushed", "reads back as written"]


@pytest.mark.parametrize("options", [[], ["--no-ioeventfd"], ["--queues=4", "--io-threads=2"]])
def test_guest_verifies_a_backing_chain_and_writes_over_it(tmp_path, accel, options):
    make_chain(tmp_path)
    base = (tmp_path / "base.qcow2").read_bytes()
    result, lines = minivmm(tmp_path, accel, *options, "-d", "driver=qcow2,file.filename=top.qcow2", "verify", "3", "1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert lines[1:] == VERIFIED
    assert_no_corruption(tmp_path, "top.qcow2")
    assert read_all(tmp_path, "top.qcow2") == after_verify(3, 2048)
    assert (tmp_path / "base.qcow2").read_bytes() == base


def test_notifications_go_through_ioeventfd_on_kvm(tmp_path, accel):
    if accel != "kvm":
        pytest.skip("ioeventfd is KVM's")
    (tmp_path / "disk.raw").write_bytes(bytes(1 << 20))
    result, _ = minivmm(tmp_path, accel, "-d", "driver=raw,file.filename=disk.raw", "--queues=3", "info")
    assert re.search(r"^vmm: KVM, [03] notification registers by ioeventfd$", result.stdout, re.M), result.stdout


def test_guest_verifies_a_raw_disk(tmp_path, accel):
    (tmp_path / "disk.raw").write_bytes(content(1, 64))
    result, lines = minivmm(tmp_path, accel, "-d", "driver=raw,file.filename=disk.raw", "verify", "2", "1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert lines[1:] == VERIFIED
    assert (tmp_path / "disk.raw").read_bytes() == after_verify(2, 64)


def test_guest_sees_a_disk_grow(tmp_path, accel):
    img(tmp_path, "create", "-q", "-f", "qcow2", "disk.qcow2", "1M")
    vmm = subprocess.Popen([MINIVMM, "--accel", accel, "--monitor", "-d", "driver=qcow2,file.filename=disk.qcow2", "grow"],
                           cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not (line := vmm.stdout.readline()).startswith("guest: disk 0: 2048 sectors"):
        assert line, "it ended before the guest began"
    output, _ = vmm.communicate("shrink 0\nresize 9 2M\nresize 0 512k\nresize 0 4M\n", timeout=TIMEOUT)
    assert vmm.returncode == 0, output
    assert "'shrink 0' is no command" in output and "vmm: disk 0 has 524288 bytes" in output
    assert "guest: disk 0 has grown to 8192 sectors" in output
    assert_no_corruption(tmp_path, "disk.qcow2")
    assert read_all(tmp_path, "disk.qcow2") == bytes((4 << 20) - SECTOR) + pattern(1, 8191)


def test_a_resize_before_the_guest_starts_is_seen_as_well(tmp_path, accel):
    img(tmp_path, "create", "-q", "-f", "qcow2", "disk.qcow2", "1M")
    arguments = ["--monitor", "-d", "driver=qcow2,file.filename=disk.qcow2", "info"]
    result = run([MINIVMM, "--accel", accel, *arguments], tmp_path, stdin="resize 0 4M\n", timeout=TIMEOUT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_guest_finds_a_wrong_sector(tmp_path, accel):
    image = bytearray(content(1, 64))
    image[5 * SECTOR + 508] ^= 1
    (tmp_path / "disk.raw").write_bytes(image)
    result, lines = minivmm(tmp_path, accel, "-d", "driver=raw,file.filename=disk.raw", "verify", "2", "1")
    assert result.returncode == 1
    assert lines[1:] == ["sector 5 does not have the pattern of 1"]


def test_guest_discards_and_writes_zeroes(tmp_path, accel):
    img(tmp_path, "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "disk.qcow2", "1M")
    result, lines = minivmm(tmp_path, accel, "-d", "driver=qcow2,file.filename=disk.qcow2", "--stats", "zeroes", "7")
    assert result.returncode == 0, result.stdout + result.stderr
    assert lines[1:] == ["discarded and zeroed"]
    assert "4 reads, 4 writes, 0 flushes, 1 discards, 1 write-zeroes, 0 others, 0 errors" in result.stdout
    assert_no_corruption(tmp_path, "disk.qcow2")
    chunk = [content(7, 32)[i * 4096:][:4096] for i in range(4)]
    assert read_all(tmp_path, "disk.qcow2")[:5 * 4096] == chunk[0] + bytes(8192) + chunk[3] + bytes(4096)


def test_guest_goes_on_after_injected_errors(tmp_path, accel):
    img(tmp_path, "create", "-q", "-f", "qcow2", "disk.qcow2", "1M")
    rules = ("file.inject-error.0.event=write_aio,file.inject-error.0.once=on,"
             "file.inject-error.1.event=read_aio,file.inject-error.1.once=on,file.inject-error.1.errno=61")
    drive = f"driver=qcow2,file.driver=blkdebug,{rules},file.image.driver=file,file.image.filename=disk.qcow2"
    result, lines = minivmm(tmp_path, accel, "-d", drive, "errors", "3")
    assert result.returncode == 0, result.stdout + result.stderr
    # The first write fails; so does the first read, and the others go on. The failed write left zeroes.
    assert lines[1:] == ["write 0: status 1", "write 1: status 0", "write 2: status 0",
                         "read 0: status 1", "read 1: status 0", "read 2: status 0"]
    assert_no_corruption(tmp_path, "disk.qcow2", allow_leaks=True)
    assert read_all(tmp_path, "disk.qcow2")[SECTOR:3 * SECTOR] == pattern(1, 1) + pattern(1, 2)


def test_device_survives_a_hostile_ring(tmp_path, accel):
    (tmp_path / "disk.raw").write_bytes(bytes(1 << 20))
    result, lines = minivmm(tmp_path, accel, "-d", "driver=raw,file.filename=disk.raw", "hostile")
    assert result.returncode == 0, result.stdout + result.stderr
    assert [line for line in lines if not line.startswith("disk ")] == ["the device needs a reset", "works again"]
    assert "disk.raw: device needs a reset: queue 0: chain of more than 128 descriptors" in result.stderr


def test_guest_sees_several_disks(tmp_path, accel):
    (tmp_path / "one.raw").write_bytes(bytes(1 << 20))
    img(tmp_path, "create", "-q", "-f", "qcow2", "two.qcow2", "2M")
    result, lines = minivmm(tmp_path, accel, "-d", "driver=raw,read-only=on,file.filename=one.raw", "-q", "3",
                            "-d", "driver=qcow2,file.filename=two.qcow2", "info")
    assert result.returncode == 0, result.stdout + result.stderr
    assert lines == ["disk 0: 2048 sectors, 3 queues", "minivmm-0", "read-only 1, discard 0, write-zeroes 0",
                     "disk 1: 4096 sectors, 3 queues", "minivmm-1", "read-only 0, discard 1, write-zeroes 1"]


@pytest.mark.parametrize("arguments, message", [
    (["info", "--drive", "driver=nonesuch"], "nonesuch"),
    (["info", "--drive", "driver=raw,file.filename=missing.raw"], "missing.raw"),
    (["info", "--drive", "driver=raw,file.filename=disk.raw", "--queues", "9"], "there can be 1 to 8 queues"),
    (["info", "--drive", "driver=raw,file.filename=disk.raw", "-q", "1", "-t", "2"], "no more threads than queues"),
    (["verify", "x"], "x"),
    (["verify", "1", "2", "3", "4", "5"], "at most 4 numbers"),
    (["a-scenario-of-far-too-many-letters"], "more than 31 letters"),
    ([], "no scenario"),
    (["--accel", "none", "info"], "neither kvm nor process"),
])
def test_wrong_command_lines_are_refused(tmp_path, arguments, message):
    (tmp_path / "disk.raw").write_bytes(bytes(1 << 20))
    result = run([MINIVMM, "--accel", "process", *arguments], tmp_path)
    assert result.returncode == 1
    assert message in result.stderr


def record_sector(n, capacity):
    places = capacity // 128
    return n * 37 % places * 128 + n // places % 16 * 8


def run_until_killed(directory, accel, drive, first, lines_wanted):
    """Kill the machine after so many reports; the number of the last record that was reported, or first - 1."""
    process = subprocess.Popen([MINIVMM, "--accel", accel, "--queues=4", "--io-threads=2", "-d", drive, "records",
                                str(first), "100000", "5"], cwd=directory, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    last, output = first - 1, []
    watchdog = threading.Timer(TIMEOUT, process.send_signal, [signal.SIGABRT])
    watchdog.start()
    for line in process.stdout:  # to the end: what was reported before the kill is in the pipe
        output.append(line)
        told = re.match(r"guest: flushed (\d+) to (\d+)$", line)
        if told:
            assert int(told[1]) == last + 1
            last = int(told[2])
            lines_wanted -= 1
        if lines_wanted == 0:
            process.kill()
    process.wait()
    watchdog.cancel()
    assert process.returncode == -signal.SIGKILL, "".join(output)
    return last


@pytest.mark.parametrize("kind", ["plain", "chain", "small clusters"])
def test_flushed_records_survive_a_kill(tmp_path, accel, kind):
    seed = int(os.environ.get("BDRV_TEST_SEED", random.randrange(1 << 32)))
    print("seed", seed)
    draw = random.Random(seed)
    capacity = 131072
    if kind == "chain":
        img(tmp_path, "create", "-q", "-f", "qcow2", "base.qcow2", "64M")
        img(tmp_path, "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "disk.qcow2")
    else:
        cluster = "cluster_size=512" if kind == "small clusters" else "cluster_size=64k"
        img(tmp_path, "create", "-q", "-f", "qcow2", "-o", cluster, "disk.qcow2", "64M")
    drive = "driver=qcow2,file.filename=disk.qcow2"
    last = -1
    for _ in range(40 if LONG else 2 if accel == "process" else 1):
        last = run_until_killed(tmp_path, accel, drive, last + 1, draw.randint(1, 10 if accel == "process" else 3))
        assert_no_corruption(tmp_path, "disk.qcow2", allow_leaks=True)
        result, _ = minivmm(tmp_path, "process", "-d", drive, "check", "0", str(last + 1))
        assert result.returncode == 0, result.stdout + result.stderr
        # The check opened the disk writable: what the kill left dirty is settled.
        assert_no_corruption(tmp_path, "disk.qcow2", allow_leaks=True)
    data = read_all(tmp_path, "disk.qcow2")
    for n in range(last + 1):
        sector = record_sector(n, capacity)
        assert data[sector * SECTOR:(sector + 1) * SECTOR] == pattern(n, sector), f"record {n}, seed {seed}"


def test_readme_commands_work(tmp_path):
    """The commands of the README, with the programs of this build; on KVM only if it runs a guest."""
    text = (SOURCE / "README.md").read_text()
    commands = re.findall(r"^    \$ (.+)$", text, re.M)
    assert len(commands) >= 5
    kvm = why_no_kvm() is None
    for command in commands:
        words = shlex.split(command)
        if words[0].endswith("minivmm"):
            words = [MINIVMM, *([] if kvm or "--accel" in words else ["--accel", "process"]), *words[1:]]
            if "--probe" in words and not kvm:
                continue
        elif words[0] == "bdrv-img":
            words[0] = OURS["img"]
        else:
            assert words[0] in ("qemu-img", "truncate"), command
        result = run(words, tmp_path, timeout=TIMEOUT)
        assert result.returncode == 0, command + result.stdout + result.stderr
