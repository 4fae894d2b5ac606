#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Devices that vchan-libvirt attaches to domains that run, and takes away again: real libvirt, real guests."""

import json
import os
import subprocess
import unittest

from guest_case import BIN, need
from libvirt_case import Domain, LibvirtCase, need_libvirt
from vchan_case import need_programs, wait_until


class LibvirtTest(LibvirtCase):
    def boot(self, name, **options):
        domain = Domain(self.libvirt, name, **options)
        domain.start()
        domain.wait_up()
        return domain

    def test_a_domain_gets_its_device_and_gives_it_back_again_and_again(self):
        self.host.mount()
        web = self.boot("web")
        self.wait_state("web", "running")
        self.assertEqual((self.domains()["web"]["domain"], self.device("web")), (5, "none"))
        for port in (5000, 5010, 5020):
            self.assertIn("attached to web", self.ask("attach", "web"))
            self.wait_device("web", "attached")
            self.host.wait_attached(web)
            self.host.say(web, port)
            self.host.wait_channels()
            self.assertIn("detached from web", self.ask("detach", "web"))
            self.wait_device("web", "none")
        self.assertIn("has no device", self.refused("detach", "web"))

    def test_open_channels_keep_a_device_unless_it_is_forced(self):
        self.host.mount()
        web = self.boot("web")
        self.ask("attach", "web")
        self.host.wait_attached(web)
        reading = self.host.start("cat files/web/5000")
        open_end = web.start_command("exec 3>/mnt/vchan/0/5000; echo first >&3; read go; echo second >&3")
        wait_until(lambda: any(ring["bytes_sent"] == 6 for ring in self.host.json("stats")["rings"]),
                   lambda: self.host.json("stats"))
        said = self.refused("detach", "web")
        self.assertIn("port 5000", said)
        self.assertIn("--force", said)
        self.assertEqual(self.device("web"), "attached")
        self.ask("detach", "--force", "web")
        self.wait_device("web", "none")
        self.assertEqual(reading.communicate(timeout=30)[0], b"first\n")
        open_end.write(b"go\n")
        self.assertNotEqual(open_end.wait().status, 0)

    def test_a_domain_that_reboots_keeps_its_device(self):
        self.host.mount()
        web = self.boot("web")
        self.ask("attach", "web")
        self.host.wait_attached(web)
        web.start_command("reboot -f")
        wait_until(lambda: self.device("web") != "attached", self.domains)
        web.channel.close()
        web.attach_commands()
        web.wait_up()
        self.host.wait_attached(web)
        self.host.say(web, 5000)
        self.assertEqual(self.state("web"), "running")
        self.assertIn("has its device", self.refused("attach", "web"))
        self.ask("detach", "web")

    def test_the_doctor_finds_host_and_guest_well(self):
        web = self.boot("web")
        self.assertIn("vchanctl domain attach web", self.host.vchanctl("doctor").stdout)
        self.ask("attach", "web")
        self.host.wait_attached(web)
        found = json.loads(self.host.vchanctl("--json", "doctor").stdout)["findings"]
        # Others may have left a mount behind on this host.
        self.assertEqual([one for one in found if one["verdict"] == "wrong" and one["what"] != "files"], [])
        self.assertTrue([one for one in found if one["what"] == "web" and one["text"].startswith("its agent")], found)
        found = web.run("vchanctl doctor")
        self.assertEqual(found.status, 0, found.stdout.decode())
        for line in (b"bound to vfio-pci", b"IOMMU group", b"64 MiB, the region", b"connected to the host", b"mapped cached"):
            self.assertIn(line, found.stdout)

    def test_two_domains_at_once_and_one_twice(self):
        web, db = (Domain(self.libvirt, name) for name in ("web", "db"))
        for domain in (web, db):
            domain.start()
        for domain in (web, db):
            domain.wait_up()
        asked = [subprocess.Popen([os.path.join(BIN, "vchanctl"), "domain", "attach", name], env=self.host.environment,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                 for name in ("web", "db", "web")]
        answers = [one.communicate(timeout=60) for one in asked]
        self.assertEqual(asked[1].returncode, 0, answers)
        self.assertEqual(sorted((asked[0].returncode, asked[2].returncode)), [0, 1], answers)
        self.assertIn("File exists", answers[0][1] + answers[2][1])
        for name in ("web", "db"):
            self.wait_device(name, "attached")
        self.assertGreaterEqual(self.domains()["db"]["domain"], 1000)

    def test_a_domain_that_is_shut_down_is_seen_to_be(self):
        web = self.boot("web")
        self.ask("attach", "web")
        self.wait_device("web", "attached")
        self.libvirt.virsh("destroy", "web")
        self.wait_state("web", "shut off")
        self.assertEqual(self.device("web"), "none")
        self.assertIn("virsh start web", self.refused("attach", "web"))
        self.libvirt.virsh("undefine", "web")
        wait_until(lambda: self.state("web") is None, self.domains)
        web.channel.close()


class EmbeddedTest(LibvirtCase):
    """The driver runs in vchan-libvirt itself, which starts the domain, as there is nobody else to do it."""

    daemon = False

    def test_the_driver_in_the_helper_attaches_and_detaches(self):
        web = Domain(self.libvirt, "web")
        self.libvirt.define(web.xml(**web.options), uri=self.libvirt.embed)
        self.libvirt.virsh("autostart", "web", uri=self.libvirt.embed)
        os.unlink(os.path.join(self.libvirt.directory, "embed/run/qemu/autostarted"))
        self.host.daemon(*self.libvirt.within(os.path.join(BIN, "vchan-libvirt"), "-c", self.libvirt.embed))
        self.wait_state("web", "running")
        web.attach_commands()
        web.wait_up()
        for _ in range(2):
            self.assertIn("attached to web", self.ask("attach", "web"))
            self.wait_device("web", "attached")
            self.ask("detach", "web")
            self.wait_device("web", "none")


if __name__ == "__main__":
    need()
    need_programs("vchan-libvirt")
    need_libvirt()
    unittest.main(verbosity=2)
