/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/ctl/top_text.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/decisions.h"
#include "client/ctl/quantity.h"
#include "client/ctl/text.h"

#define BAR_MIN 10u
#define BAR_MAX 40u
#define MEMORY_BAR 20u
#define NAME_WIDTH 10u
#define NAME_WIDTH_WIDE 20u

enum column {
    COLUMN_RING,
    COLUMN_SENDER,
    COLUMN_RECEIVER,
    COLUMN_PORT,
    COLUMN_SENT,
    COLUMN_OPERATIONS,
    COLUMN_STALLS,
    COLUMN_STALLED,
    COLUMN_HELD,
    COLUMN_SIZE,
    COLUMN_SHARE,
    COLUMNS_IN_ALL
};
static_assert(COLUMNS_IN_ALL == TOP_COLUMNS, "struct top_layout has a place for each column");

/* width 0: that of a name. */
static const struct {
    const char *title;
    unsigned width;
    bool left;
} columns[] = {
    [COLUMN_RING] = {"RING", 9, false},        [COLUMN_SENDER] = {"SENDER", 0, true},
    [COLUMN_RECEIVER] = {"RECEIVER", 0, true}, [COLUMN_PORT] = {"PORT", 6, false},
    [COLUMN_SENT] = {"SENT/S", 10, false},     [COLUMN_OPERATIONS] = {"OPS/S", 8, false},
    [COLUMN_STALLS] = {"STALLS/S", 8, false},  [COLUMN_STALLED] = {"STALL%", 6, false},
    [COLUMN_HELD] = {"HELD", 10, false},       [COLUMN_SIZE] = {"SIZE", 10, false},
    [COLUMN_SHARE] = {"SHARE", 6, false},
};

/* Which go first where there is little room; the bar comes behind the sixth. */
static const enum column by_importance[] = {
    COLUMN_RING, COLUMN_SENT, COLUMN_SIZE,   COLUMN_STALLED, COLUMN_SENDER,     COLUMN_RECEIVER,
    COLUMN_PORT, COLUMN_HELD, COLUMN_STALLS, COLUMN_SHARE,   COLUMN_OPERATIONS,
};
#define BEFORE_THE_BAR 6u

static unsigned width_of(const struct top_layout *layout, enum column column)
{
    return columns[column].width ? columns[column].width : layout->name_width;
}

struct top_layout top_layout(unsigned width)
{
    struct top_layout layout = {.name_width = NAME_WIDTH};
    unsigned used = 0;

    for (unsigned i = 0; i < TOP_COLUMNS; i++) {
        const unsigned reserved = i < BEFORE_THE_BAR ? 0 : BAR_MIN;
        const unsigned wanted = width_of(&layout, by_importance[i]) + 1;
        if (used + wanted + reserved > width && i > 0)
            break;
        layout.shown[by_importance[i]] = true;
        used += wanted;
    }
    if (layout.shown[COLUMN_RECEIVER] &&
        used + 2 * (NAME_WIDTH_WIDE - NAME_WIDTH) + BAR_MAX <= width) {
        layout.name_width = NAME_WIDTH_WIDE;
        used += 2 * (NAME_WIDTH_WIDE - NAME_WIDTH);
    }
    layout.bar_start = used;
    if (used + BAR_MIN <= width)
        layout.bar_width = width - used < BAR_MAX ? width - used : BAR_MAX;
    return layout;
}

uint64_t top_bar_bytes(uint64_t largest_bytes)
{
    uint64_t bytes = 4096;

    while (bytes < largest_bytes && bytes < 1ull << 62)
        bytes *= 2;
    return bytes;
}

/* A line that grows at its end. */
struct line {
    char *at;
    size_t left; /* bytes, with the NUL */
};

static struct line line_begin(char *text)
{
    text[0] = '\0';
    return (struct line){text, TOP_LINE_BYTES};
}

__attribute__((format(printf, 2, 3))) static void say(struct line *line, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    int n = vsnprintf(line->at, line->left, format, arguments);
    va_end(arguments);
    const size_t wrote = n < 0 ? 0 : (size_t)n < line->left ? (size_t)n : line->left - 1;
    line->at += wrote;
    line->left -= wrote;
}

/* Bytes of the first `width` characters of a clean text. */
static size_t bytes_of(const char *text, size_t width)
{
    size_t bytes = 0;

    for (; text[bytes] && width > 0; width--) {
        bytes++;
        while (((unsigned char)text[bytes] & 0xc0u) == 0x80u)
            bytes++;
    }
    return bytes;
}

/* In width columns and a space behind; what is longer ends with a '~'. */
static void say_cell(struct line *line, const char *text, unsigned width, bool left)
{
    const size_t used = text_columns(text);

    if (used > width)
        say(line, "%.*s~ ", (int)bytes_of(text, width - 1), text);
    else if (left)
        say(line, "%s%*s ", text, (int)(width - used), "");
    else
        say(line, "%*s%s ", (int)(width - used), "", text);
}

/* What is held shows as '#', the rest of the size as '='; nothing that is there is invisible. */
static void say_bar(struct line *line, unsigned width, uint64_t full_bytes, uint64_t size_bytes,
                    uint64_t held_bytes)
{
    const double scale = full_bytes ? (double)width / (double)full_bytes : 0.0;
    unsigned size = (unsigned)((double)size_bytes * scale + 0.5);
    unsigned held = (unsigned)((double)held_bytes * scale + 0.5);

    if (size == 0 && size_bytes > 0)
        size = 1;
    if (size > width)
        size = width;
    if (held == 0 && held_bytes > 0)
        held = 1;
    if (held > size)
        held = size;
    for (unsigned i = 0; i < size; i++)
        say(line, "%c", i < held ? '#' : '=');
}

struct cell {
    char text[PROTO_NAME_BYTES];
};

static struct cell row_cell(enum column column, const struct top_row *row,
                            const struct names *names, uint64_t data_bytes)
{
    const struct proto_ring_info *r = row->ring;
    struct cell cell = {"-"};
    char *const text = cell.text;
    const size_t bytes = sizeof(cell.text);

    if (column == COLUMN_RING)
        snprintf(text, bytes, "%u.%u", r->channel, r->ring);
    else if (column == COLUMN_SENDER)
        snprintf(text, bytes, "%s", names_text(names, r->sender_domain).text);
    else if (column == COLUMN_RECEIVER)
        snprintf(text, bytes, "%s", names_text(names, r->receiver_domain).text);
    else if (column == COLUMN_PORT)
        snprintf(text, bytes, "%u", r->port);
    else if (column == COLUMN_HELD)
        snprintf(text, bytes, "%s", quantity_size(r->bytes_held).text);
    else if (column == COLUMN_SIZE)
        snprintf(text, bytes, "%s%s", quantity_size(r->size_bytes).text,
                 r->flags & PROTO_RING_PINNED   ? "!"
                 : r->flags & PROTO_RING_MOVING ? "*"
                                                : "");
    else if (column == COLUMN_SHARE && data_bytes > 0)
        snprintf(text, bytes, "%.1f%%", 100.0 * (double)r->size_bytes / (double)data_bytes);
    else if (row->known && column == COLUMN_SENT)
        snprintf(text, bytes, "%s", quantity_size(row->bytes_per_second).text);
    else if (row->known && column == COLUMN_OPERATIONS)
        snprintf(text, bytes, "%s", quantity_count(row->operations_per_second).text);
    else if (row->known && column == COLUMN_STALLS)
        snprintf(text, bytes, "%.1f", row->stalls_per_second);
    else if (row->known && column == COLUMN_STALLED)
        snprintf(text, bytes, "%u.%u", row->stall_permille / 10, row->stall_permille % 10);
    return cell;
}

void top_text_titles(const struct top_layout *layout, uint64_t bar_bytes, char text[TOP_LINE_BYTES])
{
    struct line line = line_begin(text);

    for (enum column c = 0; c < COLUMNS_IN_ALL; c++)
        if (layout->shown[c])
            say_cell(&line, columns[c].title, width_of(layout, c), columns[c].left);
    if (layout->bar_width > 0)
        say(&line, "%.*s", (int)layout->bar_width, quantity_size(bar_bytes).text);
    if (layout->bar_width >= BAR_MIN + 5)
        say(&line, "%s", " full");
}

void top_text_row(const struct top_layout *layout, const struct top_row *row,
                  const struct names *names, uint64_t data_bytes, uint64_t bar_bytes,
                  char text[TOP_LINE_BYTES])
{
    struct line line = line_begin(text);

    for (enum column c = 0; c < COLUMNS_IN_ALL; c++)
        if (layout->shown[c])
            say_cell(&line, row_cell(c, row, names, data_bytes).text, width_of(layout, c),
                     columns[c].left);
    say_bar(&line, layout->bar_width, bar_bytes, row->ring->size_bytes, row->ring->bytes_held);
}

/* "12:00:01.123" of "2026-03-01 12:00:01.123". */
static struct quantity time_of_day(uint64_t time_ns)
{
    struct quantity q = quantity_time(time_ns);
    const char *space = strchr(q.text, ' ');

    if (space)
        memmove(q.text, space + 1, strlen(space));
    return q;
}

static void say_broker(struct line *line, const struct top_view *view)
{
    const struct top_sample *s = view->sample;

    say(line, "vchan %s  ", time_of_day(s->time_ns).text);
    if (s->error)
        say(line, "NO BROKER  ");
    else
        say(line, "up %s  policy %s  broker %s  ", quantity_duration(s->info.uptime_ns).text,
            s->info.policy, s->info.version);
    say(line, "every %g s%s", view->interval_ms / 1000.0, view->paused ? "  PAUSED" : "");
}

static void say_memory(struct line *line, const struct proto_broker_info *info)
{
    const uint64_t used = ctl_used_bytes(info);
    char *const start = line->at + strlen("memory [");

    say(line, "memory [");
    say_bar(line, MEMORY_BAR, info->data_bytes, used, 0);
    say(line, "%*s] ", (int)(MEMORY_BAR - (size_t)(line->at - start)), "");
    say(line, "%s used, %s free, ", quantity_size(used).text, quantity_size(info->free_bytes).text);
    say(line, "%s resident of %s, ", quantity_size(info->resident_bytes).text,
        quantity_size(info->region_bytes).text);
    say(line, "largest run %s, fragmentation %u.%u%%", quantity_size(info->largest_free_bytes).text,
        info->fragmentation_permille / 10, info->fragmentation_permille % 10);
}

static void say_rebalancing(struct line *line, const struct top_sample *s)
{
    say(line, "rounds %s", quantity_count(s->info.rounds).text);
    if (s->known)
        say(line, " (%.1f/s)", s->rounds_per_second);
    say(line, ", moves %s", quantity_count(s->info.moves).text);
    if (s->known)
        say(line, " (%.1f/s)", s->moves_per_second);
    say(line, ", moving %zu, pinned %s, grace periods %s", s->sums.moving,
        quantity_count(s->info.pinned).text, quantity_count(s->info.grace_periods).text);
}

static void say_order(struct line *line, const struct top_view *view)
{
    const size_t count = view->sample->rings.count;

    say(line, "by %s%s", top_key_text(view->key), view->reverse ? ", least first" : "");
    if (view->domain != PROTO_ANY)
        say(line, ", domain %s", names_text(&view->sample->names, view->domain).text);
    if (view->shown > 0)
        say(line, ": %zu-%zu of %zu", view->first + 1, view->first + view->shown,
            view->picked_count);
    else
        say(line, ": %zu", view->picked_count);
    if (view->picked_count != count)
        say(line, " (%zu in all)", count);
    say(line, " rings");
}

static void say_traffic(struct line *line, const struct top_sample *s)
{
    say(line, "channels %u, rings %zu, stalled %zu", s->info.channels, s->rings.count,
        s->sums.stalled);
    if (s->known)
        say(line, ", sent %s/s in %s operations/s, stalls %.1f/s",
            quantity_size(s->sums.bytes_per_second).text,
            quantity_count(s->sums.operations_per_second).text, s->sums.stalls_per_second);
}

void top_text_header(const struct top_view *view, unsigned number, char text[TOP_LINE_BYTES])
{
    struct line line = line_begin(text);
    const struct top_sample *s = view->sample;

    if (number == 0)
        say_broker(&line, view);
    else if (s->error && number == 1)
        say(&line, "%s: %s%s%s", view->socket_path, strerror(-s->error), s->why[0] ? ": " : "",
            s->why);
    else if (s->error && number == 2)
        say(&line, "trying again every %g s", view->interval_ms / 1000.0);
    else if (s->error)
        return;
    else if (number == 1)
        say_traffic(&line, s);
    else if (number == 2)
        say_memory(&line, &s->info);
    else if (number == 3)
        say_rebalancing(&line, s);
    else if (number == 4)
        say_order(&line, view);
}

void top_text_decision(const struct proto_decision *d, const struct names *names,
                       char text[TOP_LINE_BYTES])
{
    struct line line = line_begin(text);

    say(&line, "%s  %u.%u %s->%s:%u  ", time_of_day(d->time_ns).text, d->channel, d->ring,
        names_text(names, d->sender_domain).text, names_text(names, d->receiver_domain).text,
        d->port);
    say(&line, "%s -> %s  %s", quantity_size(d->from_bytes).text, quantity_size(d->to_bytes).text,
        decision_outcome_text(d->outcome));
    if (d->outcome == PROTO_OUTCOME_DONE)
        say(&line, " in %s", quantity_duration(d->took_ns).text);
    say(&line, " (%s): %s", d->trigger, d->reason);
}

void top_text_moves_title(const struct top_sample *sample, char text[TOP_LINE_BYTES])
{
    struct line line = line_begin(text);

    if (sample->decisions_denied)
        say(&line, "MOVES: only domain 0 may see them");
    else if (sample->decisions.count == 0)
        say(&line, "MOVES: none yet");
    else
        say(&line, "MOVES, the newest last");
}
