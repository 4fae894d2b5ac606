/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/duel.h"

#include <math.h>
#include <stdlib.h>

#include "bench/children.h"
#include "bench/measure.h"

/* Long against the start of a slice, short against how long nobody else wants a CPU. */
#define SLICE_MS 10.0
#define SLICE_LEAST_MS 2.0
#define ROUNDS_LEAST 3u
#define PROBE_MS 1.5
/* Subjects that are programs of their own start slowly; they take part in a few rounds only. */
#define EXTERNAL_MS 450.0
#define EXTERNAL_ROUNDS 3u
/* Probes further apart than this are two classes. */
#define CLASSES_APART 1.5

enum duel_class { DUEL_NEAR, DUEL_FAR, DUEL_CLASSES };
#define DUEL_NO_CLASS DUEL_CLASSES

struct round_result {
    double value[DUEL_SUBJECTS_MAX];
    bool disturbed[DUEL_SUBJECTS_MAX];
    double probe[DUEL_SUBJECTS_MAX + 1]; /* [i] before subject i, [i + 1] after it */
};

struct duel_work {
    const struct duel *duel;
    struct pair *pair;
    unsigned rounds;
    unsigned external_every; /* how many rounds */
    double slice_ms;
    struct round_result *results; /* [kind][size][round] */
    double border_ns;             /* between near and far */
    double *scratch;
    uint64_t verified_bytes;
};

static unsigned first_kind(const struct duel *duel)
{
    return duel->round_trip_only ? PAIR_ROUND_TRIP : PAIR_THROUGHPUT;
}

/* One for each kind, size and round. */
static size_t slots_of(const struct duel_work *work)
{
    return (work->duel->round_trip_only ? 1 : 2) * work->duel->sizes_count * work->rounds;
}

static struct round_result *result_at(const struct duel_work *work, unsigned kind, size_t size,
                                      unsigned round)
{
    return &work->results[((kind - first_kind(work->duel)) * work->duel->sizes_count + size) *
                              work->rounds +
                          round];
}

/* As many rounds of full slices as there is time for; when it is short, shorter slices. */
static void plan(struct duel_work *work)
{
    const struct duel *duel = work->duel;
    double external = 0;
    for (size_t i = 0; i < duel->subjects_count; i++)
        external += duel->subjects[i].calls->external ? 1 : 0;
    double sizes = (double)duel->sizes_count * (duel->round_trip_only ? 1 : 2);
    double places = sizes * ((double)duel->subjects_count - external);
    double ms = duel->seconds * 1e3 - sizes * external * EXTERNAL_ROUNDS * EXTERNAL_MS;
    double rounds = ms / (places * (SLICE_MS + PROBE_MS));

    work->slice_ms = SLICE_MS;
    if (rounds < ROUNDS_LEAST) {
        work->slice_ms = ms / places / ROUNDS_LEAST - PROBE_MS;
        work->slice_ms = work->slice_ms > SLICE_LEAST_MS ? work->slice_ms : SLICE_LEAST_MS;
        rounds = ROUNDS_LEAST;
    }
    work->rounds = (unsigned)rounds;
    work->external_every = work->rounds / EXTERNAL_ROUNDS;
    size_t slots = slots_of(work);
    work->results = calloc(slots, sizeof(*work->results));
    work->scratch = calloc(slots * (DUEL_SUBJECTS_MAX + 1), sizeof(*work->scratch));
    if (!work->results || !work->scratch)
        children_fail("out of memory");
}

static void measure_round(struct duel_work *work, unsigned kind, size_t size, unsigned round)
{
    struct round_result *result = result_at(work, kind, size, round);

    /* Another program's turn leaves cold caches and a slow start behind. */
    pair_measure(work->pair, 0, (enum pair_kind)kind, work->duel->sizes[size], SLICE_LEAST_MS);
    result->probe[0] = pair_probe(work->pair);
    for (size_t i = 0; i < work->duel->subjects_count; i++) {
        if (work->duel->subjects[i].calls->external && round % work->external_every != 0) {
            result->value[i] = (double)NAN;
            result->probe[i + 1] = result->probe[i];
            continue;
        }
        struct pair_slice slice = pair_measure(work->pair, i, (enum pair_kind)kind,
                                               work->duel->sizes[size], work->slice_ms);
        result->value[i] = slice.value;
        result->disturbed[i] = slice.disturbed;
        result->probe[i + 1] = pair_probe(work->pair);
    }
}

/*
 * All sizes get their first round, then all their second: a disturbance of seconds spoils a round
 * of each and not all rounds of one.
 */
static void measure_all(struct duel_work *work)
{
    for (size_t size = 0; size < work->duel->sizes_count; size++)
        for (size_t i = 0; i < work->duel->subjects_count; i++)
            work->verified_bytes += pair_verify(work->pair, i, work->duel->sizes[size]);
    for (unsigned round = 0; round < work->rounds; round++)
        for (unsigned kind = first_kind(work->duel); kind <= PAIR_ROUND_TRIP; kind++)
            for (size_t size = 0; size < work->duel->sizes_count; size++)
                measure_round(work, kind, size, round);
}

/* Copies out all probes; returns how many. */
static size_t collect_probes(const struct duel_work *work)
{
    size_t slots = slots_of(work), count = 0;

    for (size_t i = 0; i < slots; i++)
        for (size_t j = 0; j <= work->duel->subjects_count; j++)
            work->scratch[count++] = work->results[i].probe[j];
    return count;
}

static void find_border(struct duel_work *work)
{
    size_t count = collect_probes(work);
    double low = measure_quantile(work->scratch, count, 0.1);
    double high = measure_quantile(work->scratch, count, 0.9);

    work->border_ns = high / low > CLASSES_APART ? sqrt(low * high) : (double)INFINITY;
}

static const char *class_name(const struct duel_work *work, unsigned class)
{
    if (isinf(work->border_ns))
        return "same";
    return class == DUEL_NEAR ? "near" : "far";
}

static unsigned class_of(const struct duel_work *work, const struct round_result *result,
                         size_t subject)
{
    bool before = result->probe[subject] > work->border_ns;
    bool after = result->probe[subject + 1] > work->border_ns;

    if (before != after || result->disturbed[subject] || isnan(result->value[subject]))
        return DUEL_NO_CLASS;
    return before ? DUEL_FAR : DUEL_NEAR;
}

/*
 * Of the rounds of one kind and size: median value of a subject's slices of a class; *slices: how
 * many.
 */
static double median_value(const struct duel_work *work, unsigned kind, size_t size, size_t subject,
                           unsigned wanted, size_t *slices)
{
    *slices = 0;
    for (unsigned round = 0; round < work->rounds; round++) {
        const struct round_result *result = result_at(work, kind, size, round);
        if (class_of(work, result, subject) == wanted)
            work->scratch[(*slices)++] = result->value[subject];
    }
    return measure_median(work->scratch, *slices);
}

/*
 * The median over the rounds in which all slices from the first subject's to this one's were of the
 * class.
 */
static double median_ratio(const struct duel_work *work, unsigned kind, size_t size, size_t subject,
                           unsigned wanted, size_t *rounds)
{
    *rounds = 0;
    for (unsigned round = 0; round < work->rounds; round++) {
        const struct round_result *result = result_at(work, kind, size, round);
        if (class_of(work, result, 0) != wanted || class_of(work, result, subject) != wanted)
            continue;
        work->scratch[(*rounds)++] = result->value[subject] / result->value[0];
    }
    return measure_median(work->scratch, *rounds);
}

static double median_probe(const struct duel_work *work, unsigned kind, size_t size, size_t subject,
                           unsigned wanted)
{
    size_t count = 0;

    for (unsigned round = 0; round < work->rounds; round++) {
        const struct round_result *result = result_at(work, kind, size, round);
        if (class_of(work, result, subject) != wanted)
            continue;
        work->scratch[count++] = result->probe[subject];
        work->scratch[count++] = result->probe[subject + 1];
    }
    return measure_median(work->scratch, count);
}

static void report_size(struct report *report, struct duel_work *work, unsigned kind, size_t size)
{
    const struct duel *duel = work->duel;
    double scale = kind == PAIR_THROUGHPUT ? 1e-6 : 1e-3; /* MB/s; us */

    for (size_t i = 0; i < duel->subjects_count; i++)
        for (unsigned class = 0; class < DUEL_CLASSES; class ++) {
            size_t slices, rounds;
            double value = median_value(work, kind, size, i, class, &slices);
            if (slices == 0)
                continue;
            double ratio = median_ratio(work, kind, size, i, class, &rounds);
            report_row(report, (struct report_cell[]){
                                   {.number = (double)duel->sizes[size]},
                                   {.text = duel->subjects[i].name},
                                   {.text = class_name(work, class)},
                                   {.number = value * scale},
                                   {.number = ratio},
                                   {.number = (double)rounds},
                                   {.number = (double)slices},
                                   {.number = median_probe(work, kind, size, i, class)},
                               });
        }
}

static void report_kind(struct report *report, struct duel_work *work, unsigned kind)
{
    struct report_column columns[] = {
        {"bytes", "bytes", 8, 0},           {"subject", "subject", 14, REPORT_TEXT},
        {"class", "class", 5, REPORT_TEXT}, {"mb_per_s", "MB/s", 10, 1},
        {"ratio", "ratio", 8, 3},           {"ratio_rounds", "of", 4, 0},
        {"slices", "slices", 6, 0},         {"probe_ns", "probe ns", 8, 0},
    };

    if (kind == PAIR_ROUND_TRIP)
        columns[3] = (struct report_column){"us", "us", 10, 3};
    report_table(report, kind == PAIR_THROUGHPUT ? "throughput" : "round_trip", columns,
                 sizeof(columns) / sizeof(columns[0]));
    for (size_t size = 0; size < work->duel->sizes_count; size++)
        report_size(report, work, kind, size);
    report_table_end(report);
}

static void report_slices(struct report *report, struct duel_work *work)
{
    double counts[DUEL_CLASSES + 1] = {0};
    size_t slots = slots_of(work);

    for (size_t i = 0; i < slots; i++)
        for (size_t j = 0; j < work->duel->subjects_count; j++)
            counts[class_of(work, &work->results[i], j)]++;
    report_number(report, "rounds", work->rounds, 0, "");
    report_number(report, "slice_ms", work->slice_ms, 1, "ms");
    report_number(report, "slices_near", counts[DUEL_NEAR], 0, "");
    report_number(report, "slices_far", counts[DUEL_FAR], 0, "");
    report_number(report, "slices_dropped", counts[DUEL_NO_CLASS], 0,
                  "(disturbed, or between the classes)");
    size_t probes = collect_probes(work);
    report_number(report, "probe_p10_ns", measure_quantile(work->scratch, probes, 0.1), 0, "ns");
    report_number(report, "probe_median_ns", measure_median(work->scratch, probes), 0, "ns");
    report_number(report, "probe_p90_ns", measure_quantile(work->scratch, probes, 0.9), 0, "ns");
    report_number(report, "border_ns", work->border_ns, 0, "ns, between near and far");
    report_number(report, "verified_bytes", (double)work->verified_bytes, 0, "bytes compared");
}

void duel_run(struct report *report, const struct duel *duel)
{
    struct duel_work work = {.duel = duel};

    plan(&work);
    work.pair = pair_new(duel->subjects, duel->subjects_count, duel->cpus);
    measure_all(&work);
    pair_free(work.pair);
    find_border(&work);
    report_text(report, "compared_with", duel->subjects[0].name);
    report_slices(report, &work);
    for (unsigned kind = first_kind(duel); kind <= PAIR_ROUND_TRIP; kind++)
        report_kind(report, &work, kind);
    free(work.results);
    free(work.scratch);
}
