# SPDX-License-Identifier: MIT
"""What else can be done to a qcow2 image is done to encrypted ones: one tool does it, the other reads the outcome."""

import json

import pytest
from tools import OURS, THEIRS, run

SECRET = ["--object", "secret,id=s,data=passphrase"]
KINDS = {"luks": "cluster_size=64k,encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
         "aes": "cluster_size=4k,encrypt.format=aes,encrypt.key-secret=s"}
BOTH = [OURS, THEIRS]


def ok(tool, args, cwd):
    result = run([tool, *args], cwd)
    assert result.returncode == 0 and "failed" not in result.stdout, f"{tool} {args}: {result.stdout}{result.stderr}"
    return result.stdout


def spec(name, backing=None):
    below = f",backing.driver=qcow2,backing.encrypt.key-secret=s,backing.file.filename={backing}" if backing else ""
    return f"driver=qcow2,encrypt.key-secret=s,file.filename={name}{below}"


def io(tools, cwd, text, *commands):
    args = [word for command in commands for word in ("-c", command)]
    return ok(tools["io"], [*SECRET, *args, "--image-opts", text], cwd)


def create(cwd, kind, name, size="2M", backing=None):
    below = ["-b", "json:" + json.dumps({"driver": "qcow2", "encrypt.key-secret": "s",
                                         "file": {"driver": "file", "filename": backing}}), "-F", "qcow2"] if backing else []
    ok(OURS["img"], ["create", "-q", *SECRET, "-f", "qcow2", "-o", KINDS[kind], *below, name, size], cwd)


def chain(cwd, kind):
    """Each has data that the other lacks, and hides some of it."""
    create(cwd, kind, "base")
    io(OURS, cwd, spec("base"), "write -P 1 0 1M")
    create(cwd, kind, "top", backing="base")
    io(OURS, cwd, spec("top", "base"), "write -P 2 500k 200k", "write -z 100k 64k", "write -P 3 1500k 10k")


SHOWN = ["read -P 1 0 100k", "read -P 0 100k 64k", "read -P 1 164k 336k", "read -P 2 500k 200k", "read -P 1 700k 324k",
         "read -P 0 1M 476k", "read -P 3 1500k 10k", "read -P 0 1510k 538k"]


def check(cwd, name, backing=None):
    for tools in BOTH:
        io(tools, cwd, spec(name, backing), *SHOWN)
    ok(THEIRS["img"], ["check", *SECRET, "--image-opts", spec(name)], cwd)


@pytest.mark.parametrize("kind", KINDS)
def test_commit_encrypts_what_goes_below(tmp_path, kind):
    chain(tmp_path, kind)
    ok(OURS["img"], ["commit", *SECRET, "-q", "--image-opts", spec("top")], tmp_path)
    check(tmp_path, "base")
    check(tmp_path, "top", "base")
    assert b"\x02" * 64 not in (tmp_path / "base").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_rebase_encrypts_what_is_kept(tmp_path, kind):
    chain(tmp_path, kind)
    ok(OURS["img"], ["rebase", *SECRET, "-b", "", "--image-opts", spec("top")], tmp_path)
    (tmp_path / "base").unlink()
    check(tmp_path, "top")
    assert b"\x01" * 64 not in (tmp_path / "top").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_bitmaps_go_with_encryption(tmp_path, kind):
    create(tmp_path, kind, "x")
    for tools, name in ((OURS, "ours"), (THEIRS, "theirs")):
        ok(tools["img"], ["bitmap", *SECRET, "--add", "--image-opts", spec("x"), name], tmp_path)
    for tools, command in ((OURS, "write -P 5 0 128k"), (THEIRS, "write -P 6 1M 64k")):
        io(tools, tmp_path, spec("x"), command)
    told = [json.loads(ok(tools["img"], ["info", *SECRET, "--output=json", "--image-opts", spec("x")], tmp_path))
            ["format-specific"]["data"]["bitmaps"] for tools in BOTH]
    assert told[0] == told[1] and {bitmap["name"] for bitmap in told[0]} == {"ours", "theirs"}
    ok(THEIRS["img"], ["check", *SECRET, "--image-opts", spec("x")], tmp_path)
    for tools, to in ((OURS, "by-us"), (THEIRS, "by-them")):
        ok(tools["img"], ["convert", *SECRET, "--image-opts", "--bitmaps", "-O", "qcow2", "-o", KINDS[kind], spec("x"), to],
           tmp_path)
    ok(OURS["img"], ["convert", *SECRET, "--image-opts", "--bitmaps", "-O", "qcow2", spec("x"), "plain"], tmp_path)
    for name in ("by-us", "by-them"):
        for tools in BOTH:
            io(tools, tmp_path, spec(name), "read -P 5 0 128k", "read -P 6 1M 64k", "read -P 0 1500k 100k")
    names = [{bitmap["name"] for bitmap in json.loads(ok(THEIRS["img"], ["info", "--output=json", name], tmp_path))
              ["format-specific"]["data"]["bitmaps"]} for name in ("by-us", "by-them", "plain")]
    assert names == [{"ours", "theirs"}] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_snapshots_of_encrypted_images(tmp_path, kind):
    create(tmp_path, kind, "x")
    io(OURS, tmp_path, spec("x"), "write -P 5 0 1M")
    ok(OURS["img"], ["snapshot", *SECRET, "-c", "one", "--image-opts", spec("x")], tmp_path)
    io(THEIRS, tmp_path, spec("x"), "write -P 6 300k 300k")
    ok(THEIRS["img"], ["snapshot", *SECRET, "-c", "two", "--image-opts", spec("x")], tmp_path)
    io(OURS, tmp_path, spec("x"), "write -P 7 500k 1M")
    for tools, name, shown in ((THEIRS, "one", ["read -P 5 0 1M"]),
                               (OURS, "two", ["read -P 5 0 300k", "read -P 6 300k 300k", "read -P 0 1M 1M"])):
        ok(tools["img"], ["snapshot", *SECRET, "-a", name, "--image-opts", spec("x")], tmp_path)
        for reader in BOTH:
            io(reader, tmp_path, spec("x"), *shown)
    ok(OURS["img"], ["snapshot", *SECRET, "-d", "one", "--image-opts", spec("x")], tmp_path)
    ok(THEIRS["img"], ["check", *SECRET, "--image-opts", spec("x")], tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_encrypted_images_shrink_and_grow(tmp_path, kind):
    create(tmp_path, kind, "x")
    io(OURS, tmp_path, spec("x"), "write -P 5 0 2M")
    ok(OURS["img"], ["resize", *SECRET, "-q", "--shrink", "--image-opts", spec("x"), "700k"], tmp_path)
    for tools in BOTH:
        io(tools, tmp_path, spec("x"), "read -P 5 0 700k")
    ok(OURS["img"], ["resize", *SECRET, "-q", "--preallocation=full", "--image-opts", spec("x"), "3M"], tmp_path)
    for tools in BOTH:
        io(tools, tmp_path, spec("x"), "read -P 5 0 700k", "read -P 0 700k 2M")
    ok(THEIRS["img"], ["check", *SECRET, "--image-opts", spec("x")], tmp_path)


@pytest.mark.parametrize("data_file", ["", ",data_file=data"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_the_other_tool_grows_reads_as_zeroes(tmp_path, kind, data_file):
    """The disk ended inside a cluster, of which nothing but the rest was never written."""
    for writer, grower in ((OURS, THEIRS), (THEIRS, OURS)):
        ok(OURS["img"], ["create", "-q", *SECRET, "-f", "qcow2", "-o", KINDS[kind] + data_file, "x", "132608"], tmp_path)
        io(writer, tmp_path, spec("x"), "write -P 5 131072 1536")
        ok(grower["img"], ["resize", *SECRET, "-q", "--image-opts", spec("x"), "1M"], tmp_path)
        for tools in BOTH:
            io(tools, tmp_path, spec("x"), "read -P 5 131072 1536", "read -P 0 132608 890k")
        (tmp_path / "x").unlink()
