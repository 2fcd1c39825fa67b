# SPDX-License-Identifier: MIT
"""map --output=svg: the picture is well-formed, and says what map --output=json says."""

import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from tools import OURS, run

SVG = "{http://www.w3.org/2000/svg}"
UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def picture(tmp_path, name, *options):
    result = run([OURS["img"], "map", "--output=svg", *options, name], tmp_path)
    assert result.returncode == 0 and result.stderr == ""
    return ElementTree.fromstring(result.stdout.encode())


def legend(root):
    """Bytes by what they are"""
    found = {}
    for text in root.iter(SVG + "text"):
        line = re.fullmatch(r"(.*): ([0-9.]+) (\w+), [0-9.]+ %", text.text)
        if line:
            found[line[1]] = float(line[2]) * UNITS[line[3]]
    return found


def cells(root):
    """Area of the disk's picture by colour"""
    disk = next(group for group in root.iter(SVG + "g") if group.get("shape-rendering"))
    areas = {}
    for rect in list(disk)[1:]:
        x, y, width = (int(rect.get(key)) for key in ("x", "y", "width"))
        assert 0 <= x and x + width <= 1000 and 0 <= y < 48 * 8 and y % 8 == 0
        areas[rect.get("fill")] = areas.get(rect.get("fill"), 0) + width * 8
    return areas


def make_chain(tmp_path):
    def img(*args):
        run([OURS["img"], *args], tmp_path).check_returncode()
    img("create", "-q", "-f", "qcow2", "base", "64M")
    run([OURS["io"], "-c", "write 0 16M", "-c", "write 40M 1M", "base"], tmp_path).check_returncode()
    img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top")
    run([OURS["io"], "-c", "write 8M 4M", "-c", "write -c 20M 4M", "-c", "write -z 12M 2M", "top"], tmp_path).check_returncode()


def test_the_legend_tells_how_much_there_is_of_each(tmp_path):
    make_chain(tmp_path)
    mib = 1 << 20
    assert legend(picture(tmp_path, "top")) == {
        "data in top": 4 * mib, "compressed in top": 4 * mib, "data in base": 11 * mib, "zeroes": 2 * mib,
        "holes: nothing is stored, in no layer": 43 * mib}


def test_the_areas_are_those_of_the_map(tmp_path):
    make_chain(tmp_path)
    areas = cells(picture(tmp_path, "top"))
    whole = 1000 * 48 * 8
    expected = {"#1f6fb4": 4 / 64, "url(#c0)": 4 / 64, "#2e9e44": 11 / 64, "#c3cdd4": 2 / 64}
    assert areas.keys() == expected.keys()
    for colour, share in expected.items():
        assert areas[colour] / whole == pytest.approx(share, abs=0.001)


def test_every_piece_is_placed(tmp_path):
    make_chain(tmp_path)
    root = picture(tmp_path, "top")
    pieces = [e for e in json.loads(run([OURS["img"], "map", "--output=json", "top"], tmp_path).stdout) if "offset" in e]
    drawn = sum(path.get("d").count("M") for path in root.iter(SVG + "path") if path.get("stroke-width") == "1.5")
    assert drawn == len(pieces)
    assert any(f"; {len(pieces)} pieces" in text.text for text in root.iter(SVG + "text"))


@pytest.mark.parametrize("size", ["0", "512", "1000k", "1T"])
def test_disks_of_any_size_can_be_drawn(tmp_path, size):
    run([OURS["img"], "create", "-q", "-f", "qcow2", "disk", size], tmp_path).check_returncode()
    assert cells(picture(tmp_path, "disk")) == {}
    if size == "512":
        run([OURS["io"], "-c", "write 0 512", "disk"], tmp_path).check_returncode()
        assert cells(picture(tmp_path, "disk")) == {"#1f6fb4": 1000 * 48 * 8}


def test_a_part_can_be_drawn(tmp_path):
    make_chain(tmp_path)
    assert legend(picture(tmp_path, "top", "-s", "8M", "-l", "4M")) == {
        "data in top": 4 << 20, "zeroes": 0, "holes: nothing is stored, in no layer": 0}


def test_a_fragmented_disk_makes_no_picture_larger_than_its_pixels(tmp_path):
    run([OURS["img"], "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "disk", "2M"], tmp_path).check_returncode()
    commands = "".join(f"write {i * 1024} 512\n" for i in range(2047, -1, -1))
    run([OURS["io"], "disk"], tmp_path, stdin=commands).check_returncode()
    result = run([OURS["img"], "map", "--output=svg", "disk"], tmp_path)
    assert "; 2048 pieces" in result.stdout and len(result.stdout) < 400000


def test_names_are_escaped(tmp_path):
    name = 'a<b>&"c'
    run([OURS["img"], "create", "-q", "-f", "raw", name, "1M"], tmp_path).check_returncode()
    assert any(text.text == f"{name}: 1.0 MiB" for text in picture(tmp_path, name, "-f", "raw").iter(SVG + "text"))


def test_other_subcommands_draw_nothing(tmp_path):
    run([OURS["img"], "create", "-q", "-f", "raw", "disk", "1M"], tmp_path).check_returncode()
    for command in ("info", "check"):
        result = run([OURS["img"], command, "--output=svg", "disk"], tmp_path)
        assert result.returncode == 1 and "human or json" in result.stderr
