# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small test guest: started, given commands, paused, reset, plugged with devices and killed from Python.

    with Guest("web", image, sockets=[path]) as guest:
        guest.boot()
        status, stdout, stderr = guest.run("uname -r")
"""

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time

import commands
import machine
import qmp

BOOT_LIMIT_S = 60
CONSOLE_TAIL = 2000


class Guest:
    """One at most per name and directory. What fails says what the console said last.

    sockets: of ivshmem servers, a device each, there at boot. bare: without vchan-agent and vchanfs.
    """

    def __init__(self, name, image, *, sockets=(), vectors=machine.VECTORS, memory_mib=256, bare=False, words=()):
        self.name = name
        self.directory = tempfile.mkdtemp(prefix=f"vchan-{name}-")
        self.console_path = os.path.join(self.directory, "console")
        self.commands_path = os.path.join(self.directory, "commands")
        self.qmp_path = os.path.join(self.directory, "qmp")
        self.free_ports = list(range(len(sockets) + 1, machine.PORTS + 1))
        self.plugged = {}
        self.command_line = machine.command(
            str(image), name, sockets=sockets, vectors=vectors, memory_mib=memory_mib,
            console=f"file:{self.console_path}", commands=self.commands_path, qmp=self.qmp_path,
            words=[*(["vchan.bare"] if bare else []), *words])
        self.process = self.monitor = self.channel = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # Life

    def start(self):
        """Starts QEMU and waits for its sockets only, so that several guests can boot at once; see wait_up()."""
        log = os.path.join(self.directory, "qemu.log")
        with open(log, "wb") as file:
            self.process = subprocess.Popen([*machine.DIES_WITH_US, *self.command_line],
                                            stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        deadline = time.monotonic() + BOOT_LIMIT_S
        while not self.connect():
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(log, encoding="utf-8", errors="replace") as file:
                    raise RuntimeError(f"QEMU of {self.name}: status {self.process.poll()}: {file.read()}"
                                       f"{shlex.join(self.command_line)}")
            time.sleep(0.01)

    def connect(self):
        try:
            self.channel = self.channel or commands.Channel(self.commands_path)
            self.monitor = self.monitor or qmp.Monitor(self.qmp_path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def wait_up(self, limit_s=BOOT_LIMIT_S):
        deadline = time.monotonic() + limit_s
        while True:
            try:
                return self.channel.wait_ready(1)
            except TimeoutError:
                if time.monotonic() > deadline or "Kernel panic" in self.console():
                    self.complain("it does not come up")
            except commands.Lost as lost:
                self.complain(str(lost))

    def boot(self):
        self.start()
        self.wait_up()

    def close(self):
        """Ends the guest at once, and forgets it."""
        if self.process:
            self.kill()
        for connection in (self.channel, self.monitor):
            if connection:
                connection.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self):
        """As if QEMU had crashed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        return self.process.wait()

    def console(self):
        try:
            with open(self.console_path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def complain(self, text):
        raise AssertionError(f"guest {self.name}: {text}; its console said last:\n{self.console()[-CONSOLE_TAIL:]}")

    # Commands

    def start_command(self, text):
        return self.channel.start(text)

    def run(self, text, stdin=b"", limit_s=30):
        """Runs a shell's text to its end: (status, stdout, stderr), bytes; status is negative for a signal, as in subprocess."""
        command = self.channel.start(text)
        if stdin:
            command.write(stdin)
        command.close_input()
        try:
            return command.wait(limit_s)
        except TimeoutError as error:
            command.kill()
            self.complain(str(error))
        except commands.Lost as error:
            self.complain(str(error))

    def check(self, text, stdin=b"", limit_s=30):
        """Standard output, as text without its last newline, of what has to succeed."""
        result = self.run(text, stdin, limit_s)
        if result.status != 0:
            self.complain(f"`{text}` has ended with {result.status}: {result.stdout!r} {result.stderr!r}")
        return result.stdout.decode(errors="replace").rstrip("\n")

    def wait_until(self, text, limit_s=30):
        """Repeats a command until it succeeds."""
        deadline = time.monotonic() + limit_s
        while (result := self.run(text)).status != 0:
            if time.monotonic() > deadline:
                self.complain(f"after {limit_s} s, `{text}` still ends with {result.status}: {result.stdout!r} {result.stderr!r}")
            time.sleep(0.02)

    def end_commands(self):
        """Kills those that still run."""
        for command in list(self.channel.commands.values()):
            if command.status is None:
                command.kill()
                command.wait()

    def push(self, path, data, mode=0o644):
        self.check(f"cat >{shlex.quote(path)} && chmod {mode:o} {shlex.quote(path)}", stdin=data)

    def pull(self, path):
        result = self.run(f"cat {shlex.quote(path)}")
        if result.status != 0:
            self.complain(result.stderr.decode(errors="replace"))
        return result.stdout

    # The machine

    def pause(self):
        self.monitor.ask("stop")

    def resume(self):
        self.monitor.ask("cont")

    def reset(self):
        """As its reset button. Commands that ran are lost; wait_up() waits for its new life."""
        self.monitor.events.clear()
        self.monitor.ask("system_reset")
        self.monitor.wait_for("RESET")
        self.channel.close()
        self.channel = commands.Channel(self.commands_path)

    def rebooted(self, limit_s=BOOT_LIMIT_S):
        """After the guest has been told to reboot: waits for its new life."""
        self.monitor.wait_for("RESET", limit_s)
        self.channel.close()
        self.channel = commands.Channel(self.commands_path)
        self.wait_up()

    def quit(self):
        """Ends QEMU in an orderly way; its exit status."""
        self.monitor.ask("quit")
        return self.process.wait(30)

    def plug(self, socket, vectors=machine.VECTORS):
        """Hot-plugs an ivshmem device; its name, for unplug()."""
        port = self.free_ports[0]
        name = f"plugged{port}"
        self.monitor.ask("chardev-add", id=f"{name}-chardev",
                         backend={"type": "socket", "data": {"server": False, "addr": {
                             "type": "unix", "data": {"path": str(socket)}}}})
        self.plugged[name] = self.free_ports.pop(0)
        try:
            self.monitor.ask("device_add", driver="ivshmem-doorbell", id=name, bus=f"port{port}",
                             chardev=f"{name}-chardev", vectors=vectors)
        except qmp.Refused:
            self.forget(name)
            raise
        return name

    def unplug(self, name, limit_s=30):
        """Asks the guest to give a device up, and waits until it has."""
        self.monitor.ask("device_del", id=name)
        self.monitor.wait_for("DEVICE_DELETED", limit_s, device=name)
        self.forget(name)

    def forget(self, name):
        self.free_ports.insert(0, self.plugged.pop(name))
        self.monitor.ask("chardev-remove", id=f"{name}-chardev")
