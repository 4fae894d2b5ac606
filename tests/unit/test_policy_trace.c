/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "broker/policy_trace.h"
#include "tests/unit/policy_sim.h"

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)

static char error[POLICY_TRACE_ERROR_BYTES];

/* Reads a text to its end, or to its first error. Returns what the last read did. */
static int read_all(const char *text, unsigned *rounds)
{
    struct policy_trace_round round;
    FILE *in = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
    struct policy_trace_reader *reader = policy_trace_reader_new(in, "file");
    int r;

    assert_non_null(reader);
    *rounds = 0;
    *error = '\0';
    while ((r = policy_trace_read(reader, &round, error)) == 1)
        (*rounds)++;
    policy_trace_reader_free(reader);
    fclose(in);
    return r;
}

static void assert_wrong(const char *text, const char *expected)
{
    unsigned rounds;

    assert_int_equal(read_all(text, &rounds), -EINVAL);
    if (!strstr(error, expected))
        fail_msg("\"%s\" does not say \"%s\"", error, expected);
}

/* A field that the table of fields forgets would come back as zero. */
static void every_field_survives(void **state)
{
    (void)state;
    struct policy_ring ring = {0};
    struct policy_trace_round round;
    struct policy_config config;
    struct policy_domain domain = {.domain = 3, .charged_bytes = 4096, .quota_bytes = 8192};
    const struct policy_ring *rings[] = {&ring};
    char *text;
    size_t bytes;

    /* Odd bytes everywhere, and then values where there is a range. */
    for (size_t i = 0; i < sizeof(ring); i += 8)
        ((uint64_t *)&ring)[i / 8] = 0x0101010101010101 * (i % 60 + 1) & 0xffffffffffff;
    ring.channel = 70;
    ring.ring = 1;
    ring.domain = 0;
    ring.moving = ring.stalled = ring.grew = ring.judging = ring.no_help = true;
    ring.patience = 3;
    ring.recall = 2;
    ring.refused = POLICY_AT_MAX;
    policy_config_init(&config);
    config.dwell_ms = 123;
    const struct policy_input input = {
        .now_ns = UINT64_MAX,
        .total_bytes = 64 * MIB,
        .free_bytes = 3,
        .largest_free_bytes = 2,
        .rings = rings,
        .ring_count = 1,
        .domains = &domain,
        .domain_count = 1,
        .some = true,
        .level_bytes = 5,
    };
    const struct policy_decision decision = {
        .refused = true, .reason = POLICY_LATER, .from_bytes = 1, .to_bytes = 2, .number = 3};
    FILE *out = open_memstream(&text, &bytes);
    struct policy_trace_writer *writer = policy_trace_writer_new();
    policy_trace_write_header(out);
    policy_trace_write_config(out, policy_find("static"), &config);
    policy_trace_write_gap(out, 5);
    assert_int_equal(policy_trace_write_round(writer, out, 2, &input, &decision, 1), 0);
    policy_trace_writer_free(writer);
    fclose(out);

    FILE *in = fmemopen(text, bytes, "r");
    struct policy_trace_reader *reader = policy_trace_reader_new(in, "file");
    assert_int_equal(policy_trace_read(reader, &round, error), 1);
    assert_ptr_equal(round.policy, policy_find("static"));
    assert_memory_equal(&round.config, &config, sizeof(config));
    assert_int_equal(round.zone, 2);
    assert_int_equal(round.missing, 5);
    assert_int_equal(round.input.now_ns, UINT64_MAX);
    assert_true(round.input.some && !round.input.pressure);
    assert_int_equal(round.input.level_bytes, 5);
    assert_int_equal(round.input.domains[0].quota_bytes, 8192);
    assert_int_equal(round.decision_count, 1);
    assert_int_equal(round.decisions[0].reason, POLICY_LATER);
    assert_int_equal(round.decisions[0].number, 3);
    /* Padding aside: written again, it gives the same text. */
    char *again;
    size_t again_bytes;
    out = open_memstream(&again, &again_bytes);
    writer = policy_trace_writer_new();
    policy_trace_write_header(out);
    policy_trace_write_config(out, round.policy, &round.config);
    policy_trace_write_gap(out, round.missing);
    policy_trace_write_round(writer, out, round.zone, &round.input, round.decisions, 1);
    policy_trace_writer_free(writer);
    fclose(out);
    assert_string_equal(again, text);
    assert_int_equal(round.input.rings[0]->drain_rate, ring.drain_rate);
    assert_int_equal(round.input.rings[0]->refused, POLICY_AT_MAX);
    policy_trace_reader_free(reader);
    fclose(in);
    free(text);
    free(again);
}

struct recording {
    struct policy_trace_writer *writer;
    FILE *out;
};

static void record_round(struct sim *sim)
{
    struct recording *recording = sim->data;

    assert_int_equal(policy_trace_write_round(recording->writer, recording->out, 0, &sim->input,
                                              sim->decisions, sim->decision_count),
                     0);
}

/* Runs a simulation and records it. */
static char *record(const struct policy *policy, size_t *bytes)
{
    struct policy_trace_writer *writer = policy_trace_writer_new();
    struct sim *sim = sim_new(4 * MIB);
    char *text;
    FILE *out = open_memstream(&text, bytes);
    struct recording recording = {.writer = writer, .out = out};

    sim->record = record_round;
    sim->data = &recording;
    sim->plan = policy->plan;
    policy_trace_write_header(out);
    policy_trace_write_config(out, policy, &sim->config);
    for (uint64_t i = 1; i <= 20; i++)
        sim_add(sim, i * 20 * KIB, i * 15 * KIB)->off_ticks = i % 3 * 200;
    for (unsigned i = 0; i < 20; i++)
        sim->rings[i].on_ticks = 50;
    assert_true(sim_run(sim, 300));
    assert_true(sim->moves >= 20);
    policy_trace_writer_free(writer);
    fclose(out);
    free(sim);
    return text;
}

/* How many decisions differ from those recorded, when the policy is asked again. */
static unsigned differences(const char *text, size_t bytes, uint64_t grow_percent)
{
    static struct policy_decision decisions[SIM_DECISIONS_MAX];
    struct policy_trace_round round;
    FILE *in = fmemopen((void *)(uintptr_t)text, bytes, "r");
    struct policy_trace_reader *reader = policy_trace_reader_new(in, "file");
    unsigned different = 0, rounds = 0;

    while (policy_trace_read(reader, &round, error) == 1) {
        if (grow_percent)
            round.config.grow_percent = grow_percent;
        size_t count =
            round.policy->plan(&round.input, &round.config, decisions, SIM_DECISIONS_MAX);
        bool same = count == round.decision_count;
        for (size_t i = 0; i < count && same; i++)
            same = policy_decision_equal(&decisions[i], &round.decisions[i]);
        different += !same;
        rounds++;
    }
    assert_int_equal(rounds, 300);
    policy_trace_reader_free(reader);
    fclose(in);
    return different;
}

static void replay_gives_the_same_decisions(void **state)
{
    (void)state;
    for (size_t i = 0; i < POLICY_COUNT; i++) {
        size_t bytes;
        char *text = record(&policies[i], &bytes);
        assert_int_equal(differences(text, bytes, 0), 0);
        free(text);
    }
}

static void replay_with_another_number_gives_others(void **state)
{
    (void)state;
    size_t bytes;
    char *text = record(policy_find("default"), &bytes);

    assert_true(differences(text, bytes, 300) > 0);
    free(text);
}

#define HEAD "vchan-trace 1\nconfig policy=default\n"

static void bad_traces_are_errors_with_their_line(void **state)
{
    (void)state;
    assert_wrong("", "file:1: this is no trace");
    assert_wrong("hello\n", "file:1: this is no trace");
    assert_wrong("vchan-trace 2\n", "file:1: a trace of version 2");
    assert_wrong("vchan-trace 1\nround zone=0\n", "file:2: a round before any config");
    assert_wrong("vchan-trace 1\nconfig policy=best\n", "file:2: there is no policy \"best\"");
    assert_wrong("vchan-trace 1\nconfig policy=default dwell=3\n", "no field \"dwell\"");
    assert_wrong("vchan-trace 1\nconfig policy=default alpha_percent=0\n", "alpha_percent is out");
    assert_wrong(HEAD "ring 0\n", "file:3: \"ring\" outside of a round");
    assert_wrong(HEAD "round zone=999\n", "file:3: round: zone=N comes first");
    assert_wrong(HEAD "round zone=0 now_ns=-1\n", "now_ns is a number up to");
    assert_wrong(HEAD "round zone=0 now_ns=99999999999999999999999\n", "now_ns is a number");
    assert_wrong(HEAD "round zone=0\nround zone=0\n", "file:4: a round within a round");
    assert_wrong(HEAD "round zone=0\nring 4000000\n", "file:4: ring: a number up to 2097151");
    assert_wrong(HEAD "round zone=0\nring 1\nring 1\n", "file:5: ring 1 for the second time");
    assert_wrong(HEAD "round zone=0\nring 1 patience=64\n", "patience is a number up to 6");
    assert_wrong(HEAD "round zone=0\nring 1 domain=40000\n", "domain is a number up to 32767");
    assert_wrong(HEAD "round zone=0\nring 1 size_bytes\n", "\"size_bytes\" is not name=value");
    assert_wrong(HEAD "round zone=0\ndecision 1 idle\n", "a ring of this round");
    assert_wrong(HEAD "round zone=0\nring 1\ndecision 1 mood\n", "a known reason");
    assert_wrong(HEAD "nonsense\n", "file:3: \"nonsense\" begins no line");
    assert_wrong(HEAD "end\n", "file:3: \"end\" begins no line");
}

static void line_without_end_is_an_error(void **state)
{
    (void)state;
    char *text = malloc(100000);

    memset(text, 'x', 100000);
    memcpy(text, HEAD, sizeof(HEAD) - 1);
    text[99999] = '\0';
    assert_wrong(text, "file:3: a line is longer than");
    free(text);
}

static void trace_may_break_off_anywhere(void **state)
{
    (void)state;
    const char *text = HEAD "round zone=0 now_ns=5\nring 1 size_bytes=4096\nend\n"
                            "round zone=0 now_ns=6\nring 1\nend\n";
    char cut[256];
    unsigned rounds;

    for (size_t length = strlen("vchan-trace 1\n"); length <= strlen(text); length++) {
        memcpy(cut, text, length);
        cut[length] = '\0';
        assert_int_equal(read_all(cut, &rounds), 0);
    }
    assert_int_equal(rounds, 2);
}

/* Whatever a trace says, policies get through it. */
static void nonsense_within_the_ranges_does_no_harm(void **state)
{
    (void)state;
    size_t bytes;
    char *text = record(policy_find("default"), &bytes);
    uint64_t random = 88172645463325252u;
    static struct policy_decision decisions[SIM_DECISIONS_MAX];

    for (unsigned run = 0; run < 30; run++) {
        char *copy = malloc(bytes);
        memcpy(copy, text, bytes);
        for (unsigned i = 0; i < 200; i++) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            char *at = &copy[random % bytes];
            if (*at >= '0' && *at <= '9' && at - copy > 40)
                *at = (char)('0' + random / bytes % 10);
        }
        FILE *in = fmemopen(copy, bytes, "r");
        struct policy_trace_reader *reader = policy_trace_reader_new(in, "file");
        struct policy_trace_round round;
        while (policy_trace_read(reader, &round, error) == 1)
            for (size_t i = 0; i < POLICY_COUNT; i++)
                policies[i].plan(&round.input, &round.config, decisions, SIM_DECISIONS_MAX);
        policy_trace_reader_free(reader);
        fclose(in);
        free(copy);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_survives),
        cmocka_unit_test(replay_gives_the_same_decisions),
        cmocka_unit_test(replay_with_another_number_gives_others),
        cmocka_unit_test(bad_traces_are_errors_with_their_line),
        cmocka_unit_test(line_without_end_is_an_error),
        cmocka_unit_test(trace_may_break_off_anywhere),
        cmocka_unit_test(nonsense_within_the_ranges_does_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
