# SPDX-License-Identifier: MIT
"""measure, beside the real tool: an empty image of a size, and images of every kind as the source."""

import pytest

from tools import run

SIZES = ["0", "1", "512", "1M", "64M", "1G", "10G", "1T", "3T"]
OPTIONS = [
    [], ["cluster_size=512"], ["cluster_size=2M"], ["refcount_bits=1"], ["refcount_bits=64"], ["compat=0.10"],
    ["preallocation=metadata"], ["preallocation=falloc"], ["preallocation=full"], ["backing_file=x"],
    ["backing_file=x", "backing_fmt=raw"], ["size=3G"], ["nocow=on"], ["cluster_size=4k", "refcount_bits=8"],
]
SOURCES = ["data.qcow2", "top.qcow2", "data.raw", "old.qcow2", "bitmaps.qcow2", "empty.qcow2"]


def o(options):
    return ["-o", ",".join(options)] if options else []


@pytest.mark.parametrize("options", OPTIONS, ids=",".join)
def test_an_empty_qcow2_image_would_take_what_the_real_tool_says(twin, options):
    for size in SIZES:
        twin.same("img", "measure", "-O", "qcow2", *o(options), "--size", size)


def prepare(twin):
    twin.make("-f", "qcow2", "-o", "cluster_size=4k", "data.qcow2", "64M")
    twin.prepare("data.qcow2", "write 0 4k", "write 10000 1", "write 1M 3M", "write -z 8M 1M", "write 65500 100",
                 "discard 2M 64k", "write 64M-512 512".replace("64M-512", str((64 << 20) - 512)))
    twin.make("-f", "qcow2", "-b", "data.qcow2", "-F", "qcow2", "top.qcow2", "96M")
    twin.prepare("top.qcow2", "write 0 64k", "write 80M 64k", "write -z 1M 1M")
    twin.make("-f", "qcow2", "-o", "compat=0.10", "old.qcow2", "1M")
    twin.make("-f", "qcow2", "bitmaps.qcow2", "64M")
    for arguments in (["b0"], ["-g", "512", "a-bitmap-with-a-longer-name"], ["-g", "1M", "b2"]):
        run(["qemu-img", "bitmap", "--add", *arguments[:-1], "bitmaps.qcow2", arguments[-1]], twin.theirs).check_returncode()
    twin.make("-f", "qcow2", "empty.qcow2", "0")
    twin.copy()
    for directory in (twin.ours, twin.theirs):  # copying would fill the holes
        run(["qemu-img", "create", "-q", "-f", "raw", "data.raw", "5000000"], directory).check_returncode()
        run(["qemu-io", "-f", "raw", "-c", "write 1M 100k", "data.raw"], directory).check_returncode()


@pytest.mark.parametrize("options", OPTIONS, ids=",".join)
def test_the_content_of_an_image_would_take_what_the_real_tool_says(twin, options):
    prepare(twin)
    for source in SOURCES:
        twin.same("img", "measure", "-O", "qcow2", *o(options), source)
        twin.same("img", "measure", "--output=json", "-O", "qcow2", *o(options), source, json_output=True)


@pytest.mark.parametrize("arguments", [
    ["--size", "100"], ["-O", "raw", "--size", "1M"], ["-O", "raw", "-o", "preallocation=full", "--size", "1M"],
    ["-O", "raw", "data.qcow2"], ["-f", "raw", "data.qcow2"], ["-U", "-O", "qcow2", "data.qcow2"],
    ["-O", "qcow2", "--image-opts", "driver=qcow2,file.filename=data.qcow2"], ["--output=json", "--size", "1M"],
    ["--output=human", "--size", "1M"], ["-O", "qcow2", "json:{\"driver\": \"qcow2\", \"file.filename\": \"data.qcow2\"}"],
], ids=" ".join)
def test_measure(twin, arguments):
    prepare(twin)
    result = twin.same("img", "measure", *arguments, json_output="--output=json" in arguments)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("arguments", [
    [], ["-O", "qcow2", "-o", "size=1G"], ["-O", "file", "--size", "1M"], ["-O", "host_device", "--size", "1M"],
    ["-O", "nope", "--size", "1M"], ["-O", "qcow2", "--size", "-1"], ["-O", "qcow2", "--size", "9E"],
    ["-O", "qcow2", "--size", "1M", "data.qcow2"], ["-O", "qcow2", "-o", "nope=1", "--size", "1M"],
    ["-O", "qcow2", "-o", "help"], ["--output=foo", "--size", "1M"], ["--size", "1M", "--image-opts"],
    ["--size", "1M", "-f", "raw"], ["data.qcow2", "data.raw"], ["-f", "qcow2", "data.raw"], ["missing"],
    ["-O", "qcow2", "-o", "cluster_size=512", "--size", "1T"],
], ids=" ".join)
def test_what_cannot_be_measured_is_refused(twin, arguments):
    prepare(twin)
    result = twin.same("img", "measure", *arguments)
    assert result.returncode == 1


def test_the_measure_of_an_image_is_what_converting_it_takes(twin):
    """Our own images: measured before, looked at after."""
    prepare(twin)
    for source in ("data.qcow2", "top.qcow2", "data.raw"):
        ours, _ = twin.both("img", "measure", "-O", "qcow2", source)
        required = int(ours.stdout.splitlines()[0].split()[-1])
        ours, _ = twin.both("img", "convert", "-O", "qcow2", source, "x.qcow2")
        assert ours.returncode == 0, ours.stderr
        assert (twin.ours / "x.qcow2").stat().st_size <= required
