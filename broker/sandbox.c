/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/sandbox.h"

#include <errno.h>
#include <seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

/* By what needs them. A call that the kernel or the C library does not know is left out when the
 * filter is made. */
static const int allowed[] = {
    /* the event loop: sd-event, sockets, eventfds */
    SCMP_SYS(epoll_create1),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_pwait2),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(timerfd_create),
    SCMP_SYS(timerfd_settime),
    SCMP_SYS(timer_settime),
    SCMP_SYS(timer_delete),
    SCMP_SYS(signalfd4),
    SCMP_SYS(read),
    SCMP_SYS(pread64),
    SCMP_SYS(write),
    SCMP_SYS(writev),
    SCMP_SYS(close),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(eventfd2),
    SCMP_SYS(accept4),
    SCMP_SYS(sendmsg),
    SCMP_SYS(socketpair), /* recordings */
    SCMP_SYS(recvmsg),
    SCMP_SYS(shutdown),
    SCMP_SYS(getsockopt),
    SCMP_SYS(fcntl),
    SCMP_SYS(getrandom),
    /* libmicrohttpd, beside the above */
    SCMP_SYS(recvfrom),
    /* sd_notify */
    SCMP_SYS(connect),
    SCMP_SYS(sendto),
    SCMP_SYS(setsockopt),
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
    /* the region */
    SCMP_SYS(fallocate),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(statx),
    /* memory */
    SCMP_SYS(mmap),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(mprotect),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    SCMP_SYS(sysinfo), /* qsort() of the C library: how much may it use? */
    /* threads, liburcu, the grace period */
    SCMP_SYS(futex),
    SCMP_SYS(membarrier),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(rseq),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(getcpu),
    SCMP_SYS(gettid),
    SCMP_SYS(getpid),
    SCMP_SYS(prctl),
    /* clocks, where the vDSO has none */
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(restart_syscall),
    /* reading the configuration again; removing the socket at the end */
    SCMP_SYS(openat),
    SCMP_SYS(lseek),
    SCMP_SYS(unlink),
    SCMP_SYS(unlinkat),
    SCMP_SYS(ftruncate),
    /* sockets for the QEMUs of domains that come while we run */
    SCMP_SYS(bind),
    SCMP_SYS(listen),
    SCMP_SYS(umask),
    SCMP_SYS(mkdir),
    SCMP_SYS(mkdirat),
    SCMP_SYS(rmdir),
    SCMP_SYS(lstat),
    SCMP_SYS(chmod),
    SCMP_SYS(fchmodat),
    SCMP_SYS(chown),
    SCMP_SYS(fchownat),
    /* signals and the end */
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(tgkill),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
};

static size_t put_number(char *text, unsigned number)
{
    char digits[12];
    size_t count = 0;

    do
        digits[count++] = (char)('0' + number % 10);
    while (number /= 10);
    for (size_t i = 0; i < count; i++)
        text[i] = digits[count - 1 - i];
    return count;
}

/* Only async-signal-safe calls, and those that are allowed. */
static void on_denied(int number, siginfo_t *info, void *context)
{
    char line[80] = "<3>vchand: the sandbox denied system call ";
    size_t used = strlen(line);

    (void)context;
    used += put_number(line + used, (unsigned)info->si_syscall);
    memcpy(line + used, "; stopping\n", 11);
    if (write(STDERR_FILENO, line, used + 11) < 0) {
        /* The signal says enough. */
    }
    signal(number, SIG_DFL);
    raise(number);
}

static int load_filter(void)
{
    const struct scmp_arg_cmp local = {
        .arg = 0, .op = SCMP_CMP_EQ, .datum_a = AF_UNIX, .datum_b = 0};
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_TRAP);
    int r;

    if (!filter)
        return -ENOMEM;
    r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]) && r == 0; i++)
        if (allowed[i] >= 0)
            r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0);
    /* Sockets for sd_notify, QEMU and guests' sessions: no other family is any business of ours. */
    if (r == 0)
        r = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, &local);
    if (r == 0)
        r = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(socketpair), 1, &local);
    if (r == 0)
        r = seccomp_load(filter);
    seccomp_release(filter);
    return r;
}

int sandbox_enter(const struct log *log, bool wanted)
{
    const struct sigaction action = {.sa_sigaction = on_denied,
                                     .sa_flags = SA_SIGINFO | SA_NODEFER};

    if (!wanted || SANITIZED) {
        log_info(log, "running without a sandbox");
        return 0;
    }
    int r = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || sigaction(SIGSYS, &action, NULL) < 0
              ? -errno
              : load_filter();
    if (r < 0)
        log_error(log, "cannot enter the sandbox: %s (sandbox=no goes without it)", strerror(-r));
    return r;
}
