/* SPDX-License-Identifier: MIT */
#ifndef GUEST_SCENARIO_H
#define GUEST_SCENARIO_H

#include "boot-info.h"
#include "driver.h"

/* A line for the user; @count numbers replace the '%' of @text. */
void platform_report(Platform *platform, const char *text, const uint32_t *numbers, unsigned count);

/** scenario_run() - do what @boot->scenario says; 0 if all is as it should be */
uint32_t scenario_run(Platform *platform, const BootInfo *boot);

#endif
