# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMU's command line for a small test guest (packaging/guest-image)."""

import os
import shutil

QEMU = "qemu-system-x86_64"
# The room that a root port keeps for the region of an ivshmem device. By default it would be 2 MiB.
PORT_ROOM = "4G"
PORTS = 4
# A command after these words is killed when the thread that started it ends, however it ends.
DIES_WITH_US = ["setpriv", "--pdeathsig", "KILL", "--"]
VECTORS = 16


def why_no_kvm():
    """None where a guest can run under KVM."""
    if os.path.exists("/sys/module/kvm_pvm"):
        return "the kernel's kvm_pvm cannot run a stock kernel"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm is not open to this user" if os.path.exists("/dev/kvm") else "there is no /dev/kvm"
    return None


def missing():
    """None where guests can be run, else why not."""
    if not shutil.which(QEMU):
        return f"there is no {QEMU} here (package qemu-system-x86)"
    return None


def machine_options(accel):
    """The machine with an IOMMU for guests, without which they have no VFIO."""
    if accel == "kvm":
        return ["-M", "q35,accel=kvm,kernel_irqchip=split", "-cpu", "host", "-smp", "1"]
    # With one possible CPU, TCG makes code whose atomic operations are not: two guests would lose
    # updates of shared words. And erms makes copies five times slower under TCG.
    return ["-M", "q35,accel=tcg", "-cpu", "max,-erms", "-smp", "1,maxcpus=2"]


def ivshmem_options(number, socket, vectors):
    """A device at the root port of this number."""
    return ["-chardev", f"socket,id=ivshmem{number},path={socket}",
            "-device", f"ivshmem-doorbell,id=vchan{number},bus=port{number},chardev=ivshmem{number},vectors={vectors}"]


def command(image, name, *, sockets=(), vectors=VECTORS, memory_mib=256, ports=PORTS, accel=None,
            console="stdio", commands=None, qmp=None, words=()):
    """The list of words of the command line.

    image: the directory that packaging/guest-image made. sockets: of ivshmem servers, a device for each; the root ports that
    are left are for hot-plug. console: a chardev of QEMU. commands, qmp: sockets that QEMU makes. words: more of the kernel's
    command line, vchan.shell for example (packaging/guest/init).
    """
    accel = accel or ("tcg" if why_no_kvm() else "kvm")
    options = [QEMU, "-name", name, *machine_options(accel), "-m", str(memory_mib), "-nodefaults", "-no-user-config",
               "-display", "none", "-serial", console, "-device", "intel-iommu,intremap=on",
               "-global", f"pcie-root-port.pref64-reserve={PORT_ROOM}"]
    for number in range(1, max(ports, len(sockets)) + 1):
        options += ["-device", f"pcie-root-port,id=port{number},chassis={number},slot={number}"]
    for number, socket in enumerate(sockets, 1):
        options += ivshmem_options(number, socket, vectors)
    if commands:
        options += ["-device", "virtio-serial-pci", "-chardev", f"socket,id=commands,path={commands},server=on,wait=off",
                    "-device", "virtserialport,chardev=commands,name=vchan.commands"]
    if qmp:
        options += ["-qmp", f"unix:{qmp},server=on,wait=off"]
    # On a busy machine, the kernel's test whether the timer interrupts takes it for broken, and panics: no_timer_check.
    kernel_words = ["console=ttyS0", "quiet", "nokaslr", "no_timer_check", "intel_iommu=on", f"vchan.name={name}", *words]
    return [*options, "-kernel", os.path.join(image, "vmlinuz"), "-initrd", os.path.join(image, "initrd"),
            "-append", " ".join(kernel_words)]
