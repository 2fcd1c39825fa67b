# SPDX-License-Identifier: MIT
"""convert --resume: a copy that was stopped goes on, and never from what has changed meanwhile."""

import json
import os
import random
import re
import signal
import subprocess

import pytest

from tools import OURS, run

SIZE = 16 << 20


def disk(seed=1):
    content = bytearray(random.Random(seed).randbytes(SIZE))
    content[5 << 20:7 << 20] = bytes(2 << 20)
    return bytes(content)


def convert(tmp_path, *options, source="src", target="x"):
    return [OURS["img"], "convert", "--resume", "-f", "raw", *options, source, target]


def stop_at(argv, tmp_path, number=signal.SIGINT, wait=lambda: False, rate="8M"):
    """Begin a copy and stop it once a sixth is done; what it printed as errors."""
    process = subprocess.Popen([argv[0], argv[1], "-p", "-r", rate, *argv[2:]], cwd=tmp_path, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, bufsize=1)
    for line in process.stdout:
        if float(re.search(r"\(([0-9.]+)/100%\)", line).group(1)) > 16 and not wait():
            break
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == -number, error
    return error


def stop(tmp_path, *options, number=signal.SIGINT):
    argv = convert(tmp_path, *options)
    if number != signal.SIGKILL:
        return stop_at(argv, tmp_path, number)
    # Killed, it cannot note how far it is: that must have been done before.
    return stop_at(argv, tmp_path, number, lambda: noted(tmp_path) == 0, "3M")


def noted(tmp_path):
    try:
        return json.loads((tmp_path / "x.bdrv-resume").read_text())["flushed"]
    except FileNotFoundError:
        return 0


def same(tmp_path, fmt):
    result = run(["qemu-img", "compare", "-f", "raw", "-F", fmt, "src", "x"], tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    if fmt == "qcow2":
        check = run(["qemu-img", "check", "-f", fmt, "x"], tmp_path)
        assert check.returncode == 0, check.stdout


def stop_and_go_on(tmp_path, number, options):
    (tmp_path / "src").write_bytes(disk())
    stop(tmp_path, *options, number=number)
    assert 0 < noted(tmp_path) < SIZE
    again = run(convert(tmp_path, "-p", *options), tmp_path)
    assert again.returncode == 0, again.stderr
    same(tmp_path, options[options.index("-O") + 1])
    assert sorted(os.listdir(tmp_path)) == ["src", "x"]


@pytest.mark.parametrize("options", [
    ["-O", "raw"], ["-O", "qcow2"], ["-W", "-O", "qcow2"], ["-c", "-O", "qcow2"], ["-m", "1", "-S", "0", "-O", "qcow2"],
    ["-O", "qcow2", "-o", "cluster_size=4k,extended_l2=off"],
], ids=" ".join)
def test_a_copy_that_was_stopped_goes_on(tmp_path, options):
    stop_and_go_on(tmp_path, signal.SIGINT, options)


@pytest.mark.parametrize("options", [["-W", "-O", "qcow2"], ["-c", "-O", "qcow2"]], ids=" ".join)
def test_a_copy_that_was_killed_goes_on(tmp_path, options):
    stop_and_go_on(tmp_path, signal.SIGKILL, options)


def test_what_was_noted_is_not_copied_again(tmp_path):
    (tmp_path / "src").write_bytes(disk())
    stop(tmp_path, "-O", "raw")
    with open(tmp_path / "x", "r+b") as target:
        target.write(b"mark")
    assert run(convert(tmp_path, "-O", "raw"), tmp_path).returncode == 0
    assert (tmp_path / "x").read_bytes() == b"mark" + disk()[4:]


def test_it_goes_on_more_than_once(tmp_path):
    (tmp_path / "src").write_bytes(disk())
    stop(tmp_path, "-O", "qcow2")
    first = noted(tmp_path)
    stop(tmp_path, "-O", "qcow2")
    assert first < noted(tmp_path)
    assert run(convert(tmp_path, "-O", "qcow2"), tmp_path).returncode == 0
    same(tmp_path, "qcow2")


def test_an_overlay_goes_on(tmp_path):
    (tmp_path / "src").write_bytes(disk())
    run([OURS["img"], "convert", "-O", "qcow2", "src", "base"], tmp_path).check_returncode()
    run([OURS["img"], "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top"], tmp_path).check_returncode()
    run([OURS["io"], "-c", "write -P 7 1M 9M", "top"], tmp_path).check_returncode()
    options = ["-f", "qcow2", "-O", "qcow2", "-B", "base", "-F", "qcow2", "-c"]
    stop_at([OURS["img"], "convert", "--resume", *options, "top", "x"], tmp_path)
    assert 0 < noted(tmp_path)
    assert run([OURS["img"], "convert", "--resume", *options, "top", "x"], tmp_path).returncode == 0
    assert run(["qemu-img", "compare", "top", "x"], tmp_path).returncode == 0
    assert run(["qemu-img", "check", "x"], tmp_path).returncode == 0


def test_an_encrypted_target_goes_on(tmp_path):
    (tmp_path / "src").write_bytes(disk())
    options = ["--object", "secret,id=k,data=sesame", "-O", "qcow2", "-o",
               "encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=10"]
    stop(tmp_path, *options)
    assert run(convert(tmp_path, *options), tmp_path).returncode == 0
    result = run(["qemu-img", "compare", "--object", "secret,id=k,data=sesame", "--image-opts",
                  "driver=raw,file.filename=src", "driver=qcow2,encrypt.key-secret=k,file.filename=x"], tmp_path)
    assert result.returncode == 0, result.stderr


def test_a_signal_tells_how_far_it_is_and_what_to_do(tmp_path):
    (tmp_path / "src").write_bytes(disk())
    assert "interrupted; the first " in (error := stop(tmp_path, "-O", "qcow2"))
    assert f" of {SIZE} bytes are copied, and the same command goes on from there" in error


def refused(tmp_path, *options):
    before = (tmp_path / "x").read_bytes(), (tmp_path / "x.bdrv-resume").read_text()
    result = run(convert(tmp_path, *options), tmp_path)
    assert result.returncode == 1
    assert before == ((tmp_path / "x").read_bytes(), (tmp_path / "x.bdrv-resume").read_text())
    assert "x.bdrv-resume: " in result.stderr and "to start anew" in result.stderr
    return result.stderr


def test_a_source_that_has_changed_is_refused(tmp_path):
    (tmp_path / "src").write_bytes(disk())
    stop(tmp_path, "-O", "qcow2")
    (tmp_path / "src").write_bytes(disk(2))
    assert "source-0-layer-0 was 'src, " in refused(tmp_path, "-O", "qcow2")


def test_another_target_is_refused(tmp_path):
    (tmp_path / "src").write_bytes(disk())
    stop(tmp_path, "-O", "qcow2")
    (tmp_path / "x").rename(tmp_path / "y")
    (tmp_path / "x").write_bytes((tmp_path / "y").read_bytes())
    assert "target was 'x, " in refused(tmp_path, "-O", "qcow2")


@pytest.mark.parametrize("options", [["-O", "raw"], ["-O", "qcow2", "-c"], ["-O", "qcow2", "-S", "0"],
                                     ["-O", "qcow2", "-o", "cluster_size=4k"]], ids=" ".join)
def test_other_arguments_are_refused(tmp_path, options):
    (tmp_path / "src").write_bytes(disk())
    stop(tmp_path, "-O", "qcow2")
    assert "how was 'format qcow2, " in refused(tmp_path, *options)


@pytest.mark.parametrize("state", ["", "{", "[]", "{}", '{"flushed": 0}', "x" * (2 << 20)], ids=lambda text: text[:20])
def test_a_state_that_is_none_is_refused(tmp_path, state):
    (tmp_path / "src").write_bytes(disk())
    (tmp_path / "x").write_bytes(b"mine")
    (tmp_path / "x.bdrv-resume").write_text(state)
    refused(tmp_path, "-O", "raw")


@pytest.mark.parametrize("flushed", ["-1", str(SIZE + 1), '"x"', "1e30", "null"])
def test_a_hostile_position_is_refused(tmp_path, flushed):
    (tmp_path / "src").write_bytes(disk())
    stop(tmp_path, "-O", "qcow2")
    state = json.loads((tmp_path / "x.bdrv-resume").read_text())
    state["flushed"] = json.loads(flushed)
    (tmp_path / "x.bdrv-resume").write_text(json.dumps(state))
    refused(tmp_path, "-O", "qcow2")


def test_a_full_disk_is_no_reason_to_start_anew(tmp_path):
    (tmp_path / "src").write_bytes(disk())
    limited = subprocess.run(["bash", "-c", f"ulimit -f {6 << 10}; trap '' XFSZ; exec \"$@\"", "bash",
                              *convert(tmp_path, "-O", "qcow2", "-m", "1")],
                             cwd=tmp_path, capture_output=True, text=True)
    assert limited.returncode == 1 and "x: error while writing at byte" in limited.stderr
    assert 0 < noted(tmp_path) < SIZE
    assert run(convert(tmp_path, "-O", "qcow2", "-m", "1"), tmp_path).returncode == 0
    same(tmp_path, "qcow2")


def test_a_target_that_is_never_flushed_is_refused(tmp_path):
    (tmp_path / "src").write_bytes(disk())
    result = run(convert(tmp_path, "-t", "unsafe", "-O", "raw"), tmp_path)
    assert result.returncode == 1 and "-t unsafe" in result.stderr and not (tmp_path / "x").exists()
