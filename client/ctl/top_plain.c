/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vchanctl top as lines of text, or of JSON, one sample after the other. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "client/ctl/decisions.h"
#include "client/ctl/rings.h"
#include "client/ctl/top.h"
#include "client/ctl/top_text.h"

#define DECISIONS_SHOWN 5u

/* Cut at the width, without spaces at its end. */
static void put_line(const char *text, unsigned width)
{
    size_t bytes = 0;

    for (size_t columns = 0; text[bytes] && columns < width; columns++) {
        bytes++;
        while (((unsigned char)text[bytes] & 0xc0u) == 0x80u)
            bytes++;
    }
    while (bytes > 0 && text[bytes - 1] == ' ')
        bytes--;
    printf("%.*s\n", (int)bytes, text);
}

static void print_decisions(const struct top_sample *sample, unsigned width)
{
    const struct proto_decision *decisions = sample->decisions.items;
    const size_t count = sample->decisions.count;
    char text[TOP_LINE_BYTES];

    top_text_moves_title(sample, text);
    put_line(text, width);
    for (size_t i = count > DECISIONS_SHOWN ? count - DECISIONS_SHOWN : 0; i < count; i++) {
        top_text_decision(&decisions[i], &sample->names, text);
        put_line(text, width);
    }
}

static void print_sample(const struct top_view *view, const struct ctl *ctl)
{
    const struct top_sample *sample = view->sample;
    const struct top_layout layout = top_layout(ctl->width);
    const uint64_t bar_bytes = top_bar_bytes(sample->sums.largest_bytes);
    char text[TOP_LINE_BYTES];

    for (unsigned i = 0; i < TOP_HEADER_LINES; i++) {
        top_text_header(view, i, text);
        if (text[0])
            put_line(text, ctl->width);
    }
    if (sample->error)
        return;
    putchar('\n');
    top_text_titles(&layout, bar_bytes, text);
    put_line(text, ctl->width);
    for (size_t i = 0; i < view->shown; i++) {
        top_text_row(&layout, view->picked[i], &sample->names, sample->info.data_bytes, bar_bytes,
                     text);
        put_line(text, ctl->width);
    }
    putchar('\n');
    print_decisions(sample, ctl->width);
}

static struct json *row_json(const struct top_row *row, const struct names *names)
{
    struct json *object = ring_json(row->ring, names);

    if (row->known) {
        json_set_number(object, "bytes_per_second", row->bytes_per_second);
        json_set_number(object, "operations_per_second", row->operations_per_second);
        json_set_number(object, "stalls_per_second", (uint64_t)row->stalls_per_second);
        json_set_number(object, "stall_permille", row->stall_permille);
    }
    return object;
}

static int write_json(const struct top_view *view)
{
    const struct top_sample *sample = view->sample;
    const struct proto_decision *decisions = sample->decisions.items;
    struct json *object = json_new_object();
    struct json *rings = json_new_array(), *moves = json_new_array();

    for (size_t i = 0; i < view->shown; i++)
        json_push(rings, row_json(view->picked[i], &sample->names));
    for (size_t i = 0; i < sample->decisions.count; i++)
        json_push(moves, decision_json(&decisions[i], &sample->names));
    json_set_number(object, "time_ns", sample->time_ns);
    json_set_number(object, "error", (uint64_t)-sample->error);
    json_set(object, "rings", rings);
    json_set(object, "decisions", moves);
    return json_write(object, stdout, false);
}

/* 0 or -ENOMEM. */
static int show(struct ctl *ctl, const struct top_options *options, const struct top_sample *sample)
{
    const struct top_row **picked = calloc(sample->rings.count + 1, sizeof(*picked));
    struct top_view view = {
        .sample = sample,
        .socket_path = options->socket_path,
        .key = options->key,
        .domain = options->domain,
        .interval_ms = options->interval_ms,
        .picked = picked,
    };
    int r = 0;

    if (!picked)
        return -ENOMEM;
    view.picked_count = top_rows_pick(sample->rows, sample->rings.count, options->domain,
                                      options->key, false, picked);
    view.shown = options->lines != 0 && view.picked_count > options->lines ? (size_t)options->lines
                                                                           : view.picked_count;
    if (ctl->json)
        r = write_json(&view);
    else
        print_sample(&view, ctl);
    free(picked);
    return r;
}

int top_plain(struct ctl *ctl, const struct top_options *options)
{
    const struct timespec pause = {.tv_sec = options->interval_ms / 1000,
                                   .tv_nsec = (long)(options->interval_ms % 1000) * 1000000};
    struct top_asker asker = {.ctl = ctl};
    int r = 0;

    for (uint64_t i = 0; r == 0 && (options->count == 0 || i < options->count); i++) {
        if (i > 0) {
            nanosleep(&pause, NULL);
            fputs(ctl->json ? "" : "\n", stdout);
        }
        struct top_sample *sample = top_sample_take(&asker);
        r = sample ? show(ctl, options, sample) : -ENOMEM;
        top_sample_free(sample);
        if (fflush(stdout) != 0)
            break; /* main says why */
    }
    top_asker_deinit(&asker);
    return r < 0 ? ctl_fail(ctl, r, "cannot show the rings") : CTL_OK;
}
