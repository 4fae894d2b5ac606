/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/transfer.h - moving bytes without waiting; what the waiting calls of both interfaces are
 * made of.
 */
#ifndef VCHAN_CLIENT_TRANSFER_H
#define VCHAN_CLIENT_TRANSFER_H

#include <stddef.h>
#include <sys/types.h>

#include "client/channel.h"

/*
 * What fits, 1 to n bytes (n >= 1): -EAGAIN no space; -EPIPE, -EPROTO, -ENOMEM. The caller says
 * when the stall is over (transfer_wrote).
 */
ssize_t transfer_write(struct vchan *v, const void *data, size_t n);
/* All n in one piece or none: -EMSGSIZE too. */
int transfer_send(struct vchan *v, const void *data, size_t n);
/* What is there, 1 to n bytes (n >= 1). -EPIPE: end of file. */
ssize_t transfer_read(struct vchan *v, void *data, size_t n);
/*
 * All n or none: -EAGAIN fewer are there; -EPIPE fewer are left; -EMSGSIZE the ring cannot hold
 * them at once just now.
 */
int transfer_receive(struct vchan *v, void *data, size_t n);

#endif
