#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ivshmem server with the real QEMU: no guest runs in it, the device does the handshake without one."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import unittest

from ivshmem_case import IvshmemCase

QEMU = "qemu-system-x86_64"


class Machine:
    def __init__(self, directory, name, *arguments):
        self.monitor = os.path.join(directory, f"{name}.qmp")
        self.errors = open(os.path.join(directory, f"{name}.err"), "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [QEMU, "-M", "q35,accel=tcg", "-smp", "1,maxcpus=2", "-m", "32", "-nodefaults", "-no-user-config",
             "-display", "none", "-S", "-qmp", f"unix:{self.monitor},server=on,wait=off",
             "-device", "pcie-root-port,id=rp1,chassis=1,slot=1", *arguments],
            stdin=subprocess.DEVNULL, stdout=self.errors, stderr=self.errors)
        self.socket = self.lines = None

    def close(self):
        if self.socket:
            self.lines.close()
            self.socket.close()
        self.process.kill()
        self.process.wait()
        self.errors.close()

    def said(self):
        self.errors.seek(0)
        return self.errors.read()

    def connect(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        while self.process.poll() is None:
            try:
                self.socket.connect(self.monitor)
                break
            except OSError:
                time.sleep(0.02)
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self.lines.readline()
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        """What it returns, or its error's description."""
        if not self.socket:
            self.connect()
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        for line in self.lines:
            answer = json.loads(line)
            if "error" in answer:
                return answer["error"]["desc"]
            if "return" in answer:
                return answer["return"]
        raise ConnectionError(self.said())

    def add_chardev(self, name, path):
        return self.ask("chardev-add", id=name, backend={"type": "socket", "data": {
            "server": False, "addr": {"type": "unix", "data": {"path": path}}}})

    def add_device(self, chardev):
        return self.ask("device_add", driver="ivshmem-doorbell", id="shm-" + chardev, chardev=chardev,
                        vectors=16, bus="rp1")

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class RealQemu(IvshmemCase):
    def machine(self, name, *arguments):
        machine = Machine(self.directory, name, *arguments)
        self.addCleanup(machine.close)
        return machine

    def device_arguments(self, domain):
        return ("-chardev", f"socket,id=iv,path={self.path(domain)}",
                "-device", "ivshmem-doorbell,bus=rp1,chardev=iv,vectors=16")

    def assert_idle_and_alive(self, machine):
        self.assertIsInstance(machine.ask("query-status"), dict)
        before = machine.cpu_seconds()
        time.sleep(1)
        self.assertLess(machine.cpu_seconds() - before, 0.5, "its main loop spins")
        self.assertIsInstance(machine.ask("query-status"), dict)

    def test_device_from_the_start_is_a_peer_until_its_qemu_is_killed(self):
        witness = self.guest(4).settle()
        machine = self.machine("a", *self.device_arguments(3))
        witness.settle(2, timeout=20)
        self.assertIn(f"domain 3 in zone default: attached as peer 2 (QEMU pid {machine.process.pid}", self.log())
        self.assert_idle_and_alive(machine)
        machine.process.send_signal(signal.SIGKILL)
        witness.settle()
        self.assertEqual(machine.said(), "")

    def test_device_is_added_to_a_machine_that_runs(self):
        machine = self.machine("a")
        machine.ask("query-status")
        witness = self.guest(4).settle()
        self.assertIsInstance(machine.add_chardev("iv", self.path(3)), dict)
        witness.settle(2)
        time.sleep(0.5)
        self.assertEqual(machine.add_device("iv"), {})
        # Others come and go while it looks, and while it is stopped.
        other = self.guest(5).settle(2, witness.id)
        machine.process.send_signal(signal.SIGSTOP)
        for _ in range(10):
            other.close()
            other = self.guest(5)
        machine.process.send_signal(signal.SIGCONT)
        self.assert_idle_and_alive(machine)
        self.assertEqual(machine.said(), "")

    def test_machines_hear_of_each_other(self):
        machines = [self.machine(f"m{n}", *self.device_arguments(n)) for n in (3, 4)]
        self.wait_until(lambda: self.log().count("attached as peer") == 2, "they do not come")
        witness = self.guest(5).settle(1, 2)
        machines[0].process.send_signal(signal.SIGKILL)
        witness.settle(*({1, 2} - {1 if "domain 3 in zone default: attached as peer 1" in self.log() else 2}))
        self.assert_idle_and_alive(machines[1])
        self.assertEqual(machines[1].said(), "")

    def test_second_device_that_is_added_fails_and_its_machine_runs_on(self):
        first = self.guest(3).settle()
        machine = self.machine("a")
        self.assertIsInstance(machine.add_chardev("iv", self.path(3)), dict)
        time.sleep(0.5)  # had the broker closed, QEMU would see that now, and spin then
        self.assertRegex(machine.add_device("iv"), "server sent version -16, expecting 0")
        self.assert_idle_and_alive(machine)
        self.assertEqual(machine.ask("chardev-remove", id="iv"), {})
        first.close()
        self.wait_until(lambda: "detached, peer 1" in self.log(), "it stays")
        self.assertIsInstance(machine.add_chardev("again", self.path(3)), dict)
        self.assertEqual(machine.add_device("again"), {})
        self.assert_idle_and_alive(machine)

    def test_second_device_from_the_start_ends_its_machine_with_a_message(self):
        self.guest(3).settle()
        machine = self.machine("a", *self.device_arguments(3))
        self.assertEqual(machine.process.wait(timeout=30), 1)
        self.assertIn("server sent version -16, expecting 0", machine.said())

    def test_machine_goes_on_without_the_broker(self):
        machine = self.machine("a", *self.device_arguments(3))
        self.wait_until(lambda: "attached as peer" in self.log(), "it does not come")
        machine.ask("query-status")
        self.stop_broker()
        self.assert_idle_and_alive(machine)


if __name__ == "__main__":
    if not shutil.which(QEMU):
        print(f"{QEMU} is not installed")
        sys.exit(77)
    unittest.main()
