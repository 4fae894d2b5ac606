/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/ctl/top_sample.h - what top knows of the broker at one moment, asked over a link that may
 * break and is made again.
 */
#ifndef VCHAN_CLIENT_CTL_TOP_SAMPLE_H
#define VCHAN_CLIENT_CTL_TOP_SAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/ctl/ctl.h"
#include "client/ctl/names.h"
#include "client/ctl/top_rows.h"

/* Decisions that are kept, to be shown at the bottom. */
#define TOP_DECISIONS_MAX 64u

/* Complete and never changed once it is made, so that another thread than the asker may have it. */
struct top_sample {
    uint64_t time_ns;      /* CLOCK_REALTIME */
    uint64_t monotonic_ns; /* CLOCK_MONOTONIC */
    int error; /* 0; else -errno: there is no broker, or it refuses: the rest is empty */
    char why[PROTO_TEXT_BYTES]; /* with error: its sentence, or empty */
    struct proto_broker_info info;
    bool known; /* the rates below are: a sample came before */
    double rounds_per_second, moves_per_second;
    struct names names;
    struct broker_items rings;
    struct top_row *rows; /* of each ring */
    struct top_sums sums;
    bool decisions_denied;         /* only domain 0 may see them */
    struct broker_items decisions; /* proto_decision, the newest last */
};

/* What is kept from one sample to the next. Zeroed at first. */
struct top_asker {
    struct ctl *ctl;           /* with an open link or none (socket -1) */
    struct broker_items rings; /* of the last sample */
    struct proto_broker_info info;
    uint64_t monotonic_ns;         /* of it; 0: there is none */
    struct broker_items decisions; /* the last ones */
};

/* Makes the link if there is none, and asks. NULL: out of memory; everything else that goes wrong
 * is in the sample. */
struct top_sample *top_sample_take(struct top_asker *asker);
void top_sample_free(struct top_sample *sample); /* NULL is ignored */

/* The link stays as it is. */
void top_asker_deinit(struct top_asker *asker);

#endif
