"""A VM under libvirt. Without a guest it has no processor time at all: it stays paused, and QEMU itself writes to its
disks."""

import os
import secrets
import shutil
import signal
import subprocess
import xml.etree.ElementTree as ElementTree

from program import wait_gone
from wait import until

MIB = 1 << 20
GUEST_TOOLS = os.path.join(os.path.dirname(__file__), "../../contrib/guest")


class Disk:
    """An image, made on first use. target: "vda" (virtio). size in bytes."""

    def __init__(self, target, size, format="qcow2", path=None, options=()):
        self.target, self.size, self.format, self.path, self.options = target, size, format, path, options

    def make(self, vm):
        if self.path is None:
            self.path = f"{vm.directory}/{self.target}-{secrets.token_hex(3)}.{self.format}"
        if not os.path.exists(self.path):
            options = [word for option in self.options for word in ("-o", option)]
            vm.person.run("qemu-img", "create", "-q", "-f", self.format, *options, self.path, self.size)
        vm.person.give(self.path)
        os.chmod(self.path, 0o600)

    def xml(self):
        return (f"<disk type='file' device='disk'><driver name='qemu' type='{self.format}' discard='unmap'/>"
                f"<source file='{self.path}'/><target dev='{self.target}' bus='virtio'/>"
                f"<alias name='ua-{self.target}'/></disk>")


class Writable:
    """A VM whose disks can be written to by io(), and told."""

    def disk(self, target):
        return next(disk for disk in self.disks if disk.target == target)

    def reference(self, target, path):
        """A raw image of the disk as QEMU has it now: nothing may be writing (no guest, or a paused one)."""
        disk = self.disk(target)
        if self.is_on():
            self.io(target, "flush")
        subprocess.run(["qemu-img", "convert", "-q", "-U", "-f", disk.format, "-O", "raw", disk.path, path], check=True)
        return path


class VM(Writable):
    """extra: more XML for <devices>. guest: the directory with the small guest's kernel, for one that boots."""

    def __init__(self, hypervisor, name, disks, guest=None, transient=False, extra="", os_extra=""):
        self.hypervisor, self.person = hypervisor, hypervisor.person
        self.name, self.disks, self.guest = name, list(disks), guest
        self.transient, self.extra, self.os_extra = transient, extra, os_extra
        self.uuid = None
        self.directory = f"{hypervisor.files}/{name}"
        os.makedirs(self.directory, mode=0o755, exist_ok=True)
        if hypervisor.is_system:
            shutil.chown(self.directory, "libvirt-qemu", "libvirt-qemu")
        else:
            self.person.give(self.directory)

    # Life

    def xml(self):
        for disk in self.disks:
            disk.make(self)
        uuid = f"<uuid>{self.uuid}</uuid>" if self.uuid else ""
        boot = console = ""
        if self.guest:
            boot = (f"<kernel>{self.guest}/kernel</kernel><initrd>{self.guest}/initrd</initrd>"
                    "<cmdline>console=ttyS0 panic=-1 quiet</cmdline>")
            console = (f"<serial type='file'><source path='{self.directory}/console.log'/><target port='0'/></serial>"
                       f"<serial type='unix'><source mode='bind' path='{self.guest_line}'/><target port='1'/></serial>")
        return (f"<domain type='qemu'><name>{self.name}</name>{uuid}<memory unit='MiB'>{96 if self.guest else 16}</memory>"
                f"<vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type>{boot}{self.os_extra}</os>"
                "<features><acpi/></features><on_poweroff>destroy</on_poweroff><devices>"
                f"{''.join(disk.xml() for disk in self.disks)}{console}{self.extra}"
                "<controller type='usb' model='none'/><memballoon model='none'/></devices></domain>")

    def _virsh_with_xml(self, *command):
        path = f"{self.hypervisor.person.directory}/{self.name}.xml"
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.xml())
        os.chmod(path, 0o644)
        return self.virsh_plain(command[0], path, *command[1:])

    def define(self):
        self._virsh_with_xml("define")
        self.uuid = self.virsh("domuuid").stdout.strip()
        return self

    def start(self):
        """Starts it; a guest that boots is waited for."""
        paused = [] if self.guest else ["--paused"]
        if self.transient:
            self._virsh_with_xml("create", *paused)
            self.uuid = self.virsh("domuuid").stdout.strip()
        else:
            self.define()
            self.virsh("start", *paused)
        if self.guest:
            self.sh("true")
        return self

    def destroy(self):
        """Pulls the plug."""
        return self.virsh("destroy", check=False)

    def shut_down(self):
        """Has QEMU end in good order, which writes the bitmaps to the images."""
        pid = self.pid()
        self.monitor({"execute": "quit"}, check=False)
        wait_gone(pid)
        until(lambda: self.state() in ("shut off", ""), f"{self.name} is off")

    def remove(self):
        """Leaves nothing of it behind. Good in any state."""
        self.destroy()
        for name in self.checkpoints(check=False):
            self.virsh("checkpoint-delete", name, "--metadata", check=False)
        self.virsh("undefine", "--checkpoints-metadata", "--nvram", check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()

    # Looking

    def virsh_plain(self, *arguments, **options):
        return self.hypervisor.virsh(*arguments, **options)

    def virsh(self, command, *arguments, **options):
        return self.hypervisor.virsh(command, self.name, *arguments, **options)

    def state(self):
        return self.virsh("domstate", check=False).stdout.strip()

    def pid(self):
        places = (f"{self.person.runtime}/libvirt/qemu/run", "/run/libvirt/qemu")
        with open(f"{places[self.hypervisor.is_system]}/{self.name}.pid", encoding="utf-8") as file:
            return int(file.read())

    def kill(self):
        """kill -9 of QEMU: its bitmaps stay marked as in use."""
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
        until(lambda: self.state() in ("shut off", ""), f"libvirt has noticed that {self.name} died")

    def has_job(self):
        return self.virsh("backup-dumpxml", check=False).returncode == 0

    def checkpoints(self, check=True):
        return self.virsh("checkpoint-list", "--name", check=check).stdout.split()

    def live_xml(self):
        return ElementTree.fromstring(self.virsh("dumpxml").stdout)

    # Writing without a guest

    def monitor(self, command, check=True):
        import json  # only here
        result = self.virsh("qemu-monitor-command", json.dumps(command), check=check)
        return json.loads(result.stdout) if result.returncode == 0 else None

    def io(self, target, *commands):
        """Commands of qemu-io on a disk of the running VM: "write -P 0x5a 1M 4M", "write -z -u 0 1M", "discard 0 1M"."""
        for command in commands:
            result = self.virsh("qemu-monitor-command", "--hmp",
                                f"qemu-io -d /machine/peripheral/ua-{target}/virtio-backend \"{command}\"")
            said = result.stdout.lower()
            assert "error" not in said and "failed" not in said, f"{command}: {result.stdout}"

    # With a guest

    @property
    def guest_line(self):
        return f"{self.directory}/guest.sock"

    def sh(self, command, check=True, timeout=120):
        """A shell command in the guest; its output as text."""
        result = subprocess.run([f"{GUEST_TOOLS}/run", "--timeout", str(timeout), self.guest_line, command],
                                capture_output=True, text=True, timeout=timeout + 30, check=False)
        if check and result.returncode != 0:
            raise AssertionError(f"in the guest: {command}: exit status {result.returncode}\n{result.stdout}{result.stderr}")
        return result.stdout

    def is_on(self):
        return self.state() not in ("shut off", "")


def random_image(person, path, size, data, cluster=MIB):
    """A qcow2 with data bytes that do not compress, spread over its size."""
    raw = f"{path}.raw"
    with open("/dev/urandom", "rb") as source, open(raw, "wb") as file:
        file.truncate(size)
        count = data // cluster
        for i in range(count):
            file.seek(i * (size // cluster) // max(count, 1) * cluster)
            file.write(source.read(cluster))
    subprocess.run(["qemu-img", "convert", "-q", "-O", "qcow2", "-f", "raw", raw, path], check=True)
    os.unlink(raw)
    person.give(path)
    return path
