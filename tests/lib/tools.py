# SPDX-License-Identifier: MIT
"""Both families of tools: the real ones and ours."""

import os
import re
import subprocess

OURS = {"img": os.environ["BDRV_IMG"], "io": os.environ["BDRV_IO"], "log-replay": os.environ.get("BDRV_LOG_REPLAY")}
THEIRS = {"img": "qemu-img", "io": "qemu-io"}

# What may differ in standard output: timings, rates, disk sizes that depend on the moment.
PATTERNS = [
    (re.compile(r"; \S+( sec)? \([^)]*ops/sec\)"), "; TIME"),
    (re.compile(r"^(\d+,\d+),[0-9:.]+,[0-9.]+,[0-9.]+$", re.M), r"\1,TIME"),
    (re.compile(r"Run completed in [0-9.]+ seconds"), "Run completed in TIME"),
    (re.compile(r"^disk size: .*$", re.M), "disk size: SIZE"),
    (re.compile(r"(qemu-io|bdrv-io)> "), "PROMPT> "),
    (re.compile(r"(    \([0-9.]+/100%\)[\r\n])+"), "PROGRESS"),
]


def normalise(text):
    for pattern, replacement in PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def figures(text):
    """The numbers of an output, in order."""
    return [int(number) for number in re.findall(r"\b\d+\b", text)]


def dry_run(directory, *arguments):
    """What bdrv-img prints, after which every file is what it was."""
    paths = [path for path in directory.iterdir() if path.is_file()]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]
    result = run([OURS["img"], *arguments], directory)
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths] == before
    assert sorted(path for path in directory.iterdir() if path.is_file()) == sorted(paths)
    return result


def run(argv, directory, stdin=None, timeout=60):
    def once():
        return subprocess.run(argv, cwd=directory, input=stdin, capture_output=True, text=True, timeout=timeout,
                              errors="backslashreplace",
                              env={**os.environ, "LC_ALL": "C"})
    result = once()
    # On a busy machine qemu-img cannot always tell how long a key derivation takes, and gives up.
    while "Unable to get accurate CPU usage" in result.stderr:
        result = once()
    return result
