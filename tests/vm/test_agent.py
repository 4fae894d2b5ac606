#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vchan-agent in real guests: devices that come and go, programs that keep them, few vectors, none, several zones."""

import os
import time
import unittest

from guest_case import need
from vchan_case import Host, need_programs, wait_until

TWO_ZONES = """\
[broker]
region-size = 16M
[domain host]
id = 0
[domain web]
id = 5
[domain db]
id = 6
[zone first]
members = web
[zone second]
members = web, db
"""
LOG = "/run/vchan-agent.log"
GONE_LIMIT_S = 2  # for a device that nobody keeps, on a machine that is busy; QEMU's own part is some 50 ms


class AgentTest(unittest.TestCase):
    def setUp(self):
        self.host = self.make_host()

    def make_host(self, *arguments):
        host = Host(*arguments)
        self.addCleanup(host.close)
        host.mount()
        return host

    def wait_log(self, guest, text):
        wait_until(lambda: text in guest.check(f"cat {LOG}"), lambda: f"'{text}' in:\n{guest.check(f'cat {LOG}')}", 15)

    def bare(self, name, **options):
        """A guest that is up, with nothing of ours running."""
        guest = self.host.start_guest(name, words=["vchan.bare"], **options)
        guest.wait_up()
        return guest

    def start_agent(self, guest, arguments=""):
        agent = guest.start_command(f"exec vchan-agent {arguments} >>{LOG} 2>&1")
        guest.wait_until("vchanctl info")
        return agent

    def test_without_a_device_programs_hear_what_is_missing(self):
        guest = self.bare("web", device=False)
        guest.start_command(f"exec vchan-agent >>{LOG} 2>&1")
        guest.wait_until("test -S /run/vchand/vchand.sock")
        result = guest.run("vchanctl info")
        self.assertNotEqual(result.status, 0)
        self.assertIn(b"no ivshmem device is attached to this VM: run vchanctl doctor", result.stderr)
        guest.plug(self.host.socket("web"))
        guest.wait_until("vchanctl info")

    def test_a_device_of_others_is_left_alone(self):
        guest = self.host.boot("web")
        guest.monitor.ask("object-add", **{"qom-type": "memory-backend-ram", "id": "others", "size": 1 << 20, "share": True})
        port = guest.free_ports[0]
        guest.monitor.ask("device_add", driver="ivshmem-plain", id="plain", memdev="others", bus=f"port{port}")
        self.wait_log(guest, "is left alone")
        address = guest.check(f"grep -o '0000:[^ ]*: its memory is not a region of vchan' {LOG}").split(": ")[0]
        self.assertNotEqual(guest.run(f"test -e /sys/bus/pci/devices/{address}/driver").status, 0)
        self.host.say(guest, 5000)

    def test_more_ends_than_vectors_share_the_last(self):
        guest = self.host.boot("web", vectors=4)
        readers = [guest.start_command(f"cat /mnt/vchan/0/{5000 + i}") for i in range(8)]
        self.host.wait_channels(len(readers))
        time.sleep(0.2)  # for all to sleep
        for i, reader in reversed(list(enumerate(readers))):
            self.host.check(f"echo {i} >files/web/{5000 + i}")
            self.assertEqual(reader.wait(10), (0, b"%d\n" % i, b""))
        self.assertIn("4 vectors", guest.check(f"cat {LOG}"))

    def test_a_device_with_one_vector_works(self):
        guest = self.host.boot("web", vectors=1)
        for port in (5000, 5002, 5004):
            self.host.say(guest, port)

    def test_an_idle_open_file_does_not_keep_the_device(self):
        guest = self.host.start_guest("web", device=False)
        guest.wait_up()
        device = guest.plug(self.host.socket("web"))
        self.host.wait_attached(guest)
        idle = guest.start_command("exec 3<>/mnt/vchan/0/5000; echo sent >&3; read go; cat <&3")
        writer = self.host.start("exec 3<>files/web/5000; echo unread >&3; read go")
        wait_until(lambda: sorted(ring["bytes_sent"] for ring in self.rings()) == [5, 7], self.rings)
        begin = time.monotonic()
        guest.unplug(device)
        self.assertLess(time.monotonic() - begin, GONE_LIMIT_S)
        idle.write(b"go\n")
        self.assertEqual(idle.wait(10), (0, b"unread\n", b""))
        writer.communicate(b"go\n", 10)
        self.host.wait_channels()

    def rings(self):
        return self.host.json("stats")["rings"]

    def test_a_program_that_keeps_the_device_is_named(self):
        guest = self.host.start_guest("web", device=False)
        guest.wait_up()
        device = guest.plug(self.host.socket("web"))
        self.host.wait_attached(guest)
        self.host.start("cat files/web/5000")
        self.host.wait_channels(1)
        keeper = guest.start_command("exec holder 0 5000")
        guest.wait_until("pidof holder")
        wait_until(lambda: keeper.heard() and "holding" in str(keeper.heard()), keeper.heard)
        guest.monitor.ask("device_del", id=device)
        self.wait_log(guest, f"pid {guest.check('pidof holder')} (holder) has it")
        keeper.write(b"go\n")  # it finds that its channel is over, and lets go
        self.assertNotEqual(keeper.wait(10).status, 0)
        guest.monitor.wait_for("DEVICE_DELETED", 15, device=device)
        guest.forget(device)
        guest.plug(self.host.socket("web"))
        self.host.wait_attached(guest)

    def test_a_new_agent_waits_for_a_program_that_keeps_the_device(self):
        guest = self.host.boot("web")
        self.host.start("cat files/web/5000")
        self.host.wait_channels(1)
        keeper = guest.start_command("exec holder 0 5000")
        wait_until(lambda: keeper.heard() and "holding" in str(keeper.heard()), keeper.heard)
        guest.check("killall -9 vchan-agent")
        self.wait_log(guest, f"pid {guest.check('pidof holder')} (holder)")
        guest.check("killall -9 holder")
        self.host.wait_attached(guest)
        self.host.wait_channels()
        self.host.say(guest, 5002)

    def test_an_agent_that_ends_removes_its_socket_and_another_takes_its_place(self):
        guest = self.bare("web")
        agent = self.start_agent(guest)
        self.assertNotEqual(guest.run("vchan-agent").status, 0)
        guest.check("killall vchan-agent")
        self.assertEqual(agent.wait(10).status, 0)
        self.assertNotEqual(guest.run("test -e /run/vchand/vchand.sock").status, 0)
        self.start_agent(guest)

    def test_the_socket_has_the_mode_that_was_asked_for(self):
        guest = self.bare("web")
        self.start_agent(guest, "--socket-mode 0640")
        self.assertEqual(guest.check("stat -c %a /run/vchand/vchand.sock"), "640")

    def test_without_vfio_it_polls(self):
        guest = self.bare("web", device=False)
        device = guest.plug(self.host.socket("web"))
        self.start_agent(guest, "--no-vfio")
        guest.start_command("exec vchanfs -f /mnt/vchan >/run/vchanfs.log 2>&1")
        self.host.wait_attached(guest)
        self.assertIn("(sysfs)", guest.check(f"cat {LOG}"))
        for port in (5000, 5002):
            self.host.say(guest, port)
        bulk = guest.start_command("wc -c </mnt/vchan/0/5004")
        self.host.check("head -c 4000000 /dev/zero >files/web/5004")
        self.assertEqual(bulk.wait(30), (0, b"4000000\n", b""))
        guest.unplug(device)
        wait_until(lambda: guest.run("vchanctl info").status != 0, "programs are told that it is gone")
        self.assertEqual(guest.run("pidof vchan-agent").status, 0)
        guest.plug(self.host.socket("web"))
        guest.wait_until("vchanctl info")

    def test_it_polls_where_there_is_no_iommu(self):
        guest = self.host.start_guest("web", words=["vchan.bare", "intel_iommu=off"])
        guest.wait_up()
        self.start_agent(guest)
        self.assertIn("it has no IOMMU group", guest.check(f"cat {LOG}"))
        guest.start_command("exec vchanfs -f /mnt/vchan >/run/vchanfs.log 2>&1")
        self.host.wait_attached(guest)
        self.host.say(guest, 5000)

    def test_a_flood_of_connections_leaves_the_agent_as_it_was(self):
        guest = self.host.boot("web")
        before = guest.check("ls /proc/$(pidof vchan-agent)/fd | wc -l")
        guest.check("for i in $(seq 30); do vchanctl info >/dev/null & vchanctl list >/dev/null & done; wait", limit_s=120)
        wait_until(lambda: guest.check("ls /proc/$(pidof vchan-agent)/fd | wc -l") == before, "its descriptors are as many as before")
        self.host.say(guest, 5000)

    def test_two_devices_are_two_zones(self):
        self.host = self.make_host(TWO_ZONES)

        def socket(zone, name):
            return os.path.join(self.host.directory, "guests", zone, f"{name}.sock")

        self.host.socket = lambda name: socket("second", name)
        db = self.host.start_guest("db")
        web = self.host.start_guest("web", device=False)
        web.wait_up()
        first = web.plug(socket("first", "web"))
        self.host.wait_attached(web)
        web.plug(socket("second", "web"))
        db.wait_up()
        self.host.wait_attached(db)
        self.wait_log(web, "in zone second")
        self.host.say(web, 5000)
        reader = db.start_command("cat /mnt/vchan/web/6000")
        web.check("echo between >/mnt/vchan/db/6000")
        self.assertEqual(reader.wait(10), (0, b"between\n", b""))
        web.unplug(first)  # through which the agent has talked to the broker
        self.host.wait_attached(web)
        reader = db.start_command("cat /mnt/vchan/web/6001")
        web.check("echo again >/mnt/vchan/db/6001")
        self.assertEqual(reader.wait(10), (0, b"again\n", b""))


if __name__ == "__main__":
    need_programs()
    need()
    unittest.main()
