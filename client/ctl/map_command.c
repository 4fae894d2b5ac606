/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vchanctl map: the data section of each zone drawn, with a legend. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/ctl.h"
#include "client/ctl/json.h"
#include "client/ctl/map.h"
#include "client/ctl/names.h"
#include "client/ctl/quantity.h"
#include "client/ctl/table.h"
#include "client/ctl/text.h"

#define STRIP_LINES_MAX 8u

struct picture {
    struct names names;
    struct broker_items extents; /* proto_extent_info, by zone and offset */
    struct proto_broker_info info;
    uint32_t *letters; /* of each extent */
    bool by_channel;   /* what has a colour: a channel, or the owner's domain */
    uint32_t *keys;    /* those that have one, sorted; what is the n-th has the n-th colour */
    size_t key_count;
};

static uint32_t key_of(const struct picture *picture, const struct proto_extent_info *extent)
{
    return picture->by_channel ? extent->channel : extent->owner_domain;
}

static int compare_keys(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static int collect_keys(struct picture *picture)
{
    const struct proto_extent_info *extents = picture->extents.items;
    size_t used = 0, kept = 0;

    picture->keys = calloc(picture->extents.count + 1, sizeof(*picture->keys));
    if (!picture->keys)
        return -ENOMEM;
    for (size_t i = 0; i < picture->extents.count; i++)
        if (extents[i].kind != PROTO_EXTENT_FREE)
            picture->keys[used++] = key_of(picture, &extents[i]);
    qsort(picture->keys, used, sizeof(*picture->keys), compare_keys);
    for (size_t i = 0; i < used; i++)
        if (kept == 0 || picture->keys[kept - 1] != picture->keys[i])
            picture->keys[kept++] = picture->keys[i];
    picture->key_count = kept;
    return 0;
}

static int picture_load(struct picture *picture, struct broker_link *link)
{
    int r =
        broker_link_call(link, PROTO_BROKER_INFO, NULL, 0, &picture->info, sizeof(picture->info));

    if (r == 0)
        r = names_load(&picture->names, link);
    if (r == 0)
        r = broker_link_list(link, PROTO_LIST_EXTENTS, 0, PROTO_ANY,
                             sizeof(struct proto_extent_info), &picture->extents);
    if (r < 0)
        return r;
    picture->extents.count =
        map_order(picture->extents.items, picture->extents.count, picture->info.data_bytes);
    picture->letters = calloc(picture->extents.count + 1, sizeof(*picture->letters));
    return picture->letters ? collect_keys(picture) : -ENOMEM;
}

static void picture_deinit(struct picture *picture)
{
    names_deinit(&picture->names);
    broker_items_deinit(&picture->extents);
    free(picture->letters);
    free(picture->keys);
}

static const char *kind_text(uint32_t kind)
{
    return kind == PROTO_EXTENT_FREE   ? "free"
           : kind == PROTO_EXTENT_RING ? "ring"
           : kind == PROTO_EXTENT_OLD  ? "old"
                                       : "unknown";
}

static int write_json(const struct picture *picture, bool indented)
{
    const struct proto_extent_info *extents = picture->extents.items;
    struct json *object = json_new_object(), *array = json_new_array();

    for (size_t i = 0; i < picture->extents.count; i++) {
        const struct proto_extent_info *e = &extents[i];
        struct json *extent = json_new_object();
        json_set_number(extent, "offset_bytes", e->offset_bytes);
        json_set_number(extent, "size_bytes", e->size_bytes);
        json_set_text(extent, "kind", kind_text(e->kind));
        json_set_number(extent, "zone", e->zone);
        if (e->kind != PROTO_EXTENT_FREE) {
            json_set_number(extent, "channel", e->channel);
            json_set_number(extent, "ring", e->ring);
            names_set_json(&picture->names, extent, "owner_domain", e->owner_domain);
        }
        json_push(array, extent);
    }
    json_set_number(object, "data_bytes", picture->info.data_bytes);
    json_set_number(object, "free_bytes", picture->info.free_bytes);
    json_set_number(object, "largest_free_bytes", picture->info.largest_free_bytes);
    json_set(object, "extents", array);
    return json_write(object, stdout, indented);
}

/* Six colours, and six brighter ones, then again. */
static unsigned colour_of(const struct picture *picture, uint32_t key)
{
    const uint32_t *found =
        bsearch(&key, picture->keys, picture->key_count, sizeof(*picture->keys), compare_keys);
    const unsigned n = found ? (unsigned)((found - picture->keys) % 12) : 0;

    return n < 6 ? 31 + n : 91 + n - 6;
}

/* colours: by letter. Memory in use is in reverse, that of old generations in faint letters. */
static void begin_colour(const struct map_cell *cell, const unsigned *colours)
{
    if (cell->letter == UINT32_MAX)
        printf("\033[2m");
    else
        printf("\033[%d;%um", cell->character >= 'a' ? 2 : 7, colours[cell->letter]);
}

static bool looks_like(const struct map_cell *a, const struct map_cell *b)
{
    return a->character == b->character && a->letter == b->letter;
}

/* Equal characters of a line share their colour's sequences. */
static void print_cells(const struct map_cell *cells, size_t count, const unsigned *colours,
                        const struct ctl *ctl)
{
    for (size_t i = 0; i < count; i++) {
        const bool coloured = ctl->colour && cells[i].character != MAP_SEVERAL;
        const bool first = i % ctl->width == 0, last = (i + 1) % ctl->width == 0 || i + 1 == count;
        if (coloured && (first || !looks_like(&cells[i - 1], &cells[i])))
            begin_colour(&cells[i], colours);
        putchar(cells[i].character);
        if (coloured && (last || !looks_like(&cells[i], &cells[i + 1])))
            printf("\033[0m");
        if (last)
            putchar('\n');
    }
}

/* first: index of the zone's first extent. */
static int print_strip(const struct picture *picture, size_t first, const struct map_zone *zone,
                       const struct ctl *ctl)
{
    const struct proto_extent_info *extents =
        (const struct proto_extent_info *)picture->extents.items + first;
    const uint32_t *letters = picture->letters + first;
    struct map_scale scale = map_scale(extents, zone->count, (size_t)ctl->width * STRIP_LINES_MAX);
    struct map_cell *cells = calloc(scale.cell_count + 1, sizeof(*cells));
    unsigned *colours = calloc(zone->count + 1, sizeof(*colours));
    const uint64_t shown_bytes = scale.cell_count * scale.cell_bytes;
    const unsigned fragmentation = map_fragmentation_permille(zone);

    if (cells && colours) {
        for (size_t i = 0; i < zone->count; i++)
            if (letters[i] != UINT32_MAX)
                colours[letters[i]] = colour_of(picture, key_of(picture, &extents[i]));
        map_draw(extents, zone->count, letters, &scale, cells);
        printf("%s for data, %s free, the largest run %s, fragmentation %u.%u%%; one character is "
               "%s\n",
               quantity_size(zone->data_bytes).text, quantity_size(zone->free_bytes).text,
               quantity_size(zone->largest_free_bytes).text, fragmentation / 10, fragmentation % 10,
               quantity_size(scale.cell_bytes).text);
        print_cells(cells, scale.cell_count, colours, ctl);
        if (shown_bytes < zone->data_bytes)
            printf("%s%s free up to the end\n", scale.cell_count ? "then " : "",
                   quantity_size(zone->data_bytes - shown_bytes).text);
    }
    int r = cells && colours ? 0 : -ENOMEM;
    free(cells);
    free(colours);
    return r;
}

/* Whose colour is which, in lines of the width. */
static void print_colours(const struct picture *picture, const struct ctl *ctl)
{
    size_t used = 0;

    for (size_t i = 0; i < picture->key_count; i++) {
        const uint32_t key = picture->keys[i];
        struct name_text text = names_text(&picture->names, key);
        if (picture->by_channel)
            snprintf(text.text, sizeof(text.text), "channel %u", key);
        const size_t columns = text_columns(text.text) + 3;
        if (used > 0 && used + columns > ctl->width) {
            putchar('\n');
            used = 0;
        }
        printf("\033[7;%um %s \033[0m ", colour_of(picture, key), text.text);
        used += columns;
    }
    if (used > 0)
        putchar('\n');
}

static int print_legend(const struct proto_extent_info *extents, const struct map_zone *zone,
                        const uint32_t *letters, const struct names *names, const struct ctl *ctl)
{
    static const struct table_column columns[] = {
        {"", TABLE_LEFT},        {"RING", TABLE_RIGHT}, {"OWNER", TABLE_LEFT},
        {"OFFSET", TABLE_RIGHT}, {"SIZE", TABLE_RIGHT}, {"KIND", TABLE_LEFT},
    };
    struct table table;
    int r;

    table_init(&table, columns, sizeof(columns) / sizeof(columns[0]));
    for (size_t i = 0; i < zone->count; i++) {
        const struct proto_extent_info *e = &extents[i];
        if (e->kind == PROTO_EXTENT_FREE)
            continue;
        table_add(&table, "%c", map_letter(letters[i], e->kind));
        table_add(&table, "%u.%u", e->channel, e->ring);
        table_add(&table, "%s", names_text(names, e->owner_domain).text);
        table_add(&table, "0x%" PRIx64, e->offset_bytes);
        table_add(&table, "%s", quantity_size(e->size_bytes).text);
        table_add(&table, "%s", kind_text(e->kind));
    }
    r = table.cell_count > 0 || table.failed ? table_print(&table, stdout, ctl->colour) : 0;
    table_deinit(&table);
    return r;
}

static int print_zones(const struct picture *picture, const struct ctl *ctl)
{
    const struct proto_extent_info *extents = picture->extents.items;
    size_t count = picture->extents.count;
    int r = 0;

    for (size_t first = 0; first < count && r == 0;) {
        const struct map_zone zone = map_zone(extents + first, count - first);
        uint32_t *letters = picture->letters + first;
        if (zone.count < count)
            printf("%szone %u: ", first ? "\n" : "", zone.zone);
        r = map_letters(extents + first, zone.count, letters);
        if (r == 0)
            r = print_strip(picture, first, &zone, ctl);
        if (r == 0)
            r = print_legend(extents + first, &zone, letters, &picture->names, ctl);
        first += zone.count;
    }
    if (r == 0 && ctl->colour)
        print_colours(picture, ctl);
    return r;
}

static int map_run(struct ctl *ctl, int argc, char **argv)
{
    struct picture picture = {.by_channel = ctl->by && strcmp(ctl->by, "channel") == 0};
    int r;

    (void)argc;
    (void)argv;
    if (ctl->by && !picture.by_channel && strcmp(ctl->by, "domain") != 0)
        return ctl_usage("--by=%s: it is domain or channel", ctl->by);
    r = picture_load(&picture, &ctl->link);
    if (r == 0)
        r = ctl->json ? write_json(&picture, !(ctl->options & CTL_OPTION_WATCH))
                      : print_zones(&picture, ctl);
    picture_deinit(&picture);
    return r < 0 ? ctl_fail(ctl, r, "cannot draw the map") : CTL_OK;
}

const struct ctl_command map_command = {
    .name = "map",
    .arguments = "",
    .summary = "the data section drawn: which ring lies where",
    .help = "A strip as wide as the terminal (COLUMNS where there is none, else 80) and at\n"
            "most 8 lines high, up to the last memory in use. Each ring has a letter, in\n"
            "lower case for the memory of an old generation that is not free yet; '.' is\n"
            "free, '#' several rings in one character. The legend lists the extents by\n"
            "offset; letters repeat after 26 rings. With several zones there is a strip and\n"
            "a legend for each; zones have numbers, from 0 in the order of vchand.conf.\n"
            "Where there are colours each domain has one, or with --by=channel each\n"
            "channel; the last line says which. Domain 0 only.\n"
            "\n"
            "fragmentation: the part of the free memory outside its largest run.\n"
            "\n"
            "JSON: {data_bytes, free_bytes, largest_free_bytes, \"extents\": [{offset_bytes,\n"
            "size_bytes, kind, zone, channel, ring, owner_domain, owner_domain_name}]}.\n"
            "data_bytes and free_bytes are sums over the zones, largest_free_bytes is the\n"
            "largest run of any; offset_bytes starts at 0 in each. kind: \"free\" (then\n"
            "without the four last), \"ring\", \"old\".\n",
    .options = CTL_OPTION_WATCH | CTL_OPTION_BY,
    .run = map_run,
};
