# SPDX-License-Identifier: MIT
"""What bdrv-img says of itself: help, man page and completion come from one table, and the examples work."""

import os
import pathlib
import pty
import re
import shlex
import shutil
import subprocess

import pytest

from tools import OURS, run

BUILT = pathlib.Path(OURS["img"]).parent
COMMANDS = ["amend", "bench", "bitmap", "check", "commit", "compare", "convert", "create", "dd", "info", "map", "measure",
            "rebase", "resize", "snapshot"]


def help_of(command, tmp_path):
    result = run([OURS["img"], command, "-h"], tmp_path)
    assert result.returncode == 0 and result.stderr == ""
    return result.stdout


def options_of(text):
    """Of a command's help: ("-f", "--format"), …"""
    listed = re.findall(r"^  (-\S+(?: \S+)?(?:, --\S+)?)(?:  |\n)", text.split("\n\nExamples:")[0], re.M)
    return [re.findall(r"(?:^|(?<=[ ,]))--?[A-Za-z][\w-]*", option) for option in listed]


def test_help_lists_every_command(tmp_path):
    text = run([OURS["img"], "--help"], tmp_path).stdout
    assert re.findall(r"^  ([a-z]+) \[", text.split("Command syntax:")[1], re.M) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_options_and_examples(command, tmp_path):
    text = help_of(command, tmp_path)
    assert text.startswith(f"usage: bdrv-img {command} [")
    assert options_of(text)[-1] == ["-h", "--help"]
    assert re.search(rf"^  bdrv-img {command} ", text, re.M)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_option_that_help_lists_is_known(command, tmp_path):
    for names in options_of(help_of(command, tmp_path)):
        for name in names:
            result = run([OURS["img"], command, name], tmp_path)
            assert "unrecognized" not in result.stderr, name


def test_an_unknown_option_is_named(tmp_path):
    result = run([OURS["img"], "info", "--frobnicate", "x"], tmp_path)
    assert result.returncode == 1 and "unrecognized option '--frobnicate'" in result.stderr


def examples(command, tmp_path):
    text = help_of(command, tmp_path).split("Examples:\n")[1].split("\n\n")[0]
    return [line.strip() for line in text.splitlines() if not line.strip().startswith("#")]


def prepare(directory):
    """The files that the examples name."""
    def img(*args):
        run([OURS["img"], *args], directory).check_returncode()
    (directory / "passphrase").write_text("open sesame")
    (directory / "disk.raw").write_bytes(b"data" * 65536 + bytes(1 << 20))
    img("convert", "-O", "qcow2", "disk.raw", "disk.qcow2")
    img("resize", "-q", "disk.qcow2", "6M")
    img("snapshot", "-c", "before-update", "disk.qcow2")
    img("convert", "-O", "qcow2", "disk.raw", "base.qcow2")
    img("convert", "-O", "qcow2", "disk.raw", "new-base.qcow2")
    img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "overlay.qcow2")
    shutil.copy(directory / "base.qcow2", directory / "renamed.qcow2")


# What is only an example together with what comes before it in the real world
BEFORE = {
    ("amend", 0): "bdrv-img snapshot -d before-update disk.qcow2",
    ("bitmap", 1): "bdrv-img bitmap --add disk.qcow2 since-monday",
    ("resize", 1): "bdrv-img snapshot -d before-update disk.qcow2; bdrv-img resize disk.qcow2 6G",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_work(command, tmp_path):
    for number, line in enumerate(examples(command, tmp_path)):
        prepare(tmp_path)
        for one in [*filter(None, BEFORE.get((command, number), "").split("; ")), line]:
            words = shlex.split(one.replace("-c 10000", "-c 100"))
            if words[0] == "bdrv-img":
                words[0] = OURS["img"]
            result = run(words, tmp_path)
            assert result.returncode == 0, (one, result.stderr)


def formatted(page):
    """The page as plain text; it must have no mistakes."""
    if not shutil.which("groff"):
        pytest.skip("groff is not installed")
    if not page.exists():
        pytest.skip(f"{page.name} was not built: help2man is not installed")
    done = subprocess.run(["groff", "-man", "-ww", "-Tascii", "-P-c", "-P-b", "-P-o", "-P-u", page], capture_output=True,
                          text=True)
    assert done.returncode == 0 and done.stderr == ""
    return done.stdout


def test_the_man_page_of_bdrv_io_names_every_command(tmp_path):
    page = formatted(BUILT.parent / "io/bdrv-io.1")
    commands = re.findall(r"^([a-z_]+) ", run([OURS["io"], "-c", "help"], tmp_path).stdout, re.M)
    assert len(commands) > 20 and "write" in commands
    assert [command for command in commands if not re.search(rf"^       {command}\b", page, re.M)] == []


def test_the_man_page_of_bdrv_log_replay_names_every_option(tmp_path):
    page = formatted(BUILT.parent / "log-replay/bdrv-log-replay.1")
    options = re.findall(r"^  (--[a-z-]+)", run([os.environ["BDRV_LOG_REPLAY"], "--help"], tmp_path).stdout, re.M)
    assert "--replay" in options
    assert [option for option in options if option not in page] == []


def test_the_man_page_of_bdrv_driver_test_names_every_option(tmp_path):
    page = formatted(BUILT.parent / "driver-test/bdrv-driver-test.1")
    program = BUILT.parent / "driver-test/bdrv-driver-test"
    options = re.findall(r"^  (?:-., )?(--[a-z-]+)", run([str(program), "--help"], tmp_path).stdout, re.M)
    assert "--crash-safe" in options
    assert [option for option in options if option not in page] == []


def test_the_man_page_is_clean_and_names_every_option(tmp_path):
    page = formatted(BUILT / "bdrv-img.1")
    for command in COMMANDS:
        part = re.search(rf"^   {command}\n(.*?)(?=^   [a-z]+\n|^[A-Z])", page, re.M | re.S).group(1)
        for names in options_of(help_of(command, tmp_path)):
            assert re.search(rf"^       {', '.join(names)}\b", part, re.M), (command, names)


def complete(tmp_path, *words, cuts="=:"):
    """What bash would put in place of the last word's part behind the last of @cuts, at which it cuts words as well."""
    pieces = [piece for word in words for piece in (re.findall(f"[{cuts}]+|[^{cuts}]+", word) if cuts else [word]) or [""]]
    script = f"""PATH={shlex.quote(str(BUILT))}:$PATH; source {shlex.quote(str(BUILT / 'bdrv-img.bash'))}
        COMP_LINE={shlex.quote(' '.join(words))}; COMP_POINT=${{#COMP_LINE}}
        COMP_WORDS=({' '.join(map(shlex.quote, pieces))}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _bdrv_img; printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""
    return [line for line in done.stdout.split("\n") if line]


def typed(tmp_path, line):
    """The line as an interactive bash has it after a TAB at its end."""
    master, slave = pty.openpty()
    environment = dict(os.environ, PATH=f"{BUILT}:{os.environ['PATH']}", PS1="", TERM="dumb", INPUTRC="/dev/null")
    bash = subprocess.Popen(["bash", "--norc", "-i"], stdin=slave, stdout=slave, stderr=slave, cwd=tmp_path,
                            env=environment, start_new_session=True)
    os.close(slave)
    # To the start of the line and its end: the line becomes the argument of printf.
    os.write(master, f"source {shlex.quote(str(BUILT / 'bdrv-img.bash'))}\n{line}\t'\x01printf 'li''ne<%s>\\n' '\x05\nexit\n"
             .encode())
    output = b""
    try:
        while part := os.read(master, 4096):
            output += part
    except OSError:  # the other end is closed
        pass
    bash.wait(timeout=20)
    os.close(master)
    return re.search(r"line<(.*)>", output.decode()).group(1)


def test_completion_knows_the_commands(tmp_path):
    assert complete(tmp_path, "bdrv-img", "co") == ["commit", "compare", "convert"]


def test_completion_knows_the_options_of_a_command(tmp_path):
    assert complete(tmp_path, "bdrv-img", "convert", "--sk") == ["--skip-broken-bitmaps"]


def test_completion_knows_the_formats(tmp_path):
    assert complete(tmp_path, "bdrv-img", "create", "-f", "q") == ["qcow2"]


def test_completion_knows_choices(tmp_path):
    assert complete(tmp_path, "bdrv-img", "check", "-r", "") == ["leaks", "all"]


def test_completion_knows_the_keys_of_a_format(tmp_path):
    assert complete(tmp_path, "bdrv-img", "create", "-f", "qcow2", "-o", "cluster") == ["cluster_size="]
    words = ["bdrv-img", "create", "-f", "qcow2", "-o", "compat=1.1,lazy"]
    assert complete(tmp_path, *words) == ["1.1,lazy_refcounts="]
    assert complete(tmp_path, *words, cuts="") == ["compat=1.1,lazy_refcounts="]
    assert complete(tmp_path, "bdrv-img", "convert", "-O", "qcow2", "-f", "raw", "-o", "cluster") == ["cluster_size="]


def test_completion_knows_the_keys_that_can_be_amended(tmp_path):
    keys = complete(tmp_path, "bdrv-img", "amend", "-f", "qcow2", "-o", "")
    assert "compat=" in keys and "encrypt.state=" in keys and "cluster_size=" not in keys
    assert complete(tmp_path, "bdrv-img", "amend", "-f", "raw", "-o", "") == []


@pytest.mark.parametrize("cuts, before", [("=:", ""), ("", "--output=")])
def test_completion_knows_values_behind_an_equals_sign(tmp_path, cuts, before):
    assert complete(tmp_path, "bdrv-img", "info", "--output=h", cuts=cuts) == [before + "human"]
    assert complete(tmp_path, "bdrv-img", "info", "--output=", cuts=cuts) == [before + "human", before + "json"]
    assert complete(tmp_path, "bdrv-img", "info", "--image-opts=", cuts=cuts) == []
    assert complete(tmp_path, "bdrv-img", "info", "--output", "h", cuts=cuts) == ["human"]


def test_completion_knows_where_options_end(tmp_path):
    (tmp_path / "-disk").touch()
    assert complete(tmp_path, "bdrv-img", "info", "--", "-") == ["-disk"]
    assert "--output" in complete(tmp_path, "bdrv-img", "info", "-")
    assert complete(tmp_path, "bdrv-img", "info", "--", "-f", "") == ["-disk"]


def test_completion_knows_files(tmp_path):
    (tmp_path / "disk.qcow2").touch()
    (tmp_path / "my disk").touch()
    (tmp_path / "a=b").touch()
    assert complete(tmp_path, "bdrv-img", "info", "di") == ["disk.qcow2"]
    assert complete(tmp_path, "bdrv-img", "info", "my") == ["my disk"]
    assert complete(tmp_path, "bdrv-img", "info", "a=") == ["b"]
    assert complete(tmp_path, "bdrv-img", "dd", "if=di") == ["disk.qcow2"]
    assert complete(tmp_path, "bdrv-img", "dd", "of=di", cuts="") == ["of=disk.qcow2"]


@pytest.mark.parametrize("line, completed", [
    ("bdrv-img info --output=h", "bdrv-img info --output=human "),
    ("bdrv-img create -f qcow2 -o compat=1.1,lazy", "bdrv-img create -f qcow2 -o compat=1.1,lazy_refcounts="),
    ("bdrv-img info -- -d", "bdrv-img info -- -disk "),
    ("bdrv-img dd if=dis", "bdrv-img dd if=disk.qcow2 "),
])
def test_completion_works_in_a_shell(tmp_path, line, completed):
    (tmp_path / "-disk").touch()
    (tmp_path / "disk.qcow2").touch()
    assert typed(tmp_path, line) == completed
