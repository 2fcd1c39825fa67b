# SPDX-License-Identifier: MIT
"""Images of formats that only the real tool has: known for what they are, never taken for raw."""

import pytest
from tools import OURS, run

FORMATS = ["parallels", "qcow", "qed", "vhdx", "vmdk", "vpc"]
SUPPORTED = "supported formats are: luks qcow2 raw vdi"


@pytest.fixture(params=FORMATS)
def foreign(request, tmp_path):
    run(["qemu-img", "create", "-q", "-f", request.param, "x", "2M"], tmp_path).check_returncode()
    return request.param, tmp_path


def refused(directory, *arguments):
    result = run([OURS["img"], *arguments], directory)
    assert result.returncode == 1, result.stdout
    return result.stderr


def test_an_image_of_another_format_is_not_taken_for_raw(foreign):
    name, directory = foreign
    for arguments in (["info", "x"], ["convert", "-O", "qcow2", "x", "y"], ["resize", "x", "3M"]):
        error = refused(directory, *arguments)
        assert f"'{name}'" in error and SUPPORTED in error, error
    run([OURS["img"], "info", "-f", "raw", "x"], directory).check_returncode()


def test_a_format_by_name_is_refused_with_those_that_there_are(foreign):
    name, directory = foreign
    for arguments in (["info", "-f", name, "x"], ["create", "-f", name, "y", "1M"], ["create", "-f", name, "-o", "help"],
                      ["measure", "-O", name, "--size", "1M"]):
        error = refused(directory, *arguments)
        assert f"'{name}'" in error and SUPPORTED in error, error


def test_a_guest_cannot_make_one_of_a_raw_image(tmp_path):
    (tmp_path / "x").write_bytes(bytes(1 << 20))
    (tmp_path / "head").write_bytes(b"KDMV")
    result = run([OURS["io"], "-c", "write -s head 0 512", "x"], tmp_path)
    assert result.returncode == 1
    assert (tmp_path / "x").read_bytes() == bytes(1 << 20)
