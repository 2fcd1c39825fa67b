# SPDX-License-Identifier: MIT
"""
Each line of the option table with qemu-img and bdrv-img in twin directories: the same exit code, output and images.

    BDRV_TEST_SEED=n   the same lines again
    BDRV_TEST_LONG=1   all lines, not a share of them
"""

import json
import os
import random
import re
import shutil

import option_images
import pytest
from option_rows import Line, lines
from option_table import COMMANDS, KNOWN, OURS_ONLY
from test_help import help_of, options_of
from tools import OURS, normalise, run

SEED = int(os.environ.get("BDRV_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
LONG = bool(os.environ.get("BDRV_TEST_LONG"))
SHARE = {"written": 4, "refused": 40, "taken": 40}  # one line in so many is played in the short form

DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


NAME = re.compile(r"json:(\{.*\})")
HELP = re.compile(r"(qemu-img version .*\n.*\n)?usage: qemu-img ")  # in our own words


def chosen():
    """The lines to play: what decides which values meet is the seed 0, so that what is found stays."""
    found = [line for command in COMMANDS for line in lines(command, 0)]
    if LONG:
        return found
    rng = random.Random(SEED)
    return [line for line in found if rng.randrange(SHARE[line.kind]) == 0]


def sorted_name(match):
    """The keys of a json: name have no order: the real tool's is that of a hash table."""
    try:
        return "json:" + json.dumps(json.loads(match.group(1)), sort_keys=True)
    except ValueError:
        return match.group(0)


def value(text):
    """Of output in JSON, without what depends on the moment; else the text."""
    if HELP.match(text):
        return "HELP"
    try:
        told = json.loads(text, object_hook=lambda found: {
            key: NAME.sub(sorted_name, value) if isinstance(value, str) else value for key, value in found.items()})
    except ValueError:
        return NAME.sub(sorted_name, DATE.sub("DATE", normalise(text)))
    for image in told if isinstance(told, list) else [told]:
        if isinstance(image, dict):
            image.pop("actual-size", None)
            for snapshot in image.get("snapshots", []):
                snapshot.pop("date-sec", None)
                snapshot.pop("date-nsec", None)
    return told


@pytest.fixture(scope="session")
def stand(tmp_path_factory):
    """Starting images, and ours by the name of theirs."""
    root = tmp_path_factory.mktemp("stand")
    (root / "start").mkdir()
    option_images.make(root / "start")
    (root / "qemu-img").symlink_to(OURS["img"])
    yield root
    shutil.rmtree(root, ignore_errors=True)


def difference(start, tool, line, directory):
    """How @tool differs from the real one in a line, as text: None, it does not."""
    ours, theirs = directory / "ours", directory / "theirs"
    names = option_images.named(start, str(line))
    for twin in (ours, theirs):
        option_images.copy(start, twin, names)
    results = [run([each, line.command, *line.words], twin) for each, twin in ((tool, ours), ("qemu-img", theirs))]
    found = []
    if results[0].returncode != results[1].returncode:
        found.append("exit codes")
    elif value(results[0].stdout) != value(results[1].stdout):
        found.append("output")
    if bool(results[0].stderr) != bool(results[1].stderr):
        found.append("one of them tells of nothing")
    found += option_images.differences(ours, theirs)
    if not found:
        return None
    told = [f"{who}: exit {result.returncode}\n{result.stdout}{result.stderr}" for who, result in zip(("ours", "theirs"), results)]
    return "\n".join([str(line), *found, *told])


@pytest.mark.parametrize("line", chosen(), ids=str)
def test_a_line_does_the_same(stand, line, tmp_path):
    found = difference(stand / "start", stand / "qemu-img", line, tmp_path)
    shutil.rmtree(tmp_path, ignore_errors=True)
    if found and any(re.search(known.pattern, found, re.M) for known in KNOWN):
        return
    assert not found, f"BDRV_TEST_SEED={SEED}\n{found}"


def rows_have(command):
    """The options that stand in lines which are meant to go through."""
    words = {word for line in lines(command, 0) if line.kind != "refused" for word in line.words}
    return {word.split("=")[0] if word.startswith("--") or "=" in word else word[:2] for word in words}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_option_that_qemu_img_lists_is_in_a_row(command, tmp_path):
    text = run(["qemu-img", "--help"], tmp_path).stdout
    syntax = re.search(rf"^  {command} (.*)$", text, re.M).group(1)
    listed = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*|\b\w+(?==)", re.sub(r"(--[\w-]+)=", r"\1 ", syntax)))
    assert listed - rows_have(command) == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_each_option_that_bdrv_img_lists_is_in_a_row(command, tmp_path):
    listed = {name for names in options_of(help_of(command, tmp_path)) for name in names}
    # Each line with -h is in test_help.py.
    assert listed - rows_have(command) == {"-h", "--help", *OURS_ONLY.get(command, [])}


def test_all_subcommands_are_in_the_table(tmp_path):
    text = run(["qemu-img", "--help"], tmp_path).stdout
    assert set(COMMANDS) == set(re.findall(r"^  ([a-z]+) ", text.split("Command syntax:")[1].split("Command parameters:")[0], re.M))


def test_few_differences_are_known_each_with_its_reason():
    assert len(KNOWN) <= 25 and all(known.reason for known in KNOWN)


# What a tool may do wrong, after it has done what the real one does
WRONG = {
    "exit code": "exit 3", "output": "echo more", "a message": "echo more >&2", "a file": "touch more", "no file": "rm disk.raw",
    "content": "qemu-io -c 'write -P 9 1M 512' new >/dev/null", "size": "qemu-img resize -q new +1M",
    "a snapshot": "qemu-img snapshot -c x new", "a leak": r"truncate -s 4M new; printf '\000\001' | dd of=new bs=1 seek=131152 conv=notrunc status=none",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_differs_is_found(stand, tmp_path, wrong):
    line = Line("convert", ("-O", "qcow2", "disk.raw", "new"), "written")
    tool = tmp_path / "tool"
    tool.write_text(f'#!/bin/sh\nqemu-img "$@"\n{WRONG[wrong]}\n')
    tool.chmod(0o755)
    assert difference(stand / "start", tool, line, tmp_path)
