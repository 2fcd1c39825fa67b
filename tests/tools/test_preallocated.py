# SPDX-License-Identifier: MIT
"""Images with space that was reserved and never written, or given back: when the file is asked for holes."""

import os

import pytest
from tools import run

SIZE = 32 << 20
KEY = ["--object", "secret,id=s,data=abc"]


def real(twin, *argv):
    """The same in both, by the real tools: a copy would have other holes."""
    for where in (twin.ours, twin.theirs):
        run(argv, where).check_returncode()


def make(twin, options, *commands, create=(), name="x", size=SIZE):
    real(twin, "qemu-img", "create", "-q", "-f", "qcow2", *create, "-o", options, name, str(size))
    if commands:
        io(twin, name, *commands)


def io(twin, name, *commands):
    real(twin, "qemu-io", "--image-opts", *[word for command in commands for word in ("-c", command)],
         f"driver=qcow2,discard=unmap,file.filename={name}")


def filled(percent):
    return f"write -P 1 0 {SIZE * percent // 100 // 65536 * 65536}"


def read_alike(twin, name="x"):
    for command in (["map"], ["map", "--output=json"], ["measure", "-O", "raw"],
                    ["compare", "-f", "qcow2", "-F", "qcow2", name]):
        twin.same("img", *command, name)
    twin.same("img", "convert", "-O", "raw", name, "copy")
    twin.same_content("copy", "raw")
    # What ext4 stores of a file's extents counts too, and depends on when it chose to write back.
    ours, theirs = ((directory / "copy").stat().st_blocks for directory in (twin.ours, twin.theirs))
    assert abs(ours - theirs) <= 32


@pytest.mark.parametrize("mode, cluster", [("metadata", "4k"), ("metadata", "64k"), ("metadata", "2M"),
                                           ("falloc", "64k"), ("full", "64k")])
def test_space_that_was_never_written_reads_as_zeroes_without_being_read(twin, mode, cluster):
    make(twin, f"preallocation={mode},cluster_size={cluster}",
         "write -P 1 3M 64k", "write -P 2 8193k 7k", "discard 20M 2M")
    read_alike(twin)


@pytest.mark.parametrize("percent", [10, 50, 85, 89, 90, 92])
def test_how_much_must_be_unwritten_for_holes_to_count(twin, percent):
    make(twin, "preallocation=metadata", filled(percent))
    read_alike(twin)


@pytest.mark.parametrize("clusters, written", [(40, 35), (40, 36), (40, 37), (2, 0), (2, 1)])
def test_the_boundary_is_to_the_cluster(twin, clusters, written):
    """Five clusters of metadata come first; the file has only a part of the last cluster."""
    make(twin, "preallocation=metadata,cluster_size=4k", f"write 0 {written * 4096}", size=clusters * 4096)
    for where in (twin.ours, twin.theirs):
        os.truncate(where / "x", (5 + clusters) * 4096 - 512)
    twin.same("img", "map", "--output=json", "x")


@pytest.mark.parametrize("options", ["cluster_size=4k", "cluster_size=64k", "extended_l2=on"])
def test_space_given_back_is_no_reserved_space(twin, options):
    make(twin, options, filled(100), "discard 1M 20M", "write -z -u 22M 3M", "write -z 26M 64k")
    read_alike(twin)


@pytest.mark.parametrize("keep", [268, 282, 470])
def test_space_given_back_beside_reserved_space(twin, keep):
    """Of a preallocated image with half of its clusters written, others are freed until most in use are written."""
    make(twin, "preallocation=metadata", filled(50), f"discard {keep * 65536} {SIZE - keep * 65536}")
    read_alike(twin)


@pytest.mark.parametrize("options", ["extended_l2=on", "refcount_bits=1", "refcount_bits=64,cluster_size=2M",
                                     "compat=0.10"])
def test_reserved_space_of_images_of_other_kinds(twin, options):
    make(twin, f"preallocation=metadata,{options}", "write -P 1 3M 5k", "write -P 2 9M 1M", "discard 20M 6M",
         "write -c -P 3 24M 2M")
    read_alike(twin)


def test_reserved_space_that_snapshots_share_is_counted_once(twin):
    make(twin, "preallocation=metadata", filled(40))
    real(twin, "qemu-img", "snapshot", "-c", "one", "x")
    real(twin, "qemu-img", "snapshot", "-c", "two", "x")
    read_alike(twin)
    io(twin, "x", "write -P 5 0 32M")
    read_alike(twin)
    twin.same("img", "convert", "-O", "raw", "-l", "one", "x", "old")
    twin.same_content("old", "raw")


def test_reserved_space_shows_through_an_overlay(twin):
    make(twin, "preallocation=metadata", "write -P 1 3M 64k", name="base")
    make(twin, "cluster_size=64k", "write -P 2 4M 64k", "write -P 2 4000k 7k", "write -z 5M 1M",
         create=["-b", "base", "-F", "qcow2"])
    read_alike(twin)


@pytest.mark.parametrize("cluster", ["4k", "64k", "2M"])
def test_a_data_file_is_asked_if_its_image_is_sparse(twin, cluster):
    """The tables of 2 MiB clusters are stored in small part, those of 4 KiB are full."""
    make(twin, f"cluster_size={cluster},data_file=d", "write -P 1 3M 64k", "write -P 1 5M 64k", "write 7M 5k")
    for command in (["map"], ["map", "--output=json"], ["measure", "-O", "raw"],
                    ["compare", "-f", "qcow2", "-F", "qcow2", "x"]):
        twin.same("img", *command, "x")


def test_reserved_space_of_an_encrypted_image_is_no_hole(twin):
    options = "preallocation=metadata,encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"
    run(["qemu-img", "create", "-q", *KEY, "-f", "qcow2", "-o", options, "x", "1M"], twin.theirs).check_returncode()
    run(["cp", str(twin.theirs / "x"), "x"], twin.ours).check_returncode()
    image = "driver=qcow2,encrypt.key-secret=s,file.filename=x"
    twin.same("img", "map", *KEY, "--output=json", "--image-opts", image)
    twin.same("img", "measure", *KEY, "-O", "raw", "--image-opts", image)
    twin.same("img", "compare", *KEY, "--image-opts", image, image)
