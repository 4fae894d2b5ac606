/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vchan-bench: what vchan costs, beside what else there is. */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "bench/children.h"
#include "bench/measure.h"
#include "bench/mode.h"
#include "bench/subject.h"
#include "bench/vm_worker.h"

struct mode {
    const char *name;
    mode_run *run;
    bool in_all;
    bool own_options; /* it reads what follows its name; only --json is read here */
    const char *help;
};

static const struct mode modes[] = {
    {"ring", mode_ring, true, false, "our ring beside an ideal one, by message size"},
    {"channel", mode_channel, true, false,
     "the public API beside AF_UNIX, pipe and UCX, by message size"},
    {"latency", mode_latency, true, false, "64-byte round trips, spinning and sleeping"},
    {"open", mode_open, true, false, "opening with 1,000 channels open; CPU used by idle ones"},
    {"resize", mode_resize, true, false,
     "the writer's pauses while its ring grows, shrinks and moves"},
    {"alloc", mode_alloc, true, false, "the allocator, by the number of live extents"},
    {"rebalance", mode_rebalance, false, true,
     "what moving memory pays: the same loads under several policies"},
    {"load", mode_load, false, false, "uneven, moving load on a few channels of a running broker"},
    {"vm", mode_vm, false, true, "many virtual machines at once, policies in turn"},
    {"sim", mode_sim, false, true, "policies in simulated time, over generated and recorded loads"},
};
#define MODES (sizeof(modes) / sizeof(modes[0]))

static void print_help(FILE *out)
{
    fprintf(out, "usage: vchan-bench MODE [--json] [--seconds S] [--cpus A,B] [...]\n"
                 "\n"
                 "Measures and prints a table, or with --json one object.\n"
                 "\n");
    for (size_t i = 0; i < MODES; i++)
        fprintf(out, "  %-10s %s\n", modes[i].name, modes[i].help);
    fprintf(out,
            "  %-10s all of these but load, rebalance, vm and sim\n"
            "\n"
            "  --json           one JSON object on standard output\n"
            "  --seconds S      how long to measure, about (each mode has its default)\n"
            "  --cpus A,B       the two CPUs to run on (default: the first two allowed)\n"
            "  --socket PATH    use this broker (default: start one in a directory of its own)\n"
            "  --channels N     open: channels that are open meanwhile (1000); load: how many (4)\n"
            "  --cycles N       resize: how many generations (100000)\n"
            "  --pause US       resize: microseconds between two generations, on average (250)\n"
            "  --sizes N,...    ring, channel: bytes a message\n"
            "  --ring-size N    bytes a direction for ring and channel (1048576)\n"
            "  --help           this\n"
            "\n"
            "Exit status: 0; 1 a measurement failed or bytes differed; 2 wrong arguments;\n"
            "77 it cannot run here, and says why.\n",
            "all");
}

static _Noreturn void complain(const char *what, const char *value)
{
    fprintf(stderr, "vchan-bench: %s '%s'; see vchan-bench --help\n", what, value);
    exit(2);
}

static double parse_number(const char *option, const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);

    if (*end || end == text || !(value >= least && value <= most)) {
        fprintf(stderr, "vchan-bench: %s takes a number from %.15g to %.15g, not '%s'\n", option,
                least, most, text);
        exit(2);
    }
    return value;
}

static void parse_cpus(const char *text, int cpus[2])
{
    char extra;

    if (sscanf(text, "%d,%d%c", &cpus[0], &cpus[1], &extra) != 2 || cpus[0] < 0 || cpus[1] < 0 ||
        cpus[0] >= CPU_SETSIZE || cpus[1] >= CPU_SETSIZE)
        complain("--cpus takes two CPU numbers, as in 0,1, not", text);
}

static void parse_sizes(char *list, struct mode_options *options)
{
    char *item;

    options->sizes_count = 0;
    while ((item = strsep(&list, ","))) {
        size_t bytes = (size_t)parse_number("--sizes", item, 16, SUBJECT_MESSAGE_MAX);
        if (bytes % 8)
            complain("--sizes takes multiples of 8, not", item);
        if (options->sizes_count == MODE_SIZES_MAX)
            complain("--sizes takes fewer numbers; no room for", item);
        options->sizes[options->sizes_count++] = bytes;
    }
}

/* The first two that we may run on; -1 where there are none. */
static void default_cpus(int cpus[2])
{
    cpu_set_t allowed;
    int found = 0;

    cpus[0] = cpus[1] = -1;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0 || CPU_COUNT(&allowed) < 2)
        return;
    for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++)
        if (CPU_ISSET((size_t)cpu, &allowed))
            cpus[found++] = cpu;
}

static void parse(int argc, char **argv, struct mode_options *options, bool *json)
{
    enum { JSON = 1, SECONDS, CPUS, SOCKET, CHANNELS, CYCLES, RING_SIZE, SIZES, PAUSE, HELP };
    static const struct option table[] = {
        {"json", no_argument, NULL, JSON},
        {"seconds", required_argument, NULL, SECONDS},
        {"cpus", required_argument, NULL, CPUS},
        {"socket", required_argument, NULL, SOCKET},
        {"channels", required_argument, NULL, CHANNELS},
        {"cycles", required_argument, NULL, CYCLES},
        {"ring-size", required_argument, NULL, RING_SIZE},
        {"pause", required_argument, NULL, PAUSE},
        {"sizes", required_argument, NULL, SIZES},
        {"help", no_argument, NULL, HELP},
        {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "h", table, NULL)) != -1) {
        switch (option) {
        case JSON:
            *json = true;
            break;
        case SECONDS:
            options->seconds = parse_number("--seconds", optarg, 0.001, 1e6);
            break;
        case CPUS:
            parse_cpus(optarg, options->cpus);
            break;
        case SOCKET:
            options->socket_path = optarg;
            break;
        case CHANNELS:
            options->channels = (unsigned)parse_number("--channels", optarg, 1, 100000);
            break;
        case CYCLES:
            options->cycles = (uint64_t)parse_number("--cycles", optarg, 1, 1e12);
            break;
        case RING_SIZE:
            options->ring_bytes = (size_t)parse_number("--ring-size", optarg, 65536, 1 << 30);
            if (options->ring_bytes & (options->ring_bytes - 1))
                complain("--ring-size takes a power of two, not", optarg);
            break;
        case PAUSE:
            options->pause_us = (unsigned)parse_number("--pause", optarg, 1, 1e6);
            break;
        case SIZES:
            parse_sizes(optarg, options);
            break;
        case HELP:
        case 'h':
            print_help(stdout);
            exit(0);
        default:
            exit(2);
        }
    }
}

/* Figures mean nothing without these. */
static void report_machine(struct report *report)
{
    char line[256], model[256] = "unknown";
    FILE *info = fopen("/proc/cpuinfo", "re");
    struct utsname kernel;

    while (info && fgets(line, sizeof(line), info))
        if (sscanf(line, "model name : %255[^\n]", model) == 1)
            break;
    if (info)
        fclose(info);
    report_open(report, "machine");
    report_text(report, "cpu", model);
    report_number(report, "cpus_online", (double)sysconf(_SC_NPROCESSORS_ONLN), 0, "");
    report_text(report, "kernel", uname(&kernel) == 0 ? kernel.release : "unknown");
    report_text(report, "compiler", __VERSION__);
    report_close(report);
}

static int run_one(const struct mode *mode, struct report *report,
                   const struct mode_options *options)
{
    measure_pin(-1); /* the mode before has bound us */
    report_open(report, mode->name);
    int status = mode->run(report, options);
    report_close(report);
    return status;
}

static int run_all(struct report *report, const struct mode_options *options)
{
    for (size_t i = 0; i < MODES; i++) {
        int status = modes[i].in_all ? run_one(&modes[i], report, options) : 0;
        if (status != 0 && status != 77)
            return status;
    }
    return 0;
}

static const struct mode *find_mode(const char *name)
{
    for (size_t i = 0; i < MODES; i++)
        if (!strcmp(name, modes[i].name))
            return &modes[i];
    return NULL;
}

/* True if the flag is there; it is there no more. */
static bool take_flag(int *argc, char **argv, const char *flag)
{
    int kept = 0;

    for (int i = 0; i < *argc; i++)
        if (strcmp(argv[i], flag) != 0)
            argv[kept++] = argv[i];
    bool found = kept < *argc;
    argv[kept] = NULL;
    *argc = kept;
    return found;
}

/* argv[1] is the mode; or it comes after options. */
static const struct mode *choose_mode(int argc, char **argv, struct mode_options *options,
                                      bool *json)
{
    const struct mode *mode = argc > 1 ? find_mode(argv[1]) : NULL;

    if (mode && mode->own_options) {
        *json = take_flag(&argc, argv, "--json");
        options->arguments_count = argc - 1;
        options->arguments = argv + 1;
        return mode;
    }
    parse(argc, argv, options, json);
    if (optind == argc) {
        print_help(stderr);
        exit(2);
    }
    mode = find_mode(argv[optind]);
    if (!mode && strcmp(argv[optind], "all") != 0)
        complain("there is no mode", argv[optind]);
    if (mode && mode->own_options)
        complain("the first argument has to be the mode:", argv[optind]);
    options->arguments_count = argc - optind - 1;
    options->arguments = argv + optind + 1;
    if (options->arguments_count > 0 && (!mode || mode->run != mode_alloc))
        complain("too many arguments:", options->arguments[0]);
    return mode;
}

static bool asks_for_help(const struct mode_options *options)
{
    for (int i = 1; i < options->arguments_count; i++)
        if (strcmp(options->arguments[i], "--help") == 0)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    struct mode_options options = {
        .sizes = {16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576},
        .sizes_count = 9,
    };
    bool json = false;
    int status;

    default_cpus(options.cpus);
    if (argc == 2 && strcmp(argv[1], "vm-worker") == 0)
        return vm_worker_run(); /* in a guest of mode vm, for which its output is */
    const struct mode *mode = choose_mode(argc, argv, &options, &json);
    children_init();
    struct report *report = report_new(json);
    if (mode && mode->own_options && asks_for_help(&options))
        return mode->run(report, &options); /* which prints it, and ends */
    report_machine(report);
    status = mode ? run_one(mode, report, &options) : run_all(report, &options);
    report_free(report);
    children_deinit();
    return status;
}
