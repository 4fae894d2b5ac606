/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vchanctl doctor: which looks there are is in doctor_host.c, doctor_guest.c, doctor_memory.c. */
#include "client/ctl/doctor.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *word, *colour;
} verdicts[DOCTOR_VERDICTS] = {
    [DOCTOR_OK] = {"ok", "\033[32m"},
    [DOCTOR_WARN] = {"warning", "\033[33m"},
    [DOCTOR_WRONG] = {"WRONG", "\033[1;31m"},
    [DOCTOR_UNSEEN] = {"unseen", "\033[2m"},
};

/* Each line with an indent of 9 columns. */
static void print_mend(const char *mend)
{
    while (*mend) {
        const size_t length = strcspn(mend, "\n");
        printf("         %.*s\n", (int)length, mend);
        mend += length + (mend[length] == '\n');
    }
}

void doctor_say(struct doctor *doctor, enum doctor_verdict verdict, const char *what,
                const char *mend, const char *format, ...)
{
    char text[DOCTOR_TEXT_BYTES];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    doctor->count[verdict]++;
    if (doctor->ctl->json) {
        struct json *object = json_new_object();
        json_set_text(object, "verdict",
                      verdict == DOCTOR_WRONG ? "wrong" : verdicts[verdict].word);
        json_set_text(object, "what", what);
        json_set_text(object, "text", text);
        if (mend)
            json_set_text(object, "mend", mend);
        else
            json_set_null(object, "mend");
        json_push(doctor->findings, object);
        return;
    }
    printf("%s%-8s%s %s: %s\n", doctor->ctl->colour ? verdicts[verdict].colour : "",
           verdicts[verdict].word, doctor->ctl->colour ? "\033[0m" : "", what, text);
    if (mend)
        print_mend(mend);
}

/* An agent looks like a broker, but who asks it is of the guest's domain, whatever he says. */
static bool is_guest(const struct doctor *doctor)
{
    uint32_t domain;

    if (doctor_is_guest(doctor))
        return true;
    return doctor->linked && ctl_domain(&domain) == 0 && domain == PROTO_DOMAIN_HOST &&
           doctor->ctl->link.domain != PROTO_DOMAIN_HOST;
}

static int finish(struct doctor *doctor, bool guest)
{
    int r = 0;

    if (doctor->ctl->json) {
        struct json *object = json_new_object();
        json_set_text(object, "side", guest ? "guest" : "host");
        json_set(object, "findings", doctor->findings);
        json_set_number(object, "wrong", doctor->count[DOCTOR_WRONG]);
        json_set_number(object, "warnings", doctor->count[DOCTOR_WARN]);
        json_set_number(object, "unseen", doctor->count[DOCTOR_UNSEEN]);
        r = json_write(object, stdout, true);
    } else {
        printf("\n%s: %u wrong, %u warnings, %u unseen, %u ok\n", guest ? "guest" : "host",
               doctor->count[DOCTOR_WRONG], doctor->count[DOCTOR_WARN],
               doctor->count[DOCTOR_UNSEEN], doctor->count[DOCTOR_OK]);
    }
    if (r < 0)
        return ctl_fail(doctor->ctl, r, "cannot write JSON");
    return doctor->count[DOCTOR_WRONG] ? CTL_FAILED : CTL_OK;
}

static int doctor_run(struct ctl *ctl, int argc, char **argv)
{
    struct doctor doctor = {.ctl = ctl};
    uint32_t domain;

    if (argc > 0 && strcmp(argv[0], "host") != 0 && strcmp(argv[0], "guest") != 0)
        return ctl_usage("doctor %s: it is host or guest", argv[0]);
    if (ctl_domain(&domain) < 0)
        return ctl_usage("VCHAN_DOMAIN is no number of a domain");
    if (ctl->json)
        doctor.findings = json_new_array();
    int r = broker_link_open(&ctl->link, ctl->socket_path, domain);
    doctor.linked = r == 0;
    const bool guest = argc > 0 ? strcmp(argv[0], "guest") == 0 : is_guest(&doctor);
    if (!ctl->json)
        printf("Looking at this %s%s.\n\n", guest ? "guest" : "host",
               argc > 0 ? ""
               : guest  ? ", since it has an ivshmem device or an agent"
                        : " (in a virtual machine without its device: vchanctl doctor guest)");
    if (guest)
        doctor_look_at_guest(&doctor, r);
    else
        doctor_look_at_host(&doctor, r);
    doctor_look_at_memory(&doctor);
    doctor_look_at_files(&doctor);
    return finish(&doctor, guest);
}

const struct ctl_command doctor_command = {
    .name = "doctor",
    .arguments = "[host | guest]",
    .summary = "looks at everything that channels need, and says how to mend it",
    .help = "A line for each thing: ok, warning (it works, not as well as it could), WRONG, or\n"
            "unseen (for want of privilege, or since something before it is wrong), and how to\n"
            "mend it. On the host: the broker, its sandbox and its memory, the kernel, KVM, the\n"
            "virtual machines that libvirt knows. In a guest: the device, the IOMMU, VFIO, the\n"
            "agent. It asks and changes nothing, but for a channel that it opens for a moment to\n"
            "see how its memory is mapped. Without an argument it finds out where it is.\n"
            "\n"
            "Exit status: 0 nothing is wrong, 1 something is.\n"
            "\n"
            "JSON: {side, findings: [{verdict, what, text, mend}], wrong, warnings, unseen}.\n",
    .options = CTL_OPTION_ROOT,
    .arguments_max = 1,
    .offline = true,
    .run = doctor_run,
};
