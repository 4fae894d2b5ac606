/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/ctl/top_text.h - the lines of top, which the terminal and plain output share.
 *
 * A line is UTF-8, is cut where it would not fit into the bytes it is given, and may be wider than
 * the screen unless it is a row or its titles: who shows it cuts it.
 */
#ifndef VCHAN_CLIENT_CTL_TOP_TEXT_H
#define VCHAN_CLIENT_CTL_TOP_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/ctl/top_sample.h"

#define TOP_LINE_BYTES 4096u
#define TOP_HEADER_LINES 5u

/* What of a sample is to be shown, and how. */
struct top_view {
    const struct top_sample *sample;
    const char *socket_path; /* where the broker is or was */
    enum top_key key;
    bool reverse;
    uint32_t domain; /* PROTO_ANY: all */
    bool paused;
    unsigned interval_ms;
    const struct top_row **picked; /* in order */
    size_t picked_count;
    size_t first, shown; /* of picked */
};

/* line: 0 to TOP_HEADER_LINES - 1. */
void top_text_header(const struct top_view *view, unsigned line, char text[TOP_LINE_BYTES]);

/* The columns for which there is room, and where the bar begins. */
#define TOP_COLUMNS 11u
struct top_layout {
    bool shown[TOP_COLUMNS];
    unsigned name_width;
    unsigned bar_start; /* column; the bar is the last */
    unsigned bar_width; /* 0: no room */
};
struct top_layout top_layout(unsigned width);

/* What a full bar stands for: a power of two that is not below the largest ring. */
uint64_t top_bar_bytes(uint64_t largest_bytes);

void top_text_titles(const struct top_layout *layout, uint64_t bar_bytes,
                     char text[TOP_LINE_BYTES]);
void top_text_row(const struct top_layout *layout, const struct top_row *row,
                  const struct names *names, uint64_t data_bytes, uint64_t bar_bytes,
                  char text[TOP_LINE_BYTES]);

/* "12:00:01.123  3.0 web->db:5000  64 KiB -> 128 KiB  done in 1.2 ms (pressure): why". */
void top_text_decision(const struct proto_decision *decision, const struct names *names,
                       char text[TOP_LINE_BYTES]);

/* The titles of what moved: says so where nothing did, or where the asker may not know. */
void top_text_moves_title(const struct top_sample *sample, char text[TOP_LINE_BYTES]);

#endif
