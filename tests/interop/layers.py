# SPDX-License-Identifier: MIT
"""Images below an overlay, with some data, some zeroes and some holes."""

from tools import OURS, THEIRS


def make_layer(pair, side, name, fmt, length, below=None, options=()):
    """A layer with some data, some zeroes and some holes."""
    arguments = ["-b", below[0], "-F", below[1]] if below else []
    pair.must(side, "img", "create", "-q", "-f", fmt, *options, *arguments, name, length)
    history = pair.history(length, 65536)
    commands = []
    for _ in range(30):
        commands += pair.rng.choice([history.write, history.write_unaligned, history.zero])()
    args = [word for command in commands for word in ("-c", command)]
    pair.must(side, "io", "-f", fmt, "-t", "unsafe", *args, name)


def make_backing(pair, backing, length, cluster):
    """Options of create for the image above. Layers are shorter, equal or longer than what is above them."""
    def some_length():
        return int(length * pair.rng.choice([0.5, 1, 1.25])) // 512 * 512

    if backing == "none":
        return []
    if backing == "raw":
        make_layer(pair, THEIRS, "base", "raw", some_length())
        return ["-b", "base", "-F", "raw"]
    make_layer(pair, THEIRS, "base", "qcow2", some_length(), options=["-o", "cluster_size=%d" % cluster])
    make_layer(pair, OURS, "middle", "qcow2", some_length(), ("base", "qcow2"), ["-o", "cluster_size=4k"])
    return ["-b", "middle", "-F", "qcow2"]
