"""A libvirt to test against: a person's own session, or the system's instance. Domains that are not ours stay untouched."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess

from program import wait_gone

SCRIPT = os.path.join(os.path.dirname(__file__), "../../contrib/guest/hypervisor")


class Hypervisor:
    """virsh as this person, at this URI. files: where images can lie that QEMU may use."""

    def __init__(self, person, uri, files):
        self.person, self.uri, self.files = person, uri, files

    @property
    def is_system(self):
        return self.uri == "qemu:///system"

    def virsh(self, *arguments, **options):
        return self.person.run("virsh", "-q", "-c", self.uri, *arguments, **options)

    def daemon_pid(self):
        path = "/run/libvirtd.pid" if self.is_system else f"{self.person.runtime}/libvirt/libvirtd.pid"
        try:
            with open(path, encoding="utf-8") as file:
                return int(file.read())
        except (FileNotFoundError, ValueError):
            return None

    def restart_daemon(self, how=signal.SIGTERM):
        """Ends a session's libvirtd and has the next command start another. The VMs go on."""
        assert not self.is_system
        pid = self.daemon_pid()
        os.kill(pid, how)
        wait_gone(pid)
        self.virsh("list")


@contextlib.contextmanager
def session(person):
    """qemu:///session of the person. libvirt starts its daemon by itself; it is ended here."""
    hypervisor = Hypervisor(person, "qemu:///session", person.directory)
    try:
        yield hypervisor
    finally:
        for name in hypervisor.virsh("list", "--name", check=False).stdout.split():
            hypervisor.virsh("destroy", name, check=False)
        pid = hypervisor.daemon_pid()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
                wait_gone(pid)


@contextlib.contextmanager
def system(person, place):
    """qemu:///system, started where it does not run. QEMU runs as another user: images lie in a directory of its own."""
    state = f"{place}/daemons"
    files = f"{place}/images"
    os.makedirs(files, exist_ok=True)
    with contextlib.suppress(KeyError):
        owner = pwd.getpwnam("libvirt-qemu")
        os.chown(files, owner.pw_uid, owner.pw_gid)
    subprocess.run([SCRIPT, "start", state], check=True, timeout=120)
    try:
        yield Hypervisor(person, "qemu:///system", files)
    finally:
        subprocess.run([SCRIPT, "stop", state], check=True, timeout=120)
        shutil.rmtree(files, ignore_errors=True)
