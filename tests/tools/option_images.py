# SPDX-License-Identifier: MIT
"""The starting images of option_table.py, and what is to be the same of the images that a command line leaves."""

import json
import struct
import subprocess

from tools import run

IO = {
    "base.qcow2": ["write -P 1 0 256k", "write -z 512k 128k", "write -P 2 1M 70k", "discard 64k 64k"],
    "over.qcow2": ["write -P 3 192k 128k", "write -z 1M 64k"],
    "top.qcow2": ["write -P 4 200k 10k", "write -z 300k 8k", "write -P 5 5M 4k"],
    "old.qcow2": ["write -P 1 0 64k", "write -P 2 1M 200k"],
    "sub.qcow2": ["write -P 6 3k 5k", "write -z 512k 2k", "write -P 7 2M 64k"],
    "snap.qcow2": ["write -P 1 0 128k"],
    "bits.qcow2": ["write -P 1 0 64k", "write -P 2 2M 64k"],
    "ext.qcow2": ["write -P 1 0 64k", "write -P 2 1M 64k"],
    "leak.qcow2": ["write -P 1 0 256k"],
    "bad.qcow2": ["write -P 1 0 256k"],
    "dirty.qcow2": ["write -P 1 0 256k"],
}
SCRIPT = """
    create -f qcow2 base.qcow2 4M
    create -f qcow2 -b base.qcow2 -F qcow2 over.qcow2
    create -f qcow2 -o cluster_size=4k -b over.qcow2 -F qcow2 top.qcow2 6M
    create -f qcow2 -o compat=0.10 old.qcow2 4M
    create -f qcow2 -o extended_l2=on -b base.qcow2 -F qcow2 sub.qcow2
    create -f qcow2 snap.qcow2 4M
    create -f qcow2 bits.qcow2 4M
    create -f qcow2 -o data_file=ext.data ext.qcow2 4M
    create -f qcow2 leak.qcow2 4M
    create -f qcow2 bad.qcow2 4M
    create -f qcow2 -o lazy_refcounts=on dirty.qcow2 4M
    create -f qcow2 -u -b nope -F qcow2 lost.qcow2 4M
    bitmap --add bits.qcow2 b0
    bitmap --add -g 4k --disable bits.qcow2 b1
"""
BELOW = {"over.qcow2": ["base.qcow2"], "top.qcow2": ["over.qcow2"], "sub.qcow2": ["base.qcow2"], "ext.qcow2": ["ext.data"]}
SECRET = ["--object", "secret,id=key,data=sesame"]
REFCOUNTS = 0x20000  # the first refcount block of an image with clusters of 64 KiB


def img(directory, *words):
    run(["qemu-img", *words], directory).check_returncode()


def make(directory):
    """All images that option_table.py names."""
    (directory / "secret.txt").write_text("sesame")
    text = bytes(range(1, 256)) * 300
    (directory / "disk.raw").write_bytes(text + bytes(65536) + text)
    with open(directory / "disk.raw", "r+b") as file:
        file.seek(1 << 20)
        file.write(text)
        file.truncate(2 << 20)
    (directory / "odd.raw").write_bytes(text[:70001])
    (directory / "empty.raw").touch()
    (directory / "a:b.raw").write_bytes(text[:65536])
    for line in SCRIPT.strip().splitlines():
        words = line.split()
        img(directory, words[0], *(["-q"] if words[0] == "create" else []), *words[1:])
    for name, commands in IO.items():
        run(["qemu-io", *(word for command in commands for word in ("-c", command)), name], directory).check_returncode()
    img(directory, "snapshot", "-c", "first", "snap.qcow2")
    run(["qemu-io", "-c", "write -P 2 64k 128k", "snap.qcow2"], directory).check_returncode()
    img(directory, "snapshot", "-c", "second", "snap.qcow2")
    img(directory, "convert", "-c", "-O", "qcow2", "disk.raw", "packed.qcow2")
    for options, name in ((["luks", "-o", "key-secret=key,iter-time=10"], "disk.luks"),
                          (["qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10"], "enc.qcow2")):
        img(directory, "convert", *SECRET, "-O", *options, "disk.raw", name)
    (directory / "leak.qcow2").write_bytes((directory / "leak.qcow2").read_bytes() + bytes(2 << 20))
    for name, changes in {"leak.qcow2": [(REFCOUNTS + 2 * 20, ">H", 1)], "bad.qcow2": [(REFCOUNTS + 2 * 6, ">H", 0)],
                          "dirty.qcow2": [(72, ">Q", 1)]}.items():
        data = bytearray((directory / name).read_bytes())
        for offset, form, value in changes:
            struct.pack_into(form, data, offset, value)
        (directory / name).write_bytes(data)
    img(directory, "create", "-q", "-f", "qcow2", "broken-bitmap.qcow2", "1M")
    img(directory, "bitmap", "--add", "broken-bitmap.qcow2", "b0")
    # A writer that does not close the image leaves its bitmaps inconsistent.
    run(["qemu-io", "-c", "write 0 64k", "-c", "abort", "broken-bitmap.qcow2"], directory)


def named(directory, text):
    """The files in @directory that @text names, and those below them."""
    names = [path.name for path in directory.iterdir() if path.name in text]
    for name in names:
        names += BELOW.get(name, [])
    return sorted(set(names))


def copy(source, target, names):
    target.mkdir()
    if names:
        subprocess.run(["cp", "-a", "--sparse=always", *(source / name for name in names), target], check=True)


def kind(path):
    """Format of a file by its first bytes: None, not an image of ours."""
    if not path.is_file() or path.is_symlink():
        return None
    with open(path, "rb") as file:
        head = file.read(72)
    if head.startswith(b"QFI\xfb"):
        return "encrypted" if len(head) >= 36 and struct.unpack_from(">I", head, 32)[0] else "qcow2"
    return "luks" if head.startswith(b"LUKS\xba\xbe") else "raw"


def opened(path, fmt):
    """The words by which the real tool opens an image, wherever it is started."""
    name = str(path).replace(",", ",,")
    key = {"encrypted": "encrypt.key-secret=key,", "luks": "key-secret=key,"}.get(fmt, "")
    return f"driver={fmt.replace('encrypted', 'qcow2')},{key}file.driver=file,file.filename={name}"


def opens(path, fmt):
    return run(["qemu-img", "map", *SECRET, "--image-opts", opened(path, fmt)], path.parent).returncode == 0


def info(path, fmt):
    """What the real tool tells of an image, but for what depends on the moment."""
    done = run(["qemu-img", "info", "--output=json", "-f", fmt.replace("encrypted", "qcow2"), path.name], path.parent)
    told = json.loads(done.stdout or "null")
    if told:
        told.pop("actual-size")
        for snapshot in told.get("snapshots", []):
            for key in ("date-sec", "date-nsec"):
                snapshot.pop(key)
        specific = told.get("format-specific", {}).get("data", {})
        encrypt = specific.get("encrypt", specific)
        for key in ("uuid", "master-key-iters", "payload-offset", "slots"):
            encrypt.pop(key, None)
    return told


def differences(ours, theirs):
    """Of two directories that were the same: how what is in them now differs, as texts."""
    names = {path.name for path in ours.iterdir()} | {path.name for path in theirs.iterdir()}
    found = []
    for name in sorted(names):
        pair = [ours / name, theirs / name]
        if not all(path.exists() for path in pair):
            found.append(f"{name}: is there only in {'ours' if pair[0].exists() else 'theirs'}")
        elif pair[0].is_file() and pair[0].read_bytes() != pair[1].read_bytes():
            found += [f"{name}: {text}" for text in differing(*pair)]
    return found


def differing(ours, theirs):
    fmt = kind(ours)
    if fmt != kind(theirs):
        return [f"is {fmt}, {kind(theirs)} of theirs"]
    found = []
    told = [info(path, fmt) for path in (ours, theirs)]
    if told[0] != told[1]:
        found.append(f"info: {told[0]}\n{told[1]}")
    compared = run(["qemu-img", "compare", *SECRET, "--image-opts", opened(ours, fmt), opened(theirs, fmt)], ours.parent)
    # What nobody has written on an encrypted disk reads as noise.
    if ours.name == "fresh.luks":
        return found
    if compared.returncode == 1 or (compared.returncode and opens(theirs, fmt)):
        found.append(compared.stdout + compared.stderr)
    if fmt in ("qcow2", "encrypted"):
        checks = [run(["qemu-img", "check", "-f", "qcow2", path.name], path.parent) for path in (ours, theirs)]
        if checks[0].returncode and checks[0].returncode != checks[1].returncode:
            found.append(f"check: {checks[0].stdout}{checks[0].stderr}")
    return found
