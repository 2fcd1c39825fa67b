# SPDX-License-Identifier: MIT
"""
Features, sizes and operations, each pair of them together, between our tools and the real ones.

    BDRV_TEST_LONG=1      all cells, else a share of them that the seed picks
    BDRV_TEST_SEED=n      the same share, the same random requests
"""

import os
import random
import shutil

import matrix
import pytest
from cell import Cell, KnownDifference
from conftest import SEED
from pairwise import Cover


def is_quick(cell):
    """The real tool takes seconds to make a LUKS image, and to read a large disk."""
    return cell["size"] != "1T" and cell["encryption"] != "luks"


# Cells of the short form: how many, of which.
SHARE = [
    (25, is_quick),
    (6, lambda cell: is_quick(cell) and cell["operation"] == "turns"),
    (3, lambda cell: cell["size"] == "1T" and cell["encryption"] != "luks"),
    (2, lambda cell: cell["size"] != "1T" and cell["encryption"] == "luks" and cell["operation"] != "key_slots"),
]
EACH_PAIR = 2  # so often

LONG = bool(os.environ.get("BDRV_TEST_LONG"))
CELLS = list(Cover(matrix.FACTORS, matrix.NEVER, EACH_PAIR).rows())


def share():
    """Numbers of the cells of the short form."""
    rng, picked = random.Random(SEED), set()
    for count, wanted in SHARE:
        picked.update(rng.sample([n for n, cell in enumerate(CELLS) if wanted(cell)], count))
    return sorted(picked)


PICKED = range(len(CELLS)) if LONG else share()


@pytest.mark.parametrize("number", PICKED, ids=lambda number: "%d-%s" % (number, CELLS[number]["operation"]))
def test_the_tools_agree(tmp_path, number):
    try:
        Cell(tmp_path, CELLS[number], SEED).play()
    except KnownDifference:
        pass
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.parametrize("row", matrix.refused_rows(), ids=lambda row: "")
def test_what_never_meets_is_refused_by_both(tmp_path, row):
    Cell(tmp_path, row, SEED).create(accept=(1,))
