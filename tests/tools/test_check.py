# SPDX-License-Identifier: MIT
"""Check and repair: the same findings as the real tool's, and repairs that it calls clean and that keep the data.

    BDRV_TEST_SEED=n      the same random damage again
    BDRV_TEST_IMAGES=n    so many damaged images
"""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "lib"))
import damage  # noqa: E402
from damage import COPIED, COMPRESSED, OFFSET, ZERO  # noqa: E402
from tools import OURS, dry_run, run  # noqa: E402

SEED = int(os.environ.get("BDRV_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
IMAGES = int(os.environ.get("BDRV_TEST_IMAGES") or 60)

LEAKS, ALL = ["-r", "leaks"], ["-r", "all"]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Sound images of all shapes, and what they read as."""
    root = tmp_path_factory.mktemp("good")
    images = {}
    for shape in damage.SHAPES:
        directory = root / shape
        directory.mkdir()
        damage.make(directory, shape)
        names = damage.SNAPSHOTS if shape == "snapshots" else ()
        images[shape] = (directory, {name: read(directory, "image", name) for name in (None, *names)})
    return images


def read(directory, name, snapshot=None):
    """The content; clusters that cannot be read (compressed data that is none) read as zeroes."""
    picked = ["-l", snapshot] if snapshot else []
    result = run(["qemu-img", "convert", "--salvage", "-f", "qcow2", "-O", "raw", *picked, name, "content"], directory)
    assert result.returncode == 0, result.stderr
    return (directory / "content").read_bytes()


def first_l2(image):
    return image.l2_entries[0][0]


def data_offset(image):
    return image.get(first_l2(image), 8) & OFFSET


def refcount_place(image, host_offset):
    return image.refblocks[0] + host_offset // image.cluster * 2


# Damage as (offset, width, value), and the options that ours treats differently: it repairs more, or with less
# (docs/known-differences.md).
CASES = {
    "nothing": (lambda i: [], ()),
    "leak": (lambda i: [(refcount_place(i, data_offset(i)), 2, 2)], ()),
    "too low": (lambda i: [(refcount_place(i, data_offset(i)), 2, 0)], (LEAKS, ALL)),
    "entry gone": (lambda i: [(first_l2(i), 8, 0)], ()),
    "two owners": (lambda i: [(first_l2(i) + 72, 8, COPIED | data_offset(i))], ()),
    "COPIED missing": (lambda i: [(first_l2(i), 8, data_offset(i))], ()),
    "COPIED missing in L1": (lambda i: [(i.l1, 8, i.get(i.l1, 8) & OFFSET)], ()),
    "reserved bits in L2": (lambda i: [(first_l2(i), 8, COPIED | data_offset(i) | 2)], (ALL,)),
    "reserved bits in L1": (lambda i: [(i.l1, 8, i.get(i.l1, 8) | 2)], (ALL,)),
    "flags alone in L1": (lambda i: [(i.l1, 8, COPIED)], (LEAKS, ALL)),
    "not aligned": (lambda i: [(first_l2(i), 8, COPIED | data_offset(i) + 512)], (ALL,)),
    "zero cluster not aligned": (lambda i: [(first_l2(i), 8, COPIED | data_offset(i) + 512 | ZERO)], (ALL,)),
    "far away": (lambda i: [(first_l2(i), 8, COPIED | 1 << 40)], (ALL,)),
    "L2 table gone": (lambda i: [(i.l1, 8, 0)], ()),
    "L2 table far away": (lambda i: [(i.l1, 8, COPIED | 1 << 40)], (ALL,)),
    "compressed over two": (lambda i: [(first_l2(i), 8, COMPRESSED | 1 << 58 | data_offset(i) + i.cluster - 512)],
                            (LEAKS, ALL)),
    "refcount table entry reserved": (lambda i: [(i.reftable, 8, i.refblocks[0] | 1)], (LEAKS, ALL)),
    "refcount block gone": (lambda i: [(i.reftable, 8, 0)], (LEAKS,)),
    "refcount block not aligned": (lambda i: [(i.reftable, 8, i.refblocks[0] + 512)], (ALL,)),
    "refcount block twice": (lambda i: [(i.reftable + 8, 8, i.refblocks[0])], ()),
    "refcount block far away": (lambda i: [(i.reftable + 8, 8, 1 << 40)], (LEAKS, ALL)),
    "no refcount table": (lambda i: [(56, 4, 0)], (LEAKS,)),
    "refcount table far away": (lambda i: [(48, 8, 1 << 40)], ()),
    "refcount table is the header": (lambda i: [(48, 8, 0)], (ALL,)),
    "data where L1 is": (lambda i: [(first_l2(i) + 8, 8, COPIED | i.l1)], (ALL,)),
    "no snapshots, at no place for them": (lambda i: [(64, 8, 64)], ([], LEAKS, ALL)),
    "dirty": (lambda i: [(79, 1, 1)], ()),
    "corrupt": (lambda i: [(79, 1, 2)], ()),
    "corrupt and leak": (lambda i: [(79, 1, 2), (refcount_place(i, data_offset(i)), 2, 2)], ()),
}


SEVERITIES = {"corruptions": "corruption", "leaks": "leak", "check-errors": "check-error"}


def explained(directory):
    """All findings of a check of x, but no more than some of each kind, are told with words, next to the usual output."""
    plain, words = (run([OURS["img"], "check", *more, "x"], directory) for more in ([], ["--explain"]))
    assert plain.returncode == words.returncode and words.stdout.startswith(plain.stdout)
    plain_json, words_json = (run([OURS["img"], "check", "--output=json", *more, "x"], directory)
                              for more in ([], ["--explain"]))
    if not plain_json.stdout:  # could not be checked
        assert plain_json.stderr == words_json.stderr and not words_json.stdout
        return []
    value, findings = json.loads(plain_json.stdout), json.loads(words_json.stdout)
    findings = findings.pop("findings")
    assert "findings" not in value and json.loads(words_json.stdout) == {**value, "findings": findings}
    for key, severity in SEVERITIES.items():
        assert sum(f["count"] for f in findings if f["severity"] == severity) == value.get(key, 0), findings
    told = plain.stderr.splitlines()
    for finding in findings:
        assert all(finding[key] and finding[key] in words.stdout for key in ("title", "risk", "repair")), finding
        examples = finding["examples"]
        assert len(examples) == min(finding["count"], 10) and all(example in told for example in examples), finding
        assert f"… and {finding['count'] - 10} more of this kind" in words.stdout or finding["count"] <= 10
    assert not words.stderr
    return [finding["kind"] for finding in findings]


FIGURES = ("corruptions", "leaks", "check-errors", "corruptions-fixed", "leaks-fixed")


def predicted(directory, told):
    """A dry run changes nothing, and ends as the repair of a copy of x does."""
    for options in (LEAKS, ALL):
        shutil.copy2(directory / "x", directory / "copy")
        dry = dry_run(directory, "check", "--dry-run", "--output=json", *options, "x")
        real = run([OURS["img"], "check", "--output=json", *options, "copy"], directory)
        assert dry.returncode == real.returncode, f"{told} {options}: {dry.stderr} {real.stderr}"
        if real.stdout:
            would, has = (json.loads(result.stdout) for result in (dry, real))
            assert [would.get(key, 0) for key in FIGURES] == [has.get(key, 0) for key in FIGURES], f"{told} {options}"
        (directory / "copy").unlink()


def same_findings(twin, case, options):
    patches, other = case
    for output in ([], ["--output=json"]):
        image = damage.Image(twin.theirs / "good")
        for patch in patches(image):
            image.put(*patch)
        image.save(twin.theirs / "x")
        twin.copy()
        if options in other:
            assert run([OURS["img"], "check", *options, *output, "x"], twin.ours).returncode <= 2
        else:
            twin.same("img", "check", *options, *output, "x", json_output=bool(output))
        if not options and not output:
            explained(twin.ours)
            predicted(twin.ours, case)
        if options == ALL:
            twin.clean("x", "qcow2")


@pytest.mark.parametrize("name", CASES)
def test_same_findings_and_repairs(twin, name):
    damage.make(twin.theirs, "metadata", "good")
    for options in ([], LEAKS, ALL):
        same_findings(twin, CASES[name], options)


# As above, of an image with extended L2 entries; the second word of an entry is the bitmap.
SUBCLUSTERS = {
    "nothing": (lambda i: [], ()),
    "both allocated and zero": (lambda i: [(first_l2(i) + 8, 8, 1 << 32 | 1)], (ALL,)),
    "allocated and nowhere": (lambda i: [(i.l2_entries[-1][0] + 16, 8, 0), (i.l2_entries[-1][0] + 24, 8, 5)], (ALL,)),
    "zero and nowhere": (lambda i: [(i.l2_entries[-1][0] + 16, 8, 0), (i.l2_entries[-1][0] + 24, 8, 5 << 32)], ()),
    "space without subclusters": (lambda i: [(first_l2(i) + 8, 8, 0)], ()),
    "not aligned, with data": (lambda i: [(first_l2(i), 8, COPIED | data_offset(i) + 512)], (ALL,)),
    "not aligned, without data": (lambda i: [(first_l2(i), 8, COPIED | data_offset(i) + 512), (first_l2(i) + 8, 8, 0)],
                                  (ALL,)),
    "compressed with a bitmap": (lambda i: [(first_l2(i), 8, COMPRESSED | data_offset(i))], ([], LEAKS, ALL)),
    "zero flag": (lambda i: [(first_l2(i), 8, COPIED | data_offset(i) | ZERO)], ([], LEAKS, ALL)),
    "two owners": (lambda i: [(first_l2(i) + 16, 8, COPIED | data_offset(i))], ()),
    "COPIED missing": (lambda i: [(first_l2(i), 8, data_offset(i))], ()),
    "far away": (lambda i: [(first_l2(i), 8, COPIED | 1 << 40)], (ALL,)),
}


@pytest.mark.parametrize("name", SUBCLUSTERS)
def test_same_findings_and_repairs_with_subclusters(twin, name):
    damage.make(twin.theirs, "subclusters", "good")
    for options in ([], LEAKS, ALL):
        same_findings(twin, SUBCLUSTERS[name], options)


@pytest.mark.parametrize("allocated, zero, value", [(1, 1, 1), (1, 0, 1), (0, 1, 0), (0, 0, 9)])
def test_repair_keeps_what_bitmaps_say(tmp_path, allocated, zero, value):
    """Data if it is there, whatever else is claimed; zeroes if it was; else the backing file."""
    damage.make(tmp_path, "subclusters backing")
    image = damage.Image(tmp_path / "image")
    place = first_l2(image)
    bits = image.get(place + 8, 8) & ~(1 << 32 | 1) | zero << 32 | allocated
    image.put(place + 8, 8, bits)
    image.put(place + 16 + 8, 8, image.get(place + 24, 8) | 1 << 63 | 1 << 31)  # something to repair in any case
    image.save()
    assert run([OURS["img"], "check", "-r", "all", "image"], tmp_path).returncode == 0
    assert run(["qemu-img", "check", "image"], tmp_path).returncode == 0
    assert read(tmp_path, "image")[:512] == bytes([value]) * 512


def damaged(good, directory, seed):
    """An image with one to three damages: (what, the image's bytes, what they took, shape)."""
    rng = random.Random(seed)
    shape = rng.choice(list(damage.SHAPES))
    source, content = good[shape]
    image = damage.Image(source / "image")
    lost, what = set(), []
    for _ in range(rng.randrange(1, 4)):
        kind = rng.choice(damage.DAMAGES)
        what.append(kind.__name__)
        lost |= kind(rng, image)
    if (source / "base").exists():
        (directory / "base").write_bytes((source / "base").read_bytes())
    image.save(directory / "x")
    return f"BDRV_TEST_SEED={seed} BDRV_TEST_IMAGES=1: {shape} {' '.join(what)}", image, lost, content


def same_check(directory, told):
    """Where the real tool opens the image both find the same; not where ours knows better."""
    theirs, ours = (run([tool, "check", "-f", "qcow2", "x"], directory) for tool in ("qemu-img", OURS["img"]))
    better = "zero flag" in ours.stderr or "snapshot table" in ours.stderr + theirs.stderr
    if ": subclusters" in told:
        better = better or "with reserved bits" in ours.stderr or "compressed cluster" in ours.stderr
    if "Could not open" not in theirs.stderr and not better:
        assert (theirs.returncode, theirs.stdout) == (ours.returncode, ours.stdout), told


def test_random_damage(good, tmp_path):
    for seed in range(SEED, SEED + IMAGES):
        told, image, lost, content = damaged(good, tmp_path, seed)
        same_check(tmp_path, told)
        explained(tmp_path)
        predicted(tmp_path, told)
        ours = run([OURS["img"], "check", "-f", "qcow2", "-r", "all", "x"], tmp_path)
        theirs = run(["qemu-img", "check", "-f", "qcow2", "x"], tmp_path)
        assert (ours.returncode, theirs.returncode) == (0, 0), told + ours.stdout + ours.stderr + theirs.stdout
        for snapshot, expected in content.items():
            if snapshot in lost:
                continue
            found = read(tmp_path, "x", snapshot)
            for at in range(0, len(expected), image.cluster):
                kept = found[at:at + image.cluster] == expected[at:at + image.cluster]
                assert kept or at // image.cluster in lost, f"{told}: guest cluster {at // image.cluster}, {snapshot}"


BIT_LOST = [("subclusters", 0), ("large", damage.EXTENDED_L2)]


@pytest.mark.parametrize("shape, bit", BIT_LOST)
def test_no_leak_is_repaired_of_tables_that_are_not_what_the_header_says(good, tmp_path, shape, bit):
    image = damage.Image(good[shape][0] / "image")
    image.put(72, 8, image.get(72, 8) & ~damage.EXTENDED_L2 | bit)
    image.save(tmp_path / "x")
    assert explained(tmp_path) == ["l2-layout"]
    result = run([OURS["img"], "check", "-r", "leaks", "x"], tmp_path)
    assert result.returncode != 0 and "incompatible features" in result.stderr
    assert (tmp_path / "x").read_bytes() == image.data
    result = run([OURS["img"], "check", "-r", "all", "x"], tmp_path)
    assert result.returncode == 0, result.stderr
    assert "1 corruptions" in result.stdout
    image.put(72, 8, image.get(72, 8) ^ damage.EXTENDED_L2)
    assert (tmp_path / "x").read_bytes() == image.data


def test_entries_behind_the_end_of_the_disk_do_not_change_what_the_tables_are(tmp_path):
    """As a loss of power leaves them that meets a resize: they are in a data file, whose clusters have fixed places."""
    run([OURS["img"], "create", "-q", "-f", "qcow2", "-o", "data_file=data", "x", "256k"], tmp_path)
    commands = ["write 0 64k", "write -z 64k 64k", "write 128k 128k"]
    run([OURS["io"], *[word for command in commands for word in ("-c", command)], "x"], tmp_path)
    image = damage.Image(tmp_path / "x")
    image.put(24, 8, 3 * 65536 - 512)
    image.save(tmp_path / "x")
    same_check(tmp_path, "cut shorter")
    assert explained(tmp_path) == []


def test_one_damaged_entry_of_a_small_disk_does_not_change_what_the_tables_are(tmp_path):
    run([OURS["img"], "create", "-q", "-f", "qcow2", "x", "256k"], tmp_path)
    run([OURS["io"], "-c", "write 0 256k", "x"], tmp_path)
    image = damage.Image(tmp_path / "x")
    table = image.get(image.get(40, 8) & OFFSET, 8) & OFFSET
    image.put(table + 8, 8, COPIED | 0x1000 << 16)
    image.save(tmp_path / "x")
    same_check(tmp_path, "outside of the file")
    assert set(explained(tmp_path)) == {"outside-file", "leaked-cluster", "copied-flag-set"}


def test_a_few_damaged_entries_do_not_change_what_the_tables_are(good, tmp_path):
    """Entries that would be bitmaps, in places where bitmaps would be."""
    image = damage.Image(good["large"][0] / "image")
    for number in (1, 3):
        image.put(image.l2_entries[number][0], 8, 0x00000000FFFFFFFF)
    image.save(tmp_path / "x")
    result = run([OURS["img"], "check", "-r", "all", "x"], tmp_path)
    assert result.returncode == 0, result.stderr
    assert damage.Image(tmp_path / "x").get(72, 8) == 0
    found, expected = read(tmp_path, "x"), good["large"][1][None]
    for at in range(0, len(expected), image.cluster):
        assert at // image.cluster in (1, 3) or found[at:at + image.cluster] == expected[at:at + image.cluster]


def test_what_was_repaired_is_explained(good, tmp_path):
    source, _ = good["plain"]
    image = damage.Image(source / "image")
    for number in range(12):
        image.put(refcount_place(image, data_offset(image)) + 2 * number, 2, 2)
    image.put(first_l2(image), 8, data_offset(image) + 512)
    image.save(tmp_path / "x")
    assert set(explained(tmp_path)) >= {"leaked-cluster", "not-aligned", "copied-flag-set"}
    (tmp_path / "y").write_bytes((tmp_path / "x").read_bytes())
    human = run([OURS["img"], "check", "--explain", "-r", "leaks", "y"], tmp_path)
    assert "Left after the repair:" in human.stdout and human.returncode == 2, human.stdout
    result = run([OURS["img"], "check", "--explain", "-r", "all", "--output=json", "x"], tmp_path)
    value = json.loads(result.stdout)
    assert sum(f["count"] for f in value["findings"]) == value["leaks-fixed"] + value["corruptions-fixed"]
    assert value["findings-left"] == [] and result.returncode == 0, result.stdout


def test_exit_codes(twin):
    twin.make("-f", "raw", "x.raw", "1M")
    for options in ([], LEAKS, ALL):
        twin.same("img", "check", "-f", "raw", *options, "x.raw")
    twin.same("img", "check", "-r", "all", "nope")


def test_overlays_read_the_same_after_repair(good, tmp_path):
    """What a damaged entry had mapped never shows the backing file."""
    for shape in ("backing", "v2backing"):
        source, _ = good[shape]
        for which in ("l1", "l2"):
            image = damage.Image(source / "image")
            place = image.l1 if which == "l1" else image.l2_entries[3][0]
            image.put(place, 8, COPIED | 1 << 40)
            image.save(tmp_path / "x")
            (tmp_path / "base").write_bytes((source / "base").read_bytes())
            subprocess.run([OURS["img"], "check", "-q", "-r", "all", "x"], cwd=tmp_path, check=True)
            found = read(tmp_path, "x")
            lost = range(len(image.data)) if which == "l1" else [image.l2_entries[3][1] * image.cluster]
            assert all(found[at] == 0 for at in lost if at < len(found)), f"{shape} {which}"


def test_entries_of_an_l1_table_past_the_disk_take_no_space(good, tmp_path):
    """What they would map cannot show the backing file: they need no tables that hide it."""
    source, content = good["backing"]
    image = damage.Image(source / "image")
    image.put(36, 4, 0x2001)  # over 16 clusters of data
    image.save(tmp_path / "x")
    (tmp_path / "base").write_bytes((source / "base").read_bytes())
    subprocess.run([OURS["img"], "check", "-q", "-r", "all", "x"], cwd=tmp_path, check=True)
    assert (tmp_path / "x").stat().st_size < 8 * len(image.data)
    assert read(tmp_path, "x") == content[None]


def test_image_that_a_crash_left_dirty(tmp_path):
    """With lazy refcounts they are behind: reading is fine, the first writable open puts them right."""
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on,cluster_size=512", "x", "4M"],
        tmp_path).check_returncode()
    run(["qemu-io", "-c", "write -P 1 0 1M", "-c", "flush", "-c", "abort", "x"], tmp_path)
    assert damage.Image(tmp_path / "x").get(72, 8) == 1
    ours = run([OURS["io"], "-r", "-c", "read -P 1 0 1M", "x"], tmp_path)
    assert ours.returncode == 0 and damage.Image(tmp_path / "x").get(72, 8) == 1, ours.stderr
    ours = run([OURS["io"], "-c", "read -P 1 0 1M", "-c", "write -P 2 2M 1M", "x"], tmp_path)
    assert ours.returncode == 0, ours.stderr
    run(["qemu-img", "check", "x"], tmp_path).check_returncode()
    assert run(["qemu-io", "-c", "read -P 1 0 1M", "-c", "read -P 2 2M 1M", "x"], tmp_path).returncode == 0
