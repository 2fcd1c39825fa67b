# SPDX-License-Identifier: MIT
"""
The command lines that bdrv-img and qemu-img are compared with: each option of each subcommand with each class of value.
A new option is a line in OPTIONS and a name in COMMANDS; a new kind of image a line in IMAGES (options_images.py makes it).
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

KEY = "--object=secret,id=key,data=sesame"

# Kinds of source: its format ("" where the words tell it) and the words that name it.
IMAGES = {
    "raw": ("raw", "disk.raw"),
    "odd raw": ("raw", "odd.raw"),
    "empty raw": ("raw", "empty.raw"),
    "qcow2": ("qcow2", "base.qcow2"),
    "overlay": ("qcow2", "over.qcow2"),
    "chain": ("qcow2", "top.qcow2"),
    "version 2": ("qcow2", "old.qcow2"),
    "compressed": ("qcow2", "packed.qcow2"),
    "subclusters": ("qcow2", "sub.qcow2"),
    "snapshots": ("qcow2", "snap.qcow2"),
    "bitmaps": ("qcow2", "bits.qcow2"),
    "data file": ("qcow2", "ext.qcow2"),
    "colon": ("raw", "./a:b.raw"),
    "file:": ("qcow2", "file:base.qcow2"),
    "json:": ("", """'json:{"driver":"qcow2","file":{"driver":"file","filename":"base.qcow2"}}'"""),
    "json: flat": ("", """'json:{"driver":"raw","file.filename":"disk.raw","file.driver":"file"}'"""),
    "image options": ("", "--image-opts driver=qcow2,file.filename=over.qcow2"),
    "part": ("", "--image-opts driver=raw,offset=4096,size=1M,file.driver=file,file.filename=disk.raw"),
    "luks": ("", f"{KEY} --image-opts driver=luks,key-secret=key,file.filename=disk.luks"),
    "encrypted": ("", f"{KEY} --image-opts driver=qcow2,encrypt.key-secret=key,file.filename=enc.qcow2"),
}
READING = list(IMAGES)
WRITABLE = ["raw", "odd raw", "qcow2", "overlay", "chain", "version 2", "compressed", "subclusters", "snapshots", "bitmaps",
            "data file", "image options", "encrypted", "luks"]
IMAGES |= {
    "bitmaps by options": ("", "--image-opts driver=qcow2,file.filename=bits.qcow2"),
    "leaks": ("qcow2", "leak.qcow2"), "corrupt": ("qcow2", "bad.qcow2"), "dirty": ("qcow2", "dirty.qcow2"),
}
PAIRS = {
    "same": ("raw", "disk.raw disk.raw"),
    "equal": ("raw", "disk.raw packed.qcow2"),
    "other": ("qcow2", "base.qcow2 over.qcow2"),
    "longer": ("qcow2", "over.qcow2 top.qcow2"),
    "odd": ("raw", "odd.raw disk.raw"),
    "empty": ("raw", "empty.raw sub.qcow2"),
    "subclusters": ("qcow2", "sub.qcow2 snap.qcow2"),
    "options": ("", "--image-opts driver=qcow2,file.filename=over.qcow2 driver=raw,file.filename=disk.raw"),
    "encrypted": ("", f"{KEY} --image-opts driver=luks,key-secret=key,file.filename=disk.luks driver=raw,file.filename=disk.raw"),
}
INPUTS = {
    "raw": ("raw", "if=disk.raw"), "odd": ("raw", "if=odd.raw"), "overlay": ("qcow2", "if=over.qcow2"),
    "options": ("", "--image-opts if=driver=qcow2,file.filename=sub.qcow2"),
    "json": ("", """'if=json:{"driver":"raw","file.filename":"disk.raw","file.driver":"file"}'"""),
}

# What no image can be opened by.
NO_IMAGE = ["nope", "''", ".", "nodir/x", "nope:x", "a:b.raw", "json:", "json:{", "json:[]", "json:{}",
            """'json:{"driver":"qcow2"}'""", """'json:{"driver":"foo","file.filename":"disk.raw"}'""",
            """'json:{"driver":"raw","file.filename":"disk.raw","x":1}'""", "lost.qcow2",
            "--image-opts base.qcow2", "--image-opts driver=qcow2", "--image-opts ''", "--image-opts driver=foo,file.filename=x",
            "--image-opts driver=raw,file.filename=disk.raw,x=1", "--image-opts driver=qcow2,file.filename=disk.raw",
            "--image-opts driver=luks,file.filename=disk.luks", "--image-opts driver=luks,key-secret=no,file.filename=disk.luks",
            "--image-opts driver=qcow2,encrypt.key-secret=no,file.filename=enc.qcow2",
            f"{KEY} --image-opts driver=qcow2,encrypt.format=aes,encrypt.key-secret=key,file.filename=enc.qcow2"]


@dataclass
class Option:
    """What may stand in one place of a line: words that are taken ({fmt} is the image's format), and some that are not."""
    taken: list
    refused: list = field(default_factory=list)


def switch(*forms):
    return Option(["", *forms])


def sizes(option, *more, absent=True):
    taken = ["0", "512", "64k", "1M", "1.5k", "3000", "1K", "0x1000", "+4096", "513b"]
    refused = ["-1", "x", "''", "1Z", "8E", "99999999999999999999", "1e3", "1.k", "nan", "1M2", "'1 M'"]
    return Option([""] * absent + [f"{option} {value}" for value in [*taken, *more]],
                  [f"{option} {value}" for value in refused])


def cache(letter):
    modes = ["writeback", "none", "writethrough", "directsync", "unsafe"]
    return Option(["", *(f"-{letter} {mode}" for mode in modes)],
                  [f"-{letter} {mode}" for mode in ["foo", "''", "off", "None"]])


SECRETS = ["--object secret,id=key,data=c2VzYW1l,format=base64", "--object secret,qom-type=secret,id=a,data=x", "--object secret",
           "--object secret,data=x", "--object secret,id=key", "--object secret,id=1,data=x", "--object secret,id=key,file=nope",
           "--object secret,id=key,data=x,file=secret.txt", "--object secret,id=key,data=x,format=foo", "--object ''",
           "--object foo,id=key", "--object secret,id=key,data=!,format=base64", "--object secret,id=key,data=x,foo=1",
           f"{KEY} {KEY}", "--object id=key,data=x", "--object ,"]

FORMAT_REFUSED = ["-f foo", "-f ''", "-f raw,x", "-f file", "-f vmdk", "-f luks"]

# By what may stand in a line. What is written as -f in one subcommand may be another thing than in others.
OPTIONS = {
    "format": Option(["", "-f {fmt}", "-f{fmt}"], FORMAT_REFUSED),
    "long format": Option(["", "-f {fmt}", "--format={fmt}", "--form {fmt}"],
                          [*FORMAT_REFUSED, "--format=foo", "--format="]),
    "object": Option(["", KEY, "--object secret,id=other,file=secret.txt", "--object=secret,id=other,data=x,format=raw",
                      "--obj secret,id=a,data=x --object secret,id=b,data=y"], SECRETS),
    "output": Option(["", "--output=human", "--output json", "--out=json"], ["--output=xml", "--output=", "--output=JSON"]),
    "long share": switch("-U", "--force-share", "--force-s"),
    "quiet": switch("-q"),
    "progress": switch("-p"),
    "cache": cache("t"),
    "source cache": cache("T"),
    "snapshot": Option([""], ["-l nope", "-l ''", "-l snapshot.id=9", "-l snapshot.name=first", "-l snapshot.foo=1"]),
    "rate": Option(["", "-r 1G", "-r 100M"], ["-r x", "-r ''", "-r -1", "-r 8E"]),
    # amend
    "amend -o": Option(["-o compat=1.1", "-o compat=v3,lazy_refcounts=on", "-o lazy_refcounts=off", "-o size=8M",
                        "-o refcount_bits=16", "-o backing_file=,backing_fmt=", "-o compat=1.1 -o lazy_refcounts=on"],
                       ["-o foo=1", "-o ''", "-o compat=2", "-o cluster_size=4k", "-o size=x", "-o size=-1", "-o refcount_bits=3",
                        "-o lazy_refcounts=maybe", "-o preallocation=full", "-o ,", "-o encrypt.format=luks", "-o compat=0.10",
                        "-o compression_type=zstd", "-o extended_l2=on", "-o data_file=x", "-o help", "-o '?'", ""]),
    "force": switch("--force", "--fo"),
    # bench
    "count": Option(["-c 10", "-c 1", "-c 0x10", "-c 3 -c 7"], ["-c x", "-c ''", "-c -1", "-c 1.5", "-c 99999999999999999999", "-c 1k", "-c 0"]),
    "depth": Option(["", "-d 1", "-d 4", "-d 100"], ["-d x", "-d ''", "-d -1", "-d 1.5", "-d 99999999999999999999", "-d 1k"]),
    "buffer": Option(["", "-s 512", "-s 4k", "-s 1.5k", "-s 64k"], ["-s x", "-s ''", "-s -1", "-s 0", "-s 8E", "-s 3G"]),
    "step": Option(["", "-S 512", "-S 8k", "-S 0"], ["-S x", "-S ''", "-S -1", "-S 8E"]),
    "offset": Option(["", "-o 0", "-o 4k", "-o 512"], ["-o x", "-o ''", "-o -1", "-o 8E"]),
    "write": switch("-w", "-w --pattern=255", "-w --pat 0x10", "-w --flush-interval=2", "-w --flush-interval 3 --no-drain"),
    "bench more": Option([""], ["--pattern=256 -w", "--pattern=-1 -w", "--pattern=x -w", "--flush-interval=x -w", "--no-drain",
                                "--flush-interval=-1 -w", "--flush-interval=2", "--no-drain -w", "--pattern=1",
                                "--flush-interval=2 -w -d 4"]),
    "engine": Option(["", "-i threads", "-n -i native", "-i io_uring", "-n"], ["-i foo", "-i ''", "-i native"]),
    # bitmap
    "action": Option(["--add", "--add -g 64k", "--add --granularity=512", "--add -g 2G", "--add --disable", "--remove", "--clear",
                      "--enable", "--disable", "--clear --disable", "--merge b1", "--merge b1 --merge b0", "--clear --merge b1",
                      "--merge=b1 -b bits.qcow2 -F qcow2", "--merge b1 --source-file bits.qcow2 --source-format=qcow2",
                      "--merge b1 -b bits.qcow2", "--rem", "--add --merge b1"],
                     ["", "--add --add", "--add --remove", "--add -g 3", "--add -g 4G", "--add -g 256", "--add -g x", "--add -g ''",
                      "--remove -g 64k", "--merge nope", "--merge ''", "--merge b1 -b nope", "--merge b1 -b disk.raw",
                      "--merge b1 -b bits.qcow2 -F raw", "--merge b1 -F qcow2", "-b bits.qcow2 --add", "-F qcow2 --add",
                      "--enable --disable", "--remove --add", "--merge b1 -b bits.qcow2 -F foo", "--add --clear --enable",
                      "--disable --add"]),
    # check
    "repair": Option(["", "-r leaks", "-r all", "--repair=leaks", "--rep all"], ["-r foo", "-r ''", "--repair=", "-r ALL"]),
    # commit
    "commit base": Option(["", "-b base.qcow2"], ["-b nope", "-b ''", "-b top.qcow2", "-b disk.raw"]),
    "keep": switch("-d"),
    # compare
    "second format": Option(["", "-F qcow2"], ["-F foo", "-F ''", "-F file", "-F luks"]),
    "strict": switch("-s"),
    # convert, dd, create
    "target": Option(["", "-O raw", "-O qcow2", "-O qcow2 -o cluster_size=4k", "-O qcow2 -o compat=0.10",
                      "-O qcow2 -o preallocation=metadata", "-O raw -o preallocation=full", "-O raw -o preallocation=off",
                      "-O qcow2 -o extended_l2=on,cluster_size=16k", "-O qcow2 -o refcount_bits=1 -o lazy_refcounts=on",
                      "-O qcow2 -o compression_type=zstd", "-O qcow2 -o backing_file=base.qcow2 -F qcow2",
                      "-O qcow2 -o data_file=new.data", "-O qcow2 -o preallocation=falloc"],
                     ["-O foo", "-O ''", "-O luks", "-O vmdk", "-O bochs", "-O file -o x=1", "-o foo=1", "-o ''", "-o ,",
                      "-O qcow2 -o cluster_size=3", "-O qcow2 -o size=x", "-O qcow2 -o backing_file=nope -F raw", "-o size=1M,",
                      "-O raw -o cluster_size=4k", "-O qcow2 -o compat=0.10,lazy_refcounts=on", "-O raw -o preallocation=metadata",
                      "-O qcow2 -o encrypt.format=luks", "-O qcow2 -o data_file_raw=on", "-O raw -o backing_file=base.qcow2"]),
    "convert base": Option(["", "-B base.qcow2 -F qcow2"], ["-B base.qcow2", "-B nope -F qcow2", "-B '' -F qcow2", "-F qcow2",
                                                             "-O qcow2 -B base.qcow2 -F foo", "-O qcow2 -B nope -F qcow2"]),
    "existing": Option([""], ["-n", "-n --target-is-zero", "--target-is-zero", "-n -O qcow2"]),
    "compress": Option(["", "-c"], ["-c -O raw", "-c -O qcow2 -o preallocation=full", "-c -S 0"]),
    "sparse": Option(["", "-S 0", "-S 4k", "-S 64k", "-S 2M", "-S 512"],
                     ["-S x", "-S ''", "-S -1", "-S 513", "-S 8E", "-S 1G", "-S 3k"]),
    "parallel": Option(["", "-m 1", "-m 16", "-m 4 -W", "-W", "-m 0x8"],
                       ["-m 0", "-m 17", "-m x", "-m ''", "-m -1", "-m 4k", "-m 1.5"]),
    "copy": Option(["", "-C"], ["-C -c", "-C -S 4k", "-C -S 0"]),
    "bitmaps": Option(["", "--bitmaps", "--bitmaps --skip-broken-bitmaps"], ["--skip-broken-bitmaps", "--bitmaps -O raw"]),
    "salvage": switch("--salvage", "--salv"),
    "target options": Option([""], ["--target-image-opts", "-n --target-image-opts", "--target-image-opts -O raw"]),
    "blocks": Option(["", "bs=64k", "bs=1M", "bs=1000", "bs=513", "bs=0x200"], ["bs=0", "bs=-1", "bs=x", "bs=", "bs=3G", "bs=8E"]),
    "blocks to copy": Option(["", "count=1", "count=0", "count=3", "count=7 count=2"],
                             ["count=-1", "count=x", "count=", "count=99999999999999999999"]),
    "blocks to skip": Option(["", "skip=1", "skip=0", "skip=5", "skip=1000000"], ["skip=-1", "skip=x", "skip=", "foo=1", "if", "x"]),
    "create format": Option(["-f qcow2", "-f qcow2 -o cluster_size=512", "-f qcow2 -o compat=0.10", "-f qcow2 -o extended_l2=on",
                             "-f qcow2 -o preallocation=metadata", "-f qcow2 -o cluster_size=2M,refcount_bits=64",
                             "-f qcow2 -o size=3M", "-f qcow2 -o lazy_refcounts=on -o compression_type=zstd", "-f qcow2 -o nocow=on",
                             "-fqcow2 -ocluster_size=4k"],
                            ["-f foo", "-f ''", "-f vmdk", "-f bochs", "-f qcow2 -o foo=1", "-f qcow2 -o ''", "-f luks",
                             "-f qcow2 -o cluster_size=x", "-f qcow2 -o refcount_bits=3", "-f qcow2 -o preallocation=foo",
                             "-f qcow2 -o backing_file=nope", "-f qcow2 -o encrypt.format=luks", "-f qcow2 -o data_file_raw=on",
                             "-f qcow2 -o encrypt.format=luks,encrypt.key-secret=no", "-f luks -o key-secret=no",
                             "-f qcow2 -o encryption=on", "-f qcow2 -o encrypt.format=foo"]),
    "plain format": Option(["", "-f raw", "-f raw -o preallocation=full", "-f raw -o preallocation=falloc", "-f file", "-f raw -o size=2M"],
                           ["-o foo=1", "-f raw -o cluster_size=64k", "-f raw -b base.qcow2 -F qcow2", "-o preallocation=metadata"]),
    "create size": Option(["4M", "1.5M", "0", "1000", "5242880", "1T", "64k", ""],
                          ["x", "''", "-1", "1Z", "8E", "4M 1M", "'1 M'", "1e6", "99999999999999999999", "nan"]),
    "create base": Option(["", "-b base.qcow2 -F qcow2", "-b disk.raw -F raw", "-u -b nope -F raw", "-b over.qcow2 -Fqcow2"],
                          ["-b nope -F raw", "-b base.qcow2", "-b disk.raw -F qcow2", "-b base.qcow2 -F foo", "-b '' -F raw",
                           "-b base.qcow2 -F ''", "-F foo", "-b nope:x -F raw", "-b enc.qcow2 -F qcow2", "-b lost.qcow2 -F qcow2"]),
    "dd target": Option(["", "-O raw", "-O qcow2"], ["-O foo", "-O ''", "-O vmdk", "-O file", "-O luks", "-o x=1"]),
    # info, map
    "chain": switch("--backing-chain", "--back"),
    "start": sizes("-s"),
    "start by name": Option([""], ["--start-offset=-1", "--start-offset=x"]),
    "length": sizes("-l"),
    "map names": switch("--start-offset=64k", "--max-length=128k", "--max 1M --start 64k"),
    # measure
    "measure -O": Option(["", "-O raw", "-O qcow2", "-O qcow2 -o cluster_size=512", "-O qcow2 -o compat=0.10",
                          "-O qcow2 -o extended_l2=on", "-O qcow2 -o preallocation=full", "-O qcow2 -o refcount_bits=64",
                          "-O qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2", "-O raw -o preallocation=full", "-O qcow2 -o size=1G"],
                         ["-O foo", "-O ''", "-O vmdk", "-o foo=1", "-O qcow2 -o cluster_size=3", "-O qcow2 -o ''", "-O luks",
                          "-O qcow2 -o data_file_raw=on", "-O qcow2 -o size=x", "-O qcow2 -o backing_file=nope,backing_fmt=raw",
                          "-O bochs", "-O file"]),
    "size": sizes("--size", "1T", "64P", absent=False),
    # rebase
    "new base": Option(["-b base.qcow2 -F qcow2", "-b disk.raw -F raw", "-b ''", "-b old.qcow2 -F qcow2", "-b '' -F qcow2"],
                       ["", "-b nope -F raw", "-b base.qcow2 -F foo", "-b disk.raw -F qcow2", "-b base.qcow2", "-F qcow2",
                        "-b '' -F foo", "-b lost.qcow2 -F qcow2", "-u -b base.qcow2 -F foo", "-u -b ''", "-u"]),
    "unsafe": switch("-u"),
    # resize
    "shrink": switch("--shrink", "--shr"),
    "preallocation": Option(["", "--preallocation=off", "--preallocation=full", "--preallocation falloc", "--prealloc=metadata"],
                            ["--preallocation=foo", "--preallocation=", "--preallocation=FULL"]),
    "new size": Option(["8M", "+1M", "-64k", "+0", "1M", "0", "4194304", "1.5M", "8388609", "+512b"],
                       ["x", "''", "+", "-", "++1", "-1T", "8E", "+8E", "1Z", "0x", "+-1", "' 1M'", "--1"]),
    # snapshot
    "snapshot action": Option(["-l", "", "-c new", "-a first", "-d first", "-a 2", "-d 2", "-c ''", "-c first", "-dfirst"],
                              ["-a nope", "-d nope", "-c", "-a", "-l -c new", "-c new -d first", "-a ''", "-d ''", "-l -l"]),
}


@dataclass
class Command:
    options: list  # names in OPTIONS
    images: object  # names in IMAGES, or a dictionary like that
    operands: str = "{image}"
    never: list = field(default_factory=list)  # values that are refused together, as Cover takes it
    lines: list = field(default_factory=list)  # whole lines besides

    def kinds(self):
        return self.images if isinstance(self.images, dict) else {name: IMAGES[name] for name in self.images}


def without(images, *options):
    """No row has one of the @images with one of the @options."""
    return [{"image": images, option: [words for words in OPTIONS[option].taken if words]} for option in options]


def taken(option, *parts):
    """The words of @option that have one of @parts in them."""
    return [words for words in OPTIONS[option].taken if any(part in words for part in parts)]


NAMED = [name for name, (fmt, _) in IMAGES.items() if not fmt]  # their names tell the format
OPTED = ["options", "json", "encrypted"]

CONVERT_NEVER = [
    {"copy": ["-C"], "compress": ["-c"]}, {"copy": ["-C"], "sparse": taken("sparse", "-S")},
    {"compress": ["-c"], "target": ["", *taken("target", "raw", "preallocation", "data_file")]},
    {"compress": ["-c"], "sparse": ["-S 0"]},
    {"convert base": taken("convert base", "-B"), "target": ["", *taken("target", "raw", "backing", "preallocation", "data_file")]},
    {"bitmaps": taken("bitmaps", "-"), "target": ["", *taken("target", "raw", "0.10")]},
    {"bitmaps": taken("bitmaps", "-"), "image": [name for name in READING if name != "bitmaps"]},
]
CONVERT_LINES = [
    "disk.raw", "", "nope new", "disk.raw nodir/new", "disk.raw ''", "'' new", "disk.raw disk.raw", "disk.raw ./disk.raw", "disk.raw .",
    "-n disk.raw base.qcow2", "-n -O qcow2 disk.raw base.qcow2", "-n -O qcow2 disk.raw old.qcow2", "-n -O qcow2 disk.raw nope",
    "-n --target-image-opts disk.raw driver=qcow2,file.filename=base.qcow2", "-n -p -O raw base.qcow2 disk.raw",
    "-n --target-is-zero -O qcow2 disk.raw old.qcow2", "-qn -O qcow2 disk.raw old.qcow2", "-pn -O qcow2 disk.raw old.qcow2",
    "-cO qcow2 disk.raw new", "-cpO qcow2 disk.raw new", "-O qcow2 odd.raw disk.raw over.qcow2 new", "-O raw odd.raw odd.raw new",
    "-l first -O qcow2 snap.qcow2 new", "-l snapshot.id=2 -O raw snap.qcow2 new", "-l snapshot.name=first snap.qcow2 new",
    "-l snapshot.id=1,snapshot.name=first snap.qcow2 new", "-l snapshot.id=2,snapshot.name=first snap.qcow2 new",
    "-l 2 snap.qcow2 new", "-l first snap.qcow2 base.qcow2 new", "-l '' snap.qcow2 new", "-l nope snap.qcow2 new",
    "--bitmaps -O qcow2 bits.qcow2 new", "--bitmaps -O qcow2 base.qcow2 new", "--bitmaps -O qcow2 bits.qcow2 disk.raw new",
    "-n --bitmaps -O qcow2 bits.qcow2 base.qcow2", "--bitmaps -O qcow2 broken-bitmap.qcow2 new",
    "--bitmaps --skip-broken-bitmaps -O qcow2 broken-bitmap.qcow2 new", "-O qcow2 over.qcow2 over.qcow2",
    "-O qcow2 -B base.qcow2 -F qcow2 over.qcow2 new", "-O qcow2 -B over.qcow2 -F qcow2 top.qcow2 new", "-o help -O qcow2 x y",
    "-O qcow2 -o help", "-o help", "-O raw -o help disk.raw new", "-O luks -o '?' disk.raw new", "-O foo -o help",
    f"-O luks -o key-secret=key,iter-time=10 {KEY} disk.raw new.luks",
    f"-O qcow2 -o encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10 {KEY} over.qcow2 new.enc",
    f"-O qcow2 -o encrypt.format=aes,encrypt.key-secret=key {KEY} disk.raw new.enc",
    "disk.raw disk.raw new -O qcow2", "disk.raw -O qcow2 new",
    "disk.raw new file:disk.raw", "disk.raw new:x", "disk.raw ./new:x", "disk.raw file:new", "-- disk.raw --new", "-- disk.raw -O",
    "disk.raw 'json:{\"driver\":\"raw\",\"file.filename\":\"new\"}'", "-t none -T none -O qcow2 odd.raw new", "disk.raw /dev/null",
    "-r 10M -O raw disk.raw new", "-r 1M -r 1G disk.raw new", "-m 2 -m 3 disk.raw new", "-S 4k -S 0 disk.raw new",
    "-O raw -O qcow2 disk.raw new", "-o cluster_size=4k -o cluster_size=512 -O qcow2 disk.raw new", "-qq disk.raw new",
    "-f raw -f qcow2 base.qcow2 new", "-t foo -t none disk.raw new", "-W -c -O qcow2 disk.raw new", "-a disk.raw new", "-q -p disk.raw new",
    "-O qcow2 base.qcow2 base.qcow2", "-n -O qcow2 -o cluster_size=4k base.qcow2 over.qcow2", "base.qcow2 o:ut", "fo,o:x out",
    "'json:{' out", "'json:[]' out", "-O qcow2 -o size=-1 base.qcow2 new", "-O qcow2 -B base.qcow2 over.qcow2 new", ". new",
    "-O qcow2 -o backing_file=base.qcow2 over.qcow2 new", "-O raw -B base.qcow2 -F qcow2 over.qcow2 new",
    "--target-image-opts base.qcow2 driver=qcow2,file.filename=over.qcow2", "-r 99999999999999999999 base.qcow2 new",
]
CREATE_LINES = [
    "", "new", "-q", "-f qcow2", "-f qcow2 new", "-f raw new", "-f qcow2 nodir/new 1M", "-f qcow2 '' 1M", "-f qcow2 . 1M", "-f qcow2 new 1M x",
    "-f raw new:x 1M", "-f raw ./new:x 1M", "-f raw file:new 1M", "-f qcow2 file:new 1M", "-f qcow2 -- new 1M", "-f qcow2 -- -new 1M",
    "-f qcow2 new -- -1M", "new 1M -f qcow2", "new -f qcow2 1M", "-f qcow2 'json:{}' 1M", "-f qcow2 disk.raw 1M", "-qf qcow2 new 1M", "-a",
    "-f qcow2 -o size=1M,size=2M new", "-f qcow2 -o size=1M -o size=2M new", "-f qcow2 -o size=1M new 2M", "-f raw -f qcow2 new 1M",
    "-f qcow2 -b base.qcow2 new", "-f qcow2 -b base.qcow2 -F qcow2 new", "-f qcow2 -b base.qcow2 -F raw new", "-u -f qcow2 new",
    "-f qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 new", "-f qcow2 -b base.qcow2 -o backing_fmt=qcow2 new",
    "-f qcow2 -b over.qcow2 -F qcow2 -o backing_file=base.qcow2 new", "-f qcow2 -u -b '' -F qcow2 new 1M", "-f qcow2 -u -b '' new 1M",
    "-f qcow2 -F raw -b nope -u new", "-f qcow2 -b 'json:{\"driver\":\"raw\",\"file.filename\":\"disk.raw\"}' -F raw new",
    "-f qcow2 -b file:disk.raw -F raw new", "-f qcow2 -b new -F qcow2 new", "-f qcow2 -b empty.raw -F raw new", "-f qcow2 -b odd.raw -F raw new",
    "-o help", "-f qcow2 -o help", "-f raw -o help new 1M", "-f luks -o help", "-f foo -o help", "-f file -o '?'", "-f qcow2 -o size=1M,help",
    "-f qcow2 -o data_file=new.data new 1M", "-f qcow2 -o data_file=new.data,data_file_raw=on new 1M", "-f qcow2 -o data_file=disk.raw new",
    f"{KEY} -f luks -o key-secret=key,iter-time=10 fresh.luks 1M", f"{KEY} -f luks -o iter-time=10 fresh.luks 1M",
    f"{KEY} -f qcow2 -o encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10 new.enc 1M",
    f"{KEY} -f qcow2 -o encrypt.format=aes,encrypt.key-secret=key new.enc 1M", f"{KEY} -f qcow2 -o encryption=on new.enc 1M",
    f"{KEY} -f luks -o key-secret=key,iter-time=0 fresh.luks 1M", f"{KEY} -f luks -o key-secret=key,cipher-alg=foo fresh.luks 1M",
    f"{KEY} -f luks -o key-secret=key,iter-time=10,cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256 fresh.luks 3k",
]
DD_LINES = ["", "if=disk.raw", "of=new", "if=disk.raw of=nodir/new", "if= of=new", "if=disk.raw of=", "if=disk.raw of=disk.raw", "disk.raw new",
            "if=disk.raw if=odd.raw of=new", "if=disk.raw of=new of=other", "-- if=disk.raw of=new", "if=disk.raw -O qcow2 of=new bs=64k",
            "if=nope of=new", "if=disk.raw of=new conv=notrunc", "-n if=disk.raw of=new", "--image-opts if=disk.raw of=new",
            "if=lost.qcow2 of=new", "-Uf raw if=disk.raw of=new"]
MEASURE_LINES = ["", "--size 1M disk.raw", "disk.raw odd.raw", "--size 1M -f raw", "--size 1M --image-opts", "--size 1M -l first", "--size",
                 "-O qcow2 -l first snap.qcow2", "-O qcow2 -l nope snap.qcow2", "-l first disk.raw", "-O qcow2 --size 1M --output=json",
                 "-O qcow2 -o help", "-o help --size 1M", f"{KEY} -O luks --size 1M", f"{KEY} -O luks -o key-secret=key --size 1M",
                 f"{KEY} -O qcow2 -o encrypt.format=luks,encrypt.key-secret=key --size 1G",
                 f"{KEY} -O qcow2 -o encrypt.format=luks,encrypt.key-secret=no --size 1G", "--size 1M --size 2M -O qcow2",
                 "-O qcow2 --si 3G --out json", "-O qcow2 -l snapshot.id=1 snap.qcow2", "-U --size 1M", "-O qcow2 -o cluster_size=2M --size 8E",
                 *(f"-O {fmt} {words}" for fmt in ("raw", "qcow2") for words in
                   [*OPTIONS["size"].taken, *OPTIONS["size"].refused])]
RESIZE_LINES = ["", "disk.raw", "disk.raw 1M 2M", "-f raw 4M", "nope 1M", "-f raw disk.raw -1M", "-f raw --shrink disk.raw -1M", "--shrink 1M",
                "disk.raw +1M -f raw", "disk.raw --shrink 1M", "-f raw --shrink --preallocation=full disk.raw 1M", "-f raw -- disk.raw +1M",
                "-f raw disk.raw -- +1M", "-f raw -q disk.raw +1M", "--image-opts driver=raw,size=64k,file.filename=disk.raw 4M",
                "-f raw --preallocation=metadata disk.raw +1M", "-qf raw disk.raw 4M", "--help", "-h"][:-2]

COMMANDS = {
    "amend": Command(["amend -o", "format", "cache", "force", "progress", "quiet", "object"], WRITABLE, never=without(NAMED, "format"),
                     lines=["-f qcow2 -o help", "-o help", "-f raw -o help base.qcow2", "-f luks -o help", "-o '?' -f qcow2",
                            "-f qcow2 -o compat=0.10 over.qcow2", "-f qcow2 -o compat=0.10 sub.qcow2", "-f raw -o size=8M disk.raw"]),
    "bench": Command(["count", "depth", "buffer", "step", "offset", "write", "bench more", "engine", "format", "cache", "long share",
                      "quiet"], ["raw", "qcow2", "overlay", "compressed", "image options", "json:"], never=without(NAMED, "format")),
    "bitmap": Command(["action", "format", "object"], ["bitmaps", "bitmaps by options", "qcow2", "version 2", "raw"], "{image} b0",
                      without(NAMED, "format"), ["--add bits.qcow2 ''", "--add -- bits.qcow2 --x", "--add bits.qcow2 new",
                                                 "--add bits.qcow2", "--add", "--add bits.qcow2 b0 b1"]),
    "check": Command(["long format", "object", "output", "repair", "source cache", "long share", "quiet"],
                     [*READING, "leaks", "corrupt", "dirty"], never=without(NAMED, "long format")),
    "commit": Command(["commit base", "keep", "rate", "format", "cache", "progress", "quiet", "object"],
                      ["overlay", "chain", "image options", "raw", "qcow2"], never=without(NAMED, "format")),
    "compare": Command(["format", "second format", "strict", "source cache", "long share", "progress", "quiet", "object"], PAIRS,
                       never=[*without(OPTED, "format", "second format"), *without(["same", "odd"], "second format")],
                       lines=["base.qcow2 nope", "nope base.qcow2", "disk.raw --image-opts base.qcow2", "disk.raw", "disk.raw disk.raw x"]),
    "convert": Command(["format", "target", "convert base", "existing", "compress", "sparse", "parallel", "copy", "rate", "bitmaps",
                        "salvage", "target options", "cache", "source cache", "long share", "progress", "quiet", "object", "snapshot"],
                       READING, "{image} new", [*without(NAMED, "format"), *CONVERT_NEVER], CONVERT_LINES),
    "create": Command(["create format", "create base", "quiet", "object"], {"": ("", "new")}, "{image} {create size}", lines=CREATE_LINES),
    "dd": Command(["format", "dd target", "blocks", "blocks to copy", "blocks to skip", "long share", "object"], INPUTS, "{image} of=new",
                  without(OPTED, "format"), DD_LINES),
    "info": Command(["long format", "object", "output", "chain", "long share"], READING, never=without(NAMED, "long format")),
    "map": Command(["long format", "object", "output", "start", "length", "start by name", "map names", "long share"], READING,
                   never=without(NAMED, "long format")),
    "measure": Command(["format", "object", "output", "measure -O", "snapshot", "long share"], READING,
                       never=without(NAMED, "format"), lines=MEASURE_LINES),
    "rebase": Command(["new base", "unsafe", "format", "cache", "source cache", "long share", "progress", "quiet", "object"],
                      ["overlay", "chain", "image options", "qcow2", "subclusters", "raw", "encrypted"], never=without(NAMED, "format")),
    "resize": Command(["shrink", "preallocation", "format", "quiet", "object"], WRITABLE, "{image} {new size}",
                      without(NAMED, "format"), RESIZE_LINES),
    "snapshot": Command(["snapshot action", "long share", "quiet", "object"],
                        ["snapshots", "qcow2", "version 2", "raw", "image options", "bitmaps"]),
}

# Where the operands stand.
ORDERS = {"options first": "{options} {operands}", "operands first": "{operands} {options}", "--": "{options} -- {operands}"}


class Known(NamedTuple):
    """A difference that is meant to be."""
    pattern: str  # in what is told of it: the line, what differs, what both said
    reason: str


KNOWN = [
    Known(r"^measure .*(\n.*)*\nmeasure: (unrecognized option|invalid option|option )",
          "measure: an option that is unknown or lacks its value is an error; qemu-img prints its help and succeeds"),
    Known(r"(-f|-O)[ =](vmdk|bochs|qed)\b", "formats that are not built are refused by name"),
    Known(r"new: is there only in theirs\n(.*\n)*ours: exit 1\n(.*\n)*theirs: exit 1",
          "convert: a line that is refused makes no target"),
    Known(r"^convert (?=.*odd\.raw)(?=.*-t (none|directsync))(.*\n)+new: info: ", "O_DIRECT: the target has the size of the source, not a multiple of 4 KiB"),
    Known(r"^compare (?=.*odd\.raw)(?=.*-T (none|directsync))(.*\n)+theirs: .*\nContent mismatch at offset 69632",
          "O_DIRECT: the offset is that of the first byte that differs, not of its block"),
    Known(r"odd\.raw.*\nnew\.data: info: ", "an external data file has the length of the disk"),
    Known(r"top\.qcow2 (.*\n)+new: Content mismatch", "convert -B: what lies between the backing file and the source is copied"),
    Known(r"^rebase .*\n(.*\n)+theirs: .*\n.*Cannot use relative backing file names for 'json:",
          "rebase: relative names work for an image that is opened by options"),
    Known(r"^measure .*data_file_raw=on", "measure: an image that cannot be created is not measured"),
    Known(r"^resize .*--prealloc.*enc.qcow2.*\nenc.qcow2: Content mismatch", "preallocated space of an encrypted image reads as zeroes"),
    Known(r"^check .*bad\.qcow2.*\noutput\n(.*\n)*Rebuilding refcount structure", "check -r mends refcounts where they are"),
]

# Options that only bdrv-img has
OURS_ONLY = {"check": ["--dry-run", "--explain"], "commit": ["--dry-run"], "convert": ["--resume"], "info": ["--graph"],
             "rebase": ["--dry-run"], "resize": ["--dry-run"]}
