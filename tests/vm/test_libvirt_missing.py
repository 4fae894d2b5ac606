#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What vchan-libvirt says when a domain lacks something, and of odd names. The domains are real QEMUs that never run."""

import re
import shutil
import subprocess
import unittest

from guest_case import need
from libvirt_case import NAMESPACE, Domain, LibvirtCase, need_libvirt
from vchan_case import wait_until


class MissingTest(LibvirtCase):
    def lacks(self, said, *expected, **options):
        """Attaching is refused; the reason is named, and all of expected is among the XML to add. Forced, it says the same or works."""
        self.pause("web", **options)
        answer = self.refused("attach", "web")
        for part in (f"missing: {said}", *expected):
            self.assertIn(part, answer)
        shown = self.ask("show", "web")
        self.assertIn(f"missing: {said}", shown)
        self.assertEqual(self.device("web"), "none")
        return answer

    def test_a_machine_without_pci_express(self):
        self.lacks("machine pc-i440fx", "machine='q35'", pc=True, iommu=False, room=0)
        self.assertIn("cannot attach", self.refused("attach", "--force", "web"))

    def test_a_machine_without_a_free_root_port(self):
        answer = self.lacks("no PCIe root port", "<controller type='pci' index='1' model='pcie-root-port'>",
                            "name='pref64-reserve' type='unsigned' value='134217728'", NAMESPACE, ports=0, room=0)
        self.assertIn("No space left on device", answer)
        self.assertIn("cannot attach", self.refused("attach", "--force", "web"))

    def test_a_root_port_that_is_taken_is_not_free(self):
        taken = "<rng model='virtio'><backend model='random'>/dev/urandom</backend><address type='pci' bus='0x01' slot='0x00'/></rng>"
        self.lacks("no PCIe root port", ports=1, more=taken)

    def test_a_root_port_with_too_little_room(self):
        answer = self.lacks("pci.1 (index 1) is free, but reserves room for 2 MiB only", "<qemu:device alias='pci.1'>", NAMESPACE, room=0)
        self.assertNotIn("no PCIe root port", answer)
        self.assertIn("attached to web", self.ask("attach", "--force", "web"))
        self.wait_device("web", "connected")

    def test_a_machine_without_an_iommu(self):
        self.lacks("the guest sees no IOMMU", "<iommu model='intel'>", "<driver intremap='on'/>", "<ioapic driver='qemu'/>",
                   "intel_iommu=on", iommu=False)

    def test_an_iommu_that_does_not_remap_interrupts(self):
        self.lacks("the guest's IOMMU does not remap", "<driver intremap='on'/>", iommu=False,
                   more="<iommu model='intel'><driver intremap='off'/></iommu>")

    def test_one_processor_that_is_emulated(self):
        self.lacks("QEMU emulates (TCG)", "<vcpu current='1'>2</vcpu>", kind="qemu", processors=1)

    def test_all_that_is_missing_is_named_at_once(self):
        answer = self.lacks("no PCIe root port", ports=0, iommu=False, processors=1, kind="qemu", room=0)
        self.assertEqual(len(re.findall("^missing: ", answer, re.MULTILINE)), 4, answer)

    def test_an_unknown_domain_is_told_with_those_that_are_known(self):
        self.pause("web")
        self.pause("db")
        for action in ("attach", "detach", "show", "xml"):
            said = self.refused(action, "nix")
            self.assertIn("No such file or directory", said)
            self.assertIn("web (5)", said)
            self.assertIn("db (1000)", said)

    def test_names_of_any_kind(self):
        odd = ["7", "we b;&<>'é", ".hidden", "we?b"]
        for name in odd:
            self.pause_unnamed(name)
        self.pause_unnamed("we!b")
        numbers = {one["domain"]: name for name, one in self.domains().items()}
        self.assertEqual(sorted(numbers)[1:], [1000, 1001, 1002, 1003, 1004], numbers)
        for name in numbers.values():
            self.assertRegex(name, r"^[A-Za-z_][A-Za-z0-9._-]*$")
        self.assertEqual(len(set(numbers.values())), 6)
        self.assertIn("domain: we b;&<>'é, paused", self.ask("show", "we b;&<>'é"))
        uuid = self.libvirt.virsh("domuuid", "we!b").strip()
        self.assertIn("domain: we!b, paused", self.ask("show", uuid))
        self.assertIn("attached", self.ask("attach", uuid))

    def pause_unnamed(self, name):
        before = len(self.domains())
        Domain(self.libvirt, name, guest=False).start_paused()
        wait_until(lambda: len([one for one in self.domains().values() if one["libvirt"] != "shut off"]) > before, self.domains)


class XmlTest(LibvirtCase):
    def test_what_xml_prints_is_a_device_that_is_there_from_the_start(self):
        plain = Domain(self.libvirt, "web", guest=False, room=0)
        plain.define()
        self.wait_state("web", "shut off")
        parts = self.host.json("domain", "xml", "web")
        self.assertEqual(parts["namespace"], NAMESPACE)
        self.assertIn("index='3'", parts["controller"])
        text = plain.xml(**{**plain.options, "more": parts["controller"] + parts["shmem"]})
        text = re.sub(r"<qemu:commandline>.*</qemu:commandline>", parts["override"], text, flags=re.DOTALL)
        path = self.libvirt.write("checked.xml", text)
        if shutil.which("virt-xml-validate"):
            checked = subprocess.run(["virt-xml-validate", path, "domain"], capture_output=True, text=True, check=False)
            self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)
        self.libvirt.virsh("undefine", "web")
        self.libvirt.virsh("define", "--validate", path)
        self.libvirt.virsh("start", "--paused", "web")
        self.wait_device("web", "connected")
        self.assertIn("attached: yes, bus 0x03", self.ask("show", "web"))
        self.assertIn("pref64-reserve", self.libvirt.virsh("dumpxml", "web"))

    def test_what_people_read_has_the_same_parts(self):
        Domain(self.libvirt, "web", guest=False, room=0).define()
        self.wait_state("web", "shut off")
        parts, printed = self.host.json("domain", "xml", "web"), self.ask("xml", "web")
        for part in parts.values():
            self.assertIn(part, printed)
        self.kill_helper()
        self.assertIn("index is one that no other PCI controller has", self.ask("xml", "web"))


if __name__ == "__main__":
    need()
    need_libvirt()
    unittest.main(verbosity=2)
