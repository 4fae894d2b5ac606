/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "broker/policy_field.h"
#include "broker/policy_trace_state.h"

/* Words of a line after its first. */
#define WORDS_MAX 64u

struct policy_trace_reader {
    FILE *in;
    const char *name;
    char *error;
    unsigned line;
    bool begun;  /* the header has been read */
    bool inside; /* a round */
    char text[POLICY_TRACE_LINE_MAX + 2];
    char *words[WORDS_MAX];
    size_t word_count;
    struct policy_trace_state state;
    const struct policy *policy; /* NULL: there was no config yet */
    struct policy_config config;
    /* Of the round that is being read. */
    struct policy_trace_round round;
    const struct policy_ring **rings;
    struct policy_scratch *scratch;
    size_t ring_count, ring_room;
    uint64_t *domain_scratch;
    size_t domain_counts[POLICY_TRACE_ZONES_MAX];
    struct policy_decision *decisions;
    size_t decision_count, decision_room;
    uint32_t *places; /* by ring number: one more than its place in the round, if in it */
};

struct policy_trace_reader *policy_trace_reader_new(FILE *in, const char *name)
{
    struct policy_trace_reader *reader = calloc(1, sizeof(*reader));

    if (!reader)
        return NULL;
    reader->in = in;
    reader->name = name;
    reader->domain_scratch = calloc(POLICY_TRACE_DOMAINS_MAX, sizeof(*reader->domain_scratch));
    reader->places = calloc(POLICY_TRACE_RINGS_MAX, sizeof(*reader->places));
    if (policy_trace_state_init(&reader->state) < 0 || !reader->domain_scratch || !reader->places) {
        policy_trace_reader_free(reader);
        return NULL;
    }
    return reader;
}

void policy_trace_reader_free(struct policy_trace_reader *reader)
{
    if (!reader)
        return;
    policy_trace_state_deinit(&reader->state);
    free(reader->rings);
    free(reader->scratch);
    free(reader->domain_scratch);
    free(reader->decisions);
    free(reader->places);
    free(reader);
}

__attribute__((format(printf, 2, 3))) static int wrong(struct policy_trace_reader *reader,
                                                       const char *format, ...)
{
    va_list arguments;
    int n = snprintf(reader->error, POLICY_TRACE_ERROR_BYTES, "%.120s:%u: ", reader->name,
                     reader->line);

    va_start(arguments, format);
    vsnprintf(reader->error + n, POLICY_TRACE_ERROR_BYTES - (size_t)n, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

/* 1: a line, in words. 0: the end. */
static int next_line(struct policy_trace_reader *reader)
{
    char *rest = reader->text, *word;

    if (!fgets(reader->text, sizeof(reader->text), reader->in)) {
        reader->line++;
        return ferror(reader->in) ? (wrong(reader, "cannot be read"), -EIO) : 0;
    }
    reader->line++;
    size_t length = strlen(reader->text);
    if (length == 0 || reader->text[length - 1] != '\n') {
        if (feof(reader->in))
            return 0; /* it broke off */
        return wrong(reader, "a line is longer than %u bytes, or holds a zero byte",
                     POLICY_TRACE_LINE_MAX);
    }
    reader->text[length - 1] = '\0';
    reader->word_count = 0;
    while ((word = strsep(&rest, " "))) {
        if (reader->word_count == WORDS_MAX)
            return wrong(reader, "more than %u words", WORDS_MAX);
        reader->words[reader->word_count++] = word;
    }
    return 1;
}

static bool parse_number(const char *text, uint64_t most, uint64_t *value)
{
    char *end;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return *end == '\0' && errno == 0 && *value <= most;
}

/* "name=value", from the given word to the last. */
static int parse_fields(struct policy_trace_reader *reader, size_t from,
                        const struct policy_fields *fields, void *object)
{
    size_t hint = 0;

    for (size_t i = from; i < reader->word_count; i++) {
        char *value = strchr(reader->words[i], '=');
        uint64_t number;
        if (!value)
            return wrong(reader, "\"%.40s\" is not name=value", reader->words[i]);
        *value++ = '\0';
        const struct policy_field *field = policy_field_find(fields, reader->words[i], &hint);
        if (!field)
            return wrong(reader, "there is no field \"%.40s\" here", reader->words[i]);
        if (!parse_number(value, field->most, &number))
            return wrong(reader, "%s is a number up to %" PRIu64 ", not \"%.40s\"", field->name,
                         field->most, value);
        policy_field_set(object, field, number);
    }
    return 0;
}

static int parse_index(struct policy_trace_reader *reader, const char *what, uint64_t most,
                       uint64_t *value)
{
    if (reader->word_count < 2 || !parse_number(reader->words[1], most, value))
        return wrong(reader, "%s: a number up to %" PRIu64 " comes first", what, most);
    return 0;
}

static int parse_header(struct policy_trace_reader *reader)
{
    uint64_t version;

    if (reader->word_count != 2 || strcmp(reader->words[0], "vchan-trace") != 0)
        return wrong(reader, "this is no trace: it does not begin with \"vchan-trace\"");
    if (!parse_number(reader->words[1], UINT32_MAX, &version) || version != POLICY_TRACE_VERSION)
        return wrong(reader, "a trace of version %.20s; this program reads version %u",
                     reader->words[1], POLICY_TRACE_VERSION);
    reader->begun = true;
    return 0;
}

static int parse_config(struct policy_trace_reader *reader)
{
    const char *text = reader->word_count > 1 ? reader->words[1] : "";

    if (reader->inside || strncmp(text, "policy=", 7) != 0)
        return wrong(reader, "config: policy=NAME comes first, and not within a round");
    reader->policy = policy_find(text + 7);
    if (!reader->policy)
        return wrong(reader, "there is no policy \"%.40s\": there are %s", text + 7,
                     policy_names());
    policy_config_init(&reader->config);
    int r = parse_fields(reader, 2, &policy_config_fields, &reader->config);
    if (r < 0)
        return r;
    const char *bad = policy_config_check(&reader->config);
    return bad ? wrong(reader, "%s is out of its range", bad) : 0;
}

static int parse_gap(struct policy_trace_reader *reader)
{
    uint64_t rounds;

    if (reader->inside)
        return wrong(reader, "a gap within a round");
    int r = parse_index(reader, "gap", UINT32_MAX, &rounds);
    reader->round.missing += r == 0 ? rounds : 0;
    return r;
}

static int parse_round(struct policy_trace_reader *reader)
{
    uint64_t zone;

    if (!reader->policy)
        return wrong(reader, "a round before any config");
    if (reader->inside)
        return wrong(reader, "a round within a round");
    if (reader->word_count < 2 || strncmp(reader->words[1], "zone=", 5) != 0 ||
        !parse_number(reader->words[1] + 5, POLICY_TRACE_ZONES_MAX - 1, &zone))
        return wrong(reader, "round: zone=N comes first, up to %u", POLICY_TRACE_ZONES_MAX - 1);
    reader->inside = true;
    reader->round.line = reader->line;
    reader->round.zone = (uint32_t)zone;
    reader->round.policy = reader->policy;
    reader->round.config = reader->config;
    reader->round.input = (struct policy_input){0};
    reader->ring_count = reader->decision_count = 0;
    return parse_fields(reader, 2, &policy_round_fields, &reader->round.input);
}

static int parse_domain(struct policy_trace_reader *reader)
{
    size_t *count = &reader->domain_counts[reader->round.zone];
    uint64_t slot;

    int r = parse_index(reader, "domain", POLICY_TRACE_DOMAINS_MAX - 1, &slot);
    if (r < 0)
        return r;
    if (slot >= *count)
        *count = slot + 1;
    return parse_fields(reader, 2, &policy_domain_fields,
                        &policy_trace_domains(&reader->state, reader->round.zone)[slot]);
}

/* Room for one ring more. */
static int make_room(struct policy_trace_reader *reader)
{
    size_t room = reader->ring_room ? 2 * reader->ring_room : 256;

    if (reader->ring_count < reader->ring_room)
        return 0;
    void *rings = reallocarray(reader->rings, room, sizeof(*reader->rings));
    if (rings)
        reader->rings = rings;
    void *scratch = reallocarray(reader->scratch, room, sizeof(*reader->scratch));
    if (scratch)
        reader->scratch = scratch;
    if (!rings || !scratch)
        return (wrong(reader, "out of memory"), -ENOMEM);
    reader->ring_room = room;
    return 0;
}

/* One more than its place in this round; 0: it is not in it. */
static uint32_t place_of(const struct policy_trace_reader *reader, uint64_t number)
{
    uint32_t place = reader->places[number];

    return place > 0 && place <= reader->ring_count &&
                   reader->rings[place - 1] == &reader->state.rings[number]
               ? place
               : 0;
}

static int parse_ring(struct policy_trace_reader *reader)
{
    size_t *domains = &reader->domain_counts[reader->round.zone];
    uint64_t number;

    int r = parse_index(reader, "ring", POLICY_TRACE_RINGS_MAX - 1, &number);
    if (r == 0)
        r = make_room(reader);
    if (r < 0)
        return r;
    if (place_of(reader, number) > 0)
        return wrong(reader, "ring %" PRIu64 " for the second time in this round", number);
    struct policy_ring *ring = &reader->state.rings[number];
    reader->rings[reader->ring_count++] = ring;
    reader->places[number] = (uint32_t)reader->ring_count;
    r = parse_fields(reader, 2, &policy_ring_fields, ring);
    if (r == 0 && ring->domain >= POLICY_TRACE_DOMAINS_MAX)
        return wrong(reader, "domain is a number up to %u", POLICY_TRACE_DOMAINS_MAX - 1);
    if (r == 0 && ring->domain >= *domains)
        *domains = ring->domain + 1;
    return r;
}

static int parse_decision(struct policy_trace_reader *reader)
{
    size_t room = reader->decision_room ? 2 * reader->decision_room : 256;
    uint64_t number;

    int r = parse_index(reader, "decision", POLICY_TRACE_RINGS_MAX - 1, &number);
    if (r < 0)
        return r;
    uint32_t place = place_of(reader, number);
    int reason = reader->word_count > 2 ? policy_trace_reason_find(reader->words[2]) : -EINVAL;
    if (place == 0 || reason < 0)
        return wrong(reader, "decision: a ring of this round and a known reason come first");
    if (reader->decision_count == reader->decision_room) {
        void *decisions = reallocarray(reader->decisions, room, sizeof(*reader->decisions));
        if (!decisions)
            return (wrong(reader, "out of memory"), -ENOMEM);
        reader->decisions = decisions;
        reader->decision_room = room;
    }
    struct policy_decision *decision = &reader->decisions[reader->decision_count++];
    *decision = (struct policy_decision){.index = place - 1, .reason = (enum policy_reason)reason};
    return parse_fields(reader, 3, &policy_decision_fields, decision);
}

static void finish(struct policy_trace_reader *reader, struct policy_trace_round *round)
{
    struct policy_input *input = &reader->round.input;

    input->rings = reader->rings;
    input->ring_count = reader->ring_count;
    input->domains = policy_trace_domains(&reader->state, reader->round.zone);
    input->domain_count = reader->domain_counts[reader->round.zone];
    input->scratch = reader->scratch;
    input->domain_scratch = reader->domain_scratch;
    reader->round.decisions = reader->decisions;
    reader->round.decision_count = reader->decision_count;
    *round = reader->round;
    reader->round.missing = 0;
    reader->inside = false;
}

static int parse_line(struct policy_trace_reader *reader)
{
    const struct {
        const char *word;
        bool inside;
        int (*parse)(struct policy_trace_reader *reader);
    } kinds[] = {
        {"config", false, parse_config}, {"gap", false, parse_gap},
        {"round", false, parse_round},   {"domain", true, parse_domain},
        {"ring", true, parse_ring},      {"decision", true, parse_decision},
    };

    if (!reader->begun)
        return parse_header(reader);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].word, reader->words[0]) != 0)
            continue;
        if (kinds[i].inside && !reader->inside)
            return wrong(reader, "\"%s\" outside of a round", kinds[i].word);
        return kinds[i].parse(reader);
    }
    return wrong(reader, "\"%.40s\" begins no line", reader->words[0]);
}

int policy_trace_read(struct policy_trace_reader *reader, struct policy_trace_round *round,
                      char error[POLICY_TRACE_ERROR_BYTES])
{
    int r;

    reader->error = error;
    while ((r = next_line(reader)) == 1) {
        bool ends =
            reader->inside && reader->word_count == 1 && strcmp(reader->words[0], "end") == 0;
        if (ends) {
            finish(reader, round);
            return 1;
        }
        r = parse_line(reader);
        if (r < 0)
            return r;
    }
    if (r == 0 && !reader->begun)
        return wrong(reader, "this is no trace: it is empty");
    return r;
}
