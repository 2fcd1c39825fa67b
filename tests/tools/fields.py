# SPDX-License-Identifier: MIT
"""
The fields of the structures of a qcow2 image, for systematic damage. A new structure is a row of STRUCTURES (in an
image of which shape, and where in it) and rows of FIELDS.
"""

from damage import COMPRESSED, COPIED, OFFSET, ZERO

BACKING_FORMAT, FEATURES, BITMAPS, DATA_FILE, CRYPTO = 0xE2792ACA, 0x6803F857, 0x23852875, 0x44415441, 0x0537BE77
FAR = 1 << 40
WIDTHS = (1, 2, 4, 8, 16, 32, 64)  # of refcounts


def extensions(image):
    """[(magic, place)], the end with magic 0."""
    found, at = [], image.get(100, 4)
    while not found or found[-1][0]:
        found.append((image.get(at, 4), at))
        at += 8 + (image.get(at + 4, 4) + 7) // 8 * 8
    return found


def extension(magic):
    return lambda image: (next(place for found, place in extensions(image) if found == magic), ())


def l1_entry(image):
    return image.l1_entries[0]


def l1_entry_of_snapshot(image):
    offset = image.get(image.snapshot_entries[0], 8)
    return next((place, guest) for place, guest in image.l1_entries if place >= offset)


def l2_entry(wanted):
    return lambda image: next((place, (guest,)) for place, guest in image.l2_entries if wanted(image.get(place, 8)))


def is_data(entry):
    return not entry & (COMPRESSED | ZERO) and entry & OFFSET


def bitmap_directory(image):
    return image.get(extension(BITMAPS)(image)[0] + 24, 8), ()


# Where a field of a structure may lie: the place, and the guest clusters that are lost with it.
STRUCTURES = {
    "header": ("snapshots", lambda image: (0, ())),
    "header of an overlay": ("backing", lambda image: (0, ())),
    "header of version 2": ("v2backing", lambda image: (0, ())),
    "header with a data file": ("data file", lambda image: (0, ())),
    "header with a raw data file": ("raw data file", lambda image: (0, ())),
    "header, zstd": ("zstd compressed", lambda image: (0, ())),
    "header, extended L2": ("subclusters", lambda image: (0, ())),
    "header, extended L2, overlay": ("subclusters backing", lambda image: (0, ())),
    "header, large clusters": ("large", lambda image: (0, ())),
    "header, bitmaps": ("bitmaps", lambda image: (0, ())),
    "header, LUKS": ("luks", lambda image: (0, ())),
    "header, AES": ("aes", lambda image: (0, ())),
    "backing file": ("backing", lambda image: (image.get(8, 8), ())),
    "encryption header": ("luks", extension(CRYPTO)),
    "backing format": ("backing", extension(BACKING_FORMAT)),
    "feature names": ("large", extension(FEATURES)),
    "end of the extensions": ("plain", extension(0)),
    "data file name": ("data file", extension(DATA_FILE)),
    "bitmaps": ("bitmaps", extension(BITMAPS)),
    "bitmap directory": ("bitmaps", bitmap_directory),
    "bitmap table": ("bitmaps", lambda image: (image.get(bitmap_directory(image)[0], 8), ())),
    "L1 table": ("plain", l1_entry),
    "L1 table of a snapshot": ("snapshots", l1_entry_of_snapshot),
    "L2 table": ("plain", l2_entry(is_data)),
    "L2 table, version 2": ("v2", l2_entry(is_data)),
    "L2 table, zero cluster": ("plain", l2_entry(lambda entry: entry == ZERO)),
    "L2 table, preallocated": ("metadata", l2_entry(is_data)),
    "L2 table, shared": ("snapshots", l2_entry(lambda entry: not entry & COPIED and is_data(entry))),
    "L2 table, compressed": ("compressed", l2_entry(lambda entry: entry & COMPRESSED)),
    "L2 table, extended": ("subclusters", l2_entry(is_data)),
    "L2 table, extended, overlay": ("subclusters backing", l2_entry(is_data)),
    "L2 table, data file": ("data file", l2_entry(is_data)),
    "L2 table, compressed, zstd": ("zstd compressed", l2_entry(lambda entry: entry & COMPRESSED)),
    "L2 table, encrypted": ("luks", l2_entry(is_data)),
    "L1 table, extended": ("subclusters", l1_entry),
    "refcount table": ("plain", lambda image: (image.reftable, ())),
    **{"refcount block, %d bits" % bits: ("plain" if bits == 16 else "bits%d" % bits,
                                          lambda image: (image.refblocks[0], ())) for bits in WIDTHS},
    "snapshot table": ("snapshots", lambda image: (image.snapshot_entries[0], ())),
    "snapshot table, names": ("snapshots", lambda image: (image.snapshot_entries[0] + 64, ())),
    "end of the snapshot table": ("snapshots", lambda image: (image.snapshot_entries[1], ())),
}

# What is consistent with the rest whatever it holds: no check can know better.
ANY = (1 << 64) - 1

LONGER_L1 = 0x1FF, "a longer table in the same cluster has empty entries more"
LENGTHS = "how long names and extra data are is told here only"

# structure: [(field, offset, bytes, bits that may change unseen, why)]
HEADER = [
    ("magic", 0, 4, 0, ""),
    ("version", 4, 4, 1, "a version 3 image without its features is one of version 2"),
    ("backing file offset", 8, 8, ANY, "no length, no name"),
    ("backing file size", 16, 4, ANY, "no offset, no name"),
    ("cluster_bits", 20, 4, 0, ""),
    ("size", 24, 8, ANY, "a disk may have any size that the L1 table describes"),
    ("crypt_method", 32, 4, 3, "whether data is encrypted is told here only"),
    ("l1_size", 36, 4, *LONGER_L1),
    ("l1_table_offset", 40, 8, 0, ""),
    ("refcount_table_offset", 48, 8, 0, ""),
    ("refcount_table_clusters", 56, 4, 0, ""),
    ("nb_snapshots", 60, 4, 0, ""),
    ("snapshots_offset", 64, 8, 0, ""),
]
HEADER_2 = HEADER[:-1] + [("snapshots_offset", 64, 8, ANY, "no snapshots, no table")]
HEADER_3 = HEADER + [
    ("incompatible_features", 72, 8, 3, "dirty and corrupt only say that a check is wanted"),
    ("compatible_features", 80, 8, ANY, "they may be ignored, by definition"),
    ("autoclear_features", 88, 8, ANY, "what does not know them clears them, by definition"),
    ("refcount_order", 96, 4, 0, ""),
    ("header_length", 100, 4, 0xFF8, "what is unknown in a longer header is ignored, by definition"),
    ("compression_type", 104, 1, 0, ""),
    ("padding", 105, 7, ANY, "ignored, as all that is unknown in a header"),
]
EXTENSION = [("type", 0, 4, ANY, "an extension that nobody knows is ignored, by definition"), ("length", 4, 4, 0, "")]
L2 = [("entry", 0, 8, ZERO, "a cluster may be all zeroes and keep its space")]
EXTENDED = [("entry", 0, 8, 0, ""),
            ("subclusters", 8, 8, ANY, "each may hold data, zeroes or nothing")]
FIELDS = {
    "header": HEADER_3,
    "header of an overlay": HEADER_3[2:4],
    "header of version 2": HEADER_2,
    "header with a data file": HEADER_3[13:16],
    "header with a raw data file": HEADER_3[13:16],
    "header, zstd": [HEADER_3[13], HEADER_3[-2]],
    "header, extended L2": [HEADER_3[13]],
    "header, extended L2, overlay": [HEADER_3[13]],
    "header, large clusters": [HEADER_3[13]],
    "header, bitmaps": [HEADER_3[15]],
    "header, LUKS": [HEADER[6]],
    "header, AES": [HEADER[6]],
    "backing file": [("name", 0, 4, ANY, "a check does not open it")],
    "encryption header": EXTENSION + [("offset", 8, 8, 0, ""), ("header size", 16, 8, 0, "")],
    "backing format": [EXTENSION[0], ("length", 4, 4, 0xFFFF, "the name ends at its first NUL"),
                       ("name", 8, 3, ANY, "a check does not open the backing file")],
    "feature names": [EXTENSION[0], ("length", 4, 4, 0xFFFF, "zeroes behind it are no names"),
                      ("name", 8, 8, ANY, "only shown")],
    "end of the extensions": [EXTENSION[0], ("length", 4, 4, 0xFFFF, "nothing comes behind the end")],
    "data file name": [EXTENSION[0], ("length", 4, 4, 0xFFFF, "the name ends at its first NUL"),
                       ("name", 8, 4, 0, "")],
    "bitmaps": EXTENSION + [("nb_bitmaps", 8, 4, 0, ""), ("reserved", 12, 4, 0, ""),
                            ("directory size", 16, 8, 0, ""), ("directory offset", 24, 8, 0, "")],
    "bitmap directory": [
        ("table offset", 0, 8, 0, ""), ("table size", 8, 4, 0, ""),
        ("flags", 12, 4, 7, "in use, auto, extra data that may be ignored"),
        ("type", 16, 1, ANY, "those that nobody knows are kept, by definition"),
        ("granularity", 17, 1, 0x1F, "a table may have bits for a larger disk"),
        ("name size", 18, 2, 7, "the entry is as long, and the name only shown"),
        ("extra data size", 20, 4, 0, ""), ("name", 24, 5, ANY, "only shown")],
    "bitmap table": [("entry", 0, 8, 1, "all ones")],
    "L1 table": [("entry", 0, 8, 0, "")],
    "L1 table of a snapshot": [("entry", 0, 8, COPIED, "it is meant for the active tables")],
    "L2 table": L2,
    "L2 table, version 2": L2,
    "L2 table, zero cluster": [("entry", 0, 8, ZERO | COPIED, "without a cluster the flag says nothing")],
    "L2 table, preallocated": L2,
    "L2 table, shared": [("entry", 0, 8, ZERO | COPIED | COMPRESSED, "a snapshot's; the counts are the same")],
    "L2 table, compressed": [
        ("entry", 0, 8, 0xFFF | 0xFF << 56, "where in its host cluster the data lies, and how long it is")],
    "L2 table, compressed, zstd": [
        ("entry", 0, 8, 0xFFF | 0xFF << 56, "where in its host cluster the data lies, and how long it is")],
    "L2 table, encrypted": L2,
    "L1 table, extended": [("entry", 0, 8, 0, "")],
    "L2 table, extended": EXTENDED,
    "L2 table, extended, overlay": EXTENDED,
    "L2 table, data file": [("entry", 0, 8, ZERO | COPIED | 0x1000, "nothing counts the clusters of a data file")],
    "refcount table": [("entry", 0, 8, 0, "")],
    **{"refcount block, %d bits" % bits: [
        ("entry", 0, max(bits // 8, 1), 0, ""),
        ("last entry", 4096 - max(bits // 8, 1), max(bits // 8, 1), ANY, "it counts what is behind the end")]
       for bits in WIDTHS},
    "snapshot table": [
        ("l1_table_offset", 0, 8, 0, ""), ("l1_size", 8, 4, *LONGER_L1), ("id_str_size", 12, 2, ANY, LENGTHS),
        ("name_size", 14, 2, ANY, LENGTHS),
        ("date_sec", 16, 4, ANY, "only shown"), ("date_nsec", 20, 4, ANY, "only shown"),
        ("vm_clock_nsec", 24, 8, ANY, "only shown"), ("vm_state_size", 32, 4, ANY, "the large one counts"),
        ("extra_data_size", 36, 4, ANY, LENGTHS), ("vm_state_size_large", 40, 8, ANY, "it may have any size"),
        ("disk_size", 48, 8, ANY, "a disk may have any size that the L1 table describes"),
        ("icount", 56, 8, ANY, "only shown")],
    "snapshot table, names": [("id and name", 0, 4, ANY, "only shown")],
    "end of the snapshot table": [("extra_data_size", 36, 4, ANY, LENGTHS), ("name_size", 14, 2, ANY, LENGTHS)],
}


# What is lost with a field, besides the guest clusters of its place; None: the disk, but no snapshot.
LOST = {
    "snapshot table": ["one"],
    "end of the snapshot table": ["two"],
    "snapshot table, names": ["one"],
    "L1 table of a snapshot": ["one"],
    # Whether data is encrypted is told here only.
    "header, AES": [None],
    "nb_snapshots": ["one", "two"],
    "snapshots_offset": ["one", "two"],
    "l1_table_offset": [None],
    "backing file offset": [None],
    "backing file size": [None],
}

# What else a refusal may call a field.
NAMED = {
    "magic": ["not in qcow2 format"],
    "cluster_bits": ["cluster size", "L1 table has"],
    "size": ["L1 table has", "a disk of"],
    "l1_size": ["L1 table"],
    "l1_table_offset": ["L1 table"],
    "snapshots_offset": ["snapshot table offset"],
    "incompatible_features": ["unsupported qcow2 feature", "data file", "compression type feature bit",
                              "extended L2 entries"],
    "autoclear_features": ["bitmaps feature bit", "data_file_raw"],
    "backing file offset": ["backing file"],
    "backing file size": ["backing_file_size", "backing file"],
    "type": ["backing file", "data-file"],
    "directory offset": ["bitmap directory"],
    "length": ["header extension", "backing file", "data file"],
    "name": ["backing file", "data file"],
}


class Field:
    def __init__(self, structure, name, offset, width, free, why):
        self.structure, self.name, self.offset, self.width, self.free, self.why = \
            structure, name, offset, width, free, why
        self.shape, self.locate = STRUCTURES[structure]

    def __str__(self):
        return "%s: %s" % (self.structure, self.name)

    def is_named(self, error):
        words = [self.name, self.name.replace("_", " "), self.structure, *NAMED.get(self.name, [])]
        return any(word in error for word in words)

    def may_be_refused(self):
        """All else is mended: it can be found again, or leads to what only belongs to it."""
        words = self.structure.split()
        return words[0] not in ("L1", "L2", "refcount") and not self.name.startswith("refcount_table")

    def is_beyond_qemu(self, value):
        """What may be there by definition, but the real tool does not open such an image."""
        return str(self) == "bitmap directory: type" or str(self) == "bitmap directory: flags" and value & 4

    def loses(self, snapshot):
        """Whether a snapshot (None: the disk) is lost as a whole."""
        return any(snapshot in LOST.get(key, []) for key in (self.structure, self.name))

    def place(self, image):
        """(where it lies, the guest clusters that are lost with it)"""
        base, lost = self.locate(image)
        return base + self.offset, set(lost)

    def values(self, image):
        """What it is overwritten with: each bit flipped, and hostile numbers."""
        old, ones = image.get(self.place(image)[0], self.width), (1 << 8 * self.width) - 1
        cluster, end = image.cluster, -(-len(image.data) // image.cluster) * image.cluster
        hostile = [0, ones, ones >> 1, old + 1, old - 1]
        if self.width >= 4:
            hostile += [old + cluster, old - cluster, end]
        if self.width == 8:
            hostile += [old + 512, end + cluster, FAR, FAR | COPIED, 512]
            hostile += [where | flag for where in structures_of(image) for flag in (0, COPIED)]
        values = [old ^ 1 << bit for bit in range(8 * self.width)] + [value & ones for value in hostile]
        return [value for value in dict.fromkeys(values) if value != old]


def structures_of(image):
    """Offsets of one of each kind."""
    found = [image.l1, image.reftable, image.refblocks[0], image.get(image.l1_entries[0][0], 8) & OFFSET,
             image.get(image.l2_entries[0][0], 8) & OFFSET]
    return found + ([image.get(64, 8), image.get(image.snapshot_entries[0], 8)] if image.snapshot_entries else [])


ALL = [Field(structure, *row) for structure, rows in FIELDS.items() for row in rows]
