#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Helpers, brokers and libvirtds that go, hang and come back. The domains are real QEMUs that never run."""

import os
import signal
import subprocess
import time
import unittest

from guest_case import BIN, need
from libvirt_case import Domain, LibvirtCase, need_libvirt
from vchan_case import wait_until


class LossTest(LibvirtCase):
    def test_a_helper_that_is_killed_and_started_again(self):
        self.pause("web")
        self.ask("attach", "web")
        pending = subprocess.Popen([os.path.join(BIN, "vchanctl"), "domain", "detach", "web"], env=self.host.environment,
                                   stderr=subprocess.PIPE, text=True)
        wait_until(lambda: "detaches the device of web" in self.host.log(), self.host.log)
        self.kill_helper()
        self.assertIn("has gone before it answered", pending.communicate(timeout=30)[1])
        self.assertEqual(self.state("web"), "unknown")
        for action in ("attach", "detach", "show"):
            self.assertIn("systemctl start vchan-libvirt", self.refused(action, "web"))
        self.assertEqual(self.device("web"), "connected")
        self.start_helper()
        self.wait_state("web", "paused")
        self.assertIn("File exists", self.refused("attach", "web"))

    def test_a_second_helper_waits_for_the_first(self):
        second = self.host.daemon(os.path.join(BIN, "vchan-libvirt"), "-c", "test:///default")
        wait_until(lambda: "serves already" in self.host.log(), self.host.log)
        self.kill_helper()
        self.wait_state("test", "running")
        self.assertIsNone(second.poll())

    def test_a_guest_that_does_not_let_go(self):
        self.pause("web")
        self.ask("attach", "web")
        said = self.refused("detach", "web")
        self.assertIn("Connection timed out", said)
        self.assertIn("has not let the device go within 15 s", said)

    def test_a_broker_that_goes_and_comes_back(self):
        self.pause("web")
        self.ask("attach", "web")
        self.host.broker.kill()
        self.host.broker.wait()
        self.host.broker = self.host.start_broker()
        self.wait_state("web", "paused")
        self.assertEqual(self.domains()["web"]["domain"], 5)

    def test_a_libvirtd_that_goes_and_comes_back(self):
        self.pause("web")
        self.pause("db")
        self.pause("old")
        number = self.domains()["db"]["domain"]
        self.libvirt.kill()
        for name in ("web", "db"):
            self.wait_state(name, "unknown")
        said = self.refused("attach", "web")
        self.assertIn("is not connected to qemu+unix", said)
        self.assertIn("tries again", said)
        subprocess.run(self.libvirt.within("kill", "-KILL", str(self.libvirt.qemu_pid("old"))), check=True)
        self.libvirt.start()
        self.libvirt.virsh("undefine", "old")
        Domain(self.libvirt, "new", guest=False).define()
        self.wait_state("web", "paused")
        self.wait_state("new", "shut off")
        wait_until(lambda: self.state("old") is None, self.domains)
        self.assertEqual(self.domains()["db"]["domain"], number)
        self.assertIn("attached to db", self.ask("attach", "db"))

    def test_a_libvirtd_that_hangs_holds_up_nobody_else(self):
        self.pause("web")
        self.libvirt.signal(signal.SIGSTOP)
        self.addCleanup(self.libvirt.signal, signal.SIGCONT)
        asked = subprocess.Popen([os.path.join(BIN, "vchanctl"), "domain", "attach", "web"], env=self.host.environment,
                                 stderr=subprocess.PIPE, text=True)
        for _ in range(5):
            before = time.monotonic()
            self.host.json("domain", "list")
            self.assertLess(time.monotonic() - before, 1)
            time.sleep(0.2)
        said = asked.communicate(timeout=50)[1]
        self.assertEqual(asked.returncode, 1, said)
        self.assertIn("libvirt", said)
        self.libvirt.signal(signal.SIGCONT)
        self.wait_state("web", "paused")
        self.assertIn("paused", self.ask("show", "web"))


if __name__ == "__main__":
    need()
    need_libvirt()
    unittest.main(verbosity=2)
