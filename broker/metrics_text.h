/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/metrics_text.h - text in the OpenMetrics format, version 1.0.0
 * (https://github.com/OpenObservability/OpenMetrics, specification/OpenMetrics.md).
 *
 *   # TYPE vchan_ring_sent_bytes counter
 *   # UNIT vchan_ring_sent_bytes bytes
 *   # HELP vchan_ring_sent_bytes What went in.
 *   vchan_ring_sent_bytes_total{channel="3",ring="0"} 4096
 *   # EOF
 *
 * A family is begun, then gets all of its samples, then the next one is begun. Memory that cannot
 * be had is remembered, and told at the end.
 */
#ifndef VCHAN_BROKER_METRICS_TEXT_H
#define VCHAN_BROKER_METRICS_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The Content-Type of what this makes. */
#define METRICS_CONTENT_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"

enum metrics_type { METRICS_GAUGE, METRICS_COUNTER, METRICS_INFO };

/* name: without _total and _info, which a counter's and an info's samples get; it ends with the
 * unit if there is one (NULL: none). help: a line. */
struct metrics_family {
    const char *name;
    enum metrics_type type;
    const char *unit;
    const char *help;
};

struct metrics_text {
    char *text; /* malloc'ed */
    size_t bytes;
    size_t capacity;
    bool failed;
    const struct metrics_family *family; /* that was begun last */
};

void metrics_text_init(struct metrics_text *text);
void metrics_text_deinit(struct metrics_text *text);

/* Escaped, in the order in which they are added. What does not fit is left out whole. */
struct metrics_labels {
    char text[640];
    size_t bytes;
};

/* "name=\"value\"" behind those that are there; bytes of value that are not UTF-8 become '?'. */
void metrics_label(struct metrics_labels *labels, const char *name, const char *value);
void metrics_label_number(struct metrics_labels *labels, const char *name, uint64_t value);

void metrics_begin(struct metrics_text *text, const struct metrics_family *family);
/* labels: NULL for none. */
void metrics_number(struct metrics_text *text, const struct metrics_labels *labels, uint64_t value);
/* value_ns in seconds. */
void metrics_seconds(struct metrics_text *text, const struct metrics_labels *labels,
                     uint64_t value_ns);
/* 0 to 1, with four places. */
void metrics_ratio(struct metrics_text *text, const struct metrics_labels *labels, double value);

/* After the last sample. 0 or -ENOMEM. */
int metrics_end(struct metrics_text *text);

#endif
