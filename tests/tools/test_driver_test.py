# SPDX-License-Identifier: MIT
"""The command line of bdrv-driver-test: which drivers it takes, and how it puts files below them."""

import os
import pathlib
import re

import pytest

from tools import OURS, run

PROGRAM = str(pathlib.Path(os.environ["BDRV_IMG"]).parents[1] / "driver-test" / "bdrv-driver-test")
QUICK = ["--rounds", "40", "--cuts", "40", "--skip", "hostile"]


def kit(directory, *arguments):
    return run([PROGRAM, *arguments], directory)


def expect_all_well(result):
    assert result.returncode == 0, result.stdout + result.stderr
    return int(re.search(r"^# of \d+ tests (\d+) passed, 0 failed,", result.stdout, re.M).group(1))


def expect_refused(result, words):
    assert (result.returncode, result.stdout) == (2, "")
    assert words in result.stderr


@pytest.mark.parametrize("driver", ["blkdebug", "blklogwrites"])
def test_a_filter_is_tested_over_a_file_of_zeroes(tmp_path, driver):
    assert expect_all_well(kit(tmp_path, "--driver", driver, "--crash-safe", *QUICK)) > 25


def test_a_filter_is_tested_over_an_image_of_the_user(tmp_path):
    (tmp_path / "disk").write_bytes(bytes(range(256)) * 1024)
    assert expect_all_well(kit(tmp_path, "--driver", "blkdebug", "--image", "disk", *QUICK)) > 20


def test_a_protocol_is_tested_on_the_file_that_the_user_names(tmp_path):
    result = kit(tmp_path, "--driver", "file", "--filename", str(tmp_path / "disk"), *QUICK)
    assert expect_all_well(result) > 12
    assert (tmp_path / "disk").exists()
    assert "ok 25 faults/reads # SKIP a protocol has no file below it\n" in result.stdout


def test_a_protocol_without_a_filename_is_refused(tmp_path):
    expect_refused(kit(tmp_path, "--driver", "file"), "driver 'file' is a protocol")


def test_a_filename_for_a_format_is_refused(tmp_path):
    expect_refused(kit(tmp_path, "--driver", "qcow2", "--filename", "x"), "--filename is for protocols")


def test_an_image_for_a_protocol_is_refused(tmp_path):
    (tmp_path / "disk").write_bytes(bytes(65536))
    expect_refused(kit(tmp_path, "--driver", "file", "--filename", "x", "--image", "disk"), "'file' is a protocol")


def test_a_child_that_the_driver_does_not_have_is_refused(tmp_path):
    expect_refused(kit(tmp_path, "--driver", "vdi", "--child", "backing"), "driver 'vdi' has no child 'backing'")


def test_qcow2_passes_over_a_backing_file(tmp_path):
    options = ["--child", "backing", "--create", "backing_file={backing},backing_fmt=raw"]
    assert expect_all_well(kit(tmp_path, "--driver", "qcow2", "--crash-safe", *options, *QUICK)) == 36


def test_qcow2_passes_with_a_data_file(tmp_path):
    run([OURS["img"], "create", "-q", "-f", "qcow2", "-o", "data_file=disk.raw", "disk.qcow2", "1M"], tmp_path)
    options = ["--child", "data-file", "--image", "disk.qcow2"]
    assert expect_all_well(kit(tmp_path, "--driver", "qcow2", "--crash-safe", *options, *QUICK)) == 31


@pytest.mark.parametrize("driver", ["qcow2", "vdi"])
def test_a_driver_passes_with_preallocated_images(tmp_path, driver):
    assert expect_all_well(kit(tmp_path, "--driver", driver, "--crash-safe", "--create", "preallocation=full", *QUICK)) > 30


def test_the_command_to_do_it_again_names_the_children(tmp_path):
    options = ["--child", "backing", "--create", "backing_file={backing},cluster_size=3", "--test", "table/info"]
    result = kit(tmp_path, "--driver", "qcow2", *options)
    assert result.returncode == 1
    assert re.search(r"^# once more: bdrv-driver-test --driver 'qcow2' --child 'backing' --create 'backing_file={backing},",
                     result.stdout, re.M)
