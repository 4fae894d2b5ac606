/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/mailbox.h - how one thread of the broker hands work to another.
 *
 * A liburcu wait-free queue with an eventfd: any thread posts (never waits, needs no memory: the
 * node lives in the work itself), one thread takes. The eventfd is readable when something has been
 * posted since the last mailbox_acknowledge, so the owner calls that first and then takes until
 * there is nothing.
 */
#ifndef VCHAN_BROKER_MAILBOX_H
#define VCHAN_BROKER_MAILBOX_H

#include <urcu/wfcqueue.h>

struct mailbox {
    struct cds_wfcq_head head;
    struct cds_wfcq_tail tail;
    int event_fd; /* wait for it to be readable; belongs to the mailbox */
};

struct mailbox_letter {
    struct cds_wfcq_node node; /* owner: the mailbox it was posted to, until it is taken */
};

/* 0 or -errno of eventfd. */
int mailbox_init(struct mailbox *mailbox);

/* Letters that are left are the owner's: take them first. */
void mailbox_deinit(struct mailbox *mailbox);

/* Any thread. What the poster wrote before is seen by who takes the letter. */
void mailbox_post(struct mailbox *mailbox, struct mailbox_letter *letter);

/* The owner's thread. */
void mailbox_acknowledge(struct mailbox *mailbox);
struct mailbox_letter *mailbox_take(struct mailbox *mailbox); /* NULL: empty */

#endif
