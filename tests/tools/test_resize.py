# SPDX-License-Identifier: MIT
"""resize --dry-run: what it tells is what the real run then does, and what it refuses the real run refuses."""

import json

import pytest
from tools import OURS, THEIRS, dry_run, run

KINDS = [("raw", []), ("qcow2", []), ("qcow2", ["-o", "cluster_size=512,compat=0.10"]),
         ("qcow2", ["-o", "cluster_size=16k,extended_l2=on"]), ("qcow2", ["-o", "data_file=d"])]


def make(twin, fmt, options):
    twin.make("-f", fmt, *options, "x", "8M")
    twin.prepare("x", "write -P 1 1M 1M", "write -P 2 5M 100k", "write -P 3 7M 64k")


def data_past(directory, offset):
    extents = json.loads(run([THEIRS["img"], "map", "--output=json", "x"], directory).stdout)
    return sum(max(e["start"] + e["length"] - max(e["start"], offset), 0) for e in extents if e["data"] and not e["zero"])


def size(directory):
    return json.loads(run([THEIRS["img"], "info", "--output=json", "x"], directory).stdout)["virtual-size"]


@pytest.mark.parametrize("fmt, options", KINDS)
@pytest.mark.parametrize("arguments", [["x", "16M"], ["x", "+1G"], ["--preallocation=falloc", "x", "9M"], ["x", "8M"]])
def test_growing_dry_tells_the_size_that_it_gets(twin, fmt, options, arguments):
    make(twin, fmt, options)
    result = dry_run(twin.ours, "resize", "--dry-run", "-f", fmt, *arguments)
    assert result.returncode == 0, result.stderr
    run([OURS["img"], "resize", "-f", fmt, *arguments], twin.ours).check_returncode()
    now = size(twin.ours)
    assert f"would be resized from {8 << 20} to {now} bytes" in result.stdout
    assert (f"{now - (8 << 20)} bytes would be preallocated" in result.stdout) == (len(arguments) == 3)


@pytest.mark.parametrize("fmt, options", KINDS)
@pytest.mark.parametrize("to", [7 << 20, 5 << 20, 1100 << 10, 512])
def test_shrinking_dry_tells_how_much_data_is_lost(twin, fmt, options, to):
    make(twin, fmt, options)
    lost = data_past(twin.ours, to)
    result = dry_run(twin.ours, "resize", "--dry-run", "--shrink", "-f", fmt, "x", str(to))
    assert result.returncode == 0, result.stderr
    assert f"{lost} bytes of data would be lost." in result.stdout


def refusals(twin):
    twin.make("-f", "raw", "raw", "1M")
    twin.make("-f", "qcow2", "-o", "cluster_size=512", "small", "1M")
    twin.make("-f", "qcow2", "-o", "compat=0.10", "snapshots", "1M")
    run([THEIRS["img"], "snapshot", "-c", "one", "snapshots"], twin.ours).check_returncode()
    yield ["snapshots", "2M"]
    yield ["small", "1P"]
    yield ["small", "512k"]
    yield ["--preallocation=full", "--shrink", "small", "512k"]
    yield ["small", "+8E"]
    yield ["small", "1000"]
    yield ["small", "0"]
    yield ["missing", "2M"]
    yield ["--image-opts", "driver=raw,size=4096,file.filename=raw", "2M"]


def test_what_cannot_be_done_is_refused_dry_as_well(twin):
    for arguments in refusals(twin):
        dry = dry_run(twin.ours, "resize", "--dry-run", *arguments)
        real = run([OURS["img"], "resize", *arguments], twin.ours)
        assert (dry.returncode, dry.stderr) == (real.returncode, real.stderr) and real.returncode == 1, arguments


def test_an_image_that_may_only_be_read_can_be_asked(twin):
    make(twin, "qcow2", [])
    (twin.ours / "x").chmod(0o444)
    assert dry_run(twin.ours, "resize", "--dry-run", "-q", "x", "9M").stdout == ""
