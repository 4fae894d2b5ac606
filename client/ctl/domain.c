/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vchanctl domain: attach, detach, show; the rest is in domain_list.c and domain_xml.c. */
#include "client/ctl/domain.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client/ctl/json.h"
#include "client/ctl/text.h"

const char *domain_state_word(uint32_t state)
{
    switch (state) {
    case PROTO_HYPERVISOR_DEFINED:
        return "shut off";
    case PROTO_HYPERVISOR_RUNNING:
        return "running";
    case PROTO_HYPERVISOR_PAUSED:
        return "paused";
    case PROTO_HYPERVISOR_UNKNOWN:
        return "unknown";
    default:
        return "";
    }
}

int domain_request(const struct ctl *ctl, const char *name, struct proto_domain_request *request)
{
    const char *zone = ctl->zone ? ctl->zone : "";

    *request = (struct proto_domain_request){
        .flags = ctl->options & CTL_OPTION_FORCE ? PROTO_DOMAIN_FORCE : 0,
    };
    if (!*name || strlen(name) >= sizeof(request->domain))
        return ctl_usage("domain: a name has 1 to %zu characters", sizeof(request->domain) - 1);
    if (strlen(zone) >= sizeof(request->zone))
        return ctl_usage("--zone: a name has at most %zu characters", sizeof(request->zone) - 1);
    snprintf(request->domain, sizeof(request->domain), "%s", name);
    snprintf(request->zone, sizeof(request->zone), "%s", zone);
    return CTL_OK;
}

int domain_ask(struct ctl *ctl, uint16_t id, const struct proto_domain_request *request,
               struct proto_text *text)
{
    broker_link_patience(&ctl->link, DOMAIN_WAIT_S);
    int r = broker_link_call(&ctl->link, id, request, sizeof(*request), text, sizeof(*text));
    if (r == 0)
        text_clean_lines(text->text, sizeof(text->text));
    return r;
}

static int ask_and_print(struct ctl *ctl, uint16_t id, const char *name, const char *failure)
{
    struct proto_domain_request request;
    struct proto_text text;
    int code = domain_request(ctl, name, &request);

    if (code != CTL_OK)
        return code;
    int r = domain_ask(ctl, id, &request, &text);
    if (r < 0)
        return ctl_fail(ctl, r, failure);
    if (ctl->json) {
        struct json *object = json_new_object();
        json_set_text(object, "domain", name);
        json_set_text(object, "text", text.text);
        r = json_write(object, stdout, true);
        return r < 0 ? ctl_fail(ctl, r, "cannot write JSON") : CTL_OK;
    }
    fputs(text.text, stdout);
    return CTL_OK;
}

static int domain_run(struct ctl *ctl, int argc, char **argv)
{
    const char *action = argv[0], *name = argc > 1 ? argv[1] : NULL;

    if (strcmp(action, "list") == 0)
        return name ? ctl_usage("domain list: one argument too many: %s", name) : domain_list(ctl);
    if (strcmp(action, "attach") != 0 && strcmp(action, "detach") != 0 &&
        strcmp(action, "show") != 0 && strcmp(action, "xml") != 0)
        return ctl_usage("domain %s: it is list, attach, detach, show or xml", action);
    if (!name)
        return ctl_usage("domain %s: say which domain: its name, UUID or number", action);
    if (strcmp(action, "xml") == 0)
        return domain_xml(ctl, name);
    if (strcmp(action, "show") == 0)
        return ask_and_print(ctl, PROTO_DOMAIN_SHOW, name, "cannot show the domain");
    if (strcmp(action, "attach") == 0)
        return ask_and_print(ctl, PROTO_DOMAIN_ATTACH, name, "cannot attach");
    return ask_and_print(ctl, PROTO_DOMAIN_DETACH, name, "cannot detach");
}

const struct ctl_command domain_command = {
    .name = "domain",
    .arguments = "list | attach DOMAIN | detach DOMAIN | show DOMAIN | xml DOMAIN",
    .summary = "the virtual machines: their devices; attach and detach them",
    .help =
        "DOMAIN is a name, a UUID or a number. Each zone that a domain is in is a device of its\n"
        "own in it; --zone says which is meant, where there are several.\n"
        "\n"
        "list    one line a domain and device, as libvirt and the broker see them. DEVICE:\n"
        "        none, connected (QEMU has it), attached (and the agent in the guest uses it).\n"
        "attach  plugs the device in while the domain runs, until it is shut down. What the\n"
        "        domain lacks for it is named, with the XML to add; --force attaches anyway.\n"
        "detach  asks the guest to let the device go. Refused while channels are open, unless\n"
        "        --force closes them.\n"
        "show    what the domain has and what it lacks, a line each: ok or missing.\n"
        "xml     what to put into the definition, for a device that is there from the start.\n"
        "\n"
        "attach, detach and show need vchan-libvirt(8).\n"
        "\n"
        "JSON: list: {\"domains\": [{domain, name, uuid, libvirt, devices: [{zone, device,\n"
        "peer, vectors, polls, sessions, mailboxes, age_ns, qemu_pid, agent_version}]}]}.\n"
        "attach, detach, show: {domain, text}. xml: {shmem, controller, override, namespace}.\n",
    .options = CTL_OPTION_ZONE | CTL_OPTION_FORCE,
    .arguments_min = 1,
    .arguments_max = 2,
    .run = domain_run,
};
