/* SPDX-License-Identifier: MIT */
#include <bdrv/driver.h>
#include <string.h>

static const char *const event_names[BDRV_EVENT_MAX] = {
#define BDRV_EVENT(upper, lower) [BDRV_EVENT_##upper] = lower,
#include <bdrv/events.h>
#undef BDRV_EVENT
};

const char *bdrv_event_name(BdrvDebugEvent event)
{
    return (unsigned)event < BDRV_EVENT_MAX ? event_names[event] : NULL;
}

int bdrv_event_find(const char *name)
{
    for (int i = 0; i < BDRV_EVENT_MAX; i++) {
        if (strcmp(event_names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}
