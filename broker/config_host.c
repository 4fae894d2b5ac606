/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>

#include "broker/config.h"

int config_check_host(const struct config *config, const char *path,
                      char error[CONFIG_ERROR_BYTES])
{
    if (!*config->socket_group)
        return 0;
    errno = 0;
    if (getgrnam(config->socket_group))
        return 0;
    snprintf(error, CONFIG_ERROR_BYTES, "%s:%u: socket-group: there is no group \"%s\"%s%s", path,
             config->socket_group_line, config->socket_group, errno ? ": " : "",
             errno ? strerror(errno) : "");
    return -ENOENT;
}
