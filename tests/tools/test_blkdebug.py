# SPDX-License-Identifier: MIT
"""blkdebug under bdrv-io and qemu-io: the same rules, the same commands, the same output and exit code."""

import json
import os
import pathlib
import random
import re

import pytest

from tools import OURS, THEIRS, normalise, run

READ, WRITE = "read 0 512", "write 0 512"


def rules(injects=(), states=(), prefix="file."):
    """Options for lists of rules, each "key=value,…"."""
    options = []
    for name, texts in (("inject-error", injects), ("set-state", states)):
        for n, text in enumerate(texts):
            options += [f"{prefix}{name}.{n}.{option}" for option in text.split(",")]
    return options


def arguments(options, commands, cache="writeback"):
    argv = ["-t", cache]
    for command in commands:
        argv += ["-c", command]
    return [*argv, "--image-opts", ",".join(["driver=raw", "file.driver=blkdebug", "file.image.filename=disk", *options])]


# What rules do: inject-error rules, set-state rules, commands.
CASES = {
    "no rules": ([], [], [READ, WRITE, "flush"]),
    "an event starts it": (["event=read_aio"], [], [WRITE, READ, READ, WRITE, "flush", "map"]),
    "other events do not": (["event=write_aio"], [], [READ, "flush", "map", READ]),
    "errno": (["event=read_aio,errno=28"], [], [READ, READ]),
    "errno 0 spares": (["event=none,errno=0", "event=none,errno=28"], [], [WRITE, READ]),
    "errno 0 once is never used up": (["event=none,errno=0,once=on", "event=none,errno=28"], [], [WRITE, READ]),
    "an unknown errno": (["event=none,errno=99999"], [], [WRITE]),
    "once": (["event=read_aio,once=on"], [], [READ, READ, WRITE, READ]),
    "once for another type": (["event=read_aio,once=on,iotype=write"], [], [READ, READ, WRITE, WRITE, READ, WRITE]),
    "once after once": (["event=none,once=on", "event=none,errno=28,once=on", "event=none,errno=12,once=on"], [],
                        [READ, READ, READ, READ]),
    "immediately": (["event=none,errno=28,immediately=on"], [], [READ, WRITE, "aio_write 0 512", "aio_flush"]),
    "a sector": (["event=read_aio,sector=1"], [],
                 [READ, "read 512 512", "read 1k 512", "read 0 1k", "write 512 1", "write -z 0 512", "discard 0 64k", "flush"]),
    "a sector's first byte": (["event=none,sector=1"], [], ["read 500 10", "read 500 12", "read 500 13", "read 512 1", "read 513 1"]),
    "a sector once": (["event=write_aio,sector=1,once=on"], [], [WRITE, "read 512 512", "read 512 512", "write 512 512"]),
    "sector -1 is any": (["event=read_aio,sector=-1"], [], [READ]),
    "sector 0 and flush": (["event=none,sector=0"], [], ["write 512 512", "flush"]),
    "type read": (["event=none,iotype=read"], [], [WRITE, "write -z 0 512", "discard 0 64k", "flush", "map", READ]),
    "type write": (["event=none,iotype=write"], [], [READ, "write -z 0 512", "discard 0 64k", "flush", "map", WRITE]),
    "type write-zeroes": (["event=none,iotype=write-zeroes"], [], [READ, WRITE, "discard 0 64k", "write -z 0 512", "write -z -u 0 64k"]),
    "type discard": (["event=none,iotype=discard"], [], [READ, WRITE, "write -z -u 0 512", "discard 0 64k"]),
    "type flush": (["event=none,iotype=flush"], [], [WRITE, READ, "flush", "flush"]),
    "type block-status": (["event=none,iotype=block-status"], [], [READ, WRITE, "map", "alloc 0"]),
    "all types but block-status": (["event=none"], [], ["map", "alloc 0", READ]),
    "zeroes not supported": (["event=none,errno=95,iotype=write-zeroes"], [], ["write -z 0 4k", "write -z -n 0 4k"]),
    "discard not supported": (["event=none,errno=95,iotype=discard"], [], ["discard 0 64k"]),
    "the first rule counts": (["event=none,errno=5", "event=none,errno=28"], [], [READ, WRITE]),
    "the first that fits": (["event=none,errno=5,sector=1", "event=none,errno=28"], [], [WRITE, READ, "read 512 512"]),
    "a newer event wins": (["event=read_aio,errno=5", "event=write_aio,errno=28"], [], [READ, WRITE, READ, WRITE]),
    "also if it fits nothing": (["event=none,iotype=read", "event=write_aio,errno=28,sector=9"], [], [READ, WRITE, READ]),
    "none is over with the first event": (["event=none", "event=write_aio,errno=28"], [], [READ, WRITE, READ]),
    "state": (["event=read_aio,state=2"], ["event=read_aio,state=1,new_state=2"], [READ, READ, READ]),
    "state from any": (["event=read_aio,state=2"], ["event=read_aio,new_state=2"], [READ, READ]),
    "states in a chain": (["event=read_aio,state=3"],
                          ["event=read_aio,state=1,new_state=2", "event=read_aio,state=2,new_state=3"], [READ] * 4),
    "the first new state counts": (["event=read_aio,state=3", "event=read_aio,state=2,errno=28"],
                                   ["event=read_aio,state=1,new_state=2", "event=read_aio,state=1,new_state=3"], [READ] * 3),
    "the state before the event": (["event=read_aio,state=1,errno=28", "event=write_aio"],
                                   ["event=read_aio,state=1,new_state=2"], [READ, WRITE, READ, WRITE]),
    "no new_state is 0": (["event=read_aio,state=1"], ["event=write_aio"], [WRITE, READ]),
    "a negative state": (["event=read_aio,state=-3,errno=28"], ["event=read_aio,state=1,new_state=-3"], [READ, READ]),
    "state at none": (["event=read_aio,state=2"], ["event=none,new_state=2"], [READ]),
    "none sees the state before": (["event=none,state=1"], ["event=none,new_state=2"], [READ]),
    "state by a flush": (["event=read_aio,state=2"], ["event=flush_to_os,new_state=2"], [READ, "flush", READ]),
    "only a flush of data is one to the disk": (["event=read_aio,state=3"],
                                                ["event=flush_to_disk,state=1,new_state=2", "event=flush_to_disk,state=2,new_state=3"],
                                                [WRITE, "flush", "flush", READ, WRITE, "flush", READ]),
    "a rule out of its state stays active": (["event=read_aio,state=1"], ["event=write_aio,new_state=2"], [READ, WRITE, READ]),
    "the second write": (["event=write_aio,state=2"], ["event=write_aio,state=1,new_state=2"], [WRITE, WRITE]),
    "pwritev": (["event=pwritev,iotype=write"], [], [READ, WRITE]),
    "pwritev_done": (["event=pwritev_done,iotype=write"], [], [WRITE, WRITE]),
    "pwritev_zero": (["event=pwritev_zero"], [], ["write -z 0 512", "write -z 0 100", WRITE]),
    "zeroes are no write_aio": (["event=write_aio"], [], ["write -z 0 512", "write -z 0 100", WRITE]),
    "truncate": (["event=none,iotype=write"], [], ["truncate 512k", "length"]),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_rules_do_the_same(twin, case):
    injects, states, commands = case
    twin.make("-f", "raw", "disk", "1M")
    twin.same("io", *arguments(rules(injects, states), commands))
    twin.same_content("disk", "raw")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_rules_do_the_same_from_a_file(twin, case):
    injects, states, commands = case
    twin.make("-f", "raw", "disk", "1M")
    lines = ["# rules", ""]
    for name, texts in (("set-state", states), ("inject-error", injects)):
        for text in texts:
            lines.append(f"[{name}]")
            for option in text.split(","):
                key, value = option.split("=")
                lines.append(f'{key} = "{value}"')
    twin.write("conf", ("\n".join(lines) + "\n").encode())
    argv = ["-f", "raw", "-t", "writeback"]
    for command in commands:
        argv += ["-c", command]
    twin.same("io", *argv, "blkdebug:conf:disk")
    twin.same_content("disk", "raw")


def test_random_rules_do_the_same(twin):
    seed = int(os.environ.get("BDRV_TEST_SEED", "0"), 0) or random.SystemRandom().getrandbits(32)
    chance = random.Random(seed)

    def some(options):
        return ",".join(f"{key}={chance.choice(values)}" for key, values, percent in options if chance.randrange(100) < percent)

    events = ["none", "read_aio", "write_aio", "pwritev", "pwritev_done", "pwritev_zero", "flush_to_os", "flush_to_disk"]
    kinds = ["read", "write", "write-zeroes", "discard", "flush", "block-status"]
    commands = ["read 0 512", "read 512 512", "read 0 1k", "write 0 512", "write 512 1k", "write -z 0 512", "write -z 512 512",
                "discard 0 64k", "discard 64k 64k", "flush", "map", "alloc 0 4k"]
    for round_ in range(60):
        injects = [some([("event", events, 100), ("state", [1, 2, 3], 40), ("iotype", kinds, 40), ("errno", [5, 12, 28], 60),
                         ("sector", [0, 1, 2, 128], 30), ("once", ["on", "off"], 50), ("immediately", ["on"], 20)])
                   for _ in range(chance.randint(1, 4))]
        states = [some([("event", events, 100), ("state", [1, 2, 3], 60), ("new_state", [1, 2, 3], 100)])
                  for _ in range(chance.randint(0, 3))]
        # The last one fails, so that an error of the flush at the end changes no exit code.
        # The first one writes: a first flush with nothing written is something else here and there.
        history = [WRITE] + [chance.choice(commands) for _ in range(12)] + ["read x 1"]
        twin.make("-f", "raw", "disk", "256k")
        try:
            twin.same("io", *arguments(rules(injects, states), history))
        except AssertionError as error:
            raise AssertionError(f"BDRV_TEST_SEED={seed}, round {round_}: {injects} {states}\n{error}") from error


# Options, commands: what limits do to requests.
LIMITS = {
    "align": (["file.align=4096"], ["write -P 7 100 10", "read -P 7 100 10", "read -v 96 20", "write -P 8 0 10k", "read -P 8 4k 6k"]),
    "align makes requests whole": (["file.align=4096", *rules(["event=none,errno=28,sector=7"])], [WRITE, READ, "read 4k 512"]),
    "max-transfer": (["file.max-transfer=4096", *rules(["event=none,errno=28,sector=8,once=on"])], ["write 0 8k", "write 0 8k"]),
    "max-write-zero": (["file.max-write-zero=4096", *rules(["event=none,errno=28,sector=8,once=on"])],
                       ["write -z 0 8k", "write -P 0 4k 4k"]),
    "opt-write-zero": (["file.opt-write-zero=64k", *rules(["event=none,iotype=write-zeroes"])],
                       ["write -z 4k 8k", "write -z 4k 128k", "write -z 0 64k", "write -z -n 4k 8k"]),
    "less than opt-write-zero is written": (["file.opt-write-zero=64k", *rules(["event=none,iotype=write"])],
                                            ["write -z 4k 8k", "write -z 4k 128k", "write -z 0 64k"]),
    "max-discard": (["file.max-discard=64k", "file.align=512"], ["write 0 1M", "discard 0 1M", "read -P 0 0 1M"]),
    "opt-discard and max-discard": (["file.opt-discard=64k", "file.max-discard=64k", *rules(["event=none,sector=128"])],
                                    ["discard 0 256k"]),
    "direct, no align": (["cache.direct=on", *rules(["event=none,errno=28,sector=0"])], ["write 512 10", "read 512 10", "read 500 10"]),
}


@pytest.mark.parametrize("case", LIMITS.values(), ids=LIMITS.keys())
def test_limits_do_the_same(twin, case):
    options, commands = case
    twin.make("-f", "raw", "disk", "1M")
    twin.same("io", *arguments(options, commands))
    twin.same_content("disk", "raw")


RULE = "file.inject-error.0."
OPTIONS = [
    RULE + "event=foo", RULE + "errno=5", RULE + "event=read_aio," + RULE + "errno=x", RULE + "event=read_aio," + RULE + "iotype=foo",
    RULE + "event=read_aio," + RULE + "foo=1", RULE + "event=read_aio," + RULE + "once=2", RULE + "event=read_aio," + RULE + "state=x",
    RULE + "event=read_aio," + RULE + "once=yes", RULE + "event=read_aio," + RULE + "sector=0x1", RULE + "event=read_aio," + RULE + "sector=1k",
    RULE + "event=read_aio," + RULE + "once=", RULE + "event=", RULE + "event=READ_AIO", RULE + "event=1",
    "file.set-state.0.event=read_aio", "file.set-state.0.new_state=2", "file.set-state.0.event=foo,file.set-state.0.new_state=2",
    "file.set-state.0.event=read_aio,file.set-state.0.once=on",
    "file.inject-error.event=read_aio", "file.inject-error.1.event=read_aio", "file.inject-error.0=read_aio", "file.inject-error=read_aio",
    RULE + "event=read_aio,file.inject-error.02.event=write_aio", RULE + "event=none," + RULE + "errno=5," + RULE + "errno=6",
    "file.align=3", "file.align=0", "file.align=1024", "file.align=4k", "file.align=-1", "file.align=x", "file.align=2147483648",
    "file.max-transfer=512", "file.max-transfer=100", "file.align=1024,file.max-transfer=512", "file.align=1024,file.max-transfer=3072",
    "file.max-transfer=2147483648", "file.opt-write-zero=3", "file.align=512,file.opt-write-zero=700",
    "file.opt-write-zero=4096,file.max-write-zero=5000", "file.opt-write-zero=4096,file.max-write-zero=2048", "file.max-write-zero=4096",
    "file.opt-discard=4096,file.max-discard=5000", "file.opt-discard=4096,file.max-discard=8192", "file.opt-discard=-1",
    "file.align=512,cache.direct=on,file.max-transfer=700", "cache.direct=on,file.max-transfer=700",
    "file.config=nofile", "file.config=", "file.foo=1", "file.x-image=disk", "file.filename=disk",
]


@pytest.mark.parametrize("options", OPTIONS)
def test_options_are_taken_and_refused_alike(twin, options):
    twin.make("-f", "raw", "disk", "1M")
    twin.same("io", *arguments([options], [READ, READ]))


FILES = [
    '', '\n\n', '[inject-error]\nevent = "read_aio"', '[inject-error]\nevent = read_aio\n', '[inject-error]\nevent="read_aio"\nerrno = "x"\n',
    '[inject-error "x"]\nevent = "read_aio"\n', '[inject-error "x"]\nevent = "read_aio"\n[inject-error "x"]\nevent = "write_aio"\n',
    '[inject-error "x"]\nevent = "read_aio"\n[inject-error "y"]\nevent = "write_aio"\nerrno = "28"\n',
    '[inject-error "x"]\nevent = "read_aio"\n[set-state "x"]\nevent = "write_aio"\nnew_state = "28"\n',
    '[inject-error]\nevent = "read_aio"\n[inject-error]\nevent = "write_aio"\nerrno = "28"\n', '[foo]\nevent = "read_aio"\n',
    '# comment\n[inject-error]\n\tevent = "read_aio"\n', '; comment\n[inject-error]\nevent = "read_aio"\n',
    '[inject-error]\nevent = "read_aio" # c\n', '[inject-error] \nevent = "read_aio"\n', '[ inject-error ]\nevent = "read_aio"\n',
    'event = "read_aio"\n', '[inject-error]\nerrno = "5"\n', '[inject-error]\nevent = "read_aio"\nfoo = "1"\n',
    '[inject-error]\nevent = "foo"\n', '[inject-error]\nevent = "read_aio"\nevent = "write_aio"\nerrno = "28"\n',
    '[inject-error]\nevent = ""\n', '[inject-error]\nevent : "read_aio"\n', '[inject-error]\nevent = "read_aio"\nonce = "true"\n',
    '[suspend]\nevent = "read_aio"\ntag = "A"\n', '[inject-error]\r\nevent = "read_aio"\r\n',
    '[set-state "a b"]\nevent = "read_aio"\nnew_state="5"\n', '[inject-error "1a"]\nevent = "read_aio"\n',
    '[inject-error ""]\nevent = "read_aio"\n', '[inject-error\nevent = "read_aio"\n', '[inject-error]\nevent = "read_aio" \n',
    '[set-state]\nevent = "read_aio"\nstate = "1"\nnew_state = "2"\n\n[inject-error]\nevent = "read_aio"\nstate = "2"\n',
    '[inject-error]\n', '[set-state]\n',
]


@pytest.mark.parametrize("text", FILES, ids=[repr(text) for text in FILES])
def test_files_are_taken_and_refused_alike(twin, text):
    twin.make("-f", "raw", "disk", "1M")
    twin.write("conf", text.encode())
    argv = [word for command in [READ, WRITE, READ] for word in ("-c", command)]
    twin.same("io", "-f", "raw", *argv, "blkdebug:conf:disk")


@pytest.mark.parametrize("name", ["blkdebug:conf:disk", "blkdebug::disk", "blkdebug:disk", "blkdebug:", "blkdebug:nofile:disk",
                                  "blkdebug:conf:nofile", "blkdebug:conf:blkdebug:conf:disk", "blkdebug::blkdebug:conf:disk",
                                  'blkdebug:conf:json:{"driver":"file","filename":"disk"}', "blkdebug:conf:image.qcow2",
                                  "blkdebug:conf:overlay.qcow2"])
def test_names_are_taken_and_shown_alike(twin, name):
    twin.make("-f", "raw", "disk", "1M")
    twin.make("-f", "qcow2", "image.qcow2", "1M")
    twin.make("-f", "qcow2", "-b", "image.qcow2", "-F", "qcow2", "overlay.qcow2")
    twin.write("conf", b'[inject-error]\nevent = "flush_to_disk"\niotype = "write"\n')
    twin.same("img", "info", name)
    twin.same("io", "-r", "-c", READ, "-c", "map", "-c", "info", "-c", "length", name)


@pytest.mark.parametrize("options", ["driver=raw,file.driver=blkdebug,file.image.filename=disk",
                                     "driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename=disk,file.config=conf",
                                     "driver=blkdebug,image.filename=disk", "driver=blkdebug,x-image=disk,config=conf",
                                     "driver=raw,file.driver=blkdebug,file.image.driver=blkdebug,file.image.image.filename=disk",
                                     "file.driver=blkdebug,file.image.filename=image.qcow2"])
def test_options_that_a_short_name_says_are_shown_as_one(twin, options):
    twin.make("-f", "raw", "disk", "1M")
    twin.make("-f", "qcow2", "image.qcow2", "1M")
    twin.write("conf", b'[inject-error]\nevent = "flush_to_disk"\niotype = "write"\n')
    twin.same("img", "info", "--image-opts", options)


@pytest.mark.parametrize("options", [["align=512"], ["config=conf", "align=512"], ["inject-error.0.event=read_aio", "inject-error.0.errno=28"],
                                     ["inject-error.0.event=l2_load", "set-state.0.event=l2_load", "set-state.0.new_state=5"]])
def test_other_options_are_shown_as_json_that_opens_the_same(twin, options):
    twin.make("-f", "raw", "disk", "1M")
    twin.write("conf", b"")
    image = ",".join(["driver=raw", "file.driver=blkdebug", "file.image.filename=disk", *[f"file.{option}" for option in options]])
    shown = []
    for tools, directory in ((THEIRS, twin.theirs), (OURS, twin.ours)):
        result = run([tools["img"], "info", "--output=json", "--image-opts", image], directory)
        assert result.returncode == 0, result.stderr
        name = json.loads(result.stdout)["filename"]
        assert name.startswith("json:")
        shown.append(json.loads(name[5:]))
        for again in (THEIRS, OURS):
            result = run([again["io"], "-c", READ, "-c", READ, name], directory)
            assert result.returncode == ("read_aio" in image), result.stderr
    assert shown[0] == shown[1]


BREAKS = {
    "wait and resume": ["break pwritev A", "aio_write 0 512", "wait_break A", "resume A", "aio_flush"],
    "newest first": ["break pwritev A", "aio_write -q 0 512", "break pwritev A", "aio_write -q 512 512", "break pwritev_done B", "resume A",
                     "wait_break B", "read -P 0xcd 512 512", "read -P 0 0 512", "resume B", "resume A", "aio_flush"],
    "others pass": ["break read_aio A", "aio_read 0 512", "read 512 512", "resume A", "aio_flush"],
    "overtaken": ["break pwritev A", "aio_write -P 1 0 512", "wait_break A", "write -P 2 0 512", "read -P 2 0 512", "resume A", "aio_flush",
                  "read -P 1 0 512"],
    "two at one event": ["break pwritev A", "break pwritev B", "aio_write 0 512", "resume A", "write 512 512", "wait_break B",
                         "resume B", "aio_flush"],
    "two at two events": ["break write_aio A", "break pwritev_done B", "aio_write 0 512", "wait_break A", "resume B", "resume A", "wait_break B",
                          "resume B", "aio_flush"],
    "removed while it waits": ["break pwritev A", "aio_write 0 512", "remove_break A", "aio_flush", "write 0 512"],
    "removed before": ["break pwritev A", "remove_break A", "write 0 512", "resume A", "remove_break A"],
    "one removed, one waits": ["break pwritev A", "break pwritev_zero A", "aio_write 0 512", "remove_break A", "aio_flush", "write -z 0 512"],
    "all of a tag go on": ["break pwritev A", "aio_write -q 0 512", "break pwritev_zero A", "aio_write -q -z 512 512", "remove_break A",
                           "aio_flush"],
    "wrong arguments": ["break foo A", "break pwritev", "break pwritev A B", "remove_break", "remove_break B", "wait_break", "resume",
                        "resume B", "sleep x", "sleep -1", "sleep 1 2", "sleep", "sleep 1.5", "sleep 0x1"],
    "none comes no more": ["break none A", "write 0 512"],
    "read only": ["reopen -r", "break read_aio A", "aio_read 0 512", "wait_break A", "resume A", "aio_flush"],
    "reopen and break": ["break read_aio A", "reopen -r", "reopen -w", "aio_read 0 512", "wait_break A", "resume A", "aio_flush"],
    "pattern": ["break read_aio A", "aio_read -P 1 0 512", "wait_break A", "write -P 1 0 512", "resume A", "aio_flush"],
}


@pytest.mark.parametrize("commands", BREAKS.values(), ids=BREAKS.keys())
def test_breakpoints_do_the_same(twin, commands):
    twin.make("-f", "raw", "disk", "1M")
    argv = [word for command in commands for word in ("-c", command)]
    twin.same("io", "-f", "raw", "-t", "writeback", *argv, "blkdebug::disk")
    twin.same_content("disk", "raw")


@pytest.mark.parametrize("event, request_", [("l2_load", "aio_read 0 64k"), ("read_aio", "aio_read 0 64k"), ("cluster_alloc", "aio_write 64k 64k"),
                                             ("write_aio", "aio_write 0 64k"), ("pwritev", "aio_write 0 64k")])
def test_breakpoints_in_qcow2_do_the_same(twin, event, request_):
    twin.make("-f", "qcow2", "disk", "1M")
    twin.prepare("disk", "write 0 64k")
    commands = [f"break {event} A", request_, "wait_break A", "resume A", "aio_flush", "read -P 0xcd 0 64k"]
    twin.same("io", "-t", "writeback", *[word for command in commands for word in ("-c", command)], "blkdebug::disk")
    twin.same_content("disk", "qcow2")


# The events of a write with align=4096. An order that is wrong, and an event that is missing here, ends in a timeout.
HEAD, AFTER_HEAD, TAIL, AFTER_TAIL = (f"pwritev_rmw_{name}" for name in ("head", "after_head", "tail", "after_tail"))
ORDERS = {
    "100 10": [HEAD, TAIL, AFTER_HEAD, AFTER_TAIL], "0 10": [TAIL, AFTER_TAIL], "100 8092": [HEAD, AFTER_HEAD],
    "100 18092": [HEAD, AFTER_HEAD, TAIL, AFTER_TAIL], "100 4096": [HEAD, TAIL, AFTER_HEAD, AFTER_TAIL], "100 3996": [HEAD, AFTER_HEAD],
    "4096 4096": [], "4096 1": [TAIL, AFTER_TAIL],
}


@pytest.mark.parametrize("write", ORDERS)
def test_events_of_a_read_modify_write_come_in_the_same_order(twin, write):
    twin.make("-f", "raw", "disk", "1M")
    commands = [f"break {event} {event}" for event in ["write_aio", HEAD, AFTER_HEAD, TAIL, AFTER_TAIL, "pwritev", "pwritev_done"]]
    commands.append(f"aio_write {write}")
    for event in ["write_aio", *ORDERS[write], "pwritev", "pwritev_done"]:
        commands += [f"wait_break {event}", f"resume {event}"]
    twin.same("io", *arguments(["file.align=4096"], [*commands, "aio_flush"]))


@pytest.mark.parametrize("commands", [["reopen -o file.inject-error.0.event=write_aio"], ["reopen -o file.inject-error.0.event=read_aio"],
                                      ["reopen -o file.align=4096"], ["reopen -o file.align=512", "reopen -c none", "reopen -r", "reopen -w"],
                                      ["reopen -o file.config=conf"], ["reopen -o file.image.foo=1"], ["reopen -o file.set-state.0.event=none"]],
                         ids=" ".join)
def test_rules_and_limits_stay_over_a_reopen(twin, commands):
    twin.make("-f", "raw", "disk", "1M")
    twin.write("conf", b"")
    twin.same("io", *arguments(["file.align=512", *rules(["event=read_aio"])], [*commands, WRITE, READ, WRITE]))


def test_an_image_without_blkdebug_knows_no_breakpoints(twin):
    twin.make("-f", "qcow2", "disk", "1M")
    twin.same("io", "-c", "break pwritev A", "-c", "remove_break A", "-c", "resume A", "disk")
    result = run([OURS["io"], "-c", "wait_break A", "disk"], twin.ours)
    assert result.returncode == 1 and "Operation not supported" in result.stdout


def test_a_wrong_event_is_answered_with_near_ones(twin):
    twin.make("-f", "raw", "disk", "1M")
    result = run([OURS["io"], "-f", "raw", "-c", "break l2_laod A", "blkdebug::disk"], twin.ours)
    assert result.returncode == 1 and "near it: l2_load" in result.stderr
    result = run([OURS["io"], *arguments(rules(["event=pwrite"]), [])], twin.ours)
    assert result.returncode == 1 and "pwritev_done" in result.stderr and "inject-error.0" in result.stderr


@pytest.mark.parametrize("after", [["close"], [], ["reopen -r"], ["truncate 2M"]], ids=["close", "end", "reopen", "truncate"])
def test_what_waits_at_a_breakpoint_is_let_go(twin, after):
    """qemu-io never ends here."""
    twin.make("-f", "raw", "disk", "1M")
    commands = ["break pwritev A", "aio_write -P 5 0 512", "wait_break A", "break pwritev B", *after]
    argv = [word for command in commands for word in ("-c", command)]
    result = run([OURS["io"], "-f", "raw", *argv, "blkdebug::disk"], twin.ours)
    assert result.returncode == 0, result.stderr
    assert normalise(result.stdout).startswith("blkdebug: Suspended request 'A'\nblkdebug: Resuming request 'A'\nwrote 512/512")
    assert (twin.ours / "disk").read_bytes()[:512] == b"\5" * 512


def test_a_qcow2_image_closes_in_spite_of_breakpoints(twin):
    twin.make("-f", "qcow2", "disk", "1M")
    commands = ["break l2_update A", "break refblock_update_part B", "break flush_to_disk C", "aio_write -P 5 0 64k"]
    argv = [word for command in commands for word in ("-c", command)]
    result = run([OURS["io"], "-t", "writeback", *argv, "blkdebug::disk"], twin.ours)
    assert result.returncode == 0, result.stderr
    twin.clean("disk", "qcow2")
    result = run([THEIRS["io"], "-c", "read -P 5 0 64k", "disk"], twin.ours)
    assert "verification failed" not in result.stdout


def test_a_failed_read_of_a_read_modify_write_fails_the_write(twin):
    """qemu-io 7.2 writes whatever its buffer held."""
    twin.make("-f", "raw", "disk", "1M")
    result = run([OURS["io"], *arguments(["file.align=4096", *rules(["event=none,iotype=read,errno=28"])], [WRITE])], twin.ours)
    assert result.returncode == 1 and result.stdout == "write failed: No space left on device\n"


def test_every_event_is_known(twin):
    """All names of the documentation, which QEMU takes too."""
    header = pathlib.Path(__file__).parents[2] / "include" / "bdrv" / "events.h"
    names = re.findall(r'^BDRV_EVENT\(\w+, "(\w+)"\)$', header.read_text(), re.M)
    assert len(names) >= 47
    twin.make("-f", "raw", "disk", "1M")
    twin.same("io", "-f", "raw", *[word for name in names for word in ("-c", f"break {name} A")], "-c", "remove_break A", "blkdebug::disk")
