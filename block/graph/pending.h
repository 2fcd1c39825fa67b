/* SPDX-License-Identifier: MIT */
#ifndef BDRV_GRAPH_PENDING_H
#define BDRV_GRAPH_PENDING_H

/* Until io, open and loop are there: weak, so that the library links. */
#pragma weak bdrv_refresh_node_filename
#pragma weak bdrv_gate_local
#pragma weak bdrv_gate_any
#pragma weak bdrv_io_state_init
#pragma weak bdrv_io_state_destroy
#pragma weak bdrv_get_info
#pragma weak bdrv_get_specific_info
#pragma weak bdrv_has_zero_init
#pragma weak bdrv_co_check
#pragma weak bdrv_co_refresh_length
#pragma weak bdrv_co_open_tree
#pragma weak bdrv_full_backing_filename
#pragma weak bdrv_co_create_image
#pragma weak bdrv_co_preadv
#pragma weak bdrv_co_pwritev
#pragma weak bdrv_co_pread
#pragma weak bdrv_co_pwrite
#pragma weak bdrv_co_pwrite_zeroes
#pragma weak bdrv_co_pdiscard
#pragma weak bdrv_co_flush
#pragma weak bdrv_co_copy_range
#pragma weak bdrv_co_truncate
#pragma weak bdrv_co_getlength
#pragma weak bdrv_co_get_allocated_file_size
#pragma weak bdrv_co_block_status
#pragma weak bdrv_co_block_status_above
#pragma weak bdrv_try_blockalign
#pragma weak bdrv_vfree

#endif
