# SPDX-License-Identifier: MIT
"""
The compressed clusters of a qcow2 image, decoded as the format allows: raw deflate with a window of 4 KiB.

Output is taken in steps of 512 bytes: a decoder that is given the whole cluster as output needs no
window, and does not notice references that reach too far back.
"""

import struct
import zlib

STEP = 512
COMPRESSED = 1 << 62
OFFSET_MASK = (1 << 56) - 512


def inflate_in_steps(stream, size):
    """@size bytes, or zlib.error."""
    inflater = zlib.decompressobj(-12)
    out, rest = b"", stream
    while len(out) < size:
        part = inflater.decompress(rest, min(STEP, size - len(out)))
        if not part:
            raise zlib.error("the stream ends after %d of %d bytes" % (len(out), size))
        out, rest = out + part, inflater.unconsumed_tail
    return out


class Image:
    """Of a closed image file: (guest offset, host offset, bytes) of each compressed cluster."""

    def __init__(self, path):
        self.data = path.read_bytes()
        self.cluster_bits, = struct.unpack_from(">I", self.data, 20)
        self.cluster_size = 1 << self.cluster_bits
        l1_size, l1_offset = struct.unpack_from(">IQ", self.data, 36)
        self.compressed = [cluster for i, entry in enumerate(self.table(l1_offset, l1_size)) if entry & OFFSET_MASK
                           for cluster in self.in_l2(i, entry & OFFSET_MASK)]

    def table(self, offset, entries):
        return struct.unpack_from(">%dQ" % entries, self.data, offset)

    def in_l2(self, index, offset):
        entries, x = self.cluster_size // 8, 62 - (self.cluster_bits - 8)
        for i, entry in enumerate(self.table(offset, entries)):
            if entry & COMPRESSED:
                host = entry & ((1 << x) - 1)
                sectors = ((entry & (COMPRESSED - 1)) >> x) + 1
                yield (index * entries + i) * self.cluster_size, host, sectors * 512 - host % 512

    def stream(self, host, size):
        return self.data[host:host + size]

    def inflate_all(self):
        """{guest offset: content}"""
        return {guest: inflate_in_steps(self.stream(host, size), self.cluster_size)
                for guest, host, size in self.compressed}
