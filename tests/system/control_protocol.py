# SPDX-License-Identifier: LGPL-2.1-or-later
"""The control protocol of proto/proto.h in Python: enough to ask a broker, and to play one."""

import os
import socket
import struct
import threading
from collections import namedtuple

(GET_VERSION, CHECK_COMMAND, CHECK_EVENT, HELLO, CHANNEL_OPEN, CHANNEL_CLOSE, EXPLAIN, LIST_DOMAINS,
 LIST_CHANNELS, LIST_RINGS, LIST_EXTENTS, LIST_HISTORY, BROKER_INFO, REBALANCE, RING_SET,
 DOMAIN_SET, RECORD, AGENT_HELLO, LIST_GUESTS, DOMAIN_DEVICE, DOMAIN_ATTACH, DOMAIN_DETACH, DOMAIN_SHOW,
 HYPERVISOR_SERVE, HYPERVISOR_DOMAIN, HYPERVISOR_DONE) = range(1, 27)

VERSION = 2
BYTE_ORDER = 0x01020304
MESSAGE_BYTES_MAX = 16384
ANY = 0xFFFFFFFF
NEVER = 0xFFFFFFFFFFFFFFFF
OPEN_SERVER, OPEN_CLIENT = 1, 2
OPEN_NONBLOCK = 1

HEADER = struct.Struct("=HHI")
ERROR = struct.Struct("=iI")
LIST = struct.Struct("=QII")
LIST_REPLY = struct.Struct("=IIQ")


def record(name, layout, fields, **defaults):
    """A namedtuple class with defaults (0, or b"" for texts) that packs itself as the C structure does."""
    packer = struct.Struct("=" + layout)
    names = fields.split()
    empty = packer.unpack(bytes(packer.size))
    values = [defaults.get(field, b"" if isinstance(value, bytes) else value)
              for field, value in zip(names, empty)]
    base = namedtuple(name, names, defaults=values)
    return type(name, (base,), {
        "SIZE": packer.size,
        "pack": lambda self: packer.pack(*self),
        "unpack": classmethod(lambda cls, data: cls(*packer.unpack(data))),
    })


DomainInfo = record("DomainInfo", "IIIIIIQQ16s64s",
                    "domain state connections channels guests hypervisor bytes_held quota_bytes uuid name")
ChannelInfo = record("ChannelInfo", "8IiIQQ",
                     "channel state server_domain client_domain port server_pid client_pid gone reason"
                     " zone incarnation age_ns", incarnation=1)
RingInfo = record("RingInfo", "10I21Q",
                  "channel ring sender_domain receiver_domain sender_pid receiver_pid port flags weight"
                  " channel_state incarnation generation offset_bytes size_bytes old_size_bytes min_bytes"
                  " max_bytes bytes_held high_water_bytes bytes_sent bytes_received operations_sent"
                  " operations_received stalls stall_ns sender_doorbells receiver_doorbells sender_sleeps"
                  " receiver_sleeps idle_ns resizes", incarnation=1, weight=100)
ExtentInfo = record("ExtentInfo", "QQ6I", "offset_bytes size_bytes kind channel ring owner_domain zone padding")
Decision = record("Decision", "QQ6I6Q16s104s",
                  "number time_ns channel ring sender_domain receiver_domain port outcome generation"
                  " from_offset from_bytes to_offset to_bytes took_ns trigger reason")
BrokerInfo = record("BrokerInfo", "32s32s6Q6I6Q",
                    "version policy uptime_ns region_bytes data_bytes free_bytes largest_free_bytes"
                    " resident_bytes fragmentation_permille domains channels channels_max connections"
                    " zones rounds moves grace_periods pinned opens closes", zones=1)
RingSet = record("RingSet", "IIQIIQQQ",
                 "channel ring incarnation fields weight min_bytes max_bytes size_bytes")


class Connection:
    """One connection to a real broker."""

    def __init__(self, path, domain):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        self.socket.connect(path)
        self.seq = 0
        self.descriptors = []
        self.call(GET_VERSION, struct.pack("=II", VERSION, BYTE_ORDER))
        self.call(HELLO, struct.pack("=IIII", domain, os.getpid(), 0, 0))

    def send(self, command, body=b""):
        self.seq += 1
        self.socket.send(HEADER.pack(command, len(body), self.seq) + body)

    def receive(self):
        data, descriptors, _, _ = socket.recv_fds(self.socket, MESSAGE_BYTES_MAX, 3)
        self.descriptors += descriptors
        if not data:
            raise ConnectionResetError("the broker has closed")
        err, _ = ERROR.unpack_from(data, HEADER.size)
        if err:
            raise OSError(-err, os.strerror(-err))
        return data[HEADER.size + ERROR.size:]

    def call(self, command, body=b""):
        self.send(command, body)
        return self.receive()

    def open_channel(self, peer, port, mode, receive_min=0, send_min=0):
        """Returns the channel's number."""
        body = struct.pack("=IIIIQQQQII", peer, port, mode, 0, receive_min, send_min, 0, 0, 0, 0)
        return struct.unpack_from("=I", self.call(CHANNEL_OPEN, body))[0]

    def close(self):
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []
        self.socket.close()


class ScriptedBroker:
    """A socket behind which a table says what is answered: id -> a function of the request's body.

    The function returns the bytes after proto_error, or a negative errno, or a Raw reply, or None for
    silence. Commands that are not in the table are refused with ENOSYS.
    """

    Raw = namedtuple("Raw", "bytes")  # the whole message, its header included

    def __init__(self, path):
        self.answers = {
            GET_VERSION: lambda body: struct.pack("=IIQ", VERSION, MESSAGE_BYTES_MAX, 0),
            HELLO: lambda body: struct.pack("=II64s", struct.unpack_from("=I", body)[0], 0, b""),
        }
        self.sentence = b""  # what EXPLAIN answers
        self.asked = []      # (id, body) of all requests
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        self.listener.listen(8)
        threading.Thread(target=self.accept, daemon=True).start()

    def list(self, command, items, page=None):
        """Answers a LIST_* with these records, `page` of them at a time."""
        def answer(body):
            cursor, channel, _ = LIST.unpack(body)
            some = [i for i in items if channel == ANY or getattr(i, "channel", channel) == channel]
            part = some[cursor:cursor + page] if page else some[cursor:]
            end = cursor + len(part)
            item_bytes = items[0].SIZE if items else 0
            return (LIST_REPLY.pack(len(part), item_bytes, 0 if end >= len(some) else end) +
                    b"".join(i.pack() for i in part))
        self.answers[command] = answer

    def accept(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def reply(self, command, body):
        if command == EXPLAIN:
            return struct.pack("=II4096s", len(self.sentence), 0, self.sentence)
        return self.answers.get(command, lambda body: -38)(body)

    def serve(self, peer):
        with peer:
            while True:
                try:
                    message = peer.recv(MESSAGE_BYTES_MAX)
                except ConnectionResetError:
                    return
                if not message:
                    return
                command, _, seq = HEADER.unpack_from(message)
                self.asked.append((command, message[HEADER.size:]))
                reply = self.reply(command, message[HEADER.size:])
                if reply is None:
                    continue
                if isinstance(reply, int):
                    reply = self.Raw(HEADER.pack(command, ERROR.size, seq) + ERROR.pack(reply, 0))
                elif not isinstance(reply, self.Raw):
                    reply = self.Raw(HEADER.pack(command, ERROR.size + len(reply), seq) +
                                     ERROR.pack(0, 0) + reply)
                if not reply.bytes:
                    return
                try:
                    peer.send(reply.bytes)
                except OSError:
                    return

    def close(self):
        self.listener.close()
