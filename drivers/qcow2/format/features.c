/* SPDX-License-Identifier: MIT */
/* The feature name table (specification: "Feature name table"). */

#include "drivers/qcow2/format/format.h"

#include <string.h>

#define NAME_BYTES (QCOW2_FEATURE_ENTRY_BYTES - 2)

/* A name comes from the image: make it fit for a message. */
static char *printable(const uint8_t *name, size_t max)
{
    size_t length = strnlen((const char *)name, max);
    g_autofree char *valid = g_utf8_make_valid((const char *)name, (gssize)length);
    for (char *p = valid; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            *p = '?';
        }
    }
    return *valid ? g_steal_pointer(&valid) : NULL;
}

char *qcow2_feature_name(const uint8_t *table, size_t table_bytes, Qcow2FeatureKind kind, unsigned bit)
{
    for (size_t at = 0; at + QCOW2_FEATURE_ENTRY_BYTES <= table_bytes; at += QCOW2_FEATURE_ENTRY_BYTES) {
        if (table[at] == kind && table[at + 1] == bit) {
            char *name = printable(table + at + 2, NAME_BYTES);
            if (name) {
                return name;
            }
        }
    }
    return NULL;
}

char *qcow2_feature_list(const uint8_t *table, size_t table_bytes, Qcow2FeatureKind kind, uint64_t mask)
{
    GString *list = g_string_new(NULL);
    for (unsigned bit = 0; bit < 64; bit++) {
        if (!(mask >> bit & 1)) {
            continue;
        }
        if (list->len) {
            g_string_append(list, ", ");
        }
        g_autofree char *name = qcow2_feature_name(table, table_bytes, kind, bit);
        if (name) {
            g_string_append_printf(list, "'%s' (bit %u)", name, bit);
        } else {
            g_string_append_printf(list, "bit %u", bit);
        }
    }
    return g_string_free(list, FALSE);
}

uint8_t *qcow2_feature_table_new(uint32_t *bytes)
{
    static const struct {
        uint8_t kind, bit;
        const char *name;
    } features[] = {
        { QCOW2_FEATURE_INCOMPATIBLE, 0, "dirty bit" },
        { QCOW2_FEATURE_INCOMPATIBLE, 1, "corrupt bit" },
        { QCOW2_FEATURE_INCOMPATIBLE, 2, "external data file" },
        { QCOW2_FEATURE_INCOMPATIBLE, 3, "compression type" },
        { QCOW2_FEATURE_INCOMPATIBLE, 4, "extended L2 entries" },
        { QCOW2_FEATURE_COMPATIBLE, 0, "lazy refcounts" },
        { QCOW2_FEATURE_AUTOCLEAR, 0, "bitmaps" },
        { QCOW2_FEATURE_AUTOCLEAR, 1, "raw external data" },
    };
    uint8_t *table = g_malloc0(sizeof(features) / sizeof(features[0]) * QCOW2_FEATURE_ENTRY_BYTES);
    for (unsigned i = 0; i < G_N_ELEMENTS(features); i++) {
        uint8_t *entry = table + i * QCOW2_FEATURE_ENTRY_BYTES;
        entry[0] = features[i].kind;
        entry[1] = features[i].bit;
        memcpy(entry + 2, features[i].name, strlen(features[i].name));
    }
    *bytes = G_N_ELEMENTS(features) * QCOW2_FEATURE_ENTRY_BYTES;
    return table;
}
