/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/system/broker_fixture.h - a real vchand in a directory of its own, and clients that speak
 * the raw protocol to it.
 *
 * Everything waits at most PATIENCE_MS: a broker that hangs fails the test.
 */
#ifndef VCHAN_TESTS_BROKER_FIXTURE_H
#define VCHAN_TESTS_BROKER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "proto/proto.h"
#include "proto/socket.h"
#include "ring/layout.h"
#include "ring/order.h"

#define PATIENCE_MS 20000
#define BODY_OF(message) ((const void *)((message)->body + sizeof(struct proto_error)))

struct broker_process {
    pid_t pid;
    char directory[64];
};

static inline void pause_ms(unsigned ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000},
              NULL);
}

static inline void path_in(const struct broker_process *broker, const char *name, char path[128])
{
    snprintf(path, 128, "%s/%s", broker->directory, name);
}

static inline void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static inline void read_file(const char *path, char *text, size_t bytes)
{
    FILE *file = fopen(path, "r");

    assert_non_null(file);
    text[fread(text, 1, bytes - 1, file)] = 0;
    fclose(file);
}

static inline bool log_has(const struct broker_process *broker, const char *words)
{
    char path[128];
    static char text[1 << 18];

    path_in(broker, "log", path);
    read_file(path, text, sizeof(text));
    return strstr(text, words) != NULL;
}

/* In a child: becomes a vchand with standard error in `log` of the directory, and vchand.conf of
 * it. */
static inline _Noreturn void broker_exec(const struct broker_process *broker)
{
    const char *bin = getenv("VCHAN_BIN");
    char program[512], log[128], config[128];

    snprintf(program, sizeof(program), "%s/vchand", bin ? bin : "");
    path_in(broker, "log", log);
    path_in(broker, "vchand.conf", config);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(fd, 2);
    close(fd);
    execl(program, program, "--config", config, "--runtime-dir", broker->directory, "--log-level",
          "debug", (char *)NULL);
    _exit(127);
}

static inline void write_config(const struct broker_process *broker, const char *config)
{
    char path[128];

    path_in(broker, "vchand.conf", path);
    write_file(path, config ? config : "# nothing\n");
}

/* config: its text, or NULL. */
static inline pid_t broker_spawn(const struct broker_process *broker, const char *config)
{
    write_config(broker, config);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        broker_exec(broker);
    return pid;
}

static inline int raw_connect(const struct broker_process *broker)
{
    char path[128];

    path_in(broker, "vchand.sock", path);
    return proto_socket_connect(path);
}

static inline void broker_start(struct broker_process *broker, const char *config)
{
    snprintf(broker->directory, sizeof(broker->directory), "/tmp/vchan-test-XXXXXX");
    assert_non_null(mkdtemp(broker->directory));
    broker->pid = broker_spawn(broker, config);
    for (int waited_ms = 0;; waited_ms += 10) {
        int fd = raw_connect(broker);
        if (fd >= 0) {
            close(fd);
            return;
        }
        assert_true(waited_ms < PATIENCE_MS);
        assert_int_equal(waitpid(broker->pid, NULL, WNOHANG), 0);
        pause_ms(10);
    }
}

/* Waits for a process that ends by itself; its exit status, or minus its signal. */
static inline int wait_exit(pid_t pid)
{
    int status;

    for (int waited_ms = 0; waited_ms < PATIENCE_MS; waited_ms += 5) {
        pid_t r = waitpid(pid, &status, WNOHANG);
        assert_true(r >= 0);
        if (r == pid)
            return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
        pause_ms(5);
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return -1000;
}

static inline void remove_directory(const char *directory)
{
    DIR *entries = opendir(directory);
    struct dirent *entry;

    while (entries && (entry = readdir(entries)))
        unlinkat(dirfd(entries), entry->d_name, 0);
    if (entries)
        closedir(entries);
    rmdir(directory);
}

static inline void broker_stop(struct broker_process *broker)
{
    kill(broker->pid, SIGTERM);
    assert_int_equal(wait_exit(broker->pid), 0);
    remove_directory(broker->directory);
}

struct client {
    int socket;
    uint32_t seq;
};

static inline void client_connect(struct client *client, const struct broker_process *broker)
{
    *client = (struct client){.socket = raw_connect(broker)};
    assert_true(client->socket >= 0);
}

static inline uint32_t client_send(struct client *client, uint16_t id, const void *body,
                                   size_t bytes)
{
    assert_int_equal(proto_send(client->socket, id, ++client->seq, body, bytes, NULL, 0, NULL, 0),
                     0);
    return client->seq;
}

/* 1: a message; 0: the broker has closed. */
static inline int client_receive(struct client *client, struct proto_message *message)
{
    struct pollfd readable = {.fd = client->socket, .events = POLLIN};

    message->header = (struct proto_header){0};
    assert_int_equal(poll(&readable, 1, PATIENCE_MS), 1);
    return proto_receive(client->socket, message, 0);
}

static inline int reply_error(const struct proto_message *message)
{
    const struct proto_error *error = (const void *)message->body;

    assert_true(message->header.size >= sizeof(*error));
    assert_int_equal(error->padding, 0);
    return error->err;
}

/* Sends a command and takes its reply: what it says, with its body in *message. */
static inline int client_call(struct client *client, uint16_t id, const void *body, size_t bytes,
                              struct proto_message *message)
{
    uint32_t seq = client_send(client, id, body, bytes);

    assert_int_equal(client_receive(client, message), 1);
    assert_int_equal(message->header.id, id);
    assert_int_equal(message->header.seq, seq);
    return reply_error(message);
}

static inline int client_version(struct client *client)
{
    const struct proto_get_version request = {.version = PROTO_VERSION,
                                              .byte_order = PROTO_BYTE_ORDER};
    struct proto_message message;

    return client_call(client, PROTO_GET_VERSION, &request, sizeof(request), &message);
}

static inline int client_hello(struct client *client, uint32_t domain)
{
    const struct proto_hello request = {.domain = domain, .pid = (uint32_t)getpid()};
    struct proto_message message;

    return client_call(client, PROTO_HELLO, &request, sizeof(request), &message);
}

static inline void client_join(struct client *client, const struct broker_process *broker,
                               uint32_t domain)
{
    client_connect(client, broker);
    assert_int_equal(client_version(client), 0);
    assert_int_equal(client_hello(client, domain), 0);
}

static inline void client_leave(struct client *client)
{
    close(client->socket);
    client->socket = -1;
}

struct opened {
    struct proto_channel_open_reply reply;
    int memory, wait_fd, wake_fd;
    struct layout_channel_page *page;
};

static inline void opened_take(struct opened *opened, struct proto_message *message)
{
    assert_int_equal(message->header.size, sizeof(struct proto_error) + sizeof(opened->reply));
    assert_int_equal(message->descriptor_count, 3);
    memcpy(&opened->reply, BODY_OF(message), sizeof(opened->reply));
    opened->memory = message->descriptors[0];
    opened->wait_fd = message->descriptors[1];
    opened->wake_fd = message->descriptors[2];
    opened->page = mmap(NULL, LAYOUT_CHANNEL_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
                        opened->memory, (off_t)opened->reply.page_offset);
    assert_true(opened->page != MAP_FAILED);
}

static inline void opened_drop(struct opened *opened)
{
    munmap(opened->page, LAYOUT_CHANNEL_PAGE_BYTES);
    close(opened->memory);
    close(opened->wait_fd);
    close(opened->wake_fd);
}

static inline struct proto_channel_open open_request(uint32_t peer, uint32_t port, uint32_t mode)
{
    return (struct proto_channel_open){.peer_domain = peer, .port = port, .mode = mode};
}

/* The errno of an open that is answered at once; *opened if it is 0. */
static inline int client_open(struct client *client, const struct proto_channel_open *request,
                              struct opened *opened)
{
    struct proto_message message;
    int r = client_call(client, PROTO_CHANNEL_OPEN, request, sizeof(*request), &message);

    *opened = (struct opened){.memory = -1, .wait_fd = -1, .wake_fd = -1};
    if (r == 0)
        opened_take(opened, &message);
    else
        assert_int_equal(message.descriptor_count, 0);
    return r;
}

static inline int client_open_mode(struct client *client, uint32_t peer, uint32_t port,
                                   uint32_t mode, struct opened *opened)
{
    const struct proto_channel_open request = open_request(peer, port, mode);

    return client_open(client, &request, opened);
}

static inline int client_close(struct client *client)
{
    struct proto_message message;

    return client_call(client, PROTO_CHANNEL_CLOSE, NULL, 0, &message);
}

/* Nothing comes for a while. */
static inline bool client_is_quiet(const struct client *client, int ms)
{
    struct pollfd readable = {.fd = client->socket, .events = POLLIN};

    return poll(&readable, 1, ms) == 0;
}

static inline void explanation(struct client *client, char text[PROTO_TEXT_BYTES])
{
    struct proto_message message;

    assert_int_equal(client_call(client, PROTO_EXPLAIN, NULL, 0, &message), 0);
    const struct proto_text *answer = BODY_OF(&message);
    assert_int_equal(answer->length, strlen(answer->text));
    snprintf(text, PROTO_TEXT_BYTES, "%s", answer->text);
}

#define assert_explained(client, words) \
    do { \
        char why_[PROTO_TEXT_BYTES]; \
        explanation(client, why_); \
        if (!strstr(why_, words)) \
            fail_msg("\"%s\" is not in \"%s\"", words, why_); \
    } while (0)

static inline void broker_figures(const struct broker_process *broker,
                                  struct proto_broker_info *info)
{
    struct proto_message message;
    struct client client;

    client_join(&client, broker, 0);
    assert_int_equal(client_call(&client, PROTO_BROKER_INFO, NULL, 0, &message), 0);
    memcpy(info, BODY_OF(&message), sizeof(*info));
    client_leave(&client);
}

static inline unsigned count_descriptors(pid_t pid)
{
    char path[64];
    unsigned count = 0;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *entries = opendir(path);
    assert_non_null(entries);
    while (readdir(entries))
        count++;
    closedir(entries);
    return count;
}

/* Waits until the eventfd is rung, or fails. */
static inline void await_wake(int descriptor)
{
    struct pollfd readable = {.fd = descriptor, .events = POLLIN};
    uint64_t count;

    assert_int_equal(poll(&readable, 1, PATIENCE_MS), 1);
    assert_int_equal(read(descriptor, &count, sizeof(count)), sizeof(count));
}

#endif
