# SPDX-License-Identifier: MIT
"""commit, beside the real tool: the same command lines in twin directories, and what each image then reads as."""

import hashlib
import json
import subprocess

import pytest

from tools import OURS, THEIRS, dry_run, figures, run

KINDS = ["", "cluster_size=512", "compat=0.10", "cluster_size=16k,extended_l2=on", "cluster_size=4k,lazy_refcounts=on"]


def content(directory, name):
    """What the real tool reads; None: it cannot."""
    raw = ["-f", "raw"] if name.endswith(".raw") else ["-f", "qcow2"]
    if run([THEIRS["img"], "convert", *raw, "-O", "raw", name, "content"], directory).returncode:
        return None
    data = (directory / "content").read_bytes()
    return len(data), hashlib.sha256(data).hexdigest()


def make_chain(twin, kind="", top="1M", middle="1M", base="1M"):
    options = ["-o", kind] if kind else []
    twin.make("-f", "raw", "base.raw", base)
    twin.prepare("base.raw", f"write -P 9 0 {base}")
    twin.make("-f", "qcow2", *options, "-b", "base.raw", "-F", "raw", "mid.qcow2", middle)
    twin.prepare("mid.qcow2", "write -P 2 256k 128k", "write -z 100k 10k")
    twin.make("-f", "qcow2", *options, "-b", "mid.qcow2", "-F", "qcow2", "top.qcow2", top)
    twin.prepare("top.qcow2", "write -P 1 0 100k", "write -z 200k 100k", "write -P 3 400k 1k")


def same_chain(twin):
    for name in ("top.qcow2", "mid.qcow2", "base.raw"):
        assert content(twin.ours, name) == content(twin.theirs, name), name
    for name in ("top.qcow2", "mid.qcow2"):
        # Whether the image was emptied.
        told = [run([THEIRS["img"], "map", "-f", "qcow2", "--output=json", name], directory).stdout
                for directory in (twin.ours, twin.theirs)]
        assert (name != "top.qcow2") or ('"depth": 0' in told[0]) == ('"depth": 0' in told[1]), told
        twin.clean(name, "qcow2")
        result = run([OURS["img"], "check", name], twin.ours)
        assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("arguments", [
    [], ["a", "b"], ["no.qcow2"], ["-f", "raw", "base.raw"], ["top.qcow2"], ["-d", "top.qcow2"], ["-q", "top.qcow2"],
    ["-b", "base.raw", "top.qcow2"], ["-b", "mid.qcow2", "top.qcow2"], ["-d", "-b", "base.raw", "top.qcow2"],
    ["-b", "./base.raw", "top.qcow2"], ["-b", "no.raw", "top.qcow2"], ["-b", "top.qcow2", "top.qcow2"],
    ["-b", "", "top.qcow2"], ["-r", "100M", "top.qcow2"], ["-r", "x", "top.qcow2"], ["-r", "-1", "top.qcow2"],
    ["-t", "none", "top.qcow2"], ["-t", "unsafe", "top.qcow2"], ["-t", "no", "top.qcow2"],
    ["-f", "qcow2", "top.qcow2"], ["-f", "raw", "top.qcow2"], ["-f", "no", "top.qcow2"], ["-U", "top.qcow2"],
    ["--image-opts", "driver=qcow2,file.filename=top.qcow2"], ["--object=secret,id=s,data=x", "top.qcow2"],
    ["--image-opts", "-b", "base.raw", "driver=qcow2,file.filename=top.qcow2"], ["-p", "-q", "top.qcow2"],
    ["--object=no", "top.qcow2"], ["--no", "top.qcow2"], ["-b"], ["mid.qcow2"],
])
def test_command_lines(twin, arguments):
    make_chain(twin)
    twin.same("img", "commit", *arguments)
    same_chain(twin)


def test_progress_ends_with_all(twin):
    make_chain(twin)
    for result in twin.both("img", "commit", "-p", "top.qcow2"):
        lines = result.stdout.replace("\r", "\n").split("\n")
        assert result.returncode == 0 and lines[0] == "    (0.00/100%)", result.stderr
        assert [line for line in lines if line][-2:] == ["    (100.00/100%)", "Image committed."]


def lies_above(directory, depth):
    """Bytes of data, and of zeroes, that layers above have."""
    told = json.loads(run([THEIRS["img"], "map", "-f", "qcow2", "--output=json", "top.qcow2"], directory).stdout)
    above = [extent for extent in told if extent["depth"] < depth and extent["present"]]
    return [sum(e["length"] for e in above if e["data"] == data) for data in (True, False)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", [None, "base.raw"])
def test_a_dry_run_tells_what_would_be_copied(twin, kind, base):
    make_chain(twin, kind, "2M")
    to = ["-b", base] if base else []
    result = dry_run(twin.ours, "commit", "--dry-run", *to, "top.qcow2")
    lines = result.stdout.splitlines()
    # What the layer between does not reach reads as zeroes.
    data, zeroes = lies_above(twin.ours, 2 if base else 1)
    assert figures(lines[1].replace(base or "mid.qcow2", "")) == [data, zeroes + (1 << 20 if base else 0)], lines
    assert lines[2].endswith(f"would grow from {1 << 20} to {2 << 20} bytes."), lines
    assert lines[3] == f"'top.qcow2' would be {'kept as it is' if base else 'emptied'}." and result.returncode == 0
    before = (twin.ours / "base.raw").stat().st_size if base else None
    twin.same("img", "commit", *to, "top.qcow2")
    assert not base or (twin.ours / "base.raw").stat().st_size == before + (1 << 20)


def test_a_dry_run_refuses_what_cannot_be_done(twin):
    make_chain(twin)
    for arguments in (["-b", "no.raw", "top.qcow2"], ["-f", "raw", "base.raw"], ["no.qcow2"], []):
        result = dry_run(twin.ours, "commit", "--dry-run", *arguments)
        real = run([OURS["img"], "commit", *arguments], twin.ours)
        assert (result.returncode, result.stdout, result.stderr) == (1, "", real.stderr)
    assert dry_run(twin.ours, "commit", "--dry-run", "-q", "top.qcow2").stdout == ""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", [None, "base.raw"])
def test_every_kind_is_committed(twin, kind, base):
    make_chain(twin, kind)
    twin.same("img", "commit", *(["-b", base] if base else []), "top.qcow2")
    same_chain(twin)
    twin.same("img", "commit", "-f", "qcow2", "mid.qcow2")
    same_chain(twin)


@pytest.mark.parametrize("sizes", [("2M", "1M", "1M"), ("2M", "2M", "1M"), ("512k", "1M", "1M"), ("512k", "1M", "2M"),
                                   ("2M", "512k", "1M"), ("2M", "512k", "3M"), ("1M", "1M", "512k")])
@pytest.mark.parametrize("base", [None, "base.raw"])
def test_layers_of_different_sizes(twin, sizes, base):
    """Past the end of a layer that is too short there are zeroes, whatever the one below it has."""
    make_chain(twin, "", *sizes)
    before = content(twin.ours, "top.qcow2")
    twin.same("img", "commit", *(["-b", base] if base else []), "top.qcow2")
    assert content(twin.ours, "top.qcow2") == before
    target = run([THEIRS["img"], "compare", "-f", "qcow2", "-F", "raw" if base else "qcow2", "top.qcow2",
                  base or "mid.qcow2"], twin.ours)
    # What a longer base has past the end of the top stays.
    longer = {"512k": 524288, "2M": 2097152}.get(sizes[0])
    assert target.returncode == 0 or f"mismatch at offset {longer}!" in target.stdout, target.stdout
    twin.clean("top.qcow2", "qcow2")
    twin.clean("mid.qcow2", "qcow2")


def test_snapshots_of_the_top_stay(twin):
    make_chain(twin)
    run([THEIRS["img"], "snapshot", "-c", "s", "top.qcow2"], twin.theirs).check_returncode()
    twin.copy()
    twin.same("img", "commit", "top.qcow2")
    same_chain(twin)
    for directory in (twin.ours, twin.theirs):
        run([THEIRS["img"], "snapshot", "-a", "s", "top.qcow2"], directory).check_returncode()
    same_chain(twin)


def test_a_base_that_cannot_be_written_leaves_all_as_it_was(twin):
    """Somebody has it open: locks are taken before anything is written."""
    make_chain(twin)
    before = {path.name: path.read_bytes() for path in twin.ours.iterdir()}
    holder = subprocess.Popen([THEIRS["io"], "-f", "qcow2", "mid.qcow2"], cwd=twin.ours, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    holder.stdin.write("read 0 512\n")
    holder.stdin.flush()
    while "ops" not in holder.stdout.readline():
        pass
    result = run([OURS["img"], "commit", "top.qcow2"], twin.ours)
    holder.communicate("quit\n")
    assert result.returncode == 1 and "Failed to get" in result.stderr, result.stderr
    assert {path.name: path.read_bytes() for path in twin.ours.iterdir()} == before
