/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/ctl/doctor.h - vchanctl doctor: looks at all that channels need, in the order in which one
 * thing needs the other, and says what is wrong and how to mend it.
 *
 * Each look is a function that says one line, or a few. What cannot be seen without privilege is
 * said to be unseen, which is no fault.
 */
#ifndef VCHAN_CLIENT_CTL_DOCTOR_H
#define VCHAN_CLIENT_CTL_DOCTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "client/ctl/ctl.h"
#include "client/ctl/json.h"

enum doctor_verdict {
    DOCTOR_OK,
    DOCTOR_WARN,   /* it works, but not as well as it could */
    DOCTOR_WRONG,  /* it does not work */
    DOCTOR_UNSEEN, /* for want of privilege, or because something before it is wrong */
    DOCTOR_VERDICTS
};

#define DOCTOR_TEXT_BYTES 512u

struct doctor {
    struct ctl *ctl;
    bool linked; /* ctl->link is a broker's, or an agent's */
    struct json *findings;
    unsigned count[DOCTOR_VERDICTS];
};

/* what: "broker", "region": one word or two. mend: NULL, or lines. */
void doctor_say(struct doctor *doctor, enum doctor_verdict verdict, const char *what,
                const char *mend, const char *format, ...) __attribute__((format(printf, 5, 6)));

/* The looks of each side; the link has been tried. link_error: 0, or why there is none. */
void doctor_look_at_host(struct doctor *doctor, int link_error);
void doctor_look_at_guest(struct doctor *doctor, int link_error);

/* Those of both: is a channel's memory mapped as it should be, and are the files mounted? */
void doctor_look_at_memory(struct doctor *doctor);
void doctor_look_at_files(struct doctor *doctor);

/* Is there an ivshmem device? Then this is a guest. */
bool doctor_is_guest(const struct doctor *doctor);

/*
 * Files below --root, or /. path is absolute. doctor_read: the first bytes - 1, clean, tabs as
 * spaces, without the line feed at the end; -errno. doctor_link: the last part of what a symbolic
 * link points to.
 */
int doctor_read(const struct doctor *doctor, const char *path, char *text, size_t bytes);
int doctor_link(const struct doctor *doctor, const char *path, char *name, size_t bytes);
bool doctor_exists(const struct doctor *doctor, const char *path);
void doctor_path(const struct doctor *doctor, const char *path, char *whole, size_t bytes);

/* The first process of that name (at most 15 characters), 0: none. */
uint32_t doctor_process(const struct doctor *doctor, const char *name);

/* A line of /proc/PID/status, what follows its key; -ENOENT. */
int doctor_process_status(const struct doctor *doctor, uint32_t pid, const char *key, char *value,
                          size_t bytes);

#endif
