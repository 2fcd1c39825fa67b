# SPDX-License-Identifier: MIT
"""The indented commands of the pages work as they stand; those of docs/ that stand in ```sh blocks are test_library.py's."""

import os
import pathlib
import re
import subprocess

import pytest

from tools import OURS, run

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(OURS["img"]).parents[2]
TOOLS = ("img", "io", "log-replay", "driver-test")

# How much a search does is cut short here; everything else is as the page has it.
CUT = [
    (r"--seeds 1000", "--seeds 2"),
    (r"--minutes 10", "--minutes 0.05"),
    (r"--length (\d) --image plain --shard 0/4\b", r"--length \1 --image plain --shard 0/20000"),
    (r"--length 2 --failures$", "--length 2 --failures --shard 0/5000"),
    (r"(crash-search \S+)$", r"\1 --length 2 --shard 0/2000"),
    (r"(fault-search \S+)$", r"\1 --op flush --image v2 --place simdisk"),
    (r"(--op discard --image v2)$", r"\1 --place simdisk"),
    (r"(history \S+)$", r"\1 --steps 4"),
    (r"--threads …", "--threads --stack plain --steps 4"),
]

# These build copies of the tree, or run all the tests: this one among them. CI runs them by themselves.
APART = r"scripts/(test|demo|planted-bugs)\b(?! --list)|meson setup "


def commands(page):
    """Commands, without the words beside them: indented, beginning with a program; further words begin after two spaces."""
    lines = re.findall(r"^    ((?:scripts/|BUILD/|bdrv-|meson )\S*(?: \S+)*)", (ROOT / page).read_text(), re.M)
    return [re.sub(r" #.*", "", line) for line in lines]


def shell(command, directory, timeout=300):
    path = ":".join([*(str(BUILD / "tools" / tool) for tool in TOOLS), os.environ["PATH"]])
    result = subprocess.run(["sh", "-ec", command], cwd=directory, capture_output=True, text=True, timeout=timeout,
                            stdin=subprocess.DEVNULL, env={**os.environ, "PATH": path, "TMPDIR": str(directory)})
    assert result.returncode == 0, command + "\n" + result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


def create(directory, name, fmt="qcow2", size="1M"):
    run([OURS["img"], "create", "-q", "-f", fmt, name, size], directory).check_returncode()


@pytest.mark.parametrize("command", commands("docs/testing.md"))
def test_a_search_of_the_page_about_tests(tmp_path, command):
    words = command.replace("BUILD", str(BUILD)).replace("FILE", str(tmp_path / "file"))
    for old, new in CUT:
        words = re.sub(old, new, words)
    assert "…" not in words
    shell(words, ROOT)


@pytest.mark.parametrize("page, expected", [("README.md", 2), ("CONTRIBUTING.md", 3), ("tests/planted/README.md", 3)])
def test_the_scripts_of_a_page(page, expected):
    found = commands(page)
    assert len(found) == expected
    for command in found:
        script = command.split()[0]
        if script.startswith("scripts/"):
            run(["bash", "-n", script] if not (ROOT / script).read_text().startswith("#!/usr/bin/env python3")
                else ["python3", "-m", "py_compile", script], ROOT).check_returncode()
        if not re.match(APART, command):
            shell(command, ROOT)
    configurations = (ROOT / "scripts/test").read_text()
    assert all(re.search(rf"\b{command.split()[1]}\b", configurations)
               for command in found if command.startswith("scripts/test "))


def test_the_commands_about_blkdebug(tmp_path):
    page = (ROOT / "drivers/blkdebug/README.md").read_text()
    rules, breakpoints = (re.search(pattern, page, re.M | re.S).group(0) for pattern in
                          (r"^    # fail the second.*?once = \"on\"$", r"^    break .*?aio_flush$"))
    create(tmp_path, "disk.qcow2")
    (tmp_path / "rules.conf").write_text(re.sub(r"^    ", "", rules, flags=re.M) + "\n")
    [command] = commands("drivers/blkdebug/README.md")
    assert "wrote 65536/65536 bytes at offset 0" in shell(command, tmp_path)
    result = run([OURS["io"], "-c", "write 0 64k", "-c", "write 64k 64k",
                  "blkdebug:rules.conf:disk.qcow2"], tmp_path)
    assert result.stdout.count("wrote") == 1 and "Input/output error" in result.stdout + result.stderr
    lines = [word for line in breakpoints.splitlines() for word in ("-c", line.strip())]
    result = run([OURS["io"], *lines, "blkdebug::disk.qcow2"], tmp_path)
    assert result.returncode == 0 and "wrote 65536/65536 bytes at offset 65536" in result.stdout, result.stderr


def test_the_commands_about_blklogwrites(tmp_path):
    create(tmp_path, "disk.qcow2")
    (tmp_path / "copy.qcow2").write_bytes((tmp_path / "disk.qcow2").read_bytes())
    (tmp_path / "disk.log").write_bytes(b"")
    write, replay = commands("drivers/blklogwrites/README.md")
    shell(write + " -c 'write -P 7 0 64k' -c flush -c 'write -P 8 64k 64k'", tmp_path)
    shell(replay, tmp_path)
    shell("bdrv-io -c 'read -P 7 0 64k' copy.qcow2", tmp_path)


def test_the_commands_about_blkverify(tmp_path):
    create(tmp_path, "disk.raw", "raw")
    create(tmp_path, "disk.qcow2")
    [by_name] = commands("drivers/blkverify/README.md")
    by_options = re.search(r"^    (driver=\S+)$", (ROOT / "drivers/blkverify/README.md").read_text(), re.M).group(1)
    shell(by_name + " -c 'write -P 7 0 64k'", tmp_path)
    shell(f"bdrv-io --image-opts {by_options} -c 'read -P 7 0 64k'", tmp_path)


def test_the_commands_about_log_replay(tmp_path):
    create(tmp_path, "disk.raw", "raw")
    (tmp_path / "LOG").write_bytes(b"")
    writes = " ".join(f"-c 'write -q {'-f ' if n == 12 else ''}{n}k 1k'" for n in range(16))
    shell(f"bdrv-io --image-opts driver=blklogwrites,file.filename=disk.raw,log.filename=LOG {writes}", tmp_path)
    found = commands("tools/log-replay/README.md")
    assert len(found) == 5
    for command in found:
        if "mkfs" in command:  # marks cannot be set through a block device
            command = re.sub(r"--(start|end)-mark mkfs", lambda match: f"--{'start-entry' if match[1] == 'start' else 'limit'} 2",
                             command).replace("'fsck -n IMAGE'", "'test -s IMAGE'")
        out = shell(command, tmp_path)
        assert "--find" not in command or re.fullmatch(r"\d+@\d+\n", out), out
