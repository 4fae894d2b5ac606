#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vchanctl doctor over made-up trees of /sys, /proc and /dev: what it says of each thing that can be wrong. (What is right is
looked at in real guests, tests/vm/test_libvirt.py.)"""

import json
import os
import struct
import unittest

import control_protocol as protocol
from control_protocol import BrokerInfo, DomainInfo, ScriptedBroker
from vchanctl_case import VchanctlCase, need

DEVICE = "sys/bus/pci/devices/0000:02:00.0"
RESOURCES = """\
0x00000000fa401000 0x00000000fa4010ff 0x0000000000040200
0x00000000fa400000 0x00000000fa400fff 0x0000000000040200
0x0000000800000000 0x0000000803ffffff 0x000000000014220c
"""
SHOWN = """\
domain: web, running, x86_64 pc-q35-7.2
attached: {attached}
ok: machine pc-q35-7.2, with a PCI Express root bus
missing: the guest sees no IOMMU
  Add one.
    <iommu model='intel'/>
ok: 2 possible processors, KVM
"""


class DoctorCase(VchanctlCase):
    def setUp(self):
        super().setUp()
        self.root = os.path.join(self.directory, "root")
        self.write("proc/mounts", "vchan /mnt/vchan fuse.vchanfs rw 0 0")
        self.write("proc/cmdline", "quiet intel_iommu=on")

    def write(self, name, text):
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text + "\n")

    def link(self, name, target):
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.lexists(path):
            os.unlink(path)
        os.symlink(target, path)

    def examine(self, side):
        """{what: [(verdict, text, mend)]}"""
        code = self.run_vchanctl("--json", "doctor", side, "--root", self.root)
        answer = json.loads(self.out)
        self.assertEqual(answer["side"], side)
        wrong = sum(one["verdict"] == "wrong" for one in answer["findings"])
        self.assertEqual((code, answer["wrong"]), (1 if wrong else 0, wrong), answer)
        found = {}
        for one in answer["findings"]:
            found.setdefault(one["what"], []).append((one["verdict"], one["text"], one["mend"] or ""))
        return found

    def finds(self, found, what, verdict, text, mend=""):
        self.assertIn(what, found)
        for one in found[what]:
            if one[0] == verdict and text in one[1]:
                self.assertIn(mend, one[2])
                return
        self.fail(f"{what}: {found[what]}")


class GuestTest(DoctorCase):
    def setUp(self):
        super().setUp()
        self.write(f"{DEVICE}/vendor", "0x1af4")
        self.write(f"{DEVICE}/device", "0x1110")
        self.write(f"{DEVICE}/resource", RESOURCES)
        self.write("sys/bus/pci/devices/0000:00:00.0/vendor", "0x8086")
        self.link(f"{DEVICE}/iommu_group", "../../../kernel/iommu_groups/4")
        self.link(f"{DEVICE}/driver", "../../../bus/pci/drivers/vfio-pci")
        self.write("sys/bus/pci/drivers/vfio-pci/new_id", "")
        self.write("sys/module/vfio_iommu_type1/refcnt", "1")
        self.write("dev/vfio/4", "")

    def test_what_is_right_is_said_to_be(self):
        found = self.examine("guest")
        for what, text in (("device", "0000:02:00.0"), ("memory window", "64 MiB, the region"), ("iommu", "group 4"),
                           ("vfio", "are loaded"), ("driver", "bound to vfio-pci"), ("permission", "may open /dev/vfio/4"),
                           ("files", "mounted at /mnt/vchan")):
            self.finds(found, what, "ok", text)

    def test_it_sees_by_the_device_that_it_is_in_a_guest(self):
        self.run_vchanctl("--json", "doctor", "--root", self.root)
        self.assertEqual(json.loads(self.out)["side"], "guest")

    def test_no_device(self):
        self.write(f"{DEVICE}/device", "0x1000")
        self.finds(self.examine("guest"), "device", "wrong", "there is no ivshmem device", "vchanctl domain attach")

    def test_no_room_for_its_memory(self):
        self.write(f"{DEVICE}/resource", RESOURCES.replace("0x0000000800000000 0x0000000803ffffff", f"{0:#018x} {0x3ffffff:#018x}"))
        self.finds(self.examine("guest"), "memory window", "wrong", "no place for its memory (BAR 2)", "qemu:override")

    def test_no_iommu_group_for_want_of_the_kernels_word(self):
        os.unlink(os.path.join(self.root, DEVICE, "iommu_group"))
        for line in ("quiet", "xintel_iommu=on", "intel_iommu=only"):
            self.write("proc/cmdline", line)
            found = self.examine("guest")
            self.finds(found, "iommu", "warning", "booted without intel_iommu=on", "update-grub")
        self.assertNotIn("driver", found)

    def test_no_iommu_group_for_want_of_an_iommu(self):
        os.unlink(os.path.join(self.root, DEVICE, "iommu_group"))
        for line in ("intel_iommu=on quiet", "quiet intel_iommu=on,sm_on"):
            self.write("proc/cmdline", line)
            self.finds(self.examine("guest"), "iommu", "warning", "the machine has no IOMMU", "<iommu model='intel'>")

    def test_modules_that_are_not_loaded(self):
        os.rename(os.path.join(self.root, "sys/module"), os.path.join(self.root, "sys/module-not"))
        os.rename(os.path.join(self.root, "sys/bus/pci/drivers"), os.path.join(self.root, "sys/bus/pci/drivers-not"))
        found = self.examine("guest")
        self.finds(found, "vfio", "wrong", "vfio-pci", "modprobe vfio-pci")
        self.finds(found, "vfio", "wrong", "vfio_iommu_type1", "modprobe vfio_iommu_type1")

    def test_no_driver_and_another_one(self):
        os.unlink(os.path.join(self.root, DEVICE, "driver"))
        self.finds(self.examine("guest"), "driver", "wrong", "no driver has taken", "driver_override")
        self.link(f"{DEVICE}/driver", "../../../bus/pci/drivers/uio_pci_generic")
        self.finds(self.examine("guest"), "driver", "wrong", "the driver uio_pci_generic", "echo vfio-pci")

    def test_permissions_that_the_agent_lacks(self):
        self.write("proc/77/comm", "vchan-agent")
        self.write("proc/77/status", "Name:\tvchan-agent\nUid:\t65534\t65534\t65534\t65534\nGid:\t65534\t65534\t65534\t65534")
        path = os.path.join(self.root, "dev/vfio/4")
        os.chmod(path, 0o600)
        self.finds(self.examine("guest"), "permission", "wrong", "the agent runs as user 65534", "as root")
        os.chmod(path, 0o666)
        self.finds(self.examine("guest"), "permission", "ok", "may open")
        os.unlink(path)
        self.finds(self.examine("guest"), "permission", "wrong", "/dev/vfio/4: No such file", "bound to vfio-pci")

    def test_no_agent(self):
        found = self.examine("guest")
        self.finds(found, "agent", "wrong", "nobody serves", "systemctl start vchan-agent")
        self.finds(found, "memory", "unseen", "nobody opens")

    def test_an_agent_that_is_not_connected(self):
        broker = ScriptedBroker(self.socket_path)
        broker.answers[protocol.BROKER_INFO] = lambda body: -19
        broker.sentence = b"the device waits"
        found = self.examine("guest")
        self.finds(found, "agent", "wrong", "is not connected to the host's broker: No such device: the device waits", "log")

    def test_no_files(self):
        self.write("proc/mounts", "proc /proc proc rw 0 0")
        self.finds(self.examine("guest"), "files", "warning", "not mounted", "vchanfs DIRECTORY")


class HostTest(DoctorCase):
    def setUp(self):
        super().setUp()
        self.write("dev/kvm", "")
        self.write("proc/meminfo", "MemTotal:       16384000 kB")
        self.write("proc/50/comm", "vchand")
        self.write("proc/50/status", "Name:\tvchand\nUid:\t990\t990\t990\t990\nSeccomp:\t2")
        self.write("proc/51/comm", "vchan-libvirt")

    def broker(self, **info):
        broker = ScriptedBroker(self.socket_path)
        version = self.succeed("--version").split()[-1]
        values = {"version": version.encode(), "region_bytes": 64 << 20, "resident_bytes": 4096, **info}
        broker.answers[protocol.BROKER_INFO] = lambda body: BrokerInfo(**values).pack()
        broker.list(protocol.LIST_DOMAINS, [])
        broker.list(protocol.LIST_GUESTS, [])
        return broker

    def guest_domain(self, broker, attached="no", hypervisor=2, missing=True):
        broker.list(protocol.LIST_DOMAINS, [DomainInfo(domain=5, state=1, hypervisor=hypervisor, name=b"web")])
        shown = SHOWN.format(attached=attached)
        if not missing:
            shown = "".join(line for line in shown.splitlines(True) if line.startswith(("ok", "domain", "attached")))
        broker.answers[protocol.DOMAIN_SHOW] = lambda body: struct.pack("=II4096s", len(shown), 0, shown.encode())

    def test_no_broker(self):
        found = self.examine("host")
        self.finds(found, "broker", "wrong", f"no broker in {self.directory}: No such file", "systemctl start vchand")
        for what in ("region", "libvirt"):
            self.finds(found, what, "unseen", "there is no broker to ask")
        self.finds(found, "memory", "unseen", "")
        self.finds(found, "kvm", "ok", "may be used")

    def test_a_broker_that_is_well(self):
        self.broker()
        found = self.examine("host")
        self.finds(found, "broker", "ok", "answers")
        self.finds(found, "region", "ok", "64 MiB in 1 zone")
        self.finds(found, "sandbox", "ok", "user 990, with its system call filter")

    def test_a_helper_that_has_told_the_broker_of_no_domain(self):
        self.broker()
        self.finds(self.examine("host"), "libvirt", "warning", "knows no domain", "its log says")

    def test_another_version(self):
        self.broker(version=b"9.9.9")
        self.finds(self.examine("host"), "broker", "warning", "vchand is of version 9.9.9", "one version")

    def test_regions_that_are_no_power_of_two_or_too_large(self):
        broker = self.broker(region_bytes=3 << 20)
        self.finds(self.examine("host"), "region", "wrong", "no power of two", "region-size")
        broker.answers[protocol.BROKER_INFO] = lambda body: BrokerInfo(version=b"x", region_bytes=1 << 40).pack()
        self.finds(self.examine("host"), "region", "warning", "1 TiB, and the host has", "region-size")

    def test_no_sandbox_and_too_much_privilege(self):
        self.write("proc/50/status", "Uid:\t990\t990\t990\t990\nSeccomp:\t0")
        self.finds(self.examine("host"), "sandbox", "warning", "without its system call filter", "sandbox = yes")
        self.write("proc/50/status", "Uid:\t0\t0\t0\t0\nSeccomp:\t2")
        self.finds(self.examine("host"), "sandbox", "warning", "runs as root", "vchand.service")
        os.unlink(os.path.join(self.root, "proc/50/comm"))
        self.finds(self.examine("host"), "sandbox", "unseen", "not visible")

    def test_processors_that_no_barrier_reaches(self):
        self.write("sys/devices/system/cpu/nohz_full", "2-3")
        self.finds(self.examine("host"), "membarrier", "warning", "nohz_full=2-3", "nohz_full")

    def test_kvm_that_is_missing_or_of_another_kind(self):
        self.write("sys/module/kvm_pvm/refcnt", "1")
        self.finds(self.examine("host"), "kvm", "warning", "kvm_pvm", "type='qemu'")
        os.unlink(os.path.join(self.root, "dev/kvm"))
        self.finds(self.examine("host"), "kvm", "warning", "there is no /dev/kvm", "modprobe kvm_intel")

    def test_no_helper(self):
        self.broker()
        os.unlink(os.path.join(self.root, "proc/51/comm"))
        self.finds(self.examine("host"), "libvirt", "warning", "does not run", "systemctl start vchan-libvirt")

    def test_what_a_domain_lacks(self):
        broker = self.broker()
        self.guest_domain(broker)
        found = self.examine("host")
        self.finds(found, "web", "wrong", "the guest sees no IOMMU", "    <iommu model='intel'/>")
        self.finds(found, "web", "ok", "2 possible processors")
        self.finds(found, "web", "warning", "without its device", "vchanctl domain attach web")
        self.guest_domain(broker, hypervisor=1)
        self.finds(self.examine("host"), "web", "warning", "the guest sees no IOMMU", "Add one.")

    def test_a_domain_whose_device_or_agent_is_elsewhere(self):
        broker = self.broker()
        self.guest_domain(broker, attached="yes, bus 0x02", missing=False)
        self.finds(self.examine("host"), "web", "wrong", "QEMU is not connected to this broker", "detach web")
        guest = protocol.record("GuestInfo", "8IQII32s64s", "domain zone peer state vectors flags sessions mailboxes age_ns qemu_pid"
                                " padding version zone_name")
        broker.list(protocol.LIST_GUESTS, [guest(domain=5, state=1, vectors=16)])
        self.finds(self.examine("host"), "web", "wrong", "no agent in the guest", "systemctl start vchan-agent")
        broker.list(protocol.LIST_GUESTS, [guest(domain=5, state=2, vectors=16, version=b"0.1.0")])
        self.finds(self.examine("host"), "web", "ok", "its agent 0.1.0 is connected, 16 vectors")

    def test_for_people_it_is_a_line_each_and_what_mends_it_below(self):
        self.assertEqual(self.run_vchanctl("doctor", "host", "--root", self.root), 1)
        self.assertIn("WRONG    broker: no broker in", self.out)
        self.assertIn("\n         Start it: systemctl start vchand", self.out)
        self.assertRegex(self.out, r"\nhost: 1 wrong, \d+ warnings, \d+ unseen, \d+ ok\n$")
        self.assertEqual(self.run_vchanctl("doctor", "moon"), 2)


if __name__ == "__main__":
    need("vchanctl")
    unittest.main(verbosity=2)
