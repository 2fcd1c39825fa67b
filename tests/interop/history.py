# SPDX-License-Identifier: MIT
"""Random lists of commands that qemu-io and bdrv-io both know, drawn from a seed."""

MOST_BYTES = 3 << 20  # of one request: keeps 2 MiB clusters cheap


class History:
    """Draws the commands for one image; knows its length."""

    def __init__(self, rng, length, cluster):
        self.rng, self.length, self.cluster = rng, length, cluster
        # Most requests are near these places, so that they meet each other's clusters.
        self.spots = [rng.randrange(length) for _ in range(4)] + [0, max(0, length - 3 * cluster)]

    def offset(self, grain):
        if self.rng.random() < 0.7:
            around = self.rng.choice(self.spots) + self.rng.randrange(-4 * self.cluster, 4 * self.cluster)
            around = min(max(0, around), self.length - 1)
        else:
            around = self.rng.randrange(self.length)
        return around - around % grain

    def range(self, grain):
        offset = self.offset(grain)
        most = self.rng.choice([1, grain, self.cluster // 2, 2 * self.cluster, 9 * self.cluster, 70000])
        length = self.rng.randrange(1, min(most, MOST_BYTES) + 1)
        length = -(-length // grain) * grain
        return offset, min(length, self.length - offset)

    def pattern(self):
        return self.rng.randrange(1, 256)

    def aligned(self):
        return self.range(self.rng.choice([512, 4096, self.cluster, self.cluster]))

    def unaligned(self):
        return self.range(1)

    def any(self):
        return self.aligned() if self.rng.random() < 0.5 else self.unaligned()

    def write(self):
        yield "write %s-P %d %d %d" % (self.rng.choice(["", "", "", "-f "]), self.pattern(), *self.aligned())

    def write_unaligned(self):
        yield "write -P %d %d %d" % (self.pattern(), *self.unaligned())

    def writev(self):
        offset, length = self.any()
        parts = []
        while length > 1 and len(parts) < 6:
            parts.append(self.rng.randrange(1, length + 1))
            length -= parts[-1]
        yield "writev -P %d %d %s" % (self.pattern(), offset, " ".join(map(str, parts or [length])))

    def zero(self):
        yield "write -z %d %d" % self.any()

    def zero_unmap(self):
        yield "write -z -u %d %d" % self.any()

    def discard(self):
        yield "discard %d %d" % self.any()

    def flush(self):
        yield "flush"

    def read(self):
        yield "read -v %d %d" % (lambda offset, length: (offset, min(length, 200)))(*self.any())

    def concurrent(self):
        """Requests that run at once, next to each other but not overlapping: their order must not matter."""
        at = self.offset(1)
        for _ in range(self.rng.randrange(2, 9)):
            length = min(self.range(1)[1], self.length - at)
            if length <= 0:
                break
            yield self.rng.choice(["aio_write -q -P %d" % self.pattern()] * 3 + ["aio_write -q -z"]) + \
                " %d %d" % (at, length)
            at += length + self.rng.choice([0, 0, 0, self.rng.randrange(self.cluster)])
        yield "aio_flush"

    def grow(self):
        self.length += 512 * self.rng.randrange(1, 4 * self.cluster // 512 + 1)
        yield "truncate %d" % self.length

    # No compressed writes: qemu-io 7.2 goes on packing into a host cluster that it freed and used for something else.
    KINDS = [write] * 4 + [write_unaligned] * 4 + [writev] * 2 + [zero] * 2 + [zero_unmap] * 2 + [discard] * 3 + \
        [flush] + [read] * 2 + [concurrent] * 2

    def commands(self, count, grow=False):
        groups, left = [], count
        while left > 0:
            groups.append(list(self.rng.choice(self.KINDS)(self)))
            left -= len(groups[-1])
            if grow and left < count // 2:
                groups.append(list(self.grow()))
                grow = False
        return [command for group in groups for command in group]
