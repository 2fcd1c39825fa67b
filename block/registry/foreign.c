/* SPDX-License-Identifier: MIT */
/*
 * Formats that other software has and this library does not. Their images must be known all the same: whoever takes one
 * for raw reads its headers as the disk. From the public descriptions of the formats; as far as a first sector tells.
 */
#include "block/registry/registry.h"

#include <string.h>

typedef struct Foreign {
    const char *format;
    unsigned offset;
    const char *magic;
    unsigned bytes;
} Foreign;

#define MAGIC(text) text, sizeof(text) - 1

static const Foreign foreign[] = {
    { "bochs", 0, MAGIC("Bochs Virtual HD Image") },
    { "cloop", 0, MAGIC("#!/bin/sh\n#V2.0 Format\n") },
    { "parallels", 0, MAGIC("WithoutFreeSpace") },
    { "parallels", 0, MAGIC("WithouFreSpacExt") },
    { "qcow", 0, MAGIC("QFI\xfb\0\0\0\1") },
    { "qed", 0, MAGIC("QED\0") },
    { "vhdx", 0, MAGIC("vhdxfile") },
    { "vmdk", 0, MAGIC("KDMV") },
    { "vmdk", 0, MAGIC("COWD") },
    { "vmdk", 0, MAGIC("# Disk DescriptorFile") },
    { "vpc", 0, MAGIC("conectix") },
};

const char *bdrv_foreign_format(const uint8_t *buf, size_t size)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(foreign); i++) {
        const Foreign *f = &foreign[i];
        if (size >= f->offset + f->bytes && memcmp(buf + f->offset, f->magic, f->bytes) == 0 &&
            !bdrv_find_format(f->format)) {
            return f->format;
        }
    }
    return NULL;
}
