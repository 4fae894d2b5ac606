#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What becomes of channels when guests come, go, die, are reset or stand still. Others' channels go on."""

import time
import unittest

from guest_case import need
from vchan_case import Flow, Host, need_programs, wait_until


class LifeTest(unittest.TestCase):
    def setUp(self):
        self.host = Host()
        self.addCleanup(self.host.close)
        self.host.mount()

    def test_a_device_is_plugged_unplugged_and_plugged_again(self):
        guest = self.host.boot("web", device=False)
        self.assertNotEqual(guest.run("vchanctl info").status, 0)
        for port in (5000, 5010):
            device = guest.plug(self.host.socket("web"))
            self.host.wait_attached(guest)
            self.host.say(guest, port)
            reading = self.host.start(f"cat files/web/{port + 2}")
            open_end = guest.start_command(f"exec 3>/mnt/vchan/0/{port + 2}; echo first >&3; read go; echo second >&3")
            wait_until(lambda: [one["state"] for one in self.host.channels()] == ["connected"], lambda: self.host.channels())
            wait_until(lambda: any(ring["bytes_sent"] == 6 for ring in self.host.json("stats")["rings"]), lambda: self.host.json("stats"))
            guest.unplug(device)
            self.assertEqual(reading.communicate(timeout=30)[0], b"first\n")
            open_end.write(b"go\n")
            self.assertNotEqual(open_end.wait().status, 0)
            self.host.wait_channels()

    def test_a_guest_that_is_killed_frees_all_and_loses_nothing_sent(self):
        web, db = self.host.boot("web", "db")
        others = Flow(self.host, db, 6000)
        reading = self.host.start("exec 3<files/web/5000; echo open; read go; cat <&3")
        web.start_command("(echo last words; sleep 1000) >/mnt/vchan/0/5000")
        self.assertEqual(reading.stdout.readline(), b"open\n")
        self.host.wait_sent("web", 5000, len("last words\n"))
        web.kill()
        out, _ = reading.communicate(b"go\n", 30)
        self.assertEqual(out, b"last words\n")
        others.goes_on()
        self.host.wait_channels(1)
        self.host.say(self.host.boot("web"), 5000)

    def test_a_guest_that_is_reset_under_load_comes_back(self):
        web, db = self.host.boot("web", "db")
        own = Flow(self.host, web, 5000)
        others = Flow(self.host, db, 6000)
        web.reset()
        own.ended()
        others.goes_on()
        web.wait_up()
        self.host.wait_attached(web)
        self.host.wait_channels(1)
        self.host.say(web, 5000)

    def test_a_guest_that_stands_still_goes_on_where_it_was(self):
        web, db = self.host.boot("web", "db")
        others = Flow(self.host, db, 6000)
        web.check("head -c 8m /dev/urandom >/tmp/bulk")
        digest = web.check("sha256sum </tmp/bulk")
        reading = self.host.start("sha256sum <files/web/5000")
        web.start_command("dd if=/tmp/bulk of=/mnt/vchan/0/5000 bs=4k")
        self.host.wait_sent("web", 5000, 100000)
        web.pause()
        for _ in range(3):
            others.goes_on()
            self.host.check("vchanctl rebalance")
            time.sleep(0.5)
        self.assertIsNone(reading.poll())
        web.resume()
        self.assertEqual(reading.communicate(timeout=60)[0].decode().strip(), digest)

    def test_an_agent_that_is_killed_comes_back(self):
        guest = self.host.boot("web")
        for port in (5000, 5010):
            flow = Flow(self.host, guest, port)
            guest.check("killall -9 vchan-agent")
            flow.ended()
            self.host.wait_attached(guest)
            self.host.wait_channels()
            self.host.say(guest, port + 2)

    def test_programs_that_are_killed_free_their_channels(self):
        guest = self.host.boot("web")
        flow = Flow(self.host, guest, 5000)
        flow.stop()
        self.host.wait_channels()
        flow = Flow(self.host, guest, 5001)
        guest.check("killall -9 vchanfs")
        flow.ended()
        self.host.wait_channels()

    def test_three_guests_have_channels_with_each_other(self):
        guests = self.host.boot("web", "db", "mail")
        for sender in guests:
            for receiver in guests:
                if sender is receiver:
                    continue
                reader = receiver.start_command(f"cat /mnt/vchan/{sender.name}/7000")
                sender.check(f"echo from {sender.name} >/mnt/vchan/{receiver.name}/7000")
                self.assertEqual(reader.wait().stdout, f"from {sender.name}\n".encode())


if __name__ == "__main__":
    need_programs()
    need()
    unittest.main()
