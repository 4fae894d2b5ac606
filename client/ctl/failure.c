/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What vchanctl says when something fails: what, why, and what can be done about it. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "client/ctl/ctl.h"

static int fail_lost(const struct ctl *ctl, int err)
{
    char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
    const char *directory = getenv("VCHAN_RUNTIME_DIR");

    if (ctl->socket_path)
        snprintf(path, sizeof(path), "%s", ctl->socket_path);
    else if (proto_socket_path(path, sizeof(path)) < 0)
        snprintf(path, sizeof(path), "$VCHAN_RUNTIME_DIR/vchand.sock");
    fprintf(stderr, "vchanctl: no broker at %s: ", path);
    switch (-err) {
    case ETIMEDOUT:
        fprintf(stderr, "it did not answer within %d seconds\n", BROKER_LINK_WAIT_S);
        fputs("Is vchand stopped or overloaded? Look at its log.\n", stderr);
        break;
    case ECONNRESET:
        fputs("it closed the connection\n", stderr);
        fputs("Its log says whether it ended or why it refused.\n", stderr);
        break;
    case EPROTO:
        fputs("what answers does not speak vchan's protocol\n", stderr);
        fputs("Is it another program's socket, or a broker of another version?\n", stderr);
        break;
    case EACCES:
        fprintf(stderr, "%s\n", strerror(-err));
        fputs("The socket's owner and group may use it: see ls -l, and vchand.conf.\n", stderr);
        break;
    default:
        fprintf(stderr, "%s\n", strerror(-err));
        if (!ctl->socket_path && directory && *directory)
            fprintf(stderr, "Start one with: VCHAN_RUNTIME_DIR=%s vchand\n", directory);
        else
            fputs("Start one with: systemctl start vchand, or: vchand (in a guest: vchan-agent)\n",
                  stderr);
        fputs("A broker elsewhere: --socket PATH, or VCHAN_RUNTIME_DIR for its directory.\n",
              stderr);
    }
    return CTL_NO_BROKER;
}

int ctl_fail(const struct ctl *ctl, int err, const char *what)
{
    if (ctl->link.lost)
        return fail_lost(ctl, err);
    fprintf(stderr, "vchanctl: %s: %s", what, strerror(-err));
    const size_t length = strlen(ctl->link.why);
    if (length > 0)
        fprintf(stderr, ":%c%s", strchr(ctl->link.why, '\n') ? '\n' : ' ', ctl->link.why);
    if (length == 0 || ctl->link.why[length - 1] != '\n')
        fputc('\n', stderr);
    if (err == -EPERM && ctl->link.domain != PROTO_DOMAIN_HOST)
        fprintf(stderr,
                "You are domain %u here%s; the broker is administered by domain 0, the host.\n",
                ctl->link.domain, getenv("VCHAN_DOMAIN") ? " (VCHAN_DOMAIN)" : "");
    if (err == -EPROTONOSUPPORT)
        fputs("This vchanctl and the broker are of different versions: install the same of both.\n",
              stderr);
    return CTL_FAILED;
}

int ctl_usage(const char *format, ...)
{
    va_list arguments;

    fputs("vchanctl: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputs("\nTry: vchanctl help\n", stderr);
    return CTL_USAGE;
}
