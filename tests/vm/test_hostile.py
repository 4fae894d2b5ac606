#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest whose root is hostile (web): the broker goes on, and so do the channels of others. What a member of a zone writes over
the others' memory in that zone is excepted, the table of peers included; the guest mail is in another zone."""

import os
import signal
import time
import unittest

from guest_case import need
from vchan_case import Flow, Host, need_programs

CONFIGURATION = """\
[broker]
region-size = 16M
[domain host]
id = 0
[domain web]
id = 5
[domain db]
id = 6
[domain mail]
id = 7
[domain late]
id = 8
[zone shop]
members = web, db, late
[zone office]
members = mail
"""
ZONES = {"web": "shop", "db": "shop", "late": "shop", "mail": "office"}
SOON_S = 2  # for an answer of the broker, on a machine that is busy


class ZonedHost(Host):
    def __init__(self):
        super().__init__(CONFIGURATION)

    def socket(self, domain):
        return os.path.join(self.directory, "guests", ZONES[domain], f"{domain}.sock")


class HostileTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.host = ZonedHost()
        cls.addClassCleanup(cls.host.close)
        cls.host.mount()
        cls.db, cls.mail = cls.host.boot("db", "mail")

    def setUp(self):
        # The kernel lets its root map what vfio has, so that programs as bad as ours can be tried.
        self.web = self.host.boot("web", words=["iomem=relaxed"])

    def tearDown(self):
        self.web.close()
        for guest in (self.db, self.mail):
            guest.end_commands()
        self.host.wait_channels()

    def the_broker_answers(self):
        begin = time.monotonic()
        self.host.check("vchanctl info")
        self.assertLess(time.monotonic() - begin, SOON_S)

    def others_go_on_while(self, text, flows):
        """web runs something, and the others do not notice."""
        bad = self.web.start_command(text)
        while bad.status is None:
            self.the_broker_answers()
            time.sleep(0.2)
        self.assertEqual(bad.status, 0, bad.heard())
        for flow in flows:
            flow.goes_on()
            flow.stop()
        self.the_broker_answers()

    def in_the_same_zone(self, text):
        self.others_go_on_while(text, [Flow(self.host, self.db, 6000), Flow(self.host, self.mail, 7000)])
        self.web.close()
        self.host.wait_channels()
        self.web = self.host.boot("web")
        self.host.say(self.web, 5000)
        self.host.say(self.db, 6001)

    def test_rubbish_over_the_header(self):
        self.in_the_same_zone("rubbish header 1 1")

    def test_rubbish_over_the_table_of_peers(self):
        """The zone's others lose their mailboxes, and with them their channels; they get new ones without being restarted."""
        self.others_go_on_while("rubbish peers 1 2", [Flow(self.host, self.mail, 7000)])
        self.web.close()
        self.web = self.host.boot("web")
        self.host.say(self.web, 5000)
        self.host.wait_attached(self.db)
        self.host.say(self.db, 6001)

    def test_rubbish_over_its_mailbox(self):
        self.in_the_same_zone("rubbish mailbox 1 3")

    def test_a_flood_of_new_mailboxes(self):
        self.in_the_same_zone("rubbish requests 1 4")

    def test_a_flood_of_doorbells(self):
        self.in_the_same_zone("rubbish doorbells 1 5")

    def test_a_flood_of_commands(self):
        self.in_the_same_zone("for i in 1 2 3 4 5 6 7 8; do (for j in 1 2 3 4 5 6 7 8 9 10; do vchanctl list; done) & done; wait")

    def in_another_zone(self, text):
        """All of web's zone is lost; the zone is as new when its members have gone."""
        self.others_go_on_while(text, [Flow(self.host, self.mail, 7000)])
        self.web.close()
        type(self).db.close()
        self.host.wait_channels()
        self.web, type(self).db = self.host.boot("web", "db")
        self.host.say(self.web, 5000)
        self.host.say(self.db, 6000)

    def test_rubbish_over_all_channel_pages(self):
        self.in_another_zone("rubbish control 1 6")

    def test_rubbish_over_the_whole_region(self):
        self.in_another_zone("rubbish region 1 7")

    def test_an_agent_that_never_answers(self):
        flow = Flow(self.host, self.web, 5000)
        self.web.check("killall -STOP vchan-agent")
        self.others_go_on_while("sleep 1", [Flow(self.host, self.db, 6000), Flow(self.host, self.mail, 7000)])
        flow.goes_on()  # which needs no agent
        self.web.check("killall -CONT vchan-agent")
        flow.stop()
        self.host.say(self.web, 5001)

    def test_a_qemu_that_stands_still(self):
        """The broker has news for it, of a guest that comes meanwhile, and does not wait."""
        flow = Flow(self.host, self.db, 6000)
        self.web.process.send_signal(signal.SIGSTOP)
        late = self.host.boot("late")
        self.host.say(late, 8000)
        self.the_broker_answers()
        self.web.process.send_signal(signal.SIGCONT)
        flow.goes_on()
        flow.stop()
        self.host.say(self.web, 5000)
        late.close()


if __name__ == "__main__":
    need_programs()
    need()
    unittest.main()
