"""Instant recovery: a VM runs from a point at once, while its disks become its own."""

import json
import os
import signal
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest
from mount import is_mounted, unmount
from program import processes_of, wait_gone
from repository import Repository
from test_real_guest import E2FSCK, start_guest, sums_in_guest
from vm import MIB, VM, Disk
from wait import until

SLOWLY = ("--rate", "1M")


def lose(vm):
    """The bad day: VM and disks are gone."""
    vm.destroy()
    vm.virsh("undefine", "--checkpoints-metadata")
    for disk in vm.disks:
        os.unlink(disk.path)


def captured_guest(hypervisor, guest, program, place, name):
    """A guest with files on its disk, a repository with a point of it, and what the files are."""
    vm = start_guest(hypervisor, guest, name, mib=64)
    repository = Repository(program, f"{place}/repository").init()
    repository.add(vm)
    vm.sh("mkdir /mnt/d; for i in 1 2 3; do dd if=/dev/urandom of=/mnt/d/$i bs=1M count=3; done; sync")
    sums = sums_in_guest(vm)
    repository.capture(vm)
    return vm, repository, sums


def into(vm):
    path = f"{vm.directory}/final"
    if not os.path.isdir(path):
        os.mkdir(path)
        vm.person.give(path)
        os.chmod(path, 0o711)
    return path


def recover(repository, vm, *options, **more):
    """Runs to its end."""
    return repository.program.run("recover", "-c", vm.hypervisor.uri, "--into", into(vm), *options, repository.path, vm.name, **more)


def start_recovery(repository, vm, *options):
    return repository.program.start("recover", "-c", vm.hypervisor.uri, "--into", into(vm), *options, repository.path, vm.name)


def mountpoint(vm, name=None):
    return f"{into(vm)}/{name or vm.name}.recovery/mnt"


def wait_running(process, vm, name=None):
    """Until it has said that the VM runs."""
    line = process.stderr.readline()
    while line and "runs from" not in line:
        line = process.stderr.readline()
    assert line, process.wait(60)
    assert is_mounted(mountpoint(vm, name))


def hurry(vm, name=None):
    vm.virsh_plain("blockjob", name or vm.name, "vda", "--bandwidth", "1000")


def backing_of(path):
    said = subprocess.run(["qemu-img", "info", "-U", "--output=json", path], check=True, capture_output=True, text=True).stdout
    return json.loads(said).get("backing-filename")


def nothing_is_left(vm, name=None):
    name = name or vm.name
    assert not is_mounted(mountpoint(vm, name))
    assert not [entry for entry in os.listdir(into(vm)) if entry.startswith(f"{name}.recovery")]


def check_recovered(vm, sums, path):
    """The VM's disk stands alone, and its file system is sound."""
    nothing_is_left(vm)
    assert backing_of(path) is None
    subprocess.run(["sync"], check=True)
    vm.sh("umount /mnt || umount -l /mnt; sync")
    vm.destroy()
    subprocess.run(["qemu-img", "check", "-q", path], check=True)
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, f"{path}.raw"], check=True)
    subprocess.run(["dd", f"if={path}.raw", f"of={path}.part", "bs=1M", "skip=1", "status=none"], check=True)
    checked = subprocess.run([E2FSCK, "-fn", f"{path}.part"], check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def boots_and_writes_while_it_streams(hypervisor, guest, program, place, name):
    vm, repository, sums = captured_guest(hypervisor, guest, program, place, name)
    with vm:
        lose(vm)
        recovery = start_recovery(repository, vm, "--keep-identity", *SLOWLY)
        wait_running(recovery, vm)
        vm.sh("mount /dev/vda1 /mnt")
        assert sums_in_guest(vm) == sums
        vm.sh("rm /mnt/d/2; dd if=/dev/urandom of=/mnt/more bs=1M count=5; echo changed > /mnt/d/1; sync")
        changed = sums_in_guest(vm)
        path = f"{into(vm)}/{name}-vda.qcow2"
        assert backing_of(path), "it was to be written while it streams"
        # Neither umount nor a signal takes the mount away from under it.
        assert unmount(mountpoint(vm)).returncode != 0
        daemon = processes_of(program.program.path, "mount", mountpoint(vm))
        os.kill(daemon[0], signal.SIGTERM)
        vm.sh("echo 3 > /proc/sys/vm/drop_caches")
        assert sums_in_guest(vm) == changed
        hurry(vm)
        assert recovery.wait(120) == 0, recovery.stderr.read()
        assert recovery.stdout.read() == f"{name}\n"
        vm.sh("echo after > /mnt/after; echo 3 > /proc/sys/vm/drop_caches; rm /mnt/after")
        assert sums_in_guest(vm) == changed
        check_recovered(vm, changed, path)


def test_a_guest_boots_from_the_mount_and_writes_while_its_disk_streams_and_lives_on_without(session, guest, program, place):
    boots_and_writes_while_it_streams(session, guest, program, place, "recovered")


@pytest.mark.needs_root
def test_the_system_instance_gets_a_recovered_guest(system, guest, program, place):
    boots_and_writes_while_it_streams(system, guest, program, place, "vbfs-recovered")
