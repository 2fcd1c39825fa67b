# SPDX-License-Identifier: MIT
"""Twin directories: the same command lines run with the real tools and with ours."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "lib"))
from tools import OURS, THEIRS, normalise, run  # noqa: E402


class Twin:
    """Two directories with the same content; each command runs in both."""

    def __init__(self, root):
        self.ours, self.theirs = root / "ours", root / "theirs"
        self.ours.mkdir()
        self.theirs.mkdir()

    def both(self, tool, *args, stdin=None):
        theirs = run([THEIRS[tool], *args], self.theirs, stdin)
        ours = run([OURS[tool], *args], self.ours, stdin)
        return ours, theirs

    def same(self, tool, *args, stdin=None, json_output=False, ignore=()):
        """Run in both; exit code and standard output must be the same. Returns our result."""
        ours, theirs = self.both(tool, *args, stdin=stdin)
        told = f"{tool} {' '.join(args)}\nours: {ours.stderr}\ntheirs: {theirs.stderr}"
        assert ours.returncode == theirs.returncode, told + ours.stdout + theirs.stdout
        if json_output:
            def cleaned(text):
                value = json.loads(text) if text else None
                for image in value if isinstance(value, list) else [value or {}]:
                    for key in ignore:
                        image.pop(key, None)
                return value
            assert cleaned(ours.stdout) == cleaned(theirs.stdout), told
        else:
            assert normalise(ours.stdout) == normalise(theirs.stdout), told
        # Who fails says why.
        assert ours.returncode == 0 or ours.stderr or ours.stdout or "-q" in args, told
        return ours

    def same_of_each(self, tool, *args):
        """Both tell the same of each image: how much of a file is stored is its writer's matter, and shows."""
        for directory in (self.ours, self.theirs):
            ours, theirs = (run([tools[tool], *args], directory) for tools in (OURS, THEIRS))
            assert (ours.returncode, normalise(ours.stdout)) == (theirs.returncode, normalise(theirs.stdout)), args
            assert theirs.returncode == 0, theirs.stderr

    def make(self, *args):
        """The same starting image in both, made by the real tool."""
        run([THEIRS["img"], "create", "-q", *args], self.theirs).check_returncode()
        self.copy()

    def write(self, name, data):
        for directory in (self.ours, self.theirs):
            (directory / name).write_bytes(data)

    def prepare(self, name, *commands):
        """Run qemu-io commands on the starting image."""
        argv = ["qemu-io"]
        for command in commands:
            argv += ["-c", command]
        run([*argv, name], self.theirs).check_returncode()
        self.copy()

    def copy(self):
        for path in self.theirs.iterdir():
            shutil.copy2(path, self.ours / path.name)

    def same_content(self, name, fmt):
        """Both images read the same, and the real check finds ours clean."""
        result = run(["qemu-img", "compare", "-f", fmt, "-F", fmt, str(self.ours / name), str(self.theirs / name)],
                     self.theirs)
        assert result.returncode == 0, result.stdout + result.stderr
        self.clean(name, fmt)

    def clean(self, name, fmt):
        if fmt == "qcow2":
            result = run(["qemu-img", "check", "-f", fmt, name], self.ours)
            assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def twin(tmp_path):
    twin = Twin(tmp_path)
    yield twin
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Where the library is installed, and a function that asks pkg-config for its flags."""
    root = tmp_path_factory.mktemp("install")
    build = pathlib.Path(OURS["img"]).parents[2]
    subprocess.run(["meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", root], check=True)
    pc = next(root.rglob("bdrv.pc"))
    prefix = next(parent for parent in pc.parents if (parent / "include").is_dir())
    for file in pc.parent.glob("bdrv*.pc"):
        file.write_text(re.sub("^prefix=.*$", f"prefix={prefix}", file.read_text(), flags=re.M))

    def flags(*arguments):
        environment = {**os.environ, "PKG_CONFIG_PATH": str(pc.parent)}
        return subprocess.run(["pkg-config", *arguments, "bdrv"], env=environment, check=True, capture_output=True,
                              text=True).stdout.split()
    yield pc.parent.parent, flags
    shutil.rmtree(root, ignore_errors=True)
