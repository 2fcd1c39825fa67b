# SPDX-License-Identifier: MIT
"""The README's example compiles as it stands and does what it says."""

import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_the_embedding_example_writes_a_sector(tmp_path):
    source = re.search(r"```c\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    build = pathlib.Path(os.environ["BDRV_IMG"]).parents[2]
    (tmp_path / "example.c").write_text(source)
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "glib-2.0"], capture_output=True, text=True,
                           check=True).stdout.split()
    sanitizer = os.environ.get("BDRV_SANITIZE", "")
    subprocess.run([os.environ.get("CC", "cc"), "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror", "example.c",
                    "-o", "example", f"-I{ROOT}/include", f"-L{build}", f"-Wl,-rpath,{build}", "-lbdrv",
                    *([f"-fsanitize={sanitizer}"] if sanitizer else []), *flags], cwd=tmp_path, check=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "disk.qcow2", "1M"], cwd=tmp_path, check=True)
    subprocess.run(["./example", "disk.qcow2"], cwd=tmp_path, check=True)
    read = subprocess.run(["qemu-io", "-r", "-c", "read -v 0 16", "disk.qcow2"], cwd=tmp_path, capture_output=True,
                          text=True, check=True).stdout
    assert "68 65 6c 6c 6f 2c 20 64" in read
    subprocess.run(["qemu-img", "check", "-q", "disk.qcow2"], cwd=tmp_path, check=True)
    failed = subprocess.run(["./example", "nonexistent"], cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 1 and "nonexistent" in failed.stderr
