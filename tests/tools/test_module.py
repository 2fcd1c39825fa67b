# SPDX-License-Identifier: MIT
"""The driver template, built against an installed library, used by the installed tools and by a program."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest
from tools import OURS, run

BUILD = pathlib.Path(OURS["img"]).parents[2]
TEMPLATE = pathlib.Path(__file__).parents[2] / "examples" / "driver-template"


def call(argv, directory, env=None):
    result = subprocess.run(argv, cwd=directory, capture_output=True, text=True, timeout=120,
                            env={**os.environ, **(env or {})})
    assert result.returncode == 0, f"{argv}\n{result.stdout}{result.stderr}"
    return result.stdout


class Installed:
    """The library in a scratch directory, and the template built with nothing else."""

    def __init__(self, root):
        call(["meson", "install", "-C", str(BUILD), "--no-rebuild", "--quiet", "--destdir", str(root)], root)
        self.pkgconfig = next(root.rglob("bdrv-driver.pc")).parent
        old = call(["pkg-config", "--variable=prefix", "bdrv-driver"], root, {"PKG_CONFIG_PATH": str(self.pkgconfig)}).strip()
        for pc in self.pkgconfig.glob("bdrv*.pc"):
            pc.write_text(pc.read_text().replace(f"prefix={old}", f"prefix={root}{old}", 1))
        self.env = {"PKG_CONFIG_PATH": str(self.pkgconfig), "LD_LIBRARY_PATH": str(self.pkgconfig.parent)}
        self.img = next(root.rglob("bin/bdrv-img"))
        self.io = next(root.rglob("bin/bdrv-io"))
        self.modules = root / "build"
        shutil.copytree(TEMPLATE, root / "source")
        call(["meson", "setup", "build", "source"], root, self.env)
        call(["ninja", "-C", "build"], root, self.env)

    def tool(self, tool, *args, directory, module_dir=None):
        return subprocess.run([str(tool), *args], cwd=directory, capture_output=True, text=True, timeout=60, env={
            **os.environ, **self.env, "LC_ALL": "C",
            "BDRV_MODULE_DIR": str(self.modules if module_dir is None else module_dir)})

    def does(self, tool, *args, directory):
        result = self.tool(tool, *args, directory=directory)
        assert result.returncode == 0, result.stdout + result.stderr
        assert not result.stderr, result.stderr
        return result.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    root = tmp_path_factory.mktemp("installed")
    yield Installed(root)
    shutil.rmtree(root, ignore_errors=True)


def test_pkg_config_tells_where_modules_go_and_the_api(installed, tmp_path):
    def variable(name):
        return call(["pkg-config", f"--variable={name}", "bdrv-driver"], tmp_path, installed.env).strip()
    assert variable("driver_api") == "1"
    assert variable("moduledir") == str(installed.pkgconfig.parent / "bdrv")


def test_the_tools_take_a_module_driver_like_a_built_in_one(installed, tmp_path):
    def img(*args):
        return installed.does(installed.img, *args, directory=tmp_path)
    assert "label=<str>" in img("create", "-f", "labelled", "-o", "help")
    assert " labelled " in img("--help")
    assert "label=holiday" in img("create", "-f", "labelled", "-o", "label=holiday", "x", "3M")
    assert "label: holiday" in img("info", "x")
    installed.does(installed.io, "-c", "write -P 7 1M 64k", "-c", "read -P 7 1M 64k", "x", directory=tmp_path)
    assert img("check", "x") == "No errors were found on the image.\n"
    img("resize", "x", "5M")
    img("convert", "-O", "qcow2", "x", "y")
    img("convert", "-O", "labelled", "-o", "label=again", "y", "z")
    assert img("compare", "x", "z") == "Images are identical.\n"
    info = json.loads(img("info", "--output=json", "z"))
    assert (info["format"], info["virtual-size"], info["format-specific"]["data"]["label"]) == ("labelled", 5 << 20, "again")
    assert json.loads(img("measure", "--output=json", "-O", "labelled", "y"))["required"] == (5 << 20) + 4096
    with open(tmp_path / "z", "r+b") as image:
        image.truncate(1 << 20)
    assert installed.tool(installed.img, "check", "z", directory=tmp_path).returncode == 2
    assert installed.tool(installed.img, "check", "-r", "all", "z", directory=tmp_path).returncode == 0
    img("check", "z")


def test_a_program_registers_the_driver_itself(installed, tmp_path):
    installed.does(installed.img, "create", "-q", "-f", "labelled", "x", "1M", directory=tmp_path)
    installed.does(installed.io, "-c", "write -P 0x41 0 512", "x", directory=tmp_path)
    result = installed.tool(installed.modules / "program", "x", directory=tmp_path, module_dir="")
    assert result.stdout == "labelled: " + "A" * 16 + "\n", result.stderr


def test_without_the_module_the_format_is_unknown(installed, tmp_path):
    result = installed.tool(installed.img, "create", "-f", "labelled", "x", "1M", directory=tmp_path, module_dir="")
    assert result.returncode == 1 and "labelled" in result.stderr


def test_hostile_headers_are_refused_by_field_and_value(installed, tmp_path):
    installed.does(installed.img, "create", "-q", "-f", "labelled", "x", "1M", directory=tmp_path)
    good = (tmp_path / "x").read_bytes()
    for at, value, words in ((8, b"\2", "version 2"), (16, b"\1", "length 1048577"), (23, b"\xff", "length"),
                             (24, b"L" * 64, "label is longer")):
        (tmp_path / "x").write_bytes(good[:at] + value + good[at + len(value):])
        result = installed.tool(installed.img, "info", "x", directory=tmp_path)
        assert result.returncode == 1 and words in result.stderr, result.stderr


def test_a_module_that_cannot_be_used_is_told_and_stops_nothing(tmp_path):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "broken.so").write_text("no module")
    os.environ["BDRV_MODULE_DIR"] = str(tmp_path / "modules")
    try:
        result = run([OURS["img"], "create", "-q", "-f", "raw", "x", "1M"], tmp_path)
    finally:
        del os.environ["BDRV_MODULE_DIR"]
    assert result.returncode == 0
    assert "broken.so" in result.stderr and "warning" in result.stderr
