/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is read from a domain's XML, and what is found missing there. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "broker/libvirt/hardware.h"
#include "broker/libvirt/readiness.h"
#include "proto/device_xml.h"

#define MIB (UINT64_C(1) << 20)

static const struct proto_domain_device device = {
    .domain = 5,
    .vectors = 16,
    .region_bytes = 64 * MIB,
    .name = "web",
    .zone = "default",
    .socket = "/run/vchand/guests/default/web.sock",
};

/* A domain with these devices and this tail, which lacks nothing else. */
static struct hardware read_domain(const char *type, unsigned processors, const char *devices,
                                   const char *tail)
{
    struct hardware hardware;
    char xml[8192];

    snprintf(xml, sizeof(xml),
             "<domain type='%s' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
             "<vcpu placement='static' current='1'>%u</vcpu>"
             "<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>"
             "<features><acpi/><ioapic driver='qemu'/></features>"
             "<devices><controller type='pci' index='0' model='pcie-root'/>%s"
             "<iommu model='intel'><driver intremap='on'/></iommu></devices>%s</domain>",
             type, processors, devices, tail);
    assert_int_equal(hardware_read(xml, device.socket, &hardware), 0);
    return hardware;
}

#define PORT(index) \
    "<controller type='pci' index='" #index "' model='pcie-root-port'>" \
    "<alias name='pci." #index "'/>" \
    "<address type='pci' domain='0x0000' bus='0x00' slot='0x01' function='0x" #index "'/>" \
    "</controller>"
#define CARD(bus, slot) \
    "<interface type='user'><address type='pci' domain='0x0000' bus='" bus "' slot='" slot \
    "' function='0x0'/></interface>"
#define RESERVE(size) \
    "<qemu:commandline><qemu:arg value='-global'/>" \
    "<qemu:arg value='pcie-root-port.pref64-reserve=" size "'/></qemu:commandline>"

static int check(const struct hardware *hardware, struct readiness_text *text)
{
    *text = (struct readiness_text){0};
    return readiness_check(hardware, &device, text);
}

static void a_domain_that_has_all_lacks_nothing(void **state)
{
    struct hardware hardware = read_domain("kvm", 1, PORT(1), RESERVE("128M"));
    struct device_xml_address address;
    struct readiness_text text;

    (void)state;
    assert_int_equal(check(&hardware, &text), 0);
    assert_string_equal(text.text, "");
    assert_true(readiness_place(&hardware, &device, &address));
    assert_int_equal(address.bus, 1);
    assert_int_equal(address.slot, 0);
}

static void what_is_no_domain_is_refused(void **state)
{
    struct hardware hardware;

    (void)state;
    assert_int_equal(hardware_read("<network/>", "", &hardware), -EINVAL);
    assert_int_equal(hardware_read("<domain>", "", &hardware), -EINVAL);
    assert_int_equal(hardware_read("", "", &hardware), -EINVAL);
    assert_int_equal(hardware_read("<domain/>", "", &hardware), 0);
}

static void a_port_with_a_device_or_that_takes_none_later_is_not_free(void **state)
{
    static const char taken_port[] = PORT(1) CARD("0x01", "0x00");
    static const char fixed_port[] = "<controller type='pci' index='1' model='pcie-root-port'>"
                                     "<target hotplug='off'/></controller>";
    static const char other[] = "<controller type='pci' index='1' model='dmi-to-pci-bridge'/>";
    const char *const taken[] = {taken_port, fixed_port, other, ""};
    struct readiness_text text;

    (void)state;
    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
        struct hardware hardware = read_domain("kvm", 1, taken[i], RESERVE("128M"));
        assert_int_equal(check(&hardware, &text), -ENOSPC);
        assert_non_null(strstr(text.text, "missing: no PCIe root port"));
    }
}

static void the_free_port_that_fits_best_is_taken(void **state)
{
    static const char tail[] =
        "<qemu:override>"
        "<qemu:device alias='pci.2'><qemu:frontend>"
        "<qemu:property name='pref64-reserve' type='unsigned' value='1073741824'/>"
        "</qemu:frontend></qemu:device>"
        "<qemu:device alias='pci.3'><qemu:frontend>"
        "<qemu:property name='pref64-reserve' type='unsigned' value='134217728'/>"
        "</qemu:frontend></qemu:device>"
        "</qemu:override>";
    struct hardware hardware = read_domain("kvm", 1, PORT(1) PORT(2) PORT(3), tail);
    struct device_xml_address address;

    (void)state;
    assert_true(readiness_place(&hardware, &device, &address));
    assert_int_equal(address.bus, 3);
    hardware = read_domain("kvm", 1, PORT(1) PORT(2) PORT(3) CARD("0x03", "0x00"), tail);
    assert_true(readiness_place(&hardware, &device, &address));
    assert_int_equal(address.bus, 2);
}

static void room_is_read_wherever_it_is_said(void **state)
{
    static const struct {
        const char *tail;
        uint64_t room_bytes;
    } cases[] = {
        {"", 2 * MIB},
        {RESERVE("2G"), 2048 * MIB},
        {RESERVE("134217728"), 128 * MIB},
        {RESERVE("0x8000000"), 128 * MIB},
        {RESERVE("64m"), 64 * MIB},
        {"<qemu:commandline><qemu:arg value='-set'/>"
         "<qemu:arg value='device.pci.1.pref64-reserve=1G'/></qemu:commandline>",
         1024 * MIB},
        {"<qemu:override><qemu:device alias='pci.7'><qemu:frontend>"
         "<qemu:property name='pref64-reserve' type='unsigned' value='134217728'/>"
         "</qemu:frontend></qemu:device></qemu:override>",
         2 * MIB},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct hardware hardware = read_domain("kvm", 1, PORT(1), cases[i].tail);
        assert_int_equal(hardware.bus[1].room_bytes, cases[i].room_bytes);
    }
}

static void a_port_needs_twice_the_regions_room(void **state)
{
    struct hardware hardware = read_domain("kvm", 1, PORT(1), RESERVE("127M"));
    struct readiness_text text;

    (void)state;
    assert_int_equal(check(&hardware, &text), -ENOSPC);
    assert_non_null(strstr(text.text, "reserves room for 127 MiB only"));
    assert_non_null(strstr(text.text, "<qemu:device alias='pci.1'>"));
    assert_non_null(strstr(text.text, "value='134217728'"));
    assert_non_null(strstr(text.text, DEVICE_XML_NAMESPACE));
}

static void a_bridge_has_slots_from_1_on(void **state)
{
    struct proto_domain_device small = device;
    struct hardware hardware = read_domain(
        "kvm", 1,
        PORT(1) "<controller type='pci' index='2' model='pcie-to-pci-bridge'>"
                "<address type='pci' bus='0x01' slot='0x00'/></controller>" CARD("0x02", "0x01"),
        "");
    struct device_xml_address address;

    (void)state;
    small.region_bytes = MIB;
    assert_true(readiness_place(&hardware, &small, &address));
    assert_int_equal(address.bus, 2);
    assert_int_equal(address.slot, 2);
}

static void an_iommu_has_to_remap_interrupts(void **state)
{
    struct hardware hardware = read_domain("kvm", 1, PORT(1), RESERVE("128M"));
    struct readiness_text text;

    (void)state;
    hardware.interrupt_remapping = false;
    assert_int_equal(check(&hardware, &text), -ENODEV);
    assert_non_null(strstr(text.text, "intremap is off"));
    hardware.interrupt_remapping = true;
    hardware.split_ioapic = false;
    assert_int_equal(check(&hardware, &text), -ENODEV);
    assert_non_null(strstr(text.text, "the I/O APIC is not QEMU's"));
    strcpy(hardware.iommu, "virtio");
    assert_int_equal(check(&hardware, &text), -ENODEV);
    assert_non_null(strstr(text.text, "model virtio"));
    hardware.iommu[0] = '\0';
    assert_int_equal(check(&hardware, &text), -ENODEV);
    assert_non_null(strstr(text.text, "sees no IOMMU"));
}

static void one_processor_is_enough_for_kvm_alone(void **state)
{
    struct hardware hardware = read_domain("qemu", 1, PORT(1), RESERVE("128M"));
    struct readiness_text text;

    (void)state;
    assert_int_equal(check(&hardware, &text), -EOPNOTSUPP);
    assert_non_null(strstr(text.text, "<vcpu current='1'>2</vcpu>"));
    hardware = read_domain("qemu", 2, PORT(1), RESERVE("128M"));
    assert_int_equal(check(&hardware, &text), 0);
}

static void the_device_is_found_by_its_socket(void **state)
{
    static const char shmem[] =
        "<shmem name='vchan-default' role='peer'><model type='ivshmem-doorbell'/>"
        "<server path='%s'/><alias name='shmem0'/>"
        "<address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></shmem>";
    char devices[1024], own[512];

    (void)state;
    snprintf(own, sizeof(own), shmem, device.socket);
    snprintf(devices, sizeof(devices), "%s%s", PORT(1), own);
    struct hardware hardware = read_domain("kvm", 1, devices, "");
    assert_true(hardware.attached);
    assert_int_equal(hardware.attached_bus, 1);
    assert_string_equal(hardware.attached_alias, "shmem0");
    struct readiness_text text;
    assert_int_equal(check(&hardware, &text), 0);

    snprintf(own, sizeof(own), shmem, "/run/vchand/guests/other/web.sock");
    snprintf(devices, sizeof(devices), "%s%s", PORT(1), own);
    hardware = read_domain("kvm", 1, devices, "");
    assert_false(hardware.attached);
    assert_int_equal(hardware.bus[1].slots, 1);
}

static void hostile_xml_is_read_within_bounds(void **state)
{
    struct hardware hardware = read_domain(
        "kvm", 4000000000u,
        "<controller type='pci' index='256' model='pcie-root-port'/>"
        "<controller type='pci' index='-1' model='pcie-root-port'/>"
        "<controller type='pci' model='pcie-root-port'/>"
        "<controller type='pci' index='255' model='pcie-root-port'/>" CARD("0xffff", "0x00")
            CARD("0x01", "0xffffffff") CARD("0xff", "0x1f"),
        RESERVE("99999999999999999999999"));

    (void)state;
    assert_int_equal(hardware.buses, 256);
    assert_int_equal(hardware.bus[255].slots, 1u << 31);
    assert_int_equal(hardware.bus[1].slots, 0);
}

static void values_in_xml_are_quoted(void **state)
{
    const struct device_xml_address address = {.bus = 16, .slot = 1};
    struct proto_domain_device odd = device;
    char text[1024], small[8];

    (void)state;
    snprintf(odd.socket, sizeof(odd.socket), "/a'b<c&d");
    const size_t length = device_xml_shmem(&odd, &address, 2, text, sizeof(text));
    assert_int_equal(length, strlen(text));
    assert_non_null(strstr(text, "    <server path='/a&apos;b&lt;c&amp;d'/>\n"));
    assert_non_null(strstr(text, "bus='0x10' slot='0x01'"));
    assert_int_equal(device_xml_shmem(&odd, &address, 2, small, sizeof(small)), length);
    assert_int_equal(strlen(small), sizeof(small) - 1);
}

static void a_long_report_is_cut_off(void **state)
{
    struct readiness_text text = {0};

    (void)state;
    for (int i = 0; i < 1000; i++)
        readiness_say(&text, "%s", "ten bytes.");
    assert_int_equal(strlen(text.text), sizeof(text.text) - 1);
    assert_int_equal(text.length, sizeof(text.text) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_domain_that_has_all_lacks_nothing),
        cmocka_unit_test(what_is_no_domain_is_refused),
        cmocka_unit_test(a_port_with_a_device_or_that_takes_none_later_is_not_free),
        cmocka_unit_test(the_free_port_that_fits_best_is_taken),
        cmocka_unit_test(room_is_read_wherever_it_is_said),
        cmocka_unit_test(a_port_needs_twice_the_regions_room),
        cmocka_unit_test(a_bridge_has_slots_from_1_on),
        cmocka_unit_test(an_iommu_has_to_remap_interrupts),
        cmocka_unit_test(one_processor_is_enough_for_kvm_alone),
        cmocka_unit_test(the_device_is_found_by_its_socket),
        cmocka_unit_test(hostile_xml_is_read_within_bounds),
        cmocka_unit_test(values_in_xml_are_quoted),
        cmocka_unit_test(a_long_report_is_cut_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
