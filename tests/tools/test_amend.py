# SPDX-License-Identifier: MIT
"""amend, beside the real tool: the same command lines in twin directories, and the image that comes out."""

import hashlib
import struct

import pytest

from tools import OURS, THEIRS, run

SECRET = "--object=secret,id=s,data=x"


def content(directory, name, *args):
    """What the real tool reads."""
    run([THEIRS["img"], "convert", "-O", "raw", *args, name, "content.raw"], directory).check_returncode()
    data = (directory / "content.raw").read_bytes()
    return len(data), hashlib.sha256(data).hexdigest()


def same_image(twin, name):
    """Both read the same and tell the same of it; both checkers find ours clean."""
    assert content(twin.ours, name) == content(twin.theirs, name)
    twin.same("img", "info", "--output=json", name, json_output=True, ignore=["actual-size", "children"])
    ours_as_told = [run([tools["img"], "info", name], twin.ours).stdout for tools in (OURS, THEIRS)]
    assert ours_as_told[0] == ours_as_told[1]
    for tools in (THEIRS, OURS):
        result = run([tools["img"], "check", name], twin.ours)
        assert result.stdout.startswith("No errors were found"), f"{tools['img']}: {result.stdout}{result.stderr}"


@pytest.mark.parametrize("arguments", [
    [], ["a.qcow2"], ["-o", "compat=v3"], ["-o", "compat=v3", "a.qcow2", "b"], ["-o"], ["-o", "help"],
    ["-o", "help", "a.qcow2"], ["-o", "help", "no.qcow2"], ["-f", "qcow2", "-o", "help"],
    ["-f", "qcow2", "-o", "compat=v2,?"], ["-f", "qcow2", "-o", "compat=v2", "-o", "help", "no.qcow2"],
    ["-f", "raw", "-o", "help"], ["-f", "nope", "-o", "help"], ["-f", "raw", "-o", "size=1M", "a.qcow2"],
    ["-f", "nope", "-o", "size=1M", "a.qcow2"], ["-o", "compat=v3", "no.qcow2"], ["-o", "help=1", "a.qcow2"],
    ["-o", ",compat=v3", "a.qcow2"], ["-o", "compat=v3,", "a.qcow2"], ["-o", "", "a.qcow2"],
    ["-t", "none", "-o", "compat=v3", "a.qcow2"], ["-t", "unsafe", "-o", "compat=v2", "a.qcow2"],
    ["-t", "nope", "-o", "compat=v3", "a.qcow2"], ["-T", "none", "-o", "compat=v3", "a.qcow2"],
    ["-q", "-o", "compat=v2", "a.qcow2"], ["-q", "-p", "-o", "compat=v2", "a.qcow2"], ["-q", "-o", "no=1", "a.qcow2"],
    ["--force", "-o", "compat=v2", "a.qcow2"],
    ["--image-opts", "-o", "compat=v2", "driver=qcow2,file.filename=a.qcow2"],
    ["--image-opts", "-o", "compat=v2", "a.qcow2"], [SECRET, "-o", "compat=v2", "a.qcow2"],
    ["--object=nope", "-o", "compat=v2", "a.qcow2"], ["-U", "-o", "compat=v2", "a.qcow2"], ["--no", "a.qcow2"],
    ["-o", "lazy_refcounts=on", "-o", "refcount_bits=8", "a.qcow2"],
])
def test_command_lines_are_taken_and_refused(twin, arguments):
    twin.make("-f", "qcow2", "a.qcow2", "1M")
    before = (twin.ours / "a.qcow2").read_bytes()
    if twin.same("img", "amend", *arguments).returncode or "help" in arguments:
        assert (twin.ours / "a.qcow2").read_bytes() == before
    else:
        same_image(twin, "a.qcow2")


def test_progress_ends_with_all(twin):
    twin.make("-f", "qcow2", "a.qcow2", "1M")
    ours, theirs = twin.both("img", "amend", "-p", "-o", "compat=v2", "a.qcow2")
    for result in (ours, theirs):
        assert result.returncode == 0
        lines = result.stdout.replace("\r", "\n").split("\n")
        assert lines[0] == "    (0.00/100%)" and lines[-2] == "    (100.00/100%)" and lines[-1] == "", lines


VALUES = ["compat=0.10", "compat=v2", "compat=1.1", "compat=v3", "compat=2", "compat=", "compat",
          "cluster_size=65536", "cluster_size=4k", "extended_l2=off", "extended_l2=on", "preallocation=off",
          "preallocation=full", "compression_type=zlib", "encryption=off", "encrypt.format=luks",
          "encrypt.key-secret=s", "encrypt.cipher-alg=aes-256", "encrypt.state=active", "encrypt.keyslot=1",
          "encrypt.iter-time=10", "encrypt.new-secret=s", "encrypt.old-secret=s", "encrypt.no=1",
          "refcount_bits=1", "refcount_bits=2", "refcount_bits=4", "refcount_bits=8", "refcount_bits=16",
          "refcount_bits=32", "refcount_bits=64", "refcount_bits=0", "refcount_bits=3", "refcount_bits=128",
          "refcount_bits=-1", "refcount_bits=x", "lazy_refcounts=on", "lazy_refcounts=off", "lazy_refcounts=x",
          "size=1M", "size=3M", "size=512k", "size=0", "size=1000", "size=-1", "size=9E", "size=x",
          "data_file=d", "data_file=", "data_file_raw=on", "data_file_raw=off", "backing_file=b", "backing_file=",
          "backing_fmt=raw", "backing_file=b,backing_fmt=raw", "no=1",
          "compat=v2,refcount_bits=16,lazy_refcounts=off", "compat=v2,refcount_bits=8", "compat=v2,lazy_refcounts=on",
          "compat=v3,refcount_bits=64,lazy_refcounts=on,size=2M", "compat=v2,size=2M", "compat=v2,compat=v3"]
KINDS = ["compat=1.1", "compat=0.10", "refcount_bits=8,lazy_refcounts=on", "cluster_size=512,preallocation=metadata"]


def amend_both(twin, name, *arguments):
    """What is refused is refused before anything is written."""
    before = (twin.ours / name).read_bytes()
    if twin.same("img", "amend", *arguments, name).returncode == 0:
        same_image(twin, name)
    else:
        assert (twin.ours / name).read_bytes() == before


@pytest.mark.parametrize("number,value", list(enumerate(VALUES)))
def test_values_change_what_the_real_tool_changes(twin, number, value):
    twin.make("-f", "qcow2", "-o", KINDS[number % len(KINDS)], "a.qcow2", "1M")
    twin.prepare("a.qcow2", "write -P 1 0 100k", "write -P 2 900k 64k")
    amend_both(twin, "a.qcow2", "-o", value)


@pytest.mark.parametrize("kind,value", [
    ("extended_l2=on", "compat=v2"), ("data_file=d", "compat=v2"), ("compression_type=zstd", "compat=v2"),
    ("data_file=d", "data_file=e"), ("data_file=d", "data_file_raw=off"), ("data_file=d", "data_file_raw=on"),
    ("data_file=d,data_file_raw=on", "data_file_raw=off"), ("data_file=d,data_file_raw=on", "data_file_raw=on"),
    ("data_file=d,data_file_raw=on", "data_file=e,data_file_raw=on"), ("data_file=d", "size=3M"),
    ("data_file=d", "refcount_bits=1"), ("extended_l2=on", "refcount_bits=64"),
])
def test_features_are_kept_or_refused(twin, kind, value):
    twin.make("-f", "qcow2", "-o", kind, "a.qcow2", "1M")
    twin.prepare("a.qcow2", "write -P 1 0 100k", "write -z 200k 200k")
    if "data_file" in kind:
        twin.write("e", (twin.theirs / "d").read_bytes())
    amend_both(twin, "a.qcow2", "-o", value)


def test_an_image_with_zstd_clusters_stays_as_it_is(twin):
    twin.write("a.raw", b"text " * 100000)
    for directory in (twin.theirs, twin.ours):
        run([THEIRS["img"], "convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", "a.raw", "a.qcow2"],
            directory).check_returncode()
    amend_both(twin, "a.qcow2", "-o", "compat=v2")


def test_an_image_with_bitmaps_does_not_become_version_2(twin):
    """The real tool leaves their clusters leaked, and says so only in a warning when the image is opened later."""
    twin.make("-f", "qcow2", "a.qcow2", "1M")
    run([THEIRS["img"], "bitmap", "--add", "a.qcow2", "b"], twin.theirs).check_returncode()
    twin.prepare("a.qcow2", "write -P 1 0 100k")
    before = (twin.ours / "a.qcow2").read_bytes()
    ours, theirs = twin.both("img", "amend", "-o", "compat=0.10", "a.qcow2")
    assert (ours.returncode, theirs.returncode) == (1, 0) and "persistent dirty bitmaps" in ours.stderr
    assert (twin.ours / "a.qcow2").read_bytes() == before
    assert run([THEIRS["img"], "check", "a.qcow2"], twin.theirs).returncode == 3


@pytest.mark.parametrize("cluster_size", ["512", "4k", "64k", "2M"])
@pytest.mark.parametrize("kind", ["", ",preallocation=metadata", "backing"])
def test_zero_clusters_read_as_zeroes_in_version_2(twin, kind, cluster_size):
    twin.write("base", b"b" * (8 << 20))
    backing = ["-b", "base", "-F", "raw"] if kind == "backing" else []
    options = f"cluster_size={cluster_size}" + (kind if kind != "backing" else "")
    twin.make("-f", "qcow2", *backing, "-o", options, "a.qcow2", "8M")
    twin.prepare("a.qcow2", "write -P 1 2M 4M", "write -z 0 1M", "write -z 3M 2M",
                 "write -z -u 5M 1M", "write -z 7M 1000k")
    twin.same("img", "amend", "-o", "compat=0.10", "a.qcow2")
    same_image(twin, "a.qcow2")
    twin.same("img", "amend", "-o", "compat=1.1", "a.qcow2")
    same_image(twin, "a.qcow2")


@pytest.mark.parametrize("kind", ["", "backing"])
@pytest.mark.parametrize("cluster_size", ["512", "64k"])
def test_snapshots_read_the_same_in_any_version_and_width(tmp_path, kind, cluster_size):
    """The real tool leaves COPIED flags wrong here, so it is asked only what it makes of ours."""
    def img(tools, *args):
        result = run([tools["img"], *args], tmp_path)
        assert result.returncode == 0, f"{args}: {result.stderr}"
        return result.stdout

    def io(*commands):
        run([THEIRS["io"], *(part for command in commands for part in ("-c", command)), "a.qcow2"],
            tmp_path).check_returncode()

    (tmp_path / "base").write_bytes(b"b" * (1 << 20))
    backing = ["-b", "base", "-F", "raw"] if kind else []
    img(THEIRS, "create", "-q", "-f", "qcow2", *backing, "-o", f"cluster_size={cluster_size}", "a.qcow2", "1M")
    io("write -z 0 64k", "write -P 2 64k 64k", "write -z 128k 64k", "write -z -u 192k 100k")
    img(THEIRS, "snapshot", "-c", "one", "a.qcow2")
    io("write -z 0 192k", "write -P 3 4k 8k")
    img(THEIRS, "snapshot", "-c", "two", "a.qcow2")
    io("write -z 300k 192k")

    def reading():
        return [content(tmp_path, "a.qcow2", *args) for args in ([], ["-l", "one"], ["-l", "two"])]

    before = reading()
    for value in ("refcount_bits=2", "compat=v2,refcount_bits=16", "compat=v3", "refcount_bits=64,lazy_refcounts=on",
                  "compat=v2,refcount_bits=16"):
        img(OURS, "amend", "-o", value, "a.qcow2")
        assert reading() == before, value
        for tools in (THEIRS, OURS):
            assert img(tools, "check", "a.qcow2").startswith("No errors were found"), value
    img(THEIRS, "snapshot", "-d", "one", "a.qcow2")
    img(OURS, "snapshot", "-d", "two", "a.qcow2")
    assert img(THEIRS, "check", "a.qcow2").startswith("No errors were found")
    assert content(tmp_path, "a.qcow2") == before[0]


def test_counts_that_do_not_fit_are_refused(twin):
    twin.make("-f", "qcow2", "a.qcow2", "1M")
    twin.prepare("a.qcow2", "write -P 1 0 100k")
    for name in "abcd":
        run([THEIRS["img"], "snapshot", "-c", name, "a.qcow2"], twin.theirs).check_returncode()
    twin.copy()
    before = (twin.ours / "a.qcow2").read_bytes()
    for bits, status in (("1", 1), ("2", 1), ("4", 0)):
        assert twin.same("img", "amend", "-o", f"refcount_bits={bits}", "a.qcow2").returncode == status
        assert status == 0 or (twin.ours / "a.qcow2").read_bytes() == before
    same_image(twin, "a.qcow2")


def test_a_snapshot_of_another_size_keeps_version_3(twin):
    twin.make("-f", "qcow2", "a.qcow2", "1M")
    run([THEIRS["img"], "snapshot", "-c", "small", "a.qcow2"], twin.theirs).check_returncode()
    twin.copy()
    for value, status in (("size=2M", 0), ("compat=v2", 1), ("compat=v2,size=1M", 0)):
        assert twin.same("img", "amend", "-o", value, "a.qcow2").returncode == status
        same_image(twin, "a.qcow2")


def test_features_that_nobody_knows_go_with_version_3(twin):
    """Compatible bits, and the dirty bit of an image that was not closed."""
    twin.make("-f", "qcow2", "-o", "lazy_refcounts=on", "a.qcow2", "1M")
    data = bytearray((twin.theirs / "a.qcow2").read_bytes())
    struct.pack_into(">QQ", data, 72, 1, 0x101)
    for value in ("lazy_refcounts=off", "compat=v2", "compat=v3"):
        twin.write("a.qcow2", data)
        twin.same("img", "amend", "-o", value, "a.qcow2")
        same_image(twin, "a.qcow2")
        ours, theirs = ((directory / "a.qcow2").read_bytes() for directory in (twin.ours, twin.theirs))
        assert ours[4:8] == theirs[4:8] and ours[72:88] == theirs[72:88]


@pytest.mark.parametrize("length,status", [(200, 0), (392, 0), (393, 1), (430, 1)])
def test_what_does_not_fit_the_header_cluster_is_refused(tmp_path, length, status):
    """Version 3 has a longer header: 112 bytes, and 8 for the end of extensions and 16 for the format, of 512."""
    length -= 16
    base = "d" * 100 + "/" + "b" * (length - 101 if length < 300 else 199)
    base += "/" + "c" * (length - 301) if length > 300 else ""
    (tmp_path / base).parent.mkdir(parents=True)
    (tmp_path / base).write_bytes(b"b" * 1024)
    run([THEIRS["img"], "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", "-o", "compat=v2,cluster_size=512",
         "a.qcow2", "1M"], tmp_path).check_returncode()
    before = (tmp_path / "a.qcow2").read_bytes()
    result = run([OURS["img"], "amend", "-o", "compat=v3", "a.qcow2"], tmp_path)
    assert result.returncode == status, result.stderr
    assert status == 0 or (tmp_path / "a.qcow2").read_bytes() == before and "cluster" in result.stderr
    for tools in (THEIRS, OURS):
        result = run([tools["img"], "check", "a.qcow2"], tmp_path)
        assert result.stdout.startswith("No errors were found"), f"{tools['img']}: {result.stdout}{result.stderr}"
