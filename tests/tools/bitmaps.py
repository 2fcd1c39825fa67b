# SPDX-License-Identifier: MIT
"""Reads the persistent bitmaps of a qcow2 image as the specification has them; shares no code with the driver."""

import re
import struct

EXTENSION = 0x23852875
IN_USE, AUTO, EXTRA_COMPATIBLE = 1, 2, 4
OFFSET = 0x00FFFFFFFFFFFE00


def extension_at(image):
    """Where the data of the bitmaps extension lies in the header cluster; None: nowhere."""
    at, = struct.unpack_from(">I", image, 100)
    while True:
        kind, length = struct.unpack_from(">II", image, at)
        if kind == 0:
            return None
        if kind == EXTENSION:
            return at + 8
        at += 8 + (length + 7) // 8 * 8


def entries(image):
    """Directory entries: (offset in the file, fields)."""
    at = extension_at(image)
    if at is None:
        return []
    count, _, size, offset = struct.unpack_from(">IIQQ", image, at)
    found, end = [], offset + size
    for _ in range(count):
        table, table_size, flags, kind, bits, name_size, extra_size = struct.unpack_from(">QIIBBHI", image, offset)
        begin = offset + 24
        extra = bytes(image[begin:begin + extra_size])
        name = bytes(image[begin + extra_size:begin + extra_size + name_size]).decode()
        found.append((offset, {"name": name, "flags": flags, "type": kind, "granularity": 1 << bits, "extra": extra,
                               "table": table, "table_size": table_size}))
        offset += (24 + extra_size + name_size + 7) // 8 * 8
    assert offset == end, "the directory has another size than its entries"
    return found


def dirty(image, entry):
    """Numbers of the granules that are set."""
    cluster = 1 << struct.unpack_from(">I", image, 20)[0]
    size, = struct.unpack_from(">Q", image, 24)
    count = -(-size // entry["granularity"])
    found = set()
    for index in range(entry["table_size"]):
        word, = struct.unpack_from(">Q", image, entry["table"] + 8 * index)
        offset, first = word & OFFSET, index * cluster * 8
        assert word & ~OFFSET & ~1 == 0 and not (offset and word & 1), f"table entry {word:#x}"
        if word == 1:
            found.update(range(first, min(first + cluster * 8, count)))
        elif offset:
            data = image[offset:offset + min(cluster, (count - first + 7) // 8)]
            for some in re.finditer(rb"[^\0]", data):
                byte, number = data[some.start()], first + 8 * some.start()
                found.update(number + bit for bit in range(8) if byte >> bit & 1)
    return {n for n in found if n < count}


def read(path):
    """name -> (flags, granularity, bits that are set: None if they mean nothing)."""
    image = path.read_bytes()
    if image[7] < 3 or not struct.unpack_from(">Q", image, 88)[0] & 1:
        return {}
    return {entry["name"]: (entry["flags"], entry["granularity"],
                            None if entry["flags"] & IN_USE else dirty(image, entry))
            for _, entry in entries(image)}
