# SPDX-License-Identifier: MIT
"""snapshot, convert -l, measure -l and VM state, beside the real tools; each reads what the other made."""

import hashlib
import re

import pytest

from tools import OURS, THEIRS, run

KINDS = ["cluster_size=64k", "cluster_size=512", "compat=0.10", "cluster_size=16k,extended_l2=on", "refcount_bits=64",
         "cluster_size=4k,lazy_refcounts=on", "compression_type=zstd,cluster_size=4k"]
ORDERS = ["turns", "ours", "turns the other way"]
DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def img(tools, directory, *args):
    result = run([tools["img"], *args], directory)
    assert result.returncode == 0, f"{args}: {result.stderr}"
    return result.stdout


def io(tools, directory, name, *commands):
    argv = [tools["io"]]
    for command in commands:
        argv += ["-c", command]
    result = run([*argv, name], directory)
    assert result.returncode == 0 and "fail" not in result.stdout.lower(), f"{commands}: {result.stdout}{result.stderr}"


def content(directory, name, *args):
    """What the real tool reads."""
    img(THEIRS, directory, "convert", "-O", "raw", *args, name, "content.raw")
    data = (directory / "content.raw").read_bytes()
    return len(data), hashlib.sha256(data).hexdigest()


def listing(text):
    return DATE.sub("DATE", text)


def clean(directory, name):
    for tools in (THEIRS, OURS):
        assert img(tools, directory, "check", name).startswith("No errors were found"), tools["img"]


STEPS = [
    ("io", "write -P 1 0 1M"), ("io", "write -P 9 3M 10k"), ("snapshot", "-c", "one"), ("io", "write -P 2 512k 1M"),
    ("snapshot", "-c", "two"), ("io", "write -z 0 64k"), ("io", "discard 1M 64k"), ("snapshot", "-c", "one"),
    ("io", "write -P 3 0 4M"), ("snapshot", "-a", "one"), ("io", "write -P 4 2M 64k"), ("snapshot", "-a", "2"),
    ("snapshot", "-d", "one"), ("io", "write -c -P 5 3584k 64k"), ("snapshot", "-c", "four"), ("io", "write -P 6 3584k 4k"),
    ("snapshot", "-d", "two"), ("snapshot", "-a", "3"), ("snapshot", "-d", "one"), ("snapshot", "-d", "four"),
]


@pytest.mark.parametrize("kind,order", list(zip(KINDS, ORDERS * 3)))
def test_snapshots_give_what_the_real_tool_gives(twin, kind, order):
    """The same steps by the real tools, and by ours or by turns of both: content and list are the same after each."""
    twin.make("-f", "qcow2", "-o", kind, "a.qcow2", "4M")
    # Compressed writes are of a whole cluster.
    for number, step in enumerate(step for step in STEPS if "-c -P" not in step[1] or kind == "cluster_size=64k"):
        mine = OURS if order == "ours" or (number % 2 == 0) == (order == "turns") else THEIRS
        for tools, directory in ((THEIRS, twin.theirs), (mine, twin.ours)):
            if step[0] == "io":
                io(tools, directory, "a.qcow2", step[1])
            else:
                img(tools, directory, "snapshot", *step[1:], "a.qcow2")
        clean(twin.ours, "a.qcow2")
        assert content(twin.ours, "a.qcow2") == content(twin.theirs, "a.qcow2"), step
        if step[0] == "io":
            continue
        lists = [listing(img(tools, directory, "snapshot", "-l", "a.qcow2"))
                 for tools, directory in ((OURS, twin.ours), (THEIRS, twin.ours), (THEIRS, twin.theirs))]
        assert lists[0] == lists[1] == lists[2], step


@pytest.mark.parametrize("arguments", [
    ["-l"], ["-q", "-l"], ["-U", "-l"], [], ["-c", "x"], ["-q", "-c", "x"], ["-c", ""], ["-a", "one"], ["-a", "1"],
    ["-d", "one"], ["-d", "1"], ["-a", "no"], ["-d", "no"], ["-l", "-c", "x"], ["-c", "x", "-d", "x"],
    ["-U", "-c", "x"], ["-f", "qcow2", "-l"], ["-a"], ["--help-me"],
], ids=" ".join)
def test_the_command_line(twin, arguments):
    twin.make("-f", "qcow2", "a.qcow2", "1M")
    img(THEIRS, twin.theirs, "snapshot", "-c", "one", "a.qcow2")
    twin.copy()
    twin.same("img", "snapshot", *arguments, "a.qcow2")
    for tool in (OURS, THEIRS):
        clean(twin.ours, "a.qcow2")
    ours, theirs = (img(THEIRS, d, "snapshot", "-l", "a.qcow2") for d in (twin.ours, twin.theirs))
    assert listing(ours) == listing(theirs)


@pytest.mark.parametrize("arguments", [[], ["-l", "a", "b"], ["-l", "missing.qcow2"]], ids=" ".join)
def test_what_is_no_image(twin, arguments):
    twin.same("img", "snapshot", *arguments)


def test_a_raw_image_has_no_snapshots(twin):
    twin.make("-f", "raw", "a.raw", "1M")
    for arguments in (["-l"], [], ["-c", "x"], ["-a", "x"], ["-d", "x"]):
        twin.same("img", "snapshot", *arguments, "a.raw")


def test_image_options(twin):
    twin.make("-f", "qcow2", "a.qcow2", "1M")
    twin.same("img", "snapshot", "--image-opts", "-c", "x", "driver=qcow2,file.filename=a.qcow2")
    clean(twin.ours, "a.qcow2")


def test_info_and_its_json_list_snapshots(twin):
    twin.make("-f", "qcow2", "a.qcow2", "1M")
    img(THEIRS, twin.theirs, "snapshot", "-c", "one", "a.qcow2")
    twin.copy()
    img(OURS, twin.ours, "snapshot", "-c", "two", "a.qcow2")
    for args in (["info"], ["info", "--output=json"]):
        assert img(OURS, twin.ours, *args, "a.qcow2") == img(THEIRS, twin.ours, *args, "a.qcow2")


@pytest.mark.parametrize("param", [
    "one", "2", "snapshot.name=2", "snapshot.id=2", "snapshot.id=2,snapshot.name=one",
    "snapshot.id=1,snapshot.name=one", "no", "snapshot.foo=1", "snapshot.id=2,foo=1", "snapshot.name=", "",
])
def test_convert_and_measure_read_a_snapshot(twin, param):
    twin.make("-f", "qcow2", "a.qcow2", "1M")
    twin.prepare("a.qcow2", "write -P 1 0 1M")
    img(THEIRS, twin.theirs, "snapshot", "-c", "2", "a.qcow2")
    twin.prepare("a.qcow2", "write -P 2 0 512k", "discard 512k 512k")
    img(THEIRS, twin.theirs, "snapshot", "-c", "one", "a.qcow2")
    twin.prepare("a.qcow2", "write -P 3 0 1M")
    twin.copy()
    result = twin.same("img", "convert", "-l", param, "-O", "raw", "a.qcow2", "out.raw")
    if result.returncode == 0:
        assert (twin.ours / "out.raw").read_bytes() == (twin.theirs / "out.raw").read_bytes()
    twin.same("img", "measure", "-l", param, "-O", "qcow2", "a.qcow2")


def test_a_snapshot_is_read_with_the_size_it_was_taken_with(twin):
    twin.make("-f", "qcow2", "a.qcow2", "1M")
    twin.prepare("a.qcow2", "write -P 1 0 1M")
    img(OURS, twin.theirs, "snapshot", "-c", "small", "a.qcow2")
    img(THEIRS, twin.theirs, "resize", "-q", "a.qcow2", "3M")
    twin.prepare("a.qcow2", "write -P 2 0 3M")
    twin.copy()
    img(OURS, twin.ours, "snapshot", "-c", "large", "a.qcow2")
    img(OURS, twin.ours, "convert", "-l", "small", "-O", "raw", "a.qcow2", "small.raw")
    assert (twin.ours / "small.raw").read_bytes() == b"\1" * (1 << 20)
    img(OURS, twin.ours, "snapshot", "-a", "small", "a.qcow2")
    clean(twin.ours, "a.qcow2")
    assert content(twin.ours, "a.qcow2") == (1 << 20, hashlib.sha256(b"\1" * (1 << 20)).hexdigest())
    img(OURS, twin.ours, "snapshot", "-a", "large", "a.qcow2")
    clean(twin.ours, "a.qcow2")
    assert content(twin.ours, "a.qcow2") == (3 << 20, hashlib.sha256(b"\2" * (3 << 20)).hexdigest())


@pytest.mark.parametrize("bits", [1, 2])
def test_narrow_refcounts_refuse_and_nothing_has_changed(twin, bits):
    twin.make("-f", "qcow2", "-o", f"refcount_bits={bits}", "a.qcow2", "1M")
    twin.prepare("a.qcow2", "write -P 1 0 100k")
    for number in range(2):
        if bits == 2:
            img(OURS, twin.ours, "snapshot", "-c", str(number), "a.qcow2")
    before = (twin.ours / "a.qcow2").read_bytes()
    result = run([OURS["img"], "snapshot", "-c", "x", "a.qcow2"], twin.ours)
    assert result.returncode == 1 and f"refcount_bits={bits}" in result.stderr
    assert (twin.ours / "a.qcow2").read_bytes() == before
    clean(twin.ours, "a.qcow2")


@pytest.mark.parametrize("commands", [
    ["write -b -P 7 0 100k", "read -b -P 7 0 100k", "read -b -P 0 100k 28k", "read -P 0 0 1M"],
    ["write -b 1T 512", "read -b -P 0xcd 1T 512"], ["write -b 8000P 512"], ["read -b -v 0 512"], ["read -b 512 1"],
    ["read -b 1 512"], ["write -b 1 512"], ["write -b 0 1"], ["write -b -z 0 512"], ["write -b -f 0 512"],
    ["write -b -c -P 1 0 512"], ["write -b 0 0"], ["read -b -P 1 -s 512 -l 512 0 2k"],
], ids=lambda commands: ", ".join(commands))
def test_vm_state(twin, commands):
    twin.make("-f", "qcow2", "a.qcow2", "1M")
    argv = [argument for command in commands for argument in ("-c", command)]
    twin.same("io", *argv, "a.qcow2")
    clean(twin.ours, "a.qcow2")


def test_a_raw_image_has_no_vm_state(twin):
    twin.make("-f", "raw", "a.raw", "1M")
    twin.same("io", "-f", "raw", "-c", "write -b 0 512", "-c", "read -b 0 512", "a.raw")


@pytest.mark.parametrize("write,read", [(OURS, THEIRS), (THEIRS, OURS)], ids=["ours to theirs", "theirs to ours"])
def test_vm_state_of_one_is_read_by_the_other(twin, write, read):
    twin.make("-f", "qcow2", "-o", "cluster_size=4k", "a.qcow2", "3M")
    io(write, twin.ours, "a.qcow2", "write -P 1 0 3M", "write -b -P 7 0 5M")
    img(write, twin.ours, "snapshot", "-c", "x", "a.qcow2")
    clean(twin.ours, "a.qcow2")
    io(write, twin.ours, "a.qcow2", "write -P 2 0 3M", "write -b -P 8 0 5M")
    clean(twin.ours, "a.qcow2")
    img(read, twin.ours, "snapshot", "-a", "x", "a.qcow2")
    clean(twin.ours, "a.qcow2")
    io(read, twin.ours, "a.qcow2", "read -P 1 0 3M", "read -b -P 7 0 5M")


def test_an_external_data_file_has_neither(twin):
    twin.make("-f", "qcow2", "-o", "data_file=d.raw", "a.qcow2", "1M")
    for arguments in (["-l"], ["-c", "x"], ["-a", "x"], ["-d", "x"]):
        twin.same("img", "snapshot", *arguments, "a.qcow2")
    result = run([OURS["io"], "-c", "write -b 0 512", "-c", "read -b 0 512", "a.qcow2"], twin.ours)
    assert result.returncode == 1 and result.stdout.count("failed: Operation not supported") == 2
    assert (twin.ours / "d.raw").stat().st_size == 1 << 20
