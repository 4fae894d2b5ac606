/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>

#include "broker/config.h"

static int check_group(const char *group, unsigned line, const char *path,
                       char error[CONFIG_ERROR_BYTES])
{
    if (!*group)
        return 0;
    errno = 0;
    if (getgrnam(group))
        return 0;
    snprintf(error, CONFIG_ERROR_BYTES, "%s:%u: socket-group: there is no group \"%s\"%s%s", path,
             line, group, errno ? ": " : "", errno ? strerror(errno) : "");
    return -ENOENT;
}

int config_check_host(const struct config *config, const char *path, char error[CONFIG_ERROR_BYTES])
{
    int r = check_group(config->socket_group, config->socket_group_line, path, error);

    return r < 0 ? r
                 : check_group(config->guest_socket_group, config->guest_socket_group_line, path,
                               error);
}
