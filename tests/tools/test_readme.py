# SPDX-License-Identifier: MIT
"""The README's example compiles as it stands, against the installed library, and does what it says."""

import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*argv, **kwargs):
    return subprocess.run(argv, capture_output=True, text=True, check=True, **kwargs).stdout


@pytest.mark.parametrize("linking", ["shared", "static"])
def test_the_embedding_example_writes_a_sector(tmp_path, installed, linking):
    libdir, flags = installed
    source = re.search(r"```c\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    (tmp_path / "example.c").write_text(source)
    if linking == "shared":
        libraries = [*flags("--libs"), f"-Wl,-rpath,{libdir}"]
    else:
        libraries = ["-l:libbdrv.a" if word == "-lbdrv" else word for word in flags("--static", "--libs")]
    run(os.environ.get("CC", "cc"), "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror", "example.c", "-o", "example",
        *flags("--cflags"), *libraries, cwd=tmp_path)
    run("qemu-img", "create", "-q", "-f", "qcow2", "disk.qcow2", "1M", cwd=tmp_path)
    run("./example", "disk.qcow2", cwd=tmp_path)
    assert "68 65 6c 6c 6f 2c 20 64" in run("qemu-io", "-r", "-c", "read -v 0 16", "disk.qcow2", cwd=tmp_path)
    run("qemu-img", "check", "-q", "disk.qcow2", cwd=tmp_path)
    failed = subprocess.run(["./example", "nonexistent"], cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 1 and "nonexistent" in failed.stderr
