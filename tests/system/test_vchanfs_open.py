#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vchanfs: opening and closing - who waits for whom, who is refused, what ends when, and what a signal interrupts."""

import errno
import os
import select
import signal
import threading
import unittest

from vchanfs_case import SOON_S, MountCase, need, read_exactly, wait_until

NONBLOCK = os.O_NONBLOCK


class OpenCase(MountCase):
    def test_an_opening_waits_for_the_other_end(self):
        for flags, peer_flags in ((os.O_RDONLY, os.O_WRONLY), (os.O_WRONLY, os.O_RDONLY), (os.O_RDWR, os.O_RDWR)):
            host, web = self.pair()
            opening = self.in_thread(self.open, host, flags)
            opening.thread.join(0.1)
            self.assertTrue(opening.thread.is_alive())
            self.open(web, peer_flags)
            opening()

    def test_opening_to_write_without_waiting_finds_nobody(self):
        host, web = self.pair()
        self.assert_errno(errno.ENXIO, os.open, host, os.O_WRONLY | NONBLOCK)
        self.assertNotIn(os.path.basename(host), os.listdir(os.path.dirname(host)))
        self.assert_errno(errno.ENXIO, os.open, web, os.O_WRONLY | NONBLOCK)

    def test_opening_to_write_without_waiting_finds_a_reader(self):
        host, web = self.pair()
        reader = self.open(web, os.O_RDONLY | NONBLOCK)
        writer = self.open(host, os.O_WRONLY | NONBLOCK)
        os.write(writer, b"there")
        self.assertEqual(select.select([reader], [], [], SOON_S), ([reader], [], []))
        self.assertEqual(os.read(reader, 10), b"there")

    def test_a_reader_of_this_mount_is_not_somebody_to_write_to(self):
        host, _ = self.pair()
        self.open(host, os.O_RDONLY | NONBLOCK)
        self.assert_errno(errno.ENXIO, os.open, host, os.O_WRONLY | NONBLOCK)

    def test_without_waiting_nothing_can_be_read_or_written_before_the_peer_comes(self):
        host, web = self.pair()
        fd = self.open(host, os.O_RDWR | NONBLOCK)
        self.assert_errno(errno.EAGAIN, os.read, fd, 10)
        self.assert_errno(errno.EAGAIN, os.write, fd, b"lost?")
        peer = self.open(web, os.O_RDWR | NONBLOCK)
        self.assertEqual(select.select([], [fd], [], SOON_S), ([], [fd], []))
        os.write(fd, b"not lost")
        self.assertEqual(select.select([peer], [], [], SOON_S), ([peer], [], []))
        self.assertEqual(os.read(peer, 10), b"not lost")
        self.assert_errno(errno.EAGAIN, os.read, peer, 10)

    def test_a_read_may_wait_for_a_peer_that_is_not_there_yet(self):
        host, web = self.pair()
        fd = self.open(host, os.O_RDWR | NONBLOCK)
        os.set_blocking(fd, True)
        reader = self.in_thread(os.read, fd, 10)
        writer = self.in_thread(os.write, fd, b"question")
        peer = self.open(web, os.O_RDWR)
        self.assertEqual(os.read(peer, 10), b"question")
        writer()
        os.write(peer, b"answer")
        self.assertEqual(reader(), b"answer")

    def test_a_direction_is_given_once(self):
        host, web = self.pair()
        waiting = self.in_thread(self.open, host, os.O_RDONLY)
        wait_until(lambda: os.path.basename(host) in os.listdir(os.path.dirname(host)), "no server")
        for flags in (os.O_RDONLY, os.O_RDWR, os.O_RDONLY | NONBLOCK):
            self.assert_errno(errno.EBUSY, os.open, host, flags)
        peer = self.open(web, os.O_RDWR)
        waiting()
        for flags in (os.O_RDONLY, os.O_RDWR, os.O_RDONLY | NONBLOCK):
            self.assert_errno(errno.EBUSY, os.open, host, flags)
        writer = self.open(host, os.O_WRONLY)
        for flags in (os.O_WRONLY, os.O_WRONLY | NONBLOCK, os.O_RDWR):
            self.assert_errno(errno.EBUSY, os.open, host, flags)
        os.write(writer, b"shared")
        self.assertEqual(os.read(peer, 10), b"shared")

    def test_a_port_that_another_mount_serves_is_in_use(self):
        host, _ = self.pair()
        other = self.mount("host2", 0)
        self.open(host, os.O_RDONLY | NONBLOCK)
        self.assert_errno(errno.EADDRINUSE, os.open, host.replace(self.host.path, other.path), os.O_RDONLY)

    def test_a_name_is_free_as_soon_as_it_is_closed(self):
        host, web = self.pair()
        for _ in range(100):
            end = self.in_thread(os.open, web, os.O_RDWR)
            fd = os.open(host, os.O_RDWR)
            peer = end()
            os.write(fd, b"x")
            os.close(fd)
            self.assertEqual(os.read(peer, 10), b"x")
            os.close(peer)

    def test_a_name_is_free_when_its_peer_is_gone(self):
        host, web = self.open_pair()
        os.close(web)
        self.assertEqual(os.read(host, 1), b"")
        path = os.readlink(f"/proc/self/fd/{host}")
        again = self.open(path, os.O_RDWR | NONBLOCK)
        peer = self.open(path.replace(f"{self.host.path}/5", f"{self.web.path}/0"), os.O_RDWR)
        os.write(peer, b"new")
        self.assertEqual(select.select([again], [], [], SOON_S), ([again], [], []))
        self.assertEqual(os.read(again, 10), b"new")
        self.assertEqual(os.read(host, 1), b"")

    def test_both_ends_can_be_in_one_mount(self):
        path = f"{self.host.path}/host/88"
        reader = self.in_thread(self.open, path, os.O_RDONLY)
        writer = self.open(path, os.O_WRONLY)
        os.write(writer, b"to myself")
        self.assertEqual(os.read(reader(), 20), b"to myself")

    def test_an_opening_that_was_given_up_leaves_no_server(self):
        host, web = self.pair()
        cat = self.start("cat", host)
        self.assert_blocked(cat)
        wait_until(lambda: os.path.basename(host) in os.listdir(os.path.dirname(host)), "no server")
        cat.send_signal(signal.SIGINT)
        cat.wait(SOON_S)
        self.assertEqual(cat.returncode, -signal.SIGINT)
        self.assert_errno(errno.ENXIO, os.open, web, os.O_WRONLY | NONBLOCK)
        self.assertNotIn(os.path.basename(host), os.listdir(os.path.dirname(host)))

    def test_openings_leave_nothing_behind(self):
        def round_trip():
            end = self.in_thread(os.open, web, os.O_RDWR)
            fd = os.open(host, os.O_RDWR)
            os.close(fd)
            os.close(end())
            self.assert_errno(errno.ENXIO, os.open, host, os.O_WRONLY | NONBLOCK)

        host, web = self.pair()
        round_trip()
        before = self.host.descriptors() + self.web.descriptors()  # some are perhaps about to be closed
        for _ in range(200):
            round_trip()
        wait_until(lambda: self.host.descriptors() + self.web.descriptors() <= before, "descriptors leak")


class EndOfFileCase(MountCase):
    def test_what_was_written_before_closing_is_all_read(self):
        host, web = self.pair()
        opening = self.in_thread(self.open, web, os.O_RDONLY)
        writer = self.shell('printf "all of it" > "$1"', host)
        reader = opening()
        self.finish(writer)
        self.assertEqual(os.read(reader, 3), b"all")
        self.assertEqual(os.read(reader, 100), b" of it")
        self.assertEqual(os.read(reader, 100), b"")
        self.assertEqual(os.read(reader, 100), b"")

    def test_a_killed_writer_loses_nothing_that_it_wrote(self):
        host, web = self.pair()
        writer = self.start("sh", "-c", 'exec 3>"$1"; printf 0123456789 >&3; echo; exec sleep 60', "sh", host)
        reader = self.open(web, os.O_RDONLY)
        self.assertEqual(writer.stdout.readline(), b"\n")
        writer.kill()
        writer.wait(SOON_S)
        self.assertEqual(read_exactly(reader, 100), b"0123456789")

    def test_the_end_waits_for_the_last_opening_of_a_direction(self):
        host, web = self.open_pair(os.O_RDWR, os.O_RDONLY)
        copy = os.dup(host)
        os.close(host)
        reader = self.in_thread(os.read, web, 10)
        reader.thread.join(0.1)
        self.assertTrue(reader.thread.is_alive())
        os.write(copy, b"more")
        self.assertEqual(reader(), b"more")
        os.close(copy)
        self.assertEqual(os.read(web, 10), b"")

    def test_a_writer_that_leaves_ends_its_direction_while_the_reader_stays(self):
        host, web = self.pair()
        opening = self.in_thread(self.open, host, os.O_RDONLY)
        peer = self.open(web, os.O_RDWR)
        reader = opening()
        writer = self.open(host, os.O_WRONLY)
        os.write(writer, b"last")
        os.close(writer)
        self.assertEqual(read_exactly(peer, 10), b"last")
        os.write(peer, b"still")
        self.assertEqual(os.read(reader, 10), b"still")
        self.assert_errno(errno.EBUSY, os.open, host, os.O_WRONLY)
        os.close(reader)
        self.assert_errno(errno.EPIPE, write_until_told, peer)

    def test_a_reader_that_is_alone_is_no_end_of_file_for_the_peer(self):
        host, web = self.pair()
        opening = self.in_thread(self.open, host, os.O_RDONLY)
        peer = self.open(web, os.O_RDWR)
        opening()
        waiting = self.in_thread(os.read, peer, 10)
        waiting.thread.join(0.1)
        self.assertTrue(waiting.thread.is_alive())
        writer = self.open(host, os.O_WRONLY)
        os.write(writer, b"came later")
        self.assertEqual(waiting(), b"came later")

    def test_a_reader_that_leaves_is_told_to_the_writer_while_the_other_direction_goes_on(self):
        host, web = self.pair()
        opening = self.in_thread(self.open, host, os.O_RDONLY)
        peer = self.open(web, os.O_RDWR)
        reader = opening()
        writer = self.open(host, os.O_WRONLY)
        os.close(reader)
        self.assert_errno(errno.EPIPE, write_until_told, peer)
        os.write(writer, b"goes on")
        self.assertEqual(os.read(peer, 10), b"goes on")

    def test_what_the_peer_left_behind_is_for_the_first_reader(self):
        host, web = self.pair()
        opening = self.in_thread(self.open, host, os.O_WRONLY)
        peer = self.open(web, os.O_RDWR)
        opening()
        os.write(peer, b"left behind")
        os.close(peer)
        reader = self.open(host, os.O_RDONLY)
        self.assertEqual(read_exactly(reader, 100), b"left behind")

    def test_a_write_to_nobody_is_a_broken_pipe(self):
        host, web = self.open_pair()
        os.close(web)
        self.assert_errno(errno.EPIPE, write_until_told, host)
        self.assertEqual(os.read(host, 1), b"")

    def test_a_blocked_writer_is_told_that_its_reader_left(self):
        host, web = self.open_pair()
        self.fill(host)
        writer = self.in_thread(os.write, host, b"no room")
        writer.thread.join(0.05)
        os.close(web)
        self.assert_errno(errno.EPIPE, writer)


def write_until_told(fd):
    """The peer's leaving takes a moment to arrive."""
    while True:
        os.write(fd, b"x")


class SignalCase(MountCase):
    """SIGINT as a terminal sends it on Ctrl-C: the program dies of it at once, whatever it waits for."""

    def assert_dies(self, child):
        self.assert_blocked(child)
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=SOON_S)
        self.assertEqual(child.returncode, -signal.SIGINT)

    def test_in_open(self):
        for script in ('exec cat "$1"', 'exec dd of="$1"', 'exec dd oflag=append conv=nocreat if=/dev/null of="$1"'):
            self.assert_dies(self.shell(script, self.pair()[0]))

    def test_in_read(self):
        host, web = self.pair()
        cat = self.start("cat", host)
        peer = self.open(web, os.O_RDWR)
        os.write(peer, b"seen")
        self.assertEqual(os.read(cat.stdout.fileno(), 10), b"seen")
        self.assert_dies(cat)
        self.assert_errno(errno.EPIPE, write_until_told, peer)

    def test_in_write(self):
        host, web = self.pair()
        reader = self.in_thread(self.open, web, os.O_RDONLY)
        writer = self.start("dd", "if=/dev/zero", f"of={host}", "bs=1M", "count=1000", "status=none")
        fd = reader()
        self.assert_dies(writer)
        while os.read(fd, 1 << 20):
            pass

    def test_a_write_that_is_interrupted_tells_how_much_was_written(self):
        host, web = self.open_pair()
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.signal(signal.SIGUSR1, lambda *_: None))
        timer = threading.Timer(0.5, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR1))
        timer.start()
        written = os.write(host, bytes(64 << 20))
        timer.join()
        self.assertGreater(written, 0)
        self.assertLess(written, 64 << 20)
        os.close(host)
        self.assertEqual(len(read_exactly(web, 64 << 20)), written)

    def test_an_interrupted_read_takes_nothing(self):
        host, web = self.open_pair()
        for number in range(30):
            cat = self.start("cat", stdin=host)
            self.assert_blocked(cat)
            cat.kill()
            cat.wait(SOON_S)
            message = b"%d." % number
            os.write(web, message)
            self.assertEqual(read_exactly(host, len(message)), message)


if __name__ == "__main__":
    need()
    unittest.main()
