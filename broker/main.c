/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vchand: the broker. Arguments, set-up, run.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/broker.h"

static const char help[] =
    "Usage: vchand [OPTION]...\n"
    "Broker of channels between virtual machines and local domains: owns their shared\n"
    "memory, connects their ends, moves memory to where the traffic is.\n"
    "\n"
    "  -c, --config FILE        read FILE (default: " CONFIG_PATH ", if it is there)\n"
    "  -r, --runtime-dir DIR    socket and pid file go there (default: $VCHAN_RUNTIME_DIR,\n"
    "                           else /run/vchand)\n"
    "  -s, --region-size SIZE   shared memory, a power of two such as 256M\n"
    "  -l, --log-level LEVEL    error, warning, notice, info or debug\n"
    "  -f, --foreground         stay in the foreground (it always does)\n"
    "      --check-config       say whether the configuration is right, and end\n"
    "  -V, --version            print the version, and end\n"
    "  -h, --help               print this, and end\n"
    "\n"
    "SIGHUP reads the configuration again, SIGTERM and SIGINT end the broker. It logs to\n"
    "standard error. Exit status: 0 ended as asked, 1 failed, 2 wrong arguments or "
    "configuration.\n";

enum { EXIT_WRONG = 2, OPTION_CHECK = 256 };

static const struct option options[] = {
    {"config", required_argument, NULL, 'c'},
    {"runtime-dir", required_argument, NULL, 'r'},
    {"region-size", required_argument, NULL, 's'},
    {"log-level", required_argument, NULL, 'l'},
    {"foreground", no_argument, NULL, 'f'},
    {"check-config", no_argument, NULL, OPTION_CHECK},
    {"version", no_argument, NULL, 'V'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

struct arguments {
    const char *config_path; /* NULL: the default, if it is there */
    const char *runtime_directory;
    const char *region_size;
    const char *log_level;
    bool check;
};

static void die(const char *message)
{
    fprintf(stderr, "vchand: %s\n", message);
    exit(EXIT_WRONG);
}

static void parse_arguments(int argc, char **argv, struct arguments *arguments)
{
    int option;

    while ((option = getopt_long(argc, argv, "c:r:s:l:fVh", options, NULL)) >= 0) {
        switch (option) {
        case 'c':
            arguments->config_path = optarg;
            break;
        case 'r':
            arguments->runtime_directory = optarg;
            break;
        case 's':
            arguments->region_size = optarg;
            break;
        case 'l':
            arguments->log_level = optarg;
            break;
        case 'f':
            break;
        case OPTION_CHECK:
            arguments->check = true;
            break;
        case 'V':
            printf("vchand %s\n", VCHAN_VERSION);
            exit(EXIT_SUCCESS);
        case 'h':
            fputs(help, stdout);
            exit(EXIT_SUCCESS);
        default:
            fputs("Try \"vchand --help\".\n", stderr);
            exit(EXIT_WRONG);
        }
    }
    if (optind < argc)
        die("it takes no arguments but options; try \"vchand --help\"");
}

/* Reads the file, then what the command line says over it. */
static void read_config(struct arguments *arguments, struct config *config)
{
    char error[CONFIG_ERROR_BYTES];

    config_init(config);
    if (!arguments->config_path && access(CONFIG_PATH, F_OK) == 0)
        arguments->config_path = CONFIG_PATH;
    if (arguments->config_path && config_read(config, arguments->config_path, error) < 0)
        die(error);
    if (arguments->check && config_check_host(config, arguments->config_path, error) < 0)
        die(error);
    if (arguments->log_level) {
        int level = log_level_parse(arguments->log_level);
        if (level < 0)
            die("--log-level: it takes error, warning, notice, info or debug");
        config->log_level = (uint64_t)level;
    }
    if (arguments->region_size) {
        uint64_t bytes;
        if (config_parse_size(arguments->region_size, &bytes) < 0 || bytes == 0 ||
            (bytes & (bytes - 1)))
            die("--region-size: it takes a power of two, such as 256M");
        if (bytes < region_size_min(config_channels_for(config->channels, bytes)))
            die("--region-size: the channel pages do not fit into that");
        config->region_bytes = bytes;
    }
}

int main(int argc, char **argv)
{
    struct arguments arguments = {0};
    struct broker broker;
    struct config config;

    parse_arguments(argc, argv, &arguments);
    read_config(&arguments, &config);
    if (arguments.check) {
        printf("%s: right\n", arguments.config_path ? arguments.config_path : "defaults");
        config_deinit(&config);
        return EXIT_SUCCESS;
    }
    if (broker_init(&broker, &config, arguments.config_path, arguments.runtime_directory) < 0)
        return EXIT_FAILURE;
    int r = broker_run(&broker);
    broker_deinit(&broker);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
