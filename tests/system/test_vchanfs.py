#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vchanfs with a real mount: what the usual programs send through a file arrives, whole and in order."""

import ctypes
import errno
import hashlib
import mmap
import os
import select
import shutil
import subprocess
import unittest

from vchanfs_case import LIB, SANITIZED, SOON_S, MountCase, need, read_exactly, write_all

MIB = 1 << 20


class ProgramCase(MountCase):
    def test_echo_is_read_by_cat_that_waits(self):
        host, web = self.pair()
        cat = self.start("cat", web)
        self.assert_blocked(cat)
        self.finish(self.shell('echo hello > "$1"', host))
        self.assertEqual(self.finish(cat), b"hello\n")

    def test_echo_waits_for_cat(self):
        host, web = self.pair()
        echo = self.shell('echo hello > "$1"', host)
        self.assert_blocked(echo)
        self.assertEqual(self.finish(self.start("cat", web)), b"hello\n")
        self.finish(echo)

    def test_a_domain_can_be_called_by_its_name(self):
        for port, (host, web) in enumerate([("web", "0"), ("5", "host"), ("web", "host")], 700):
            cat = self.start("cat", f"{self.web.path}/{web}/{port}")
            self.finish(self.shell('echo "$2" > "$1"', f"{self.host.path}/{host}/{port}", f"{host} {web}"))
            self.assertEqual(self.finish(cat), f"{host} {web}\n".encode())

    def test_a_name_is_used_again_and_again(self):
        host, web = self.pair()
        reader = self.shell('i=0; while [ $i -lt 50 ]; do cat "$1" || exit 1; i=$((i+1)); done', web)
        self.finish(self.shell('i=0; while [ $i -lt 50 ]; do echo $i > "$1" || exit 1; i=$((i+1)); done', host))
        self.assertEqual(self.finish(reader).split(), [b"%d" % i for i in range(50)])

    def test_dd_both_ways_at_once_keeps_every_byte(self):
        count = 8 if SANITIZED else 64
        sums, readers, writers = [], [], []
        for source, sink in (self.pair(), reversed(self.pair())):
            data = os.path.join(self.directory, f"data{len(sums)}")
            with open(data, "wb") as file:
                for _ in range(count):
                    file.write(os.urandom(MIB))
            with open(data, "rb") as file:
                sums.append(hashlib.sha256(file.read()).hexdigest())
            readers.append(self.shell('dd if="$1" bs=1M status=none | sha256sum', sink))
            writers.append(self.start("dd", f"if={data}", f"of={source}", "bs=1M", "status=none"))
        for writer, reader, checksum in zip(writers, readers, sums):
            self.finish(writer)
            self.assertEqual(self.finish(reader).split()[0].decode(), checksum)

    def test_tar_moves_a_tree(self):
        host, web = self.pair()
        source, target = os.path.join(self.directory, "source"), os.path.join(self.directory, "target")
        os.makedirs(f"{source}/a/b")
        os.mkdir(target)
        for number, size in enumerate((0, 1, 511, 512, 100_000, 3 * MIB)):
            with open(f"{source}/a/b/{number}", "wb") as file:
                file.write(os.urandom(size))
        # -i: read to the end of the file, as tar does from a pipe; else it may close before the last padding came.
        reader = self.start("tar", "-xif", web, "-C", target)
        self.finish(self.start("tar", "-cf", host, "-C", source, "a"))
        self.finish(reader)
        self.finish(self.start("diff", "-r", source, target))

    def test_head_leaves_early_and_the_writer_is_told(self):
        host, web = self.pair()
        writer = self.shell('exec dd if=/dev/zero of="$1" bs=64k', host)
        self.assertEqual(self.finish(self.start("head", "-c", "100000", web)), bytes(100000))
        _, err = writer.communicate(timeout=SOON_S)
        self.assertEqual(writer.returncode, 1)
        self.assertIn(b"Broken pipe", err)

    @unittest.skipUnless(shutil.which("socat"), "socat is not installed")
    def test_socat_connects_a_file_to_a_program(self):
        host, web = self.pair()
        bridge = self.start("socat", f"OPEN:{web}", "EXEC:cat")
        fd = self.open(host, os.O_RDWR)
        for message in (b"one", b"two", bytes(100_000)):
            writer = self.in_thread(write_all, fd, message)
            self.assertEqual(read_exactly(fd, len(message)), message)
            writer()
        os.close(fd)
        self.finish(bridge)

    @unittest.skipUnless(shutil.which("socat"), "socat is not installed")
    def test_socat_connects_two_files(self):
        host, web = self.pair()
        server = self.start("socat", f"OPEN:{web}", "SYSTEM:read line; echo you said $line")
        client = self.start("socat", "-t", str(SOON_S), "-,ignoreeof", f"OPEN:{host}", stdin=subprocess.PIPE)
        client.stdin.write(b"hi\n")
        client.stdin.flush()
        self.assertEqual(client.stdout.readline(), b"you said hi\n")
        server.communicate(timeout=SOON_S)
        client.stdin.close()
        client.stdin = None
        self.finish(client)

    def test_cat_and_echo_share_a_name_for_a_talk(self):
        host, web = self.pair()
        listener = self.start("cat", host)
        self.assert_blocked(listener)
        speaker = self.shell('echo hi > "$1"', host)
        peer = self.shell('exec 3<>"$1"; read line <&3; echo "you said $line" >&3', web)
        self.assertEqual(self.finish(listener), b"you said hi\n")
        self.finish(speaker)
        self.finish(peer)

    def test_python_opens_it_as_any_file(self):
        host, web = self.pair()
        reader = self.in_thread(read_lines, web)
        with open(host, "w", encoding="utf-8") as file:
            file.writelines(f"line {i}\n" for i in range(10_000))
        self.assertEqual(reader(), [f"line {i}\n" for i in range(10_000)])


class TransferCase(MountCase):
    def test_a_write_of_many_mib_is_written_whole(self):
        host, web = self.open_pair()
        for size in (MIB, MIB + 1, 5 * MIB + 12345):
            data = os.urandom(size)
            reader = self.in_thread(read_exactly, web, size)
            self.assertEqual(os.write(host, data), size)
            self.assertEqual(hashlib.sha256(reader()).digest(), hashlib.sha256(data).digest())

    def test_a_read_gives_what_there_is(self):
        host, web = self.open_pair()
        os.write(host, b"abc")
        self.assertEqual(os.read(web, 4 * MIB), b"abc")

    def test_bytes_keep_their_order_in_odd_pieces(self):
        host, web = self.open_pair()
        data = os.urandom(MIB)

        def send():
            offset, step = 0, 1
            while offset < len(data):
                offset += os.write(host, data[offset:offset + step])
                step = step * 3 % 20011 + 1

        writer = self.in_thread(send)
        received, step = bytearray(), 7
        while len(received) < len(data):
            received += os.read(web, step)
            step = step * 5 % 30011 + 1
        writer()
        self.assertEqual(bytes(received), data)

    def test_a_blocked_read_does_not_hold_up_a_write_of_the_same_open_file(self):
        host, web = self.open_pair()
        reader = self.in_thread(os.read, host, 10)
        for _ in range(3):
            os.write(host, b"x")
            self.assertEqual(os.read(web, 10), b"x")
        self.assertTrue(reader.thread.is_alive())
        os.write(web, b"answer")
        self.assertEqual(reader(), b"answer")

    def test_a_blocked_write_does_not_hold_up_reads_or_closing(self):
        host, web = self.pair()
        end = self.in_thread(self.open, web, os.O_RDWR)
        reader = self.open(host, os.O_RDONLY)
        writer = self.open(host, os.O_WRONLY)
        peer = end()
        filled = self.fill(writer)
        blocked = self.in_thread(os.write, writer, bytes(3 * MIB))
        os.write(peer, b"past it")
        self.assertEqual(os.read(reader, 10), b"past it")
        os.close(reader)
        self.assertTrue(blocked.thread.is_alive())
        self.assertEqual(read_exactly(peer, filled + 3 * MIB), bytes(filled + 3 * MIB))
        self.assertEqual(blocked(), 3 * MIB)

    def test_both_ends_in_one_mount_can_block_in_writes(self):
        path = f"{self.host.path}/0/77"
        other = self.in_thread(self.open, path, os.O_RDWR)
        ends = [self.open(path, os.O_RDWR), other()]
        writers = [self.in_thread(os.write, fd, bytes([i]) * MIB) for i, fd in enumerate(ends)]
        self.assertEqual(read_exactly(ends[0], MIB), b"\1" * MIB)
        self.assertEqual(read_exactly(ends[1], MIB), b"\0" * MIB)
        self.assertEqual([writer() for writer in writers], [MIB, MIB])

    def test_a_mib_that_is_there_ends_a_larger_read(self):
        if SANITIZED:
            self.skipTest("a sanitized library does not load into python")
        peer = Native(self.broker.socket_path, 5, 0, 4242, 4 * MIB)
        self.addCleanup(peer.close)
        fd = self.open(f"{self.host.path}/5/4242", os.O_RDONLY)
        # On a page boundary, where the kernel splits reads at each MiB, and 16 bytes after it, as in malloc's memory.
        buffer = mmap.mmap(-1, 5 * MIB)
        for size in (MIB, MIB - 4096, MIB - 1, MIB - 16, 2 * MIB, 3 * MIB + 1):
            for offset in (0, 16):
                peer.write(bytes(size))
                got = 0
                while got < size:
                    got += self.in_thread(os.readv, fd, [memoryview(buffer)[offset:offset + 4 * MIB]])()

    def test_readers_that_wait_take_up_no_threads(self):
        count = 200
        threads = self.host.status("Threads"), self.web.status("Threads")
        pairs = [self.open_pair() for _ in range(count)]
        readers = [self.in_thread(os.read, host, 1) for host, _ in pairs]
        host, web = self.open_pair()
        os.write(host, b"free")
        self.assertEqual(os.read(web, 10), b"free")
        self.assertEqual((self.host.status("Threads"), self.web.status("Threads")), threads)
        self.assertEqual(sum(reader.thread.is_alive() for reader in readers), count)
        for index, (_, web) in enumerate(pairs):
            os.write(web, bytes([index]))
        self.assertEqual([reader()[0] for reader in readers], list(range(count)))

    def test_many_threads_use_many_files(self):
        pairs = [self.open_pair() for _ in range(8)]
        talks = [self.in_thread(talk, host, web) for host, web in pairs]
        for finished in talks:
            finished()


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return file.readlines()


def talk(host, web):
    """Each message fits into the smallest ring."""
    for i in range(100):
        message = bytes([i]) * (1 + i * 37 % 4096)
        os.write(host, message)
        assert read_exactly(web, len(message)) == message
        os.write(web, message)
        assert read_exactly(host, len(message)) == message


class PollCase(MountCase):
    def test_poll_tells_when_there_is_something_to_read(self):
        host, web = self.open_pair()
        self.assertEqual(select.select([host], [], [], 0.05), ([], [], []))
        waiting = self.in_thread(select.select, [host], [], [], SOON_S)
        os.write(web, b"x")
        self.assertEqual(waiting(), ([host], [], []))
        self.assertEqual(os.read(host, 10), b"x")
        self.assertEqual(select.select([host], [], [], 0), ([], [], []))

    def test_poll_tells_when_there_is_room_to_write(self):
        host, web = self.open_pair()
        self.assertEqual(select.select([], [host], [], SOON_S), ([], [host], []))
        filled = self.fill(host)
        self.assertEqual(select.select([], [host], [], 0.05), ([], [], []))
        waiting = self.in_thread(select.select, [], [host], [], SOON_S)
        read_exactly(web, filled)
        self.assertEqual(waiting(), ([], [host], []))

    def test_poll_tells_when_the_peer_comes_and_goes(self):
        host, web = self.pair()
        fd = self.open(host, os.O_RDWR | os.O_NONBLOCK)
        poll = select.poll()
        poll.register(fd, select.POLLIN | select.POLLOUT)
        self.assertEqual(poll.poll(50), [])
        waiting = self.in_thread(poll.poll, SOON_S * 1000)
        peer = self.open(web, os.O_RDWR)
        self.assertEqual(waiting(), [(fd, select.POLLOUT)])
        poll.modify(fd, select.POLLIN)
        waiting = self.in_thread(poll.poll, SOON_S * 1000)
        os.close(peer)
        (_, events), = waiting()
        self.assertEqual(events & (select.POLLIN | select.POLLHUP), select.POLLIN | select.POLLHUP)

    def test_hang_up_is_told_to_those_who_ask_for_nothing_else(self):
        host, web = self.open_pair()
        poll = select.poll()
        poll.register(host, 0)
        self.assertEqual(poll.poll(50), [])
        waiting = self.in_thread(poll.poll, SOON_S * 1000)
        os.close(web)
        (_, events), = waiting()
        self.assertTrue(events & select.POLLHUP)

    def test_edges_are_told_to_a_program_that_reads_until_eagain(self):
        host, web = self.open_pair()
        os.set_blocking(host, False)
        edges = select.epoll()
        self.addCleanup(edges.close)
        edges.register(host, select.EPOLLIN | select.EPOLLET)
        for round_number in range(20):
            message = b"%d" % round_number
            os.write(web, message)
            self.assertEqual(edges.poll(SOON_S), [(host, select.EPOLLIN)])
            self.assertEqual(os.read(host, 100), message)
            if round_number % 2:
                self.assert_errno(errno.EAGAIN, os.read, host, 100)
            self.assertEqual(edges.poll(0.02), [])

    def test_many_files_in_one_epoll(self):
        pairs = [self.open_pair() for _ in range(50)]
        poll = select.epoll()
        self.addCleanup(poll.close)
        for host, _ in pairs:
            poll.register(host, select.EPOLLIN)
        self.assertEqual(poll.poll(0.05), [])
        for host, web in reversed(pairs):
            os.write(web, b"!")
            self.assertEqual(poll.poll(SOON_S), [(host, select.EPOLLIN)])
            self.assertEqual(os.read(host, 10), b"!")


class Native:
    """A server through libvchan-kvm, whose ring is as large as wished from the start."""

    class Options(ctypes.Structure):
        _fields_ = [("local_domain", ctypes.c_int), ("weight", ctypes.c_uint32),
                    ("receive_min", ctypes.c_size_t), ("send_min", ctypes.c_size_t),
                    ("receive_max", ctypes.c_size_t), ("send_max", ctypes.c_size_t),
                    ("socket_path", ctypes.c_char_p)]

    def __init__(self, socket_path, local_domain, peer_domain, port, send_min):
        self.library = ctypes.CDLL(os.path.join(LIB, "libvchan-kvm.so"))
        self.library.vchan_write.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
        self.library.vchan_write.restype = ctypes.c_ssize_t
        self.library.vchan_close.argtypes = [ctypes.c_void_p]
        self.handle = ctypes.c_void_p()
        options = self.Options(local_domain=local_domain, send_min=send_min, socket_path=socket_path.encode())
        result = self.library.vchan_open(peer_domain, port, 1, ctypes.byref(options), ctypes.byref(self.handle))
        if result < 0:
            raise OSError(-result, os.strerror(-result))

    def write(self, data):
        assert self.library.vchan_write(self.handle, data, len(data), 0) == len(data)

    def close(self):
        self.library.vchan_close(self.handle)


if __name__ == "__main__":
    need()
    unittest.main()
