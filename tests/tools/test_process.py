# SPDX-License-Identifier: MIT
"""The tools as processes: their name, their streams, and being stopped half-way."""

import itertools
import os
import random
import signal
import subprocess
import time

import pytest

from tools import OURS, run

CLOSED = [" ".join(streams) for n in range(1, 4) for streams in itertools.combinations(("<&-", ">&-", "2>&-"), n)]


@pytest.mark.parametrize("closed", CLOSED)
@pytest.mark.parametrize("tool,arguments", [
    ("io", "-f raw -c foo -c 'read 0 1k' -c foo -c 'write -z 900k 4k' disk"), ("io", "-f raw -c info -c map disk"),
    ("img", "convert -p -f raw disk nodir/x"), ("img", "convert -p -f raw disk x"), ("img", "info disk"),
    ("img", "bench -w -f raw -o 64k -c 10 disk"),
])
def test_messages_never_go_into_the_image(tmp_path, tool, arguments, closed):
    content = random.Random(1).randbytes(1 << 20)
    (tmp_path / "disk").write_bytes(content)
    subprocess.run(f"{OURS[tool]} {arguments} {closed}", shell=True, cwd=tmp_path, capture_output=True, timeout=60)
    assert (tmp_path / "disk").read_bytes()[:65536] == content[:65536]
    assert not (tmp_path / "x").exists() or (tmp_path / "x").read_bytes() == content


def test_messages_show_the_name_the_tool_was_called_by(tmp_path):
    for tool, name in (("img", "qemu-img"), ("io", "qemu-io")):
        os.symlink(OURS[tool], tmp_path / name)
    assert run(["./qemu-img", "info", "nope"], tmp_path).stderr.startswith("qemu-img: Could not open 'nope'")
    assert run(["./qemu-img", "foo"], tmp_path).stderr.startswith("qemu-img: Command not found: foo\nTry 'qemu-img ")
    assert run(["./qemu-io", "-c", "length", "nope"], tmp_path).stderr.startswith("qemu-io: can't open")
    assert run(["./qemu-io"], tmp_path, stdin="quit\n").stdout.startswith("qemu-io> ")


def test_both_streams_in_one_file_keep_their_order(tmp_path):
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    commands = ["read 0 512", "foo", "read 512 512", "info x", "read 1k 512", "truncate -m foo 1", "length"]
    argv = [OURS["io"], "-f", "raw", *[word for command in commands for word in ("-c", command)], "disk"]
    result = subprocess.run(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    seen = [line for line in result.stdout.splitlines() if "ops/sec" not in line]
    assert [line.split(":")[0].split(" bytes")[0] for line in seen] == [
        "read 512/512", 'command "foo" not found', "read 512/512",
        "bad argument count 1 to info, expected 0 arguments", "read 512/512", "bdrv-io", "1 MiB"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=str)
@pytest.mark.parametrize("options", [["-O", "raw"], ["-O", "qcow2"], ["-W", "-O", "qcow2"], ["-n", "-O", "qcow2"],
                                     ["-t", "none", "-O", "qcow2"]], ids=" ".join)
def test_a_convert_that_is_stopped_leaves_the_source_and_no_damage(tmp_path, options, number):
    content = random.Random(2).randbytes(8 << 20)
    (tmp_path / "src").write_bytes(content)
    fmt = options[-1]
    if "-n" in options:
        run([OURS["img"], "create", "-q", "-f", fmt, "x", "8M"], tmp_path).check_returncode()
    process = subprocess.Popen([OURS["img"], "convert", "-r", "4M", "-f", "raw", *options, "src", "x"], cwd=tmp_path)
    time.sleep(0.7)
    process.send_signal(number)
    assert process.wait(timeout=60) == -number
    assert (tmp_path / "src").read_bytes() == content
    if (tmp_path / "x").exists():
        assert run(["qemu-img", "info", "-f", fmt, "x"], tmp_path).returncode == 0
        check = run(["qemu-img", "check", "-f", fmt, "x"], tmp_path)
        assert fmt == "raw" or check.returncode in (0, 3), check.stdout + check.stderr  # 3: leaked clusters only
