/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vchanctl domain xml: the device for people who edit the domain's XML themselves. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/domain.h"
#include "client/ctl/json.h"
#include "client/ctl/text.h"
#include "proto/device_xml.h"

/* An index that most definitions do not reach; libvirt makes a root port for each one between. */
#define INDEX_DEFAULT 15u
#define XML_BYTES 1024u

/* The index of the next PCI controller; vchan-libvirt knows it, where it runs. */
static bool ask_index(struct ctl *ctl, const struct proto_domain_request *request, unsigned *index)
{
    static const char key[] = "next-index: ";
    struct proto_text text;

    *index = INDEX_DEFAULT;
    if (domain_ask(ctl, PROTO_DOMAIN_SHOW, request, &text) < 0)
        return false;
    const char *found = strstr(text.text, key);
    unsigned long value = found ? strtoul(found + strlen(key), NULL, 10) : 0;
    if (value < 1 || value > 255)
        return false;
    *index = (unsigned)value;
    return true;
}

struct fragments {
    char controller[XML_BYTES], shmem[XML_BYTES], override[XML_BYTES];
};

static int write_json(const struct fragments *fragments)
{
    struct json *object = json_new_object();

    json_set_text(object, "controller", fragments->controller);
    json_set_text(object, "shmem", fragments->shmem);
    json_set_text(object, "override", fragments->override);
    json_set_text(object, "namespace", DEVICE_XML_NAMESPACE);
    return json_write(object, stdout, true);
}

static void print(const struct fragments *fragments, const char *name, bool sure, unsigned index)
{
    printf("<!-- Into the definition of %s (virsh edit), inside <devices>. -->\n", name);
    if (!sure)
        printf("<!-- The index is one that no other PCI controller has, best the one after the\n"
               "     highest; the bus of the address is the same number (%u is 0x%02x). -->\n",
               index, index);
    printf("%s%s\n", fragments->controller, fragments->shmem);
    printf("<!-- Room behind the root port, so that the device can be detached and attached while "
           "the\n"
           "     domain runs: before </domain>, and with this in the <domain> tag, without which\n"
           "     libvirt leaves it out: " DEVICE_XML_NAMESPACE " -->\n%s\n",
           fragments->override);
    fputs("<!-- The guest needs an IOMMU too. In <features>: <ioapic driver='qemu'/>, in "
          "<devices>:\n"
          "     <iommu model='intel'><driver intremap='on'/></iommu>, and intel_iommu=on on its\n"
          "     kernel's command line. -->\n",
          stdout);
}

int domain_xml(struct ctl *ctl, const char *name)
{
    struct proto_domain_request request;
    struct proto_domain_device device;
    struct fragments fragments;
    unsigned index;
    int code = domain_request(ctl, name, &request);

    if (code != CTL_OK)
        return code;
    int r = broker_link_call(&ctl->link, PROTO_DOMAIN_DEVICE, &request, sizeof(request), &device,
                             sizeof(device));
    if (r < 0)
        return ctl_fail(ctl, r, "cannot say what the device is");
    text_clean(device.name, sizeof(device.name));
    text_clean(device.zone, sizeof(device.zone));
    text_clean(device.socket, sizeof(device.socket));
    const bool sure = ask_index(ctl, &request, &index);
    const struct device_xml_address address = {.bus = index};
    device_xml_root_port(&device, index, 0, fragments.controller, XML_BYTES);
    device_xml_shmem(&device, &address, 0, fragments.shmem, XML_BYTES);
    device_xml_override(&device, NULL, 0, fragments.override, XML_BYTES);
    if (!ctl->json)
        print(&fragments, device.name, sure, index);
    else if ((r = write_json(&fragments)) < 0)
        return ctl_fail(ctl, r, "cannot write JSON");
    return CTL_OK;
}
