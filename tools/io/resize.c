/* SPDX-License-Identifier: MIT */
/* truncate, length, info */
#include "tools/io/io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool parse_preallocation(const char *name, BdrvPrealloc *prealloc)
{
    static const char *const names[] = {
        [BDRV_PREALLOC_OFF] = "off",
        [BDRV_PREALLOC_METADATA] = "metadata",
        [BDRV_PREALLOC_FALLOC] = "falloc",
        [BDRV_PREALLOC_FULL] = "full",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *prealloc = i;
            return true;
        }
    }
    tool_error("Invalid preallocation mode '%s'", name);
    return false;
}

int io_truncate(IoSession *session, int argc, char **argv)
{
    const IoCommand *self = io_find_command("truncate");
    BdrvPrealloc prealloc = BDRV_PREALLOC_OFF;
    GError *error = NULL;
    int64_t length;
    int option;

    while ((option = getopt(argc, argv, "m:")) != -1) {
        switch (option) {
        case 'm':
            if (!parse_preallocation(optarg, &prealloc)) {
                return -EINVAL;
            }
            break;
        default: return io_usage(self);
        }
    }
    if (optind != argc - 1) {
        return io_usage(self);
    }
    if (!io_parse_number(argv[optind], &length)) {
        return -EINVAL;
    }
    if (!blk_truncate(session->blk, length, false, prealloc, 0, &error)) {
        int ret = -bdrv_error_code(error);

        tool_report(NULL, error);
        return ret;
    }
    return 0;
}

int io_length(IoSession *session, int argc, char **argv)
{
    g_autofree char *text = tool_size_text(blk_length(session->blk));

    printf("%s\n", text);
    return 0;
}

/* "refcount-bits" as people read it */
static void print_specific_info(const BdrvOptions *info)
{
    static const char prefix[] = "data.";
    bool any = false;

    for (unsigned i = 0; i < bdrv_options_count(info); i++) {
        g_autofree char *text = NULL, *label = NULL;
        const char *key;

        bdrv_options_nth(info, i, &key, NULL, &text);
        if (!g_str_has_prefix(key, prefix)) {
            continue;
        }
        if (!any) {
            printf("Format specific information:\n");
            any = true;
        }
        label = g_strdelimit(g_strdup(key + strlen(prefix)), "-", ' ');
        printf("    %s: %s\n", label, text);
    }
}

int io_info(IoSession *session, int argc, char **argv)
{
    g_autoptr(BdrvOptions) specific = NULL;
    BdrvInfo info = { 0 };
    int ret;

    printf("format name: %s\n", blk_driver(session->blk));
    ret = blk_get_info(session->blk, &info);
    if (ret < 0) {
        return ret;
    }
    g_autofree char *cluster_size = tool_size_text(info.cluster_size);
    g_autofree char *vm_state_offset = tool_size_text(info.vm_state_offset);
    printf("cluster size: %s\nvm state offset: %s\n", cluster_size, vm_state_offset);
    specific = blk_get_specific_info(session->blk);
    if (specific) {
        print_specific_info(specific);
    }
    return 0;
}
