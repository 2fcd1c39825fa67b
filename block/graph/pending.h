/* SPDX-License-Identifier: MIT */
#ifndef BDRV_GRAPH_PENDING_H
#define BDRV_GRAPH_PENDING_H

/* Until open is there: weak, so that the library links. */
#pragma weak bdrv_refresh_node_filename
#pragma weak bdrv_gate_local
#pragma weak bdrv_gate_any
#pragma weak bdrv_co_reopen
#pragma weak bdrv_co_open_tree
#pragma weak bdrv_full_backing_filename
#pragma weak bdrv_co_create_image

#endif
