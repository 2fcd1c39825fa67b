# SPDX-License-Identifier: MIT
"""Block devices as source and target of bdrv-img: loop devices, so only as root."""

import os
import subprocess

import pytest

from tools import OURS, THEIRS, run

MIB = 1 << 20


@pytest.fixture
def loop(tmp_path):
    """Makes loop devices full of 0xff: what was on a device before must never show."""
    devices = []

    def make(name, size):
        path = tmp_path / name
        path.write_bytes(b"\xff" * size)
        result = subprocess.run(["losetup", "-f", "--show", path], capture_output=True, text=True)
        if os.geteuid() != 0 or result.returncode != 0:
            pytest.skip("needs root and a loop device")
        devices.append(result.stdout.strip())
        return devices[-1]

    yield make
    for device in devices:
        subprocess.run(["losetup", "-d", device], check=True)


def img(directory, *arguments):
    return run([OURS["img"], *arguments], directory)


def make_source(directory):
    (directory / "src").write_bytes(b"\7" * MIB + bytes(2 * MIB) + b"\3" * 512 + bytes(MIB - 512))


def first_bytes(device, count):
    with open(device, "rb") as file:
        return file.read(count)


@pytest.mark.parametrize("options", [[], ["-n"], ["-n", "-S", "0"], ["-S", "0"], ["-t", "none", "-T", "none"], ["-W"],
                                     ["-C"], ["-S", "64k"], ["-m", "1"]], ids=" ".join)
def test_convert_overwrites_all_that_was_there(tmp_path, loop, options):
    device = loop("disk", 6 * MIB)
    make_source(tmp_path)
    result = img(tmp_path, "convert", *options, "-f", "raw", "-O", "raw", "src", device)
    assert result.returncode == 0, result.stderr
    assert first_bytes(device, 4 * MIB) == (tmp_path / "src").read_bytes()
    assert first_bytes(device, 6 * MIB)[4 * MIB:] == b"\xff" * (2 * MIB)


@pytest.mark.parametrize("preallocation", ["off", "metadata"])
@pytest.mark.parametrize("cache", ["unsafe", "none"])
def test_convert_puts_qcow2_on_a_device(tmp_path, loop, cache, preallocation):
    device = loop("disk", 8 * MIB)
    make_source(tmp_path)
    result = img(tmp_path, "convert", "-t", cache, "-f", "raw", "-O", "qcow2", "-o", f"preallocation={preallocation}",
                 "src", device)
    assert result.returncode == 0, result.stderr
    assert run([THEIRS["img"], "compare", "-f", "raw", "-F", "qcow2", "src", device], tmp_path).returncode == 0
    assert run([THEIRS["img"], "check", "-q", "-f", "qcow2", device], tmp_path).returncode == 0


def test_convert_reads_a_device(tmp_path, loop):
    device = loop("disk", 3 * MIB)
    assert img(tmp_path, "convert", "-f", "raw", "-O", "qcow2", device, "out").returncode == 0
    assert run([THEIRS["img"], "compare", "-f", "raw", "-F", "qcow2", device, "out"], tmp_path).returncode == 0


@pytest.mark.parametrize("options", [[], ["-n"]], ids=" ".join)
def test_convert_refuses_a_device_that_is_too_small(tmp_path, loop, options):
    device = loop("small", 3 * MIB)
    make_source(tmp_path)
    result = img(tmp_path, "convert", *options, "-f", "raw", "-O", "raw", "src", device)
    assert result.returncode == 1 and ("few" in result.stderr or "smaller" in result.stderr)
    assert first_bytes(device, 3 * MIB) == b"\xff" * (3 * MIB)


def test_convert_tells_of_a_full_device(tmp_path, loop):
    device = loop("small", 3 * MIB)
    (tmp_path / "src").write_bytes(b"\1" * (4 * MIB))
    result = img(tmp_path, "convert", "-f", "raw", "-O", "qcow2", "src", device)
    assert result.returncode == 1 and "No space left on device" in result.stderr


COMMANDS = [
    ["create", "-f", "raw", "DEV", "2M"], ["create", "-f", "raw", "DEV", "50M"], ["create", "-f", "qcow2", "DEV", "50G"],
    ["create", "-f", "raw", "-o", "preallocation=full", "DEV", "1M"], ["create", "-f", "host_device", "DEV", "1M"],
    ["create", "-f", "raw", "host_device:DEV", "1M"], ["dd", "-f", "raw", "if=src", "of=DEV"],
    ["resize", "-f", "raw", "DEV", "20M"], ["resize", "-f", "raw", "--shrink", "DEV", "1M"],
    ["resize", "-f", "raw", "DEV", "6M"], ["info", "-f", "raw", "DEV"], ["map", "-f", "raw", "--output=json", "DEV"],
    ["compare", "-f", "raw", "-F", "raw", "src", "DEV"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_subcommands_on_devices_end_as_the_real_ones(tmp_path, loop, command):
    results = []
    make_source(tmp_path)
    for tool in (THEIRS["img"], OURS["img"]):
        device = loop(os.path.basename(tool), 6 * MIB)
        result = run([tool, *[word.replace("DEV", device) for word in command]], tmp_path)
        results.append((result.returncode, result.stdout.replace(device, "DEV")))
    assert results[0] == results[1]


def test_a_new_image_is_not_taken_for_an_old_one(tmp_path, loop):
    device = loop("disk", 6 * MIB)
    assert img(tmp_path, "create", "-q", "-f", "qcow2", device, "1M").returncode == 0
    assert "file format: qcow2" in img(tmp_path, "info", device).stdout
    assert img(tmp_path, "create", "-q", "-f", "raw", device, "1M").returncode == 0
    assert "file format: raw" in img(tmp_path, "info", device).stdout
