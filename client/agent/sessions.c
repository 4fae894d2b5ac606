/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/sessions.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/agent/agent.h"
#include "client/agent/grant.h"
#include "client/agent/local.h"

#define MESSAGES_A_TURN 8
#define EVENTS_A_TURN 32
#define ACCEPTS_A_TURN 16
#define ACCEPT_AGAIN_MS 100u

static struct session *session_find(const struct sessions *sessions, uint32_t number,
                                    const struct attachment *talk)
{
    struct session *session;

    TAILQ_FOREACH(session, &sessions->all, link)
        if (session->number == number && session->talk == talk)
            return session;
    return NULL;
}

/* A number that was not in use for long: what comes for its last user is dropped until then. */
static uint32_t number_pick(struct sessions *sessions)
{
    const struct session *session;
    bool taken = true;

    while (taken) {
        sessions->last_number = sessions->last_number % PROTO_SESSION_MAX + 1;
        taken = false;
        TAILQ_FOREACH(session, &sessions->all, link)
            taken |= session->number == sessions->last_number;
    }
    return sessions->last_number;
}

/* The broker knows, or has been told. */
static void session_free(struct session *session)
{
    struct sessions *sessions = session->sessions;

    grant_take_back(session);
    loop_remove(&session->source);
    close(session->socket);
    TAILQ_REMOVE(&sessions->all, session, link);
    sessions->count--;
    free(session);
}

/* It is over: the loop finds its socket closed, and says so to the broker when there is room. */
static void session_doom(struct session *session, const char *why)
{
    log_program(&session->sessions->agent->log, LOG_WARNING, "pid %u (uid %u): %s; closed",
                session->pid, session->uid, why);
    shutdown(session->socket, SHUT_RDWR);
}

static void pause_reading(struct sessions *sessions)
{
    loop_remove(&sessions->source);
}

static void on_inner(void *context)
{
    struct sessions *sessions = context;

    loop_turn(&sessions->inner, EVENTS_A_TURN);
}

void sessions_resume(struct sessions *sessions)
{
    if (sessions->source.loop)
        return;
    if (loop_add(&sessions->agent->loop, &sessions->source, sessions->inner.epoll, on_inner,
                 sessions) < 0)
        log_write(&sessions->agent->log, LOG_ERR, "programs cannot be served any more");
}

/* Room for one frame; else nobody is read until there is. */
static bool has_room(struct session *session)
{
    if (mailbox_has_room(&session->talk->mailbox))
        return true;
    pause_reading(session->sessions);
    return false;
}

static bool announce(struct session *session)
{
    const struct proto_frame_open open = {.pid = session->pid, .uid = session->uid};

    if (session->opened)
        return true;
    if (!has_room(session))
        return false;
    mailbox_send(&session->talk->mailbox, PROTO_FRAME_OPEN, session->number, &open, sizeof(open),
                 NULL, 0);
    session->opened = true;
    return true;
}

/* Who it is, only we know. */
static void complete_hello(const struct session *session, struct proto_message *message)
{
    struct proto_hello hello;

    if (message->header.id != PROTO_HELLO || message->header.size != sizeof(hello))
        return;
    memcpy(&hello, message->body, sizeof(hello));
    if (hello.domain == PROTO_DOMAIN_HOST)
        hello.domain = session->talk->domain;
    if (session->pid != 0)
        hello.pid = session->pid;
    memcpy(message->body, &hello, sizeof(hello));
}

static void forward(struct session *session, struct proto_message *message)
{
    /* EXPLAIN is of the last command that failed; the others may fail at the broker. */
    if (message->header.id != PROTO_EXPLAIN && !(message->header.id & PROTO_EVENT))
        session->why = NULL;
    complete_hello(session, message);
    mailbox_send(&session->talk->mailbox, PROTO_FRAME_DATA, session->number, &message->header,
                 sizeof(message->header), message->body, message->header.size);
}

static void hang_up(struct session *session)
{
    if (session->opened)
        mailbox_send(&session->talk->mailbox, PROTO_FRAME_CLOSE, session->number, NULL, 0, NULL,
                     0);
    session_free(session);
}

static void on_talker(void *context)
{
    struct session *session = context;
    struct proto_message *message = &session->sessions->message;

    for (int i = 0; i < MESSAGES_A_TURN; i++) {
        if (!announce(session) || !has_room(session))
            return;
        int r = proto_receive(session->socket, message, MSG_DONTWAIT);
        if (r == -EAGAIN || r == -EMFILE)
            return;
        if (r <= 0) {
            if (r < 0)
                log_program(&session->sessions->agent->log, LOG_WARNING,
                            "pid %u (uid %u): a malformed message; closed", session->pid,
                            session->uid);
            hang_up(session);
            return;
        }
        proto_message_close(message);
        forward(session, message);
    }
}

static void on_listener_local(void *context)
{
    struct session *session = context;
    struct proto_message *message = &session->sessions->message;

    for (int i = 0; i < MESSAGES_A_TURN; i++) {
        int r = proto_receive(session->socket, message, MSG_DONTWAIT);
        if (r == -EAGAIN)
            return;
        if (r == 1)
            proto_message_close(message);
        if (r <= 0 || local_answer(session->socket, message,
                                   agent_why_not(session->sessions->agent)) < 0) {
            session_free(session);
            return;
        }
    }
}

static uint32_t count_of_user(const struct sessions *sessions, uint32_t uid)
{
    const struct session *session;
    uint32_t count = 0;

    TAILQ_FOREACH(session, &sessions->all, link)
        count += session->uid == uid;
    return count;
}

static int session_new(struct sessions *sessions, int socket)
{
    struct ucred who = {.uid = UINT32_MAX};
    socklen_t bytes = sizeof(who);
    int r;

    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &who, &bytes) < 0)
        return -errno;
    if (sessions->count >= SESSIONS_MAX ||
        (who.uid != 0 && count_of_user(sessions, who.uid) >= SESSIONS_USER_MAX)) {
        log_program(&sessions->agent->log, LOG_WARNING,
                    "pid %d (uid %u): too many connections; refused", who.pid, who.uid);
        return -EUSERS;
    }
    struct session *session = calloc(1, sizeof(*session));
    if (!session)
        return -ENOMEM;
    *session = (struct session){.sessions = sessions,
                                .socket = socket,
                                .pid = (uint32_t)who.pid,
                                .uid = who.uid,
                                .talk = agent_talks(sessions->agent),
                                .vector = {.event_fd = -1}};
    session->number = number_pick(sessions);
    if (session->talk)
        r = loop_add(&sessions->inner, &session->source, socket, on_talker, session);
    else
        r = loop_add(&sessions->agent->loop, &session->source, socket, on_listener_local, session);
    if (r < 0) {
        free(session);
        return r;
    }
    TAILQ_INSERT_TAIL(&sessions->all, session, link);
    sessions->count++;
    return 0;
}

static void on_listener(void *context)
{
    struct sessions *sessions = context;

    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        int fd = accept4(sessions->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            if (session_new(sessions, fd) < 0)
                close(fd);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            /* It would stay readable. */
            loop_remove(&sessions->listener);
            loop_timer_set(&sessions->again, ACCEPT_AGAIN_MS);
        }
        return;
    }
}

static void on_again(void *context)
{
    struct sessions *sessions = context;
    uint64_t count;

    if (read(sessions->again.fd, &count, sizeof(count)) < 0)
        return;
    if (loop_add(&sessions->agent->loop, &sessions->listener, sessions->listener.fd, on_listener,
                 sessions) < 0)
        loop_timer_set(&sessions->again, ACCEPT_AGAIN_MS);
}

int sessions_init(struct sessions *sessions, struct agent *agent, int listener)
{
    *sessions = (struct sessions){.agent = agent};
    TAILQ_INIT(&sessions->all);
    int r = loop_init(&sessions->inner);
    if (r == 0)
        r = loop_timer_init(&agent->loop, &sessions->again, on_again, sessions);
    if (r == 0)
        r = loop_add(&agent->loop, &sessions->source, sessions->inner.epoll, on_inner, sessions);
    if (r == 0)
        r = loop_add(&agent->loop, &sessions->listener, listener, on_listener, sessions);
    return r;
}

void sessions_deinit(struct sessions *sessions)
{
    while (!TAILQ_EMPTY(&sessions->all))
        session_free(TAILQ_FIRST(&sessions->all));
    loop_remove(&sessions->listener);
    loop_remove(&sessions->source);
    loop_timer_deinit(&sessions->again);
    loop_deinit(&sessions->inner);
}

/* A message of the broker's, complete with what it cannot send. */
static int deliver(struct session *session, struct proto_message *message)
{
    struct proto_text text;

    switch (message->header.id) {
    case PROTO_CHANNEL_OPEN:
        return grant_deliver(session, message);
    case PROTO_CHANNEL_CLOSE:
        if (grant_succeeded(message))
            grant_take_back(session);
        break;
    case PROTO_EXPLAIN:
        if (!session->why)
            break;
        local_text(&text, session->why);
        return proto_reply(session->socket, message->header.id, message->header.seq, 0, &text,
                           sizeof(text), NULL, 0, NULL, 0);
    default:
        break;
    }
    return proto_send(session->socket, message->header.id, message->header.seq, message->body,
                      message->header.size, NULL, 0, NULL, 0);
}

void sessions_take_frame(struct sessions *sessions, struct attachment *attachment,
                         const struct proto_frame *frame, const uint8_t *data)
{
    struct session *session = session_find(sessions, frame->session, attachment);
    struct proto_message *message = &sessions->message;

    if (!session)
        return;
    if (frame->kind == PROTO_FRAME_CLOSE) {
        session_free(session);
        return;
    }
    memcpy(&message->header, data, sizeof(message->header));
    memcpy(message->body, data + sizeof(message->header), frame->size - sizeof(message->header));
    message->descriptor_count = 0;
    if (message->header.size != frame->size - sizeof(message->header)) {
        session_doom(session, "the broker's answer to it is malformed");
        return;
    }
    int r = deliver(session, message);
    if (r == -EAGAIN)
        session_doom(session, "it does not read its replies");
    else if (r < 0 && r != -EPIPE && r != -ECONNRESET)
        session_doom(session, "it cannot be answered");
}

void sessions_end_talk(struct sessions *sessions, struct attachment *attachment)
{
    struct session *session = TAILQ_FIRST(&sessions->all);

    while (session) {
        struct session *next = TAILQ_NEXT(session, link);
        if (session->talk == attachment)
            session_free(session);
        session = next;
    }
    /* If it was full, nobody would ever say that it is not. */
    sessions_resume(sessions);
}

void sessions_end_memory(struct sessions *sessions, struct attachment *attachment)
{
    struct session *session;

    TAILQ_FOREACH(session, &sessions->all, link) {
        if (session->memory != attachment)
            continue;
        grant_take_back(session);
        shutdown(session->socket, SHUT_RDWR); /* then it is read, and the broker told */
    }
}
