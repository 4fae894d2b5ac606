/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a test or a person on the host runs commands in the small test guest: frames over one
 * virtio-serial port, both ways. packaging/guest/commands.c answers in the guest,
 * packaging/guest/guest.py asks on the host.
 *
 *     host                         guest
 *     HELLO nonce          ->             first after each connection; ends all commands
 *                          <-      HELLO, the same nonce
 *     START "cat /x"       ->             /bin/sh -c, in a process group of its own
 *                          <-      STARTED pid
 *     INPUT bytes          ->
 *     INPUT_END            ->
 *                          <-      OUTPUT bytes, ERRORS bytes: as they come
 *     SIGNAL number        ->             to the process group
 *                          <-      ENDED status: the last frame of this command
 *
 * The host chooses the numbers of commands; many run at once. Words are in the order of x86.
 */
#ifndef VCHAN_PACKAGING_GUEST_WIRE_H
#define VCHAN_PACKAGING_GUEST_WIRE_H

#include <stdint.h>

enum guest_frame_kind {
    GUEST_HELLO = 1,     /* GUEST_NONCE_BYTES */
    GUEST_START = 2,     /* what the shell runs, no zero at its end */
    GUEST_INPUT = 3,     /* bytes for its standard input */
    GUEST_INPUT_END = 4, /* nothing: its standard input ends */
    GUEST_SIGNAL = 5,    /* int32: the signal */
    GUEST_STARTED = 6,   /* int32: the process */
    GUEST_OUTPUT = 7,    /* bytes of its standard output */
    GUEST_ERRORS = 8,    /* bytes of its standard error */
    GUEST_ENDED = 9,     /* int32: its exit status, or minus the signal that ended it */
};

enum {
    GUEST_NONCE_BYTES = 16,
    GUEST_FRAME_BYTES_MAX = 64 * 1024, /* after the header */
    GUEST_COMMANDS_MAX = 64,           /* at once; one more ends with GUEST_TOO_MANY */
    GUEST_TOO_MANY = 126,
};

struct guest_frame {
    uint32_t command;
    uint16_t kind;
    uint16_t zero;
    uint32_t size_bytes;
};
_Static_assert(sizeof(struct guest_frame) == 12, "the host packs it as <IHHI");

#endif
