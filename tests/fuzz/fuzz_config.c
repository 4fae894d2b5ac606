/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any text as vchand.conf: it is taken, or refused with a sentence. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char error[CONFIG_ERROR_BYTES] = "";
    struct config config;

    if (size == 0)
        return 0;
    FILE *stream = fmemopen((void *)(uintptr_t)data, size, "r");
    if (!stream)
        abort();
    config_init(&config);
    int r = config_read_stream(&config, stream, "fuzz", error);
    if (r != 0 && (r != -EINVAL || !error[0]))
        abort();
    /* What is taken can be used. */
    if (r == 0 && (policy_config_check(&config.policy) || !policy_find(config.policy_name) ||
                   config.region_bytes <
                       region_size_min(config_channels_for(config.channels, config.region_bytes))))
        abort();
    config_deinit(&config);
    fclose(stream);
    return 0;
}
