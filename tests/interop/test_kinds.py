# SPDX-License-Identifier: MIT
"""Compressed clusters and internal snapshots, made by one and written by the other."""

import pytest
from tools import OURS, THEIRS, run

MIB = 1 << 20
CLUSTERS = {512: "512", 4096: "4k", 65536: "64k", 2 << 20: "2M"}
clusters = pytest.mark.parametrize("cluster", CLUSTERS, ids=CLUSTERS.values())


def some_content(rng, length):
    """Text-like, random, repeated and zero parts: compressed clusters of every size, and stored ones."""
    parts, left = [], length
    while left > 0:
        bytes_ = min(left, rng.randrange(1, 300000))
        kind = rng.randrange(4)
        if kind == 0:
            part = bytes(bytes_)
        elif kind == 1:
            part = rng.randbytes(bytes_)
        elif kind == 2:
            part = bytes([rng.randrange(256)]) * bytes_
        else:
            word = rng.randbytes(rng.randrange(2, 40))
            part = (b"%d " % rng.randrange(1000) + word) * (bytes_ // len(word) + 1)
        parts.append(part[:bytes_])
        left -= bytes_
    return b"".join(parts)


def convert_compressed(pair, source, cluster, compression, version="v3"):
    options = "compat=%s,cluster_size=%d" % (version, cluster)
    if version == "v3":
        options += ",compression_type=" + compression
    for side, image in zip((OURS, THEIRS), "ab"):
        pair.must(side, "img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, source, image)


@clusters
@pytest.mark.parametrize("compression", ["zlib", "zstd", "v2"])
def test_compressed_clusters_are_read_and_overwritten(pair, cluster, compression):
    length = {512: 2 * MIB, 4096: 6 * MIB, 65536: 8 * MIB, 2 << 20: 11 * MIB}[cluster] + 1536
    (pair.directory / "raw").write_bytes(some_content(pair.rng, length))
    if compression == "v2":
        convert_compressed(pair, "raw", cluster, "zlib", "v2")
    else:
        convert_compressed(pair, "raw", cluster, compression)
    pair.same("a", "raw", ("qcow2", "raw"))
    pair.alternate(pair.history(length, cluster))


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_a_chain_of_compressed_images_is_written(pair, compression):
    length = 8 * MIB + 512
    (pair.directory / "raw").write_bytes(some_content(pair.rng, length))
    pair.must(THEIRS, "img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o",
              "cluster_size=4k,compression_type=" + compression, "raw", "base")
    pair.must(THEIRS, "img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "middle")
    pair.must(THEIRS, "io", "-f", "qcow2", "-c", "write -P 7 1M 1234567", "middle")
    pair.create("-b", "middle", "-F", "qcow2", "%")
    pair.verify()
    pair.alternate(pair.history(length, 65536))


class Snapshots:
    """Snapshots, of one image by us and of the other one by the real tool, and their content when they were taken."""

    MAKERS = {"a": OURS, "b": THEIRS}
    READERS = {"a": THEIRS, "b": OURS}

    def __init__(self, pair):
        self.pair, self.names = pair, []

    def take(self):
        name = "s%d" % len(self.names)
        for image in "ab":
            self.pair.must(self.MAKERS[image], "img", "snapshot", "-c", name, image)
            self.extract(image, name, "%s.%s" % (name, image))
        self.names.append(name)

    def extract(self, image, name, target):
        self.pair.must(self.READERS[image], "img", "convert", "-f", "qcow2", "-O", "raw", "-l", "snapshot.name=" + name,
                       image, target)

    def verify(self):
        for name in self.names:
            for image in "ab":
                self.extract(image, name, "now")
                self.pair.same("now", "%s.%s" % (name, image), ("raw", "raw"))

    def delete(self, name):
        self.names.remove(name)
        for image in "ab":
            self.pair.must(self.MAKERS[image], "img", "snapshot", "-d", name, image)
        self.pair.verify()

    def apply(self, name):
        for image in "ab":
            self.pair.must(self.MAKERS[image], "img", "snapshot", "-a", name, image)
        self.pair.verify()


@clusters
@pytest.mark.parametrize("version, bits, backing", [("v2", 16, False), ("v2", 16, True), ("v3", 2, True),
                                                    ("v3", 16, False), ("v3", 64, True)])
def test_snapshots_stay_as_they_were(pair, cluster, version, bits, backing):
    length = {512: 2 * MIB, 4096: 4 * MIB, 65536: 6 * MIB, 2 << 20: 11 * MIB}[cluster] + 1536
    options = "compat=%s,cluster_size=%d" % (version, cluster) + (",refcount_bits=%d" % bits if version == "v3" else "")
    layers = []
    if backing:
        (pair.directory / "base").write_bytes(some_content(pair.rng, length // 2))
        layers = ["-b", "base", "-F", "raw"]
    pair.create("-o", options, *layers, "%", str(length))
    history, snapshots = pair.history(length, cluster), Snapshots(pair)
    for take in (False, True, True, False):
        if take:
            snapshots.take()
        pair.alternate(history, rounds=1, first=pair.rng.choice([OURS, THEIRS]))
    snapshots.verify()
    # What the snapshots alone held becomes free; then we write there.
    snapshots.delete("s0")
    pair.alternate(history, rounds=2, commands=20)
    snapshots.verify()
    snapshots.apply("s1")
    pair.alternate(history, rounds=2, commands=20)
    snapshots.verify()


def test_snapshots_share_compressed_clusters(pair):
    length, cluster = 5 * MIB + 1024, 4096
    (pair.directory / "raw").write_bytes(some_content(pair.rng, length))
    convert_compressed(pair, "raw", cluster, "zlib")
    history, snapshots = pair.history(length, cluster), Snapshots(pair)
    for _ in range(3):
        snapshots.take()
        pair.alternate(history, rounds=2)
    snapshots.verify()
    snapshots.delete("s1")
    pair.alternate(history, rounds=2)
    snapshots.verify()


@pytest.mark.parametrize("passed", ["", "pass-discard-request=on", "pass-discard-request=off", "pass-discard-other=on"])
def test_preallocated_space_goes_back_as_options_say(pair, passed):
    """Discard, write-zeroes with and without unmap, a moved L1 table: as many blocks stay with the host."""
    pair.create("-o", "cluster_size=64k", "%", "64M")
    commands = ["write -P 1 0 8M", "flush", "discard 0 2M", "write -z 2M 2M", "write -z -u 4M 2M", "flush", "truncate 1G"]
    blocks = []
    for side, image in zip((OURS, THEIRS), "ab"):
        options = ",".join(filter(None, ["driver=qcow2", passed, "discard=unmap,file.driver=file,file.filename=" + image]))
        args = [word for command in commands for word in ("-c", command)]
        pair.must(side, "io", "--image-opts", *args, options)
        blocks.append((pair.directory / image).stat().st_blocks * 512)
    assert abs(blocks[0] - blocks[1]) < MIB // 2, pair.told("%s bytes" % (blocks,))  # metadata lie elsewhere
    pair.verify()


@pytest.mark.parametrize("caches", ["l2-cache-size=1k,l2-cache-entry-size=512,refcount-cache-size=2k", "cache-size=8M"])
@pytest.mark.parametrize("aio", ["threads", "io_uring"])
def test_small_caches_write_the_same(pair, caches, aio):
    length, cluster = 4 * MIB + 512, 512
    pair.create("-o", "cluster_size=512,refcount_bits=64", "%", str(length))
    history = pair.history(length, cluster)
    ours = "driver=qcow2,discard=unmap,file.discard=unmap,%s,file.driver=file,file.aio=%s,file.filename=a" % (caches, aio)
    for _ in range(3):
        commands = history.commands(100)
        args = [word for command in commands for word in ("-c", command)]
        pair.must(OURS, "io", "--image-opts", *args, ours)
        pair.io(THEIRS, "b", commands, ("-t", "unsafe"))
        pair.verify()


@clusters
@pytest.mark.parametrize("bits", [1, 64])
def test_large_sparse_images_grow(pair, cluster, bits):
    """Many L2 tables, few of them allocated; the L1 table moves."""
    length = {512: 100 * MIB, 4096: 5 << 30, 65536: 200 << 30, 2 << 20: 3 << 40}[cluster] + 512
    pair.create("-o", "cluster_size=%d,refcount_bits=%d" % (cluster, bits), "%", str(length))
    history = pair.history(length, cluster)
    sides = (OURS, THEIRS)
    for _ in range(4):
        pair.round(sides, history.commands(40))
        length = length * 5 // 4 // 512 * 512
        history.length = length
        history.spots += [pair.rng.randrange(length) for _ in range(3)]
        pair.round(sides, ["truncate %d" % length] + history.commands(20))
        sides = sides[::-1]


@pytest.mark.parametrize("cache", ["writethrough", "none", "directsync", "writeback"])
def test_what_a_killed_lazy_writer_leaves_is_repaired_by_either(pair, cache):
    """qemu-io's "abort" ends the process where it is; the other image is left so by us."""
    pair.create("-o", "lazy_refcounts=on,cluster_size=4k", "%", "4M")
    for side, image in ((THEIRS, "a"), (OURS, "b")):
        commands = ["write -P 1 0 1M", "flush", "write -P 2 1M 64k", "flush", "abort"]
        args = [word for command in commands for word in ("-c", command)]
        pair.log.append([side["io"], "-f", "qcow2", "-t", cache, *args, image])
        assert run(pair.log[-1], pair.directory).returncode < 0
        assert (pair.directory / image).read_bytes()[79] & 1, pair.told("%s is not dirty" % image)
        pair.must(side, "img", "check", "-f", "qcow2", image, accept=(2,))
    for side, image in ((OURS, "a"), (THEIRS, "b")):
        pair.io(side, image, ["read -P 1 0 1M", "read -P 2 1M 64k"])
    pair.verify()
