# SPDX-License-Identifier: MIT
"""The README's example compiles as it stands, against the installed library, and does what it says."""

import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ["BDRV_IMG"]).parents[2]


def run(*argv, **kwargs):
    return subprocess.run(argv, capture_output=True, text=True, check=True, **kwargs).stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Where the library is installed, and a function that asks pkg-config for its flags."""
    root = tmp_path_factory.mktemp("install")
    run("meson", "install", "-C", str(BUILD), "--no-rebuild", "--quiet", "--destdir", str(root))
    pc = next(root.rglob("bdrv.pc"))
    prefix = next(parent for parent in pc.parents if (parent / "include").is_dir())

    pc.write_text(re.sub("^prefix=.*$", f"prefix={prefix}", pc.read_text(), flags=re.M))

    def flags(*arguments):
        environment = {**os.environ, "PKG_CONFIG_PATH": str(pc.parent)}
        return run("pkg-config", *arguments, "bdrv", env=environment).split()
    return pc.parent.parent, flags


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


def test_only_public_symbols_are_exported(installed):
    libdir, _ = installed
    headers = " ".join(path.read_text() for path in (ROOT / "include" / "bdrv").glob("*.h"))
    exported = {line.split()[-1].split("@")[0]
                for line in run("nm", "-D", "--defined-only", str(libdir / "libbdrv.so")).splitlines()}
    exported.discard("LIBBDRV_0")
    assert "blk_open" in exported
    undeclared = {name for name in exported if not re.search(rf"\b{name}\b", headers)}
    assert not undeclared


def test_every_public_header_compiles_alone(tmp_path, installed):
    _, flags = installed
    for header in sorted((ROOT / "include" / "bdrv").glob("*.h")):
        if header.name == "events.h":  # a list, included by driver.h
            continue
        (tmp_path / "alone.c").write_text(f"#include <bdrv/{header.name}>\nint main(void) {{ return 0; }}\n")
        run("cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "alone.c", *flags("--cflags"),
            cwd=tmp_path)
