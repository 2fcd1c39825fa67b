# SPDX-License-Identifier: MIT
"""rebase, beside the real tool: the same command lines in twin directories, and what the image then reads as."""

import json

import pytest

from test_commit import content
from tools import OURS, THEIRS, dry_run, figures, run

KINDS = ["", "cluster_size=512", "compat=0.10", "cluster_size=16k,extended_l2=on", "cluster_size=4k,lazy_refcounts=on"]


def make_chain(twin, kind="", top="1M", base="1M", other="1M"):
    """other.raw differs from base.raw in places, and mid.qcow2 from both."""
    options = ["-o", kind] if kind else []
    for name, size in (("base.raw", base), ("other.raw", other)):
        twin.make("-f", "raw", name, size)
        twin.prepare(name, f"write -P 9 0 {size}")
    twin.prepare("other.raw", "write -P 8 0 70000", "write -z 128k 64k")
    twin.make("-f", "qcow2", *options, "-b", "base.raw", "-F", "raw", "mid.qcow2", "1M")
    twin.prepare("mid.qcow2", "write -P 2 256k 128k", "write -z 300k 50k")
    twin.make("-f", "qcow2", *options, "-b", "mid.qcow2", "-F", "qcow2", "top.qcow2", top)
    twin.prepare("top.qcow2", "write -P 1 30000 50000", "write -z 400k 100k")


def same_top(twin):
    backing = []
    for directory in (twin.ours, twin.theirs):
        told = json.loads(run([THEIRS["img"], "info", "--output=json", "top.qcow2"], directory).stdout)
        backing.append((told.get("backing-filename"), told.get("backing-filename-format")))
    assert backing[0] == backing[1]
    read = content(twin.ours, "top.qcow2")
    assert read == content(twin.theirs, "top.qcow2")
    if read is None:
        return  # it names a file that is not there
    twin.clean("top.qcow2", "qcow2")
    result = run([OURS["img"], "check", "top.qcow2"], twin.ours)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("arguments", [
    [], ["top.qcow2"], ["-F", "raw", "top.qcow2"], ["-b", "base.raw", "-F", "raw", "top.qcow2", "x"],
    ["-b", "base.raw", "-F", "raw", "no.qcow2"], ["-b", "no.raw", "-F", "raw", "top.qcow2"],
    ["-b", "base.raw", "-F", "no", "top.qcow2"], ["-u", "-b", "no.raw", "-F", "no", "top.qcow2"],
    ["-u", "-b", "no.raw", "top.qcow2"], ["-u", "-b", "no.raw", "-F", "raw", "top.qcow2"], ["-u", "top.qcow2"],
    ["-u", "-b", "", "top.qcow2"], ["-b", "", "top.qcow2"], ["-q", "-b", "base.raw", "-F", "raw", "top.qcow2"],
    ["-p", "-q", "-b", "base.raw", "-F", "raw", "top.qcow2"], ["-f", "raw", "-u", "-b", "x", "-F", "raw", "base.raw"],
    ["-t", "none", "-b", "other.raw", "-F", "raw", "top.qcow2"], ["-t", "no", "-u", "top.qcow2"],
    ["-T", "none", "-b", "other.raw", "-F", "raw", "top.qcow2"], ["-T", "no", "-u", "top.qcow2"],
    ["-U", "-b", "other.raw", "-F", "raw", "top.qcow2"], ["-f", "qcow2", "-b", "other.raw", "-F", "raw", "top.qcow2"],
    ["--image-opts", "-b", "other.raw", "-F", "raw", "driver=qcow2,file.filename=top.qcow2"],
    ["--object=secret,id=s,data=x", "-u", "-b", "other.raw", "-F", "raw", "top.qcow2"], ["-c", "-u", "top.qcow2"],
    ["-b", "top.qcow2", "-F", "qcow2", "top.qcow2"], ["-b", "mid.qcow2", "-F", "qcow2", "top.qcow2"], ["-b"],
])
def test_command_lines(twin, arguments):
    make_chain(twin)
    before = (twin.ours / "top.qcow2").read_bytes()
    if twin.same("img", "rebase", *arguments).returncode:
        assert (twin.ours / "top.qcow2").read_bytes() == before
    else:
        same_top(twin)


def kept(directory):
    told = json.loads(run([THEIRS["img"], "map", "-f", "qcow2", "--output=json", "top.qcow2"], directory).stdout)
    return sum(extent["length"] for extent in told if extent["depth"] == 0 and extent["present"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("to", [["-b", "other.raw", "-F", "raw"], ["-b", ""]])
def test_a_dry_run_tells_what_would_be_kept(twin, kind, to):
    make_chain(twin, kind)
    result = dry_run(twin.ours, "rebase", "--dry-run", *to, "top.qcow2")
    assert result.returncode == 0, result.stderr
    data, zeroes = figures(result.stdout.splitlines()[1].replace("top.qcow2", ""))
    before = kept(twin.ours)
    twin.same("img", "rebase", *to, "top.qcow2")
    assert data > 0 and kept(twin.ours) == before + data + zeroes, result.stdout


def test_a_dry_run_refuses_what_cannot_be_done(twin):
    make_chain(twin)
    for arguments in (["-b", "no.raw", "-F", "raw", "top.qcow2"], ["-b", "base.raw", "top.qcow2"], ["top.qcow2"],
                      ["-f", "raw", "-b", "other.raw", "-F", "raw", "base.raw"]):
        result = dry_run(twin.ours, "rebase", "--dry-run", *arguments)
        real = run([OURS["img"], "rebase", *arguments], twin.ours)
        assert (result.returncode, result.stdout, result.stderr) == (1, "", real.stderr)
    assert "nothing to tell" in dry_run(twin.ours, "rebase", "--dry-run", "-u", "-b", "", "top.qcow2").stderr


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("to", [["-b", "base.raw", "-F", "raw"], ["-b", "other.raw", "-F", "raw"], ["-b", ""]])
def test_the_image_reads_as_before(twin, kind, to):
    make_chain(twin, kind)
    before = content(twin.ours, "top.qcow2")
    twin.same("img", "rebase", *to, "top.qcow2")
    same_top(twin)
    assert content(twin.ours, "top.qcow2") == before


@pytest.mark.parametrize("kind", KINDS + ["cluster_size=2M,extended_l2=on"])
def test_no_more_is_kept_than_has_to_be(twin, kind):
    def kept(directory):
        told = run([THEIRS["img"], "map", "--output=json", "top.qcow2"], directory).stdout
        return sum(extent["length"] for extent in json.loads(told) if extent["depth"] == 0 and extent["data"])

    make_chain(twin, kind)
    twin.same("img", "rebase", "-b", "other.raw", "-F", "raw", "top.qcow2")
    assert kept(twin.ours) <= kept(twin.theirs)


@pytest.mark.parametrize("kind", ["", "compat=0.10,cluster_size=512"])
@pytest.mark.parametrize("sizes", [("2M", "1M", "3M"), ("2M", "1M", "512k"), ("512k", "1M", "2M"),
                                   ("1500k", "2M", "1M")])
def test_layers_of_different_sizes(twin, sizes, kind):
    """Past the end of the old backing file there are zeroes, whatever the new one has."""
    make_chain(twin, kind, *sizes)
    before = content(twin.ours, "top.qcow2")
    twin.same("img", "rebase", "-b", "other.raw", "-F", "raw", "top.qcow2")
    assert content(twin.ours, "top.qcow2") == before
    twin.clean("top.qcow2", "qcow2")


@pytest.mark.parametrize("kind", ["", "compat=0.10"])
def test_an_image_without_a_backing_file_reads_as_before(twin, kind):
    make_chain(twin)
    twin.make("-f", "qcow2", *(["-o", kind] if kind else []), "alone.qcow2", "1M")
    before = content(twin.ours, "alone.qcow2")
    twin.same("img", "rebase", "-b", "base.raw", "-F", "raw", "alone.qcow2")
    assert content(twin.ours, "alone.qcow2") == before
    twin.clean("alone.qcow2", "qcow2")


def test_progress_ends_with_all(twin):
    make_chain(twin)
    for result in twin.both("img", "rebase", "-p", "-b", "other.raw", "-F", "raw", "top.qcow2"):
        lines = result.stdout.replace("\r", "\n").split("\n")
        assert result.returncode == 0 and lines[0] == "    (0.00/100%)", result.stderr
        assert [line for line in lines if line][-1] == "    (100.00/100%)"
