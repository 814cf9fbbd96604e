"""A VM under libvirt whose disk is an image of the bench, and what is written to it between backups."""

import contextlib
import os
import random
import subprocess
import sys

sys.path.insert(1, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../lib"))

import hypervisor as libvirt_hypervisor  # noqa: E402
import person as persons  # noqa: E402
import vm as vms  # noqa: E402

WRITES, WRITE = 1200, 68 << 10


class Changes:
    """About 80 MiB in 1200 places, of bytes that compress like files: they are taken from a program."""

    def __init__(self, vm, size):
        self.vm, self.size, self.chance = vm, size, random.Random(1)

    def write(self):
        import libvirt  # what virtnbdbackup uses as well
        import libvirt_qemu
        connection = libvirt.open(self.vm.hypervisor.uri)
        domain = connection.lookupByName(self.vm.name)
        for _ in range(WRITES):
            at = self.chance.randrange(self.size.disk - WRITE) // 4096 * 4096
            said = libvirt_qemu.qemuMonitorCommand(
                domain, "qemu-io -d /machine/peripheral/ua-vda/virtio-backend "
                f"\"write -q -s {self.vm.directory}/sample {at} {WRITE}\"", libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
            if said.strip():
                raise RuntimeError(f"cannot write to the disk: {said}")
        connection.close()


@contextlib.contextmanager
def running(place, name, disk):
    """The disk is a raw image; the VM has a qcow2 copy of it. It never runs a guest: it is there for libvirt and QEMU."""
    with contextlib.ExitStack() as stack:
        root = persons.Person(0, 0, f"{place}/home")
        system = stack.enter_context(libvirt_hypervisor.system(root, place))
        image = f"{system.files}/{name}.qcow2"
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, image], check=True)
        vm = stack.enter_context(vms.VM(system, name, [vms.Disk("vda", 0, path=image)]))
        vm.start()
        with open(f"{vm.directory}/sample", "wb") as file, open("/usr/bin/bash", "rb") as source:
            file.write(source.read(WRITE))
        yield vm
