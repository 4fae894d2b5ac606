# SPDX-License-Identifier: LGPL-2.1-or-later
"""A broker for vchanctl whose answers are known to the byte."""

import errno

import control_protocol as proto
from control_protocol import (BrokerInfo, ChannelInfo, Decision, DomainInfo, ExtentInfo, RingInfo,
                              ScriptedBroker)
from vchanctl_case import VchanctlCase

K = 1024
S = 10**9

DOMAINS = [
    DomainInfo(domain=3, state=2, connections=1, channels=2, bytes_held=68 * K, name=b"web"),
    DomainInfo(domain=0, state=2, connections=4, channels=2, bytes_held=8 * K, quota_bytes=K * K, name=b"host",
               uuid=bytes(range(16))),
    DomainInfo(domain=7, state=1),
]
CHANNELS = [
    ChannelInfo(channel=1, state=1, server_domain=7, client_domain=3, port=80, server_pid=900, age_ns=90 * S,
                incarnation=5),
    ChannelInfo(channel=0, state=2, server_domain=3, client_domain=0, port=5000, server_pid=811, client_pid=812,
                age_ns=1500000000),
    ChannelInfo(channel=2, state=3, server_domain=0, client_domain=3, port=1, reason=errno.EPROTO, gone=2),
]
RINGS = [
    RingInfo(channel=0, ring=0, sender_domain=3, receiver_domain=0, sender_pid=811, receiver_pid=812, port=5000,
             flags=3, channel_state=2, generation=4, offset_bytes=0x3000, size_bytes=64 * K,
             old_size_bytes=4 * K, min_bytes=4 * K, max_bytes=K * K, bytes_held=1536, high_water_bytes=60 * K,
             bytes_sent=3 * K * K, bytes_received=3 * K * K - 1536, operations_sent=1234567,
             operations_received=1000, stalls=12, stall_ns=3400000, sender_doorbells=5, receiver_doorbells=6,
             sender_sleeps=7, receiver_sleeps=8, idle_ns=2 * S, resizes=3),
    RingInfo(channel=0, ring=1, sender_domain=0, receiver_domain=3, port=5000, channel_state=2, generation=1,
             size_bytes=4 * K, min_bytes=4 * K, max_bytes=K * K, idle_ns=proto.NEVER),
    RingInfo(channel=1, ring=0, incarnation=5, sender_domain=7, receiver_domain=3, port=80, channel_state=1,
             generation=1, offset_bytes=0x1000, size_bytes=4 * K),
]
EXTENTS = [
    ExtentInfo(offset_bytes=0x3000, size_bytes=64 * K, kind=1, channel=0, ring=0, owner_domain=3),
    ExtentInfo(offset_bytes=0, size_bytes=4 * K, kind=1, channel=0, ring=1, owner_domain=0),
    ExtentInfo(offset_bytes=0x1000, size_bytes=4 * K, kind=1, channel=1, ring=0, owner_domain=7),
    ExtentInfo(offset_bytes=0x2000, size_bytes=4 * K, kind=2, channel=0, ring=0, owner_domain=3),
    ExtentInfo(offset_bytes=0x13000, size_bytes=K * K - 0x13000),
]
INFO = BrokerInfo(version=b"0.1.0", policy=b"default", uptime_ns=245 * S, region_bytes=2 * K * K,
                  data_bytes=K * K, free_bytes=K * K - 76 * K, largest_free_bytes=900 * K, resident_bytes=96 * K,
                  fragmentation_permille=51, domains=3, channels=3, channels_max=1024, connections=5, rounds=10,
                  moves=4, grace_periods=3, pinned=1, opens=9, closes=4)


def decision(number, outcome=3, **fields):
    values = dict(number=number, time_ns=S * 10**9 + number * 10**6, channel=0, ring=0, sender_domain=3,
                  receiver_domain=0, port=5000, outcome=outcome, generation=number + 1, from_offset=0x2000,
                  from_bytes=4 * K, to_offset=0x3000, to_bytes=64 * K, took_ns=8200000, trigger=b"pressure",
                  reason=b"stalled 12 times in 1 s")
    return Decision(**{**values, **fields})


class RepliesCase(VchanctlCase):
    def setUp(self):
        super().setUp()
        self.broker = ScriptedBroker(self.socket_path)
        self.addCleanup(self.broker.close)
        self.broker.list(proto.LIST_DOMAINS, DOMAINS, page=2)
        self.broker.list(proto.LIST_CHANNELS, CHANNELS, page=1)
        self.broker.list(proto.LIST_RINGS, RINGS, page=2)
        self.broker.list(proto.LIST_EXTENTS, EXTENTS)
        self.broker.answers[proto.BROKER_INFO] = lambda body: INFO.pack()
        self.broker.answers[proto.RING_SET] = lambda body: b""
        self.broker.answers[proto.DOMAIN_SET] = lambda body: b""
        self.history(decision(1), decision(2, 4, to_bytes=0), decision(3, 2))

    def history(self, *decisions):
        """LIST_HISTORY's cursor is a decision's number."""
        def answer(body):
            cursor, _, _ = proto.LIST.unpack(body)
            items = [d for d in decisions if d.number >= cursor][:2]
            last = items[-1].number if items else 0
            more = items and last < decisions[-1].number
            return (proto.LIST_REPLY.pack(len(items), Decision.SIZE, last + 1 if more else 0) +
                    b"".join(d.pack() for d in items))
        self.broker.answers[proto.LIST_HISTORY] = answer

    def bodies(self, command):
        return [body for asked, body in self.broker.asked if asked == command]
