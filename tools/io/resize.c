/* SPDX-License-Identifier: MIT */
/* truncate, length, info */
#include "tools/io/io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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
            if (!tool_parse_prealloc(optarg, &prealloc)) {
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
        tool_print_specific_info(specific);
    }
    return 0;
}
