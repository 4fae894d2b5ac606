#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest that stops in the middle of an operation on a ring, for a while, and comes back: its ring is pinned, which the broker
says; others are resized meanwhile, and nothing is lost."""

import time
import unittest

from guest_case import need
from vchan_case import Flow, Host, need_programs, wait_until

PORT = 5000
ROUNDS = 8


class OperationTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.host = Host()
        cls.addClassCleanup(cls.host.close)
        cls.host.mount()
        cls.web, cls.db = cls.host.boot("web", "db")

    def ring(self, sender, port):
        found = [ring for ring in self.host.json("stats")["rings"] if (ring["sender_domain_name"], ring["port"]) == (sender, port)]
        self.assertEqual(len(found), 1, found)
        return found[0]

    def resize(self, ring, size):
        self.host.check(f"vchanctl set ring {ring['channel']}.{ring['ring']} size={size}")

    def test_a_guest_that_stops_in_an_operation(self):
        reading = self.host.start(f"cat <files/web/{PORT}")
        holder = self.web.start_command(f"holder 0 {PORT}")
        holder.wait_for(b"holding")
        others = Flow(self.host, self.db, PORT + 1)
        held, moving = self.ring("web", PORT), self.ring("db", PORT + 1)
        self.web.pause()
        try:
            self.resize(held, "256K")
            for number in range(ROUNDS):
                self.resize(moving, "64K" if number % 2 else "1M")
                others.goes_on()
                time.sleep(0.2)
            pinned = self.ring("web", PORT)
            self.assertTrue(pinned["moving"] and pinned["pinned"], pinned)
            self.assertGreaterEqual(self.ring("db", PORT + 1)["resizes"], moving["resizes"] + ROUNDS)
        finally:
            self.web.resume()
        holder.write(b"go on\n")
        self.assertEqual(holder.wait().status, 0, holder.heard())
        self.assertEqual(reading.communicate(timeout=30)[0], b"before\nwithin\nafter\n")
        others.goes_on()
        others.stop()
        wait_until(lambda: not self.host.channels(), self.host.channels)


if __name__ == "__main__":
    need_programs()
    need()
    unittest.main()
