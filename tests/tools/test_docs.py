# SPDX-License-Identifier: MIT
"""What the documents name is there: links lead somewhere, files exist, the table of callbacks is whole."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted(page for folder in (".", "docs", "drivers/*", "examples/*", "tools/*", "tests/*")
               for page in ROOT.glob(folder + "/*.md"))
FOLDERS = "block|drivers|include|tools|tests|examples|scripts|bench|docs"


def name(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_file(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    missing = [link for link in links if not re.match(r"[a-z]+:", link) and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_file_that_is_named_exists(page):
    named = re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", page.read_text())
    theirs = {"docs/interop/qcow2"}
    assert not [path for path in named if path not in theirs and "NAME" not in path and not (ROOT / path).exists()]


def test_from_qemu_names_every_field_of_the_driver_table():
    header = (ROOT / "include/bdrv/driver.h").read_text()
    table = re.sub(r"/\*.*?\*/", "", re.search(r"^struct BlockDriver \{(.*?)^\};", header, re.S | re.M).group(1), flags=re.S)
    fields = re.findall(r"\(\*(\w+)\)\(|[ *](\w+);", table)
    page = (ROOT / "docs/from-qemu.md").read_text()
    rows = re.search(r"## The driver table(.*)", page, re.S).group(1)
    here = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]*)\|", rows, re.M))))
    assert here == {callback or field for callback, field in fields}
