/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Runs, in the small test guest, what the host asks for through a virtio-serial port; see
 * packaging/guest/wire.h.
 *
 *     vchan-guest-commands PORT
 *
 * One loop, no thread. It reads its port and the pipes of all commands as they become ready; what a
 * command does not read of its input is kept for it. Writing to the port blocks: the host reads
 * always.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "packaging/guest/wire.h"

enum { PIPES = 3, POLL_MAX = 2 + GUEST_COMMANDS_MAX * PIPES, ABSENT_WAIT_MS = 20 };

/* A command that runs. Free when its process is 0. */
struct command {
    uint32_t id;
    pid_t process;
    int pipes[PIPES]; /* our ends of its standard input, output and error; -1 when closed */
    char *input;      /* what it has not read yet */
    size_t input_bytes;
    bool input_ended;
};

struct server {
    int port;
    int children; /* signalfd: some process has ended */
    struct command commands[GUEST_COMMANDS_MAX];
    size_t received_bytes;
    char received[sizeof(struct guest_frame) + GUEST_FRAME_BYTES_MAX];
};

static void die(const char *what)
{
    fprintf(stderr, "vchan-guest-commands: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void write_all(int fd, const void *bytes, size_t size_bytes)
{
    const char *at = bytes;

    while (size_bytes > 0) {
        ssize_t written = write(fd, at, size_bytes);

        if (written < 0 && errno != EINTR)
            die("port");
        if (written > 0) {
            at += written;
            size_bytes -= (size_t)written;
        }
    }
}

static void send_frame(struct server *server, enum guest_frame_kind kind, uint32_t command,
                       const void *bytes, size_t size_bytes)
{
    struct guest_frame frame = {
        .command = command, .kind = (uint16_t)kind, .size_bytes = (uint32_t)size_bytes};

    write_all(server->port, &frame, sizeof(frame));
    write_all(server->port, bytes, size_bytes);
}

static void send_number(struct server *server, enum guest_frame_kind kind, uint32_t command,
                        int32_t number)
{
    send_frame(server, kind, command, &number, sizeof(number));
}

static void close_pipe(struct command *command, int which)
{
    if (command->pipes[which] >= 0)
        close(command->pipes[which]);
    command->pipes[which] = -1;
}

static void forget(struct command *command)
{
    for (int i = 0; i < PIPES; i++)
        close_pipe(command, i);
    free(command->input);
    *command = (struct command){.pipes = {-1, -1, -1}};
}

/* A host that has come anew knows nothing of the commands of its predecessor. */
static void end_all(struct server *server)
{
    for (int i = 0; i < GUEST_COMMANDS_MAX; i++) {
        if (server->commands[i].process == 0)
            continue;
        kill(-server->commands[i].process, SIGKILL);
        forget(&server->commands[i]);
    }
}

static struct command *find(struct server *server, uint32_t id)
{
    for (int i = 0; i < GUEST_COMMANDS_MAX; i++) {
        if (server->commands[i].process != 0 && server->commands[i].id == id)
            return &server->commands[i];
    }
    return NULL;
}

static struct command *find_free(struct server *server)
{
    for (int i = 0; i < GUEST_COMMANDS_MAX; i++) {
        if (server->commands[i].process == 0)
            return &server->commands[i];
    }
    return NULL;
}

/* In the child. */
static void become(const char *text, int theirs[PIPES])
{
    sigset_t none;

    setsid();
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    for (int i = 0; i < PIPES; i++)
        dup2(theirs[i], i);
    execl("/bin/sh", "sh", "-c", text, (char *)NULL);
    _exit(127);
}

/*
 * Ours do not block, theirs do. Output comes through sockets: busybox's cat uses sendfile(), which
 * holds the lock of a pipe while it waits for a file like those of vchanfs, and whoever reads the
 * pipe then waits for that lock, O_NONBLOCK or not.
 */
static void make_pipes(int ours[PIPES], int theirs[PIPES])
{
    for (int i = 0; i < PIPES; i++) {
        int ends[2];

        if (i == 0 ? pipe2(ends, O_CLOEXEC)
                   : socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
            die("pipe");
        ours[i] = ends[i == 0 ? 1 : 0];
        theirs[i] = ends[i == 0 ? 0 : 1];
        if (fcntl(ours[i], F_SETFL, O_NONBLOCK) != 0)
            die("pipe");
    }
}

static void start(struct server *server, uint32_t id, const char *bytes, size_t size_bytes)
{
    struct command *command = find_free(server);
    char *text = strndup(bytes, size_bytes);
    int theirs[PIPES];

    if (command == NULL || text == NULL) {
        free(text);
        send_number(server, GUEST_ENDED, id, GUEST_TOO_MANY);
        return;
    }
    make_pipes(command->pipes, theirs);
    command->id = id;
    command->process = fork();
    if (command->process < 0)
        die("fork");
    if (command->process == 0)
        become(text, theirs);
    for (int i = 0; i < PIPES; i++)
        close(theirs[i]);
    free(text);
    send_number(server, GUEST_STARTED, id, command->process);
}

/* Gives the command what it takes of its input. */
static void feed(struct command *command)
{
    ssize_t written = 0;

    if (command->pipes[0] < 0)
        return;
    if (command->input_bytes > 0)
        written = write(command->pipes[0], command->input, command->input_bytes);
    if (written < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (written < 0) { /* it has closed its input */
        close_pipe(command, 0);
        return;
    }
    command->input_bytes -= (size_t)written;
    if (written > 0)
        memmove(command->input, command->input + written, command->input_bytes);
    if (command->input_bytes == 0 && command->input_ended)
        close_pipe(command, 0);
}

static void keep_input(struct command *command, const char *bytes, size_t size_bytes)
{
    char *grown;

    if (command->pipes[0] < 0 || size_bytes == 0)
        return;
    grown = realloc(command->input, command->input_bytes + size_bytes);
    if (grown == NULL)
        die("input");
    memcpy(grown + command->input_bytes, bytes, size_bytes);
    command->input = grown;
    command->input_bytes += size_bytes;
}

/* Passes on what a command has written by now, at most one frame of it; whether there was any. */
static bool pass_on(struct server *server, struct command *command, int which)
{
    static char bytes[GUEST_FRAME_BYTES_MAX];
    ssize_t got;

    if (command->pipes[which] < 0)
        return false;
    got = read(command->pipes[which], bytes, sizeof(bytes));
    if (got > 0) {
        send_frame(server, which == 1 ? GUEST_OUTPUT : GUEST_ERRORS, command->id, bytes,
                   (size_t)got);
        return true;
    }
    if (got == 0)
        close_pipe(command, which);
    return false;
}

/*
 * A command has ended when its shell has. What it has left in the background keeps running, and its
 * output goes nowhere; what was written before is passed on.
 */
static void reap(struct server *server)
{
    struct signalfd_siginfo info;
    pid_t process;
    int status;

    if (read(server->children, &info, sizeof(info)) < 0 && errno != EAGAIN)
        die("signalfd");
    while ((process = waitpid(-1, &status, WNOHANG)) > 0) {
        for (int i = 0; i < GUEST_COMMANDS_MAX; i++) {
            struct command *command = &server->commands[i];

            if (command->process != process)
                continue;
            for (int which = 1; which < PIPES; which++) {
                while (pass_on(server, command, which))
                    ;
            }
            send_number(server, GUEST_ENDED, command->id,
                        WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
            forget(command);
        }
    }
}

static void handle(struct server *server, const struct guest_frame *frame, const char *bytes)
{
    struct command *command = find(server, frame->command);
    int32_t number = 0;

    if (frame->size_bytes == sizeof(number))
        memcpy(&number, bytes, sizeof(number));
    switch (frame->kind) {
    case GUEST_HELLO:
        end_all(server);
        send_frame(server, GUEST_HELLO, 0, bytes, frame->size_bytes);
        break;
    case GUEST_START:
        if (command == NULL)
            start(server, frame->command, bytes, frame->size_bytes);
        break;
    case GUEST_INPUT:
    case GUEST_INPUT_END:
        if (command == NULL) /* it has just ended */
            break;
        keep_input(command, bytes, frame->size_bytes);
        command->input_ended = frame->kind == GUEST_INPUT_END;
        feed(command);
        break;
    case GUEST_SIGNAL:
        if (command != NULL)
            kill(-command->process, number);
        break;
    default:
        fprintf(stderr, "vchan-guest-commands: a frame of kind %u\n", frame->kind);
    }
}

static void receive(struct server *server)
{
    struct guest_frame frame;
    ssize_t got = read(server->port, server->received + server->received_bytes,
                       sizeof(server->received) - server->received_bytes);

    if (got <= 0) { /* nobody is there: what comes next is a HELLO */
        server->received_bytes = 0;
        end_all(server);
        nanosleep(&(struct timespec){.tv_nsec = ABSENT_WAIT_MS * 1000000L}, NULL);
        return;
    }
    server->received_bytes += (size_t)got;
    while (server->received_bytes >= sizeof(frame)) {
        memcpy(&frame, server->received, sizeof(frame));
        if (frame.size_bytes > GUEST_FRAME_BYTES_MAX) {
            fprintf(stderr, "vchan-guest-commands: a frame of %u bytes\n", frame.size_bytes);
            exit(1);
        }
        if (server->received_bytes < sizeof(frame) + frame.size_bytes)
            break;
        handle(server, &frame, server->received + sizeof(frame));
        server->received_bytes -= sizeof(frame) + frame.size_bytes;
        memmove(server->received, server->received + sizeof(frame) + frame.size_bytes,
                server->received_bytes);
    }
}

static nfds_t prepare(const struct server *server, struct pollfd polls[POLL_MAX])
{
    nfds_t count = 2;

    polls[0] = (struct pollfd){.fd = server->port, .events = POLLIN};
    polls[1] = (struct pollfd){.fd = server->children, .events = POLLIN};
    for (int i = 0; i < GUEST_COMMANDS_MAX; i++) {
        const struct command *command = &server->commands[i];
        bool hungry = command->input_bytes > 0;

        polls[count++] = (struct pollfd){.fd = hungry ? command->pipes[0] : -1, .events = POLLOUT};
        polls[count++] = (struct pollfd){.fd = command->pipes[1], .events = POLLIN};
        polls[count++] = (struct pollfd){.fd = command->pipes[2], .events = POLLIN};
    }
    return count;
}

static void serve(struct server *server)
{
    struct pollfd polls[POLL_MAX];
    nfds_t count = prepare(server, polls);

    if (poll(polls, count, -1) < 0 && errno != EINTR)
        die("poll");
    for (int i = 0; i < GUEST_COMMANDS_MAX; i++) {
        const struct pollfd *mine = &polls[2 + i * PIPES];

        if (mine[0].revents != 0)
            feed(&server->commands[i]);
        for (int which = 1; which < PIPES; which++) {
            if (mine[which].revents != 0)
                pass_on(server, &server->commands[i], which);
        }
    }
    if (polls[1].revents != 0)
        reap(server);
    if (polls[0].revents != 0)
        receive(server);
}

int main(int argc, char **argv)
{
    static struct server server;
    sigset_t children;

    if (argc != 2) {
        fprintf(stderr, "usage: vchan-guest-commands PORT\n");
        return 2;
    }
    for (int i = 0; i < GUEST_COMMANDS_MAX; i++)
        forget(&server.commands[i]);
    server.port = open(argv[1], O_RDWR | O_CLOEXEC);
    if (server.port < 0)
        die(argv[1]);
    /* Processes that lost their parent are reaped here too. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, NULL);
    server.children = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
    if (server.children < 0)
        die("signalfd");
    for (;;)
        serve(&server);
}
