# SPDX-License-Identifier: MIT
"""The tools as processes: their name, their streams, and being stopped half-way."""

import fcntl
import itertools
import os
import pty
import random
import re
import signal
import struct
import subprocess
import termios
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


class Terminal:
    """What a person sees on a terminal of some width: the lines, as they are overwritten and erased."""

    def __init__(self, columns):
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.columns, self.seen = columns, ""

    def run(self, argv, directory, until=None, number=None):
        """Run a program to its end, or send it a signal when it has printed @until; answers the exit code."""
        process = subprocess.Popen(argv, cwd=directory, stdout=self.slave, stderr=self.slave, stdin=subprocess.DEVNULL,
                                   env={**os.environ, "TERM": "xterm"})
        os.close(self.slave)
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:  # the other side is closed
                break
            if not data:
                break
            self.seen += data.decode()
            if until and until in self.seen:
                process.send_signal(number)
                until = None
        return process.wait(timeout=60)

    def lines(self):
        screen = []
        for line in self.seen.split("\n"):
            shown = ""
            for part in line.split("\r"):
                part = part.split("\033[K")
                shown = part[0] if len(part) > 1 else part[0] + shown[len(part[0]):]
            screen.append(shown)
        return screen


@pytest.mark.parametrize("columns", [200, 80, 40])
def test_progress_is_a_bar_as_wide_as_the_terminal(tmp_path, columns):
    (tmp_path / "src").write_bytes(random.Random(3).randbytes(8 << 20))
    terminal = Terminal(columns)
    assert terminal.run([OURS["img"], "convert", "-p", "-r", "8M", "-f", "raw", "-O", "qcow2", "src", "x"], tmp_path) == 0
    drawn = [re.sub(r"\033\[K$", "", part) for part in terminal.seen.split("\r") if part.strip()]
    assert len(drawn) > 3 and all(len(part) == columns - 1 for part in drawn)
    assert re.fullmatch(r"\[=+\] 100%  [0-9.]+ [KMG]iB/s  0:0\d", drawn[-1])
    assert any(re.search(r"^\[=*> *\]  *\d+%", part) for part in drawn[:-1])
    assert terminal.lines()[-2:] == [drawn[-1], ""]


def test_in_a_narrow_window_there_is_no_bar(tmp_path):
    (tmp_path / "src").write_bytes(random.Random(3).randbytes(4 << 20))
    terminal = Terminal(20)
    assert terminal.run([OURS["img"], "convert", "-p", "-f", "raw", "-O", "qcow2", "src", "x"], tmp_path) == 0
    assert "[=" not in terminal.seen and "100%" in terminal.seen
    assert all(len(line) < 20 for line in terminal.lines())


def test_a_message_does_not_share_the_line_with_the_bar(tmp_path):
    (tmp_path / "src").write_bytes(random.Random(3).randbytes(8 << 20))
    terminal = Terminal(80)
    argv = [OURS["img"], "convert", "-p", "-r", "4M", "-f", "raw", "-O", "qcow2", "src", "x"]
    assert terminal.run(argv, tmp_path, until=" 25%", number=signal.SIGINT) == -signal.SIGINT
    bar, message, *rest = terminal.lines()
    assert bar.startswith("[==") and message.startswith("bdrv-img: x: interrupted; the first ") and rest == [""]


def test_results_come_below_the_bar(tmp_path):
    (tmp_path / "src").write_bytes(random.Random(3).randbytes(4 << 20))
    terminal = Terminal(80)
    assert terminal.run([OURS["img"], "compare", "-p", "-f", "raw", "-F", "raw", "src", "src"], tmp_path) == 0
    bar, message, *rest = terminal.lines()
    assert "] 100%" in bar and message == "Images are identical." and rest == [""]


def test_sigusr1_tells_how_far_it_is(tmp_path):
    (tmp_path / "src").write_bytes(random.Random(3).randbytes(8 << 20))
    process = subprocess.Popen([OURS["img"], "convert", "-r", "4M", "-f", "raw", "-O", "raw", "src", "x"], cwd=tmp_path,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "x").exists() or not any((tmp_path / "x").read_bytes()[:4096]):
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    out, told = process.communicate(timeout=60)
    assert re.fullmatch(r"    \([0-9.]+/100%\)\n", told) and out == "" and process.returncode == 0


@pytest.mark.parametrize("options", [["-f", "raw", "-o", "preallocation=full"], ["-f", "qcow2", "-o", "preallocation=full"],
                                     ["-f", "qcow2", "-o", "preallocation=metadata"],
                                     ["-f", "luks", "--object", "secret,id=key,data=x", "-o", "key-secret=key"]],
                         ids=lambda options: " ".join(options[1:2] + options[-1:]))
def test_create_that_is_interrupted_leaves_nothing_or_an_image(tmp_path, options):
    process = subprocess.Popen([OURS["img"], "create", "-q", *options, "x", "3G"], cwd=tmp_path, stderr=subprocess.PIPE)
    while not (tmp_path / "x").exists() and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 0)  # 0: it had ended
    if (tmp_path / "x").exists():
        subprocess.run([OURS["img"], "info", "-f", options[1], "x"], cwd=tmp_path, check=True, capture_output=True)
        (tmp_path / "x").unlink()
