# SPDX-License-Identifier: MIT
"""qcow2 with an external data file: made, read, changed and resized by both families of tools."""

import json

import pytest

from tools import OURS, run

REQUESTS = ["write -P 1 0 1M", "write -z 64k 64k", "write -zu 128k 64k", "discard 192k 64k", "write -z 260k 4k",
            "discard 328k 4k", "discard 384k 64k", "write -P 7 70k 2k", "write -P 9 130k 3k", "write -P 3 1000000 512",
            "write -z 900k 100000"]
FORMS = ["data_file_raw=off", "data_file_raw=on", "extended_l2=on", "extended_l2=on,data_file_raw=on",
         "cluster_size=4k", "cluster_size=4k,data_file_raw=on", "preallocation=metadata", "preallocation=falloc",
         "preallocation=full,data_file_raw=on", "lazy_refcounts=on"]


def options(form):
    return f"data_file=d.raw,{form}"


def is_raw(form):
    return "raw=on" in form


def same_data(twin):
    assert (twin.ours / "d.raw").read_bytes() == (twin.theirs / "d.raw").read_bytes()


@pytest.mark.parametrize("form", FORMS)
def test_a_new_image_is_the_same(twin, form):
    twin.same("img", "create", "-f", "qcow2", "-o", options(form), "x", "1M")
    twin.same("img", "info", "x")
    twin.same("img", "check", "x")
    if "extended_l2=on,data" not in form:
        twin.same_of_each("img", "map", "x")
    same_data(twin)
    for name in ("x", "d.raw"):
        assert (twin.ours / name).stat().st_size == (twin.theirs / name).stat().st_size


@pytest.mark.parametrize("arguments", [
    "data_file_raw=on", "data_file=d.raw,compat=0.10", "data_file=nbd://x", "data_file=",
    "data_file=d.raw,data_file_raw=on,backing_file=b,backing_fmt=qcow2", "data_file=x", "data_file=missing/d.raw",
])
def test_what_cannot_be_made(twin, arguments):
    twin.make("-f", "qcow2", "b", "1M")
    ours, theirs = twin.both("img", "create", "-f", "qcow2", "-o", arguments, "x", "1M")
    assert ours.returncode == theirs.returncode == 1
    assert ours.stdout == theirs.stdout
    assert ours.stderr


@pytest.mark.parametrize("form", FORMS)
def test_requests(twin, form):
    twin.make("-f", "qcow2", "-o", options(form), "x", "1M")
    for request in REQUESTS:
        twin.same("io", "-d", "unmap", "-c", request, "x")
        twin.same_content("x", "qcow2")
        if not is_raw(form):  # ours keeps what is mapped mapped
            twin.same("img", "map", "x")
            twin.same("img", "map", "--output=json", "x")
        else:
            same_data(twin)
    if is_raw(form):
        run([OURS["img"], "compare", "-f", "raw", "-F", "qcow2", "d.raw", "x"], twin.ours).check_returncode()
    else:
        twin.same("img", "check", "x")


@pytest.mark.parametrize("form", ["data_file_raw=off", "data_file_raw=on", "cluster_size=4k", "extended_l2=on"])
def test_resize(twin, form):
    twin.make("-f", "qcow2", "-o", options(form), "x", "1M")
    twin.prepare("x", "write -P 1 0 1M")
    for size in (["x", "1280k"], ["--shrink", "x", "100k"], ["x", "200k"], ["--preallocation=falloc", "x", "300k"],
                 ["--preallocation=full", "x", "+100k"], ["--preallocation=metadata", "x", "+100k"], ["x", "+300k"],
                 ["--shrink", "x", "512"], ["x", "1M"]):
        twin.same("img", "resize", *size)
        twin.same_content("x", "qcow2")
        length = json.loads(run([OURS["img"], "info", "--output=json", "x"], twin.ours).stdout)["virtual-size"]
        assert (twin.ours / "d.raw").stat().st_size == length
        if is_raw(form):  # theirs may be longer, by a part of a cluster
            assert (twin.ours / "d.raw").read_bytes() == (twin.theirs / "d.raw").read_bytes()[:length]


@pytest.mark.parametrize("form", FORMS)
def test_convert(twin, form):
    twin.make("-f", "qcow2", "s", "1M")
    twin.prepare("s", "write -P 4 100k 300k", "write -P 5 900k 1k")
    twin.same("img", "convert", "-O", "qcow2", "-o", options(form), "s", "x")
    twin.same_content("x", "qcow2")
    twin.same("img", "compare", "s", "x")
    twin.same("img", "convert", "-O", "raw", "x", "y")
    if is_raw(form):
        twin.same("img", "compare", "-f", "raw", "-F", "qcow2", "d.raw", "s")
    twin.same("img", "convert", "-c", "-n", "-O", "qcow2", "s", "x")
    twin.same("img", "convert", "-c", "-O", "qcow2", "-o", options(form), "s", "z")


def test_convert_never_writes_over_what_it_reads(twin):
    twin.make("-f", "raw", "a.raw", "1M")
    twin.prepare("a.raw", "write -P 7 4k 1020k")
    twin.same("img", "convert", "-f", "raw", "-O", "qcow2", "-o", "data_file=a.raw", "a.raw", "x")
    assert (twin.ours / "a.raw").read_bytes() == (twin.theirs / "a.raw").read_bytes()


def test_info_needs_no_data_file(twin):
    twin.make("-f", "qcow2", "-o", options("data_file_raw=on"), "x", "1M")
    for directory in (twin.ours, twin.theirs):
        (directory / "d.raw").unlink()
    twin.same("img", "info", "x")
    twin.same("img", "info", "--output=json", "x", json_output=True, ignore=["actual-size"])
    for command in (["check", "x"], ["map", "x"]):
        assert twin.same("img", *command).returncode == 1


def test_a_data_file_of_another_name(twin):
    twin.make("-f", "qcow2", "-o", options("data_file_raw=off"), "x", "1M")
    twin.prepare("x", "write -P 7 4k 1020k")
    for directory in (twin.ours, twin.theirs):
        (directory / "d.raw").rename(directory / "e.raw")
    image = "driver=qcow2,file.filename=x,data-file.filename=e.raw"
    twin.same("io", "--image-opts", "-c", "read -P 7 4k 1020k", "-c", "write -P 8 0 4k", image)
    twin.same("img", "map", "--image-opts", image)
    twin.same("io", "--image-opts", "-c", "read -P 8 0 4k",
              "driver=qcow2,file.filename=x,data-file.driver=raw,data-file.file.filename=e.raw")
    name = json.dumps({"driver": "qcow2", "file": {"driver": "file", "filename": "x"},
                       "data-file": {"driver": "file", "filename": "e.raw"}})
    twin.same("io", "-c", "read -P 8 0 4k", f"json:{name}")
    twin.make("-f", "qcow2", "plain", "1M")
    assert twin.same("img", "map", "--image-opts", "driver=qcow2,file.filename=plain,data-file.filename=e.raw").returncode


def test_backing_file(twin):
    twin.make("-f", "qcow2", "-o", options("data_file_raw=off"), "b", "1M")
    twin.prepare("b", "write -P 7 4k 1020k")
    twin.make("-f", "qcow2", "-o", "data_file=e.raw", "-b", "b", "-F", "qcow2", "x")
    for request in ("write -P 1 65k 1k", "write -z 128k 64k", "discard 256k 128k", "write -zu 512k 70k"):
        twin.same("io", "-d", "unmap", "-c", request, "x")
        twin.same_content("x", "qcow2")
        twin.same("img", "map", "x")
        twin.same("img", "map", "--output=json", "x")
    twin.same("img", "info", "--backing-chain", "x")


@pytest.mark.parametrize("form", ["data_file_raw=off", "data_file_raw=on"])
@pytest.mark.parametrize("preallocation", ["off", "metadata", "falloc", "full"])
def test_measure(twin, form, preallocation):
    twin.make("-f", "qcow2", "s", "10M")
    twin.prepare("s", "write -P 7 4k 1020k")
    wanted = f"{options(form)},preallocation={preallocation}"
    twin.same("img", "measure", "-O", "qcow2", "-o", wanted, "--size", "1G")
    twin.same("img", "measure", "-O", "qcow2", "-o", wanted, "s")
