#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The small test guest itself: what the other tests in this folder build upon."""

import hashlib
import os
import signal
import time
import unittest

from guest_case import BIN, GuestCase, Guest, IMAGE, need

import commands
import qmp


class CommandsTest(unittest.TestCase):
    """Tests that leave their guest as it was."""

    @classmethod
    def setUpClass(cls):
        cls.guest = Guest("solo", IMAGE, bare=True)
        cls.addClassCleanup(cls.guest.close)
        cls.guest.boot()

    def test_output_errors_and_status_come_apart(self):
        self.assertEqual(self.guest.run("echo out; echo err >&2; exit 3"), (3, b"out\n", b"err\n"))

    def test_a_signal_is_a_negative_status(self):
        self.assertEqual(self.guest.run("kill -9 $$").status, -signal.SIGKILL)

    def test_check_names_the_command_that_fails(self):
        with self.assertRaisesRegex(AssertionError, "guest solo: `ls /absent` has ended with 1.*No such file"):
            self.guest.check("ls /absent")

    def test_bytes_go_both_ways_unchanged(self):
        data = bytes(range(256)) * 40 + b"\0\0\n" + b"x" * 70000
        self.assertEqual(self.guest.run("cat", stdin=data), (0, data, b""))

    def test_much_output_arrives_whole(self):
        result = self.guest.run("head -c 20m /dev/urandom | tee /tmp/much; sync", limit_s=60)
        self.assertEqual(len(result.stdout), 20 << 20)
        self.assertEqual(self.guest.check("sha256sum </tmp/much").split()[0], hashlib.sha256(result.stdout).hexdigest())

    def test_files_go_in_and_come_out(self):
        data = os.urandom(300000)
        self.guest.push("/tmp/script file", b"#!/bin/sh\necho ran\n", mode=0o755)
        self.guest.push("/tmp/data", data)
        self.assertEqual(self.guest.check("'/tmp/script file'"), "ran")
        self.assertEqual(self.guest.pull("/tmp/data"), data)

    def test_many_commands_run_at_once(self):
        running = [self.guest.start_command(f"read word; echo {number} $word") for number in range(40)]
        for command in reversed(running):
            command.write(b"heard\n")
        for number, command in enumerate(running):
            self.assertEqual(command.wait(), (0, f"{number} heard\n".encode(), b""))

    def test_more_commands_than_there_is_room_for_are_refused(self):
        running = [self.guest.start_command("cat") for _ in range(65)]
        self.assertEqual(running[-1].wait().status, 126)
        for command in running[:-1]:
            command.close_input()
            self.assertEqual(command.wait().status, 0)

    def test_a_command_that_reads_nothing_holds_up_nobody(self):
        idle = self.guest.start_command("sleep 1000")
        idle.write(b"x" * 500000)
        self.assertEqual(self.guest.check("echo on"), "on")
        idle.kill()
        self.assertEqual(idle.wait().status, -signal.SIGKILL)

    def test_output_is_heard_while_the_command_runs(self):
        command = self.guest.start_command("echo ready; cat")
        command.wait_for(b"ready")
        self.assertIsNone(command.status)
        command.close_input()
        self.assertEqual(command.wait().status, 0)

    def test_waiting_for_what_is_never_said_fails_with_what_was(self):
        with self.assertRaisesRegex(AssertionError, "ended with 0 without saying b'other'.*b'this.n'"):
            self.guest.start_command("echo this").wait_for(b"other")

    def test_what_a_command_leaves_behind_does_not_keep_it(self):
        self.assertEqual(self.guest.run("sleep 1000 & echo $!").status, 0)
        self.guest.check("killall sleep")

    def test_a_time_limit_says_what_was_heard(self):
        with self.assertRaisesRegex(AssertionError, r"(?s)after 0.2 s, `echo so far; sleep 1001` does not end.*so far.*console"):
            self.guest.run("echo so far; sleep 1001", limit_s=0.2)
        self.guest.wait_until("! pgrep -f 'sleep 100[1]'")

    def test_vfio_has_an_iommu(self):
        self.assertEqual(self.guest.check("ls -d /dev/vfio/vfio /sys/module/vfio_pci"), "/dev/vfio/vfio\n/sys/module/vfio_pci")
        self.assertNotEqual(self.guest.check("ls /sys/kernel/iommu_groups"), "")

    def test_the_programs_run(self):
        for name in ("vchanctl", "vchanfs"):
            if os.path.exists(os.path.join(BIN, name)):
                self.assertEqual(self.guest.run(f"{name} --version").status, 0)


class LifeTest(GuestCase):
    def test_three_guests_boot_side_by_side(self):
        guests = self.boot("web", "db", "mail", bare=True)
        self.assertEqual([guest.check("hostname") for guest in guests], ["web", "db", "mail"])

    def test_a_paused_guest_does_nothing_until_it_goes_on(self):
        guest = self.boot("web", bare=True)
        ticker = guest.start_command("while usleep 10000; do echo tick; done")
        ticker.wait_for(b"tick")
        guest.pause()
        time.sleep(0.1)
        heard = len(ticker.output)
        time.sleep(0.4)
        self.assertEqual(len(ticker.output), heard)
        guest.resume()
        ticker.wait_for(b"tick\n" * (heard // 5 + 5))
        ticker.kill()
        ticker.wait()

    def test_a_reset_is_a_new_life(self):
        guest = self.boot("web", bare=True)
        guest.check("touch /tmp/before")
        lost = guest.start_command("sleep 1000")
        guest.reset()
        with self.assertRaises(commands.Lost):
            lost.wait()
        guest.wait_up()
        self.assertEqual(guest.run("ls /tmp/before").status, 1)
        guest.start_command("sleep 0.1; reboot -f")
        guest.rebooted()
        self.assertEqual(guest.check("echo up"), "up")

    def test_a_killed_guest_is_gone_and_a_new_one_comes(self):
        guest = self.boot("web", bare=True)
        running = guest.start_command("sleep 1000")
        self.assertEqual(guest.kill(), -signal.SIGKILL)
        with self.assertRaises(commands.Lost):
            running.wait()
        self.assertEqual(self.boot("web", bare=True).check("echo again"), "again")

    def test_quit_ends_in_order(self):
        self.assertEqual(self.boot("web", bare=True).quit(), 0)

    def test_a_panic_shows_the_console(self):
        with self.assertRaisesRegex(AssertionError, "(?s)guest web: it does not come up.*Kernel panic"):
            self.boot("web", words=["rdinit=/absent"])

    def test_a_device_that_cannot_be_is_refused(self):
        guest = self.boot("web", bare=True)
        ports = list(guest.free_ports)
        with self.assertRaisesRegex(qmp.Refused, "Failed to connect"):
            guest.plug(os.path.join(guest.directory, "absent"))
        self.assertEqual(guest.free_ports, ports)
        self.assertEqual(guest.check("echo on"), "on")


if __name__ == "__main__":
    need()
    unittest.main()
