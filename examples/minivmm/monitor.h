/* SPDX-License-Identifier: MIT */
#ifndef MINIVMM_MONITOR_H
#define MINIVMM_MONITOR_H

/*
 * What the owner of a machine does while it runs: commands on standard input, a line each.
 *
 *     resize DISK SIZE     DISK counts from 0, SIZE as 4M
 */

#include "vmm.h"

typedef struct Monitor Monitor;

/** monitor_start() - a thread that carries out commands until there are no more; @vmm has all its disks */
Monitor *monitor_start(Vmm *vmm, GError **errp);
/** monitor_stop() - wait for the command that is being carried out, and take no more; NULL is allowed */
void monitor_stop(Monitor *monitor);

#endif
