# SPDX-License-Identifier: MIT
"""bdrv-io does what qemu-io does: same output, exit code and content."""

import re
import shutil

import pytest

from tools import OURS, THEIRS, run

# Each row is a history of commands on one image.
HISTORIES = {
    "write and read back": ["write 0 64k", "read -P 0xcd 0 64k", "read -P 1 0 4k", "read -v 0 40", "write -C 0 512",
                            "write -q 0 512", "writev 0 4k 8k", "readv 0 4k 512", "readv -v 16 16 5"],
    "patterns": ["write -P 0x41 512 1k", "read -P 0x41 512 1k", "read -P 0x41 -s 512 -l 512 0 1k",
                 "read -P 0 -l 8k 0 4k", "read -s 1 0 4k", "write -P 300 0 4k", "write -P x 0 4k", "write -P -1 0 4k"],
    "unaligned": ["write -P 7 5 7777", "read -P 7 5 7777", "read -P 0 0 5", "read 3 1.5k", "write 100 1", "read 0 0"],
    "zeroes": ["write -P 9 0 256k", "write -z 64k 64k", "read -P 0 64k 64k", "write -z -u 128k 64k", "map",
               "write -z 1 3", "read -v 0 16", "write -z -P 1 0 4k", "write -u 0 4k", "write -n 0 4k"],
    "discard": ["write 0 256k", "discard 64k 64k", "read -q 64k 64k", "discard -C 0 512", "discard -q 0 128k", "map",
                "alloc 0 256k"],
    "aio": ["aio_write -P 3 0 64k", "aio_flush", "aio_read -P 3 0 64k", "aio_flush", "aio_read -P 4 0 4k", "aio_flush",
            "aio_write -z 0 4k 4k", "aio_write -u 0 4k", "aio_read -v 0 16 16", "aio_flush", "aio_read -i 0 4k",
            "aio_write -i 0 4k", "aio_read 0 x"],
    "past the end": ["read 100M 1k", "write 100M 1k", "readv 100M 1k", "writev 100M 1k", "discard 100M 4k",
                     "write -z 100M 4k", "aio_read 100M 4k", "aio_flush", "aio_write 100M 4k", "aio_flush", "alloc 100M",
                     "read 1023k 2k"],
    "length and truncate": ["length", "truncate 2M", "length", "truncate x", "truncate", "truncate -m foo 3M", "length"],
    "bad commands": ["foo", "read", "read 0", "read abc 4k", "read 0 -4", "read -x 0 4k", "length 1", "info x", "alloc",
                     "alloc x", "alloc 0 x", "map 1", "flush x", "writev 0", "sleep x", "sleep", "help nope",
                     "read 0 99999999999999999999", "read 100E 5", "write 0 3G", "read 0 3G", "discard 0 3G",
                     "write -z 0 3G"],
    "alloc and map": ["alloc 0", "alloc 0 1M", "map", "write 128k 64k", "alloc 128k 64k", "alloc 127k 2k", "map",
                      "write 1000k 1", "map"],
    "flush and close": ["write 0 4k", "flush", "close", "length", "close"],
    "info": ["info"],
    "quit ends it": ["write 0 4k", "quit", "length"],
    "fua": ["write -f 0 4k", "writev -f 4k 1k 1k", "aio_write -f 8k 4k", "aio_flush", "read -P 0xcd 0 4k"],
}

FORMATS = {
    "raw": ("raw",),
    "qcow2": ("qcow2",),
    "qcow2 4k": ("qcow2", "-o", "cluster_size=4k"),
    "qcow2 v2": ("qcow2", "-o", "compat=0.10"),
}


@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS.keys())
@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES.keys())
def test_a_history_prints_the_same_and_leaves_the_same_image(twin, history, options):
    twin.make("-f", *options, "disk", "1M")
    argv = ["-f", options[0]]
    for command in history:
        argv += ["-c", command]
    twin.same("io", *argv, "disk")
    twin.same_content("disk", options[0])


def test_a_pattern_file_fills_the_buffer(twin):
    twin.make("-f", "qcow2", "disk", "1M")
    twin.write("pattern", b"abc")
    twin.write("empty", b"")
    twin.same("io", "-c", "write -s pattern 0 10", "-c", "read -v 0 16", "-c", "write -s nope 0 1k",
              "-c", "write -s empty 0 1k", "-c", "write -z -s pattern 0 4k", "disk")
    twin.same_content("disk", "qcow2")


@pytest.mark.parametrize("arguments", [
    ["-r", "-c", "write 0 4k", "-c", "discard 0 64k", "-c", "truncate 2M", "-c", "read 0 4k", "disk"],
    ["-n", "-c", "write -P 5 512 512", "-c", "read -P 5 512 512", "disk"],
    ["-t", "none", "-i", "native", "-c", "write 0 4k", "-c", "read 0 64k", "disk"],
    ["-t", "directsync", "-c", "write 0 4k", "disk"],
    ["-t", "writethrough", "-c", "write 0 4k", "disk"],
    ["-t", "unsafe", "-c", "write 0 4k", "-c", "flush", "disk"],
    ["-i", "native", "-c", "read 0 4k", "disk"],
    ["-i", "threads", "-c", "read 0 4k", "disk"],
    ["-i", "io_uring", "-c", "write 0 4k", "-c", "read 0 4k", "disk"],
    ["-i", "foo", "disk"],
    ["-t", "foo", "disk"],
    ["-d", "foo", "disk"],
    ["-d", "unmap", "-c", "write 0 1M", "-c", "discard 0 1M", "-c", "map", "disk"],
    ["-f", "foo", "disk"],
    ["-f", "raw", "-c", "length", "disk"],
    ["-U", "-c", "length", "disk"],
    ["-U", "-r", "-c", "length", "disk"],
    ["-c", "length", "nonexistent"],
    ["--image-opts", "-c", "length", "driver=qcow2,file.filename=disk"],
    ["--image-opts", "-c", "length", "driver=qcow2,file.driver=file,file.filename=disk,read-only=on"],
    ["--image-opts", "-c", "length", "driver=qcow2,file.filename=disk,nonsense=1"],
    ["-c", "length", 'json:{"driver":"qcow2","file":{"driver":"file","filename":"disk"}}'],
    ["-c", "open -o driver=raw disk", "-c", "length", "-c", "close", "-c", "length"],
    ["-c", "open -r disk", "-c", "write 0 4k", "-c", "open disk", "-c", "close", "-c", "open", "-c", "open -x a"],
    ["-c", "length"],
    ["-c", "quit"],
    ["-c", "reopen -r", "-c", "write 0 1k", "-c", "reopen -w", "-c", "write 0 1k", "disk"],
], ids=" ".join)
def test_how_an_image_is_opened(twin, arguments):
    twin.make("-f", "qcow2", "disk", "1M")
    twin.same("io", *arguments)
    twin.same_content("disk", "qcow2")


@pytest.mark.parametrize("detect", ["off", "on", "unmap", "unmap,discard=unmap", "unmap,discard=ignore", "on,discard=unmap",
                                    "maybe"])
@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_writes_of_zeroes_are_detected(twin, fmt, detect):
    twin.make("-f", fmt, "disk", "1M")
    twin.same("io", "-f", fmt, "-c", "write -P 7 0 1M", "disk")
    twin.same("io", "--image-opts", "-c", "write -P 0 0 256k", "-c", "write -P 1 64k 512", "-c", "write -P 0 300k 9000",
              "-c", "read -P 0 128k 64k", "-c", "map",
              f"driver={fmt},file.filename=disk,detect-zeroes={detect}")
    twin.same_content("disk", fmt)
    twin.same_of_each("img", "map", "--output=json", "-f", fmt, "disk")


def test_commands_come_from_standard_input(twin):
    twin.make("-f", "qcow2", "disk", "1M")
    twin.same("io", "disk", stdin="read 0 512\n\n  length  \nread \"0\" 1k\nfoo\nlength")
    twin.same("io", "disk", stdin="write 0 4k\nquit\nlength\n")


def test_a_guessed_raw_image_refuses_to_become_another_format(twin):
    twin.make("-f", "raw", "disk", "1M")
    twin.write("header", b"QFI\xfb\0\0\0\3" + bytes(504))
    twin.same("io", "-c", "write -s header 0 512", "-c", "write 4k 512", "disk")
    twin.same_content("disk", "raw")


OPENED = {
    "none": ["-t", "none"], "writethrough": ["-t", "writethrough"], "directsync": ["-n", "-t", "directsync"],
    "unsafe": ["-t", "unsafe"], "writeback": [],
    "direct by option": ["--image-opts", "cache.direct=on"],
    "unsafe by option": ["--image-opts", "cache.no-flush=on"],
}
REOPENED = {"not": [], "twice": ["reopen -r", "reopen -w"], "with direct": ["reopen -c none", "reopen"],
            "with writethrough": ["reopen -c writethrough", "reopen -r", "reopen -w"], "with writeback": ["reopen -c writeback"],
            "by option": ["reopen -o cache.direct=on", "reopen"]}


@pytest.mark.parametrize("reopened", REOPENED.values(), ids=REOPENED.keys())
@pytest.mark.parametrize("opened", OPENED.values(), ids=OPENED.keys())
def test_reopen_keeps_what_it_does_not_speak_of(twin, opened, reopened):
    """Both leave the file open in the same way."""
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    twin.make("-f", "raw", "disk", "1M")
    results = []
    for tools, directory in ((THEIRS, twin.theirs), (OURS, twin.ours)):
        argv = [*opened, "disk"] if "--image-opts" not in opened else ["--image-opts",
                                                                       f"driver=raw,file.filename=disk,{opened[1]}"]
        commands = [word for command in [*reopened, "write 4k 4k"] for word in ("-c", command)]
        if "--image-opts" not in argv:
            commands = ["-f", "raw", *commands]
        trace = "strace", "-f", "-qq", "-o", "trace", "-e", "trace=open,openat"
        result = run([*trace, tools["io"], *commands, *argv], directory)
        assert result.returncode == 0, result.stderr
        lines = (directory / "trace").read_text().splitlines()
        opens = [line for line in lines if re.search(r'"(.*/)?disk"|/(proc/self|dev)/fd/\d+"', line) and "= -1" not in line]
        results.append(("O_DIRECT" in opens[-1], "O_RDWR" in opens[-1]))
    assert results[0] == results[1]


@pytest.mark.parametrize("command", ["reopen -c none -o cache.direct=off", "reopen -c none -o cache.writeback=on",
                                     "reopen -r -o read-only=off", "reopen -c foo", "reopen x", "reopen -r -w"])
def test_wrong_reopens_end_the_same(twin, command):
    twin.make("-f", "qcow2", "disk", "1M")
    twin.same("io", "-c", command, "-c", "write 0 4k", "disk")


def test_discards_are_passed_on_after_a_reopen(twin):
    twin.make("-f", "qcow2", "-o", "compat=1.1", "disk", "1M")
    twin.same("io", "-d", "unmap", "-c", "write 0 1M", "-c", "reopen -r", "-c", "reopen -w", "-c", "discard 0 1M",
              "-c", "read -P 0 0 1M", "disk")


@pytest.mark.parametrize("opened", [["-t", "writethrough", "disk"],
                                    ["--image-opts", "driver=raw,file.filename=disk,cache.writeback=off"]], ids=" ".join)
def test_a_write_after_a_reopen_is_as_durable_as_before(twin, opened):
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    twin.make("-f", "raw", "disk", "1M")
    commands = [word for command in ["reopen -r", "reopen -w", *["write 4k 4k"] * 5] for word in ("-c", command)]
    assert run(["strace", "-f", "-qq", "-o", "trace", "-e", "trace=fdatasync", OURS["io"], *commands, *opened],
               twin.ours).returncode == 0
    assert (twin.ours / "trace").read_text().count("fdatasync(") >= 5


VALUES = ["0", "1", "512", "1k", "1.5k", "-1", "+1", "x", "0x200", "1e3", "1M", "1048575", "1048576", "1048577", "2G", "2147483136",
          "2147483647", "8E", "9223372036854775807", "18446744073709551615"]
TAKING_A_VALUE = ["read {} 512", "read 0 {}", "read -P 7 0 {}", "readv 0 {} 512", "write -q {} 512", "write -z {} 1", "write -z 0 {}",
                  "write -z -u 0 {}", "discard {} 512", "discard 0 {}", "alloc {}", "alloc 0 {}", "aio_read {} 512", "aio_flush",
                  "aio_write -z {} 512", "aio_flush", "aio_write -z 0 {}", "aio_flush", "read -P {} 0 512", "write -P {} 0 512",
                  "read -P 7 -s {} 0 1k", "read -P 7 -l {} 0 1k", "sleep -{}"]


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
@pytest.mark.parametrize("value", VALUES)
def test_every_command_reads_numbers_alike(twin, value, fmt):
    twin.make("-f", fmt, "disk", "1M")
    twin.prepare("disk", "write -P 7 4k 1020k")
    twin.same("io", "-f", fmt, *[word for command in TAKING_A_VALUE for word in ("-c", command.format(value))], "disk")
    twin.same_content("disk", fmt)


TAIL = ["read 0 1000", "read 0 1024", "read 1000 24", "read 1001 1", "read 0 1025", "write 1000 24", "write 1023 1", "write 0 1025",
        "write -z 1000 24", "write -z 512 512", "discard 0 1024", "aio_write 1000 24;aio_flush", "aio_write -z 0 1024;aio_flush", "readv 512 256 256",
        "map", "truncate 1000", "truncate 1001", "write -f 1000 24", "write -z -f -u 0 1024"]


@pytest.mark.parametrize("options", ["", "-n", "-t directsync", "-t unsafe", "-n -k", "-r", "-i threads"])
@pytest.mark.parametrize("command", TAIL)
def test_a_file_that_ends_inside_a_sector(twin, command, options):
    if "discard" in command and ("-n" in options or "direct" in options):
        pytest.skip("what is no whole block of direct I/O stays; a discard is a hint")
    twin.write("disk", b"\7" * 1000)
    commands = [*command.split(";"), "length", "read -v 990 20"]
    twin.same("io", "-f", "raw", *options.split(), *[word for each in commands for word in ("-c", each)], "disk")
    twin.same_content("disk", "raw")
