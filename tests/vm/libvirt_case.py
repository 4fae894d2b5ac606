# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests with libvirt share: a libvirt that is all their own, with the real QEMU driver, and domains in it.

Everything runs in mount and process namespaces of its own, over directories that are thrown away: neither a libvirtd of this
host nor its domains are touched, and nothing outlives the test.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from xml.sax.saxutils import escape

from guest_case import BIN, CANNOT, IMAGE
from vchan_case import Host, wait_until

import commands
import machine
from guest import Guest
from host import end

CONFIGURATION = """\
[broker]
region-size = 64M
[domain web]
id = 5
"""
ROOM = 128 << 20
NAMESPACE = "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'"
QEMU_CONF = """\
stdio_handler = "file"
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
"""
LIBVIRTD_CONF = """\
unix_sock_dir = "/run/libvirt"
auth_unix_ro = "none"
auth_unix_rw = "none"
"""
# Libvirt looks these up before it reads that it shall not use them.
USERS = {"passwd": "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin\n", "group": "libvirt-qemu:x:64055:\n"}
SET_UP = """\
set -e
mount --bind {0}/passwd /etc/passwd
mount --bind {0}/group /etc/group
mount --bind {0}/etc /etc/libvirt
mount --bind {0}/var /var
mount --bind {0}/run /run
touch {0}/ready
# What it waits for does not end, but it buries those who die without a parent: libvirt waits until they are gone.
sleep infinity &
while :; do wait; done
"""


def need_libvirt():
    """Ends the test as skipped where it cannot run."""
    programs = ["unshare", "nsenter", "virsh", "libvirtd", machine.QEMU]
    reason = next((f"there is no {program} here" for program in programs if not shutil.which(program)), None)
    if not reason and not os.access(os.path.join(BIN, "vchan-libvirt"), os.X_OK):
        reason = "vchan-libvirt is not built"
    if not reason:
        tried = subprocess.run([*unshare(), "true"], capture_output=True, text=True, check=False)
        reason = tried.stderr.strip() if tried.returncode else None
    if reason:
        print(reason)
        sys.exit(CANNOT)


def unshare():
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]


# What libvirt has found out about QEMU, which takes it seconds: kept from one test to the next.
KNOWN = tempfile.TemporaryDirectory(prefix="vchan-libvirt-")


class Libvirt:
    """A libvirtd of its own, or for qemu:///embed only its directories, below `directory`."""

    def __init__(self, host):
        self.host = host
        self.directory = os.path.join(host.directory, "libvirt")
        for name in ("etc", "var/lib", "var/cache", "var/log", "run/libvirt", "embed/etc"):
            os.makedirs(os.path.join(self.directory, name))
        for name, text in USERS.items():
            with open(f"/etc/{name}", encoding="utf-8") as file:
                here = file.read()
            self.write(name, here if "\nlibvirt-qemu:" in here else here + text)
        for name in ("etc/qemu.conf", "embed/etc/qemu.conf"):
            self.write(name, QEMU_CONF)
        self.write("etc/libvirtd.conf", LIBVIRTD_CONF)
        self.uri = f"qemu+unix:///system?socket={self.directory}/run/libvirt/libvirt-sock"
        self.embed = f"qemu:///embed?root={self.directory}/embed"
        for name in ("var/cache/libvirt", "embed/cache"):
            shutil.copytree(KNOWN.name, os.path.join(self.directory, name))
        self.daemon = None
        self.namespace = host.daemon(*unshare(), "sh", "-c", SET_UP.format(self.directory))
        wait_until(lambda: os.path.exists(os.path.join(self.directory, "ready")), host.log)
        with open(f"/proc/{self.namespace.pid}/task/{self.namespace.pid}/children", encoding="ascii") as file:
            self.inside = file.read().split()[0]

    def write(self, name, text):
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def within(self, *command):
        """The words that run a command in the namespaces."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "-t", self.inside, *user, "-m", "-p", "--", *command]

    # The daemon

    def start(self):
        self.daemon = self.host.daemon(*self.within("libvirtd", "-f", "/etc/libvirt/libvirtd.conf"))
        wait_until(lambda: self.try_virsh("list").returncode == 0, self.host.log)

    def kill(self):
        """libvirtd alone; its domains go on."""
        os.killpg(self.daemon.pid, signal.SIGKILL)
        self.daemon.wait()

    def signal(self, number):
        os.killpg(self.daemon.pid, number)

    def try_virsh(self, *words, uri=None):
        environment = {**os.environ, "LC_ALL": "C"}
        return subprocess.run(self.within("virsh", "-q", "-c", uri or "qemu+unix:///system?socket=/run/libvirt/libvirt-sock", *words),
                              capture_output=True, text=True, check=False, timeout=60, env=environment)

    def virsh(self, *words, uri=None):
        result = self.try_virsh(*words, uri=uri)
        if result.returncode:
            raise AssertionError(f"virsh {words}: {result.stderr}; log:\n{self.host.log()[-2000:]}")
        return result.stdout

    def define(self, xml, uri=None):
        self.virsh("define", self.write("domain.xml", xml), uri=uri)

    def remember(self):
        for name in ("var/cache/libvirt", "embed/cache"):
            shutil.copytree(os.path.join(self.directory, name), KNOWN.name, dirs_exist_ok=True)

    def qemu_pid(self, name):
        with open(os.path.join(self.directory, f"run/libvirt/qemu/{name}.pid"), encoding="ascii") as file:
            return int(file.read())


class Domain(Guest):
    """A guest whose QEMU is libvirt's. Without `guest` it has no initrd and is only ever started paused."""

    # pylint: disable=super-init-not-called
    def __init__(self, libvirt, name, *, kind=None, ports=2, room=ROOM, iommu=True, processors=2, pc=False, more="", guest=True):
        self.libvirt = libvirt
        self.name = name
        self.directory = os.path.join(libvirt.directory, "guests", str(len(libvirt.host.guests)))
        os.makedirs(self.directory)
        self.console_path = os.path.join(self.directory, "console")
        self.commands_path = os.path.join(self.directory, "commands")
        self.kind = kind or ("qemu" if machine.why_no_kvm() else "kvm")
        self.options = {"ports": ports, "room": room, "iommu": iommu, "processors": processors, "pc": pc, "more": more, "guest": guest}
        self.process = self.monitor = self.channel = None
        libvirt.host.guests.append(self)

    def xml(self, *, ports, room, iommu, processors, pc, more, guest):
        """What the domain has, and what it lacks, as the keywords say."""
        words = ["console=ttyS0", "quiet", "nokaslr", "no_timer_check", "intel_iommu=on", "panic=-1"]
        root = "" if pc else "<controller type='pci' index='0' model='pcie-root'/>" + "".join(
            f"<controller type='pci' index='{index}' model='pcie-root-port'/>" for index in range(1, ports + 1))
        # Its place is not a root port: those are counted.
        channel = f"""<controller type='virtio-serial' index='0'>
              <address type='pci' domain='0x0000' bus='0x00' slot='0x05' function='0x0'/>
            </controller>
            <channel type='unix'><source mode='bind' path='{self.commands_path}'/><target type='virtio' name='vchan.commands'/></channel>"""
        processor = "<cpu mode='maximum'><feature policy='disable' name='erms'/></cpu>" if self.kind == "qemu" else \
            "<cpu mode='host-passthrough'/>"
        return f"""<domain type='{self.kind}' {NAMESPACE}>
          <name>{escape(self.name)}</name>
          <memory unit='MiB'>{256 if guest else 64}</memory>
          <vcpu current='1'>{processors}</vcpu>
          <os>
            <type arch='x86_64' machine='{'pc' if pc else 'q35'}'>hvm</type>
            <kernel>{IMAGE}/vmlinuz</kernel>
            {f"<initrd>{IMAGE}/initrd</initrd>" if guest else ""}
            <cmdline>{' '.join([*words, f"vchan.name={self.name}"] if guest else words)}</cmdline>
          </os>
          <features><acpi/>{"<ioapic driver='qemu'/>" if iommu else ""}</features>
          {processor}
          <devices>
            <emulator>{shutil.which(machine.QEMU)}</emulator>
            {root}
            <controller type='usb' model='none'/>
            {channel if guest else ""}
            <serial type='file'><source path='{self.console_path}'/></serial>
            <memballoon model='none'/>
            {"<iommu model='intel'><driver intremap='on'/></iommu>" if iommu else ""}
            {more}
          </devices>
          <qemu:commandline>
            {f"<qemu:arg value='-global'/><qemu:arg value='pcie-root-port.pref64-reserve={room}'/>" if room else ""}
          </qemu:commandline>
        </domain>"""

    def define(self):
        self.libvirt.define(self.xml(**self.options))

    def start(self):
        self.define()
        self.libvirt.virsh("start", self.name)
        self.attach_commands()

    def start_paused(self):
        """It never runs: that costs no processor."""
        self.define()
        self.libvirt.virsh("start", "--paused", self.name)

    def attach_commands(self):
        self.channel = wait_until(self.connected, self.console)

    def connected(self):
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            return commands.Channel(self.commands_path)
        return None

    def close(self):
        if self.channel:
            self.channel.close()


class LibvirtCase(unittest.TestCase):
    configuration = CONFIGURATION
    daemon = True

    def setUp(self):
        self.host = Host(self.configuration)
        self.addCleanup(self.host.close)
        self.libvirt = Libvirt(self.host)
        self.addCleanup(self.libvirt.remember)
        self.helper = None
        if self.daemon:
            self.libvirt.start()
            self.start_helper()

    def start_helper(self):
        self.helper = self.host.daemon(os.path.join(BIN, "vchan-libvirt"), "-c", self.libvirt.uri)
        wait_until(self.is_served, self.host.log)

    def is_served(self):
        return "vchan-libvirt is not connected" not in self.host.vchanctl("domain", "show", "web").stderr

    def kill_helper(self):
        end(self.helper)

    def domains(self):
        return {one["name"]: one for one in self.host.json("domain", "list")["domains"]}

    def state(self, name):
        return self.domains().get(name, {}).get("libvirt")

    def device(self, name):
        devices = self.domains()[name]["devices"]
        return devices[0]["device"] if devices else "none"

    def wait_state(self, name, state):
        wait_until(lambda: self.state(name) == state, lambda: f"{name}: {self.domains()}; {self.host.log()[-2000:]}")

    def wait_device(self, name, device):
        wait_until(lambda: self.device(name) == device, lambda: f"{name}: {self.domains()}; {self.host.log()[-2000:]}", 60)

    def ask(self, *words):
        """vchanctl domain, which has to succeed."""
        result = self.host.vchanctl("domain", *words)
        self.assertEqual(result.returncode, 0, f"{words}: {result.stderr}; log:\n{self.host.log()[-2000:]}")
        return result.stdout

    def refused(self, *words):
        """vchanctl domain, which has to fail: what it says."""
        result = self.host.vchanctl("domain", *words)
        self.assertEqual(result.returncode, 1, f"{words}: {result.stdout}")
        return result.stderr

    def pause(self, name, **options):
        """A domain that has been started and never runs."""
        domain = Domain(self.libvirt, name, guest=False, **options)
        domain.start_paused()
        self.wait_state(name, "paused")
        return domain
