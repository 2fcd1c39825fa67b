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

SHARE, LARGE, TURNS = 30, 3, 6  # cells of the short form: any, of which so many with large disks; and random requests
EACH_PAIR = 2  # so often

LONG = bool(os.environ.get("BDRV_TEST_LONG"))
CELLS = list(Cover(matrix.FACTORS, matrix.REFUSED + matrix.LEFT_OUT, EACH_PAIR).rows())


def share():
    """Numbers of the cells of the short form."""
    rng, numbers = random.Random(SEED), range(len(CELLS))

    def some(count, wanted):
        return rng.sample([n for n in numbers if wanted(CELLS[n])], count)
    return sorted({*some(SHARE - LARGE, lambda cell: cell["size"] != "1T"),
                   *some(LARGE, lambda cell: cell["size"] == "1T"),
                   *some(TURNS, lambda cell: cell["size"] != "1T" and cell["operation"] == "turns")})


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
