# SPDX-License-Identifier: MIT
"""Open options of qcow2: what both take, what both refuse, and what they then do to a damaged image."""

import struct

import pytest

COPIED = 1 << 63
STRUCTURES = ["active-l1", "active-l2", "refcount-table", "refcount-block"]

TAKEN = ["overlap-check=none", "overlap-check=constant", "overlap-check.template=all",
         "overlap-check=none,overlap-check.template=none", "overlap-check=all,overlap-check.main-header=off",
         "overlap-check=none,overlap-check.bitmap-directory=on,overlap-check.inactive-l2=on",
         "cache-clean-interval=0", "cache-clean-interval=4294967295", "l2-cache-size=0,refcount-cache-size=0",
         "l2-cache-size=7E", "cache-size=1M,l2-cache-size=1M", "l2-cache-entry-size=512"]
REFUSED = ["overlap-check=some", "overlap-check.template=some", "overlap-check.some=on", "overlap-check.active-l1=some",
           "overlap-check=none,overlap-check.template=all",
           "cache-clean-interval=4294967296", "cache-clean-interval=-1", "cache-clean-interval=x",
           "cache-size=64k,l2-cache-size=128k", "cache-size=64k,refcount-cache-size=128k", "refcount-cache-size=7E",
           "cache-size=1M,l2-cache-size=512k,refcount-cache-size=512k", "cache-size=7E", "l2-cache-size=-1",
           "l2-cache-entry-size=300", "l2-cache-entry-size=128k"]


@pytest.mark.parametrize("options", TAKEN + REFUSED)
def test_both_take_or_refuse(twin, options):
    twin.make("-f", "qcow2", "a.qcow2", "1M")
    result = twin.same("io", "-f", "qcow2", "-c", f"open -o {options} a.qcow2", "-c", "read 0 512")
    assert (result.returncode == 1) == (options in REFUSED)


def read64(data, offset):
    return struct.unpack_from(">Q", data, offset)[0]


def damage(twin, structure):
    """The entry of the second guest cluster leads to @structure."""
    twin.make("-f", "qcow2", "a.qcow2", "1M")
    twin.prepare("a.qcow2", "write -P 1 0 64k")
    data = bytearray((twin.theirs / "a.qcow2").read_bytes())
    table = read64(data, 48)
    l1 = read64(data, 40)
    l2 = read64(data, l1) & ~COPIED
    place = {"active-l1": l1, "active-l2": l2, "refcount-table": table, "refcount-block": read64(data, table)}
    struct.pack_into(">Q", data, l2 + 8, place[structure] | COPIED)
    twin.write("a.qcow2", data)


@pytest.mark.parametrize("template", ["none", "constant", "cached", "all"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_write_hits_what_the_template_guards(twin, structure, template):
    damage(twin, structure)
    result = twin.same("io", "-f", "qcow2", "-c", f"open -o overlap-check={template} a.qcow2",
                       "-c", "write -P 2 127k 1k")
    hit = template in ("cached", "all") or template == "constant" and structure in ("active-l1", "refcount-table")
    assert ("write failed: Input/output error" in result.stdout) == hit
    assert ("marked corrupt" in result.stderr) == hit
    for directory in (twin.ours, twin.theirs):
        incompatible = read64((directory / "a.qcow2").read_bytes(), 72)
        assert bool(incompatible & 2) == hit


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_switch_overrides_the_template(twin, structure):
    damage(twin, structure)
    twin.same("io", "-f", "qcow2", "-c", f"open -o overlap-check=all,overlap-check.{structure}=off a.qcow2",
              "-c", "write -P 2 127k 1k")
    damage(twin, structure)
    twin.same("io", "-f", "qcow2", "-c", f"open -o overlap-check=none,overlap-check.{structure}=on a.qcow2",
              "-c", "write -P 2 127k 1k")


def test_writes_have_stopped_and_reads_go_on(twin):
    damage(twin, "refcount-table")
    ours, theirs = twin.both("io", "-c", "write -P 2 127k 1k", "-c", "write -P 2 512k 1k", "-c", "read -P 1 0 64k",
                             "a.qcow2")
    assert ours.returncode == theirs.returncode == 1
    assert ours.stdout.count("write failed: Input/output error") == 2
    assert "read 65536/65536 bytes" in ours.stdout
    # Who opens it again is told.
    twin.same("io", "-c", "write 0 1k", "a.qcow2")
    twin.same("io", "-r", "-c", "read -P 1 0 1k", "a.qcow2")


@pytest.mark.parametrize("options", ["compat=1.1", "compat=0.10", "cluster_size=512", "cluster_size=4k", "cluster_size=8k", "extended_l2=on",
                                     "backing_file=b.raw,backing_fmt=raw", "lazy_refcounts=on,refcount_bits=1"])
def test_a_new_header_is_theirs_byte_by_byte(twin, options):
    """With the feature name table, the extensions and the backing file's name."""
    twin.write("b.raw", bytes(65536))
    twin.same("img", "create", "-q", "-f", "qcow2", "-o", options, "a.qcow2", "1M")
    ours, theirs = ((directory / "a.qcow2").read_bytes() for directory in (twin.ours, twin.theirs))
    size = 1 << struct.unpack_from(">I", theirs, 20)[0]
    tables = {*range(40, 56)}  # where the L1 and refcount tables lie
    assert [i for i in range(size) if ours[i] != theirs[i] and i not in tables] == []
