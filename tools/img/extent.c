/* SPDX-License-Identifier: MIT */
#include "tools/img/img.h"

bool img_extent_known(const ImgExtent *known, BlockBackend *blk, int64_t offset, BlockExtent *extent)
{
    int64_t passed = offset - known->offset;

    if (known->blk != blk || passed < 0 || passed >= known->extent.bytes) {
        return false;
    }
    *extent = known->extent;
    extent->bytes -= passed;
    extent->host_offset += extent->host_offset < 0 ? 0 : passed;
    return true;
}

void img_extent_keep(ImgExtent *known, BlockBackend *blk, int64_t offset, const BlockExtent *extent)
{
    *known = (ImgExtent){ .blk = blk, .offset = offset, .extent = *extent };
}
