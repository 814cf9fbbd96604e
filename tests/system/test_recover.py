"""Instant recovery: a VM runs from a point at once, while its disks become its own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest
from mount import is_mounted, unmount
from person import ordinary_user
from program import processes_of, wait_gone
from repository import Repository
from test_real_guest import E2FSCK, start_guest, sums_in_guest
from vm import MIB, VM, Disk
from wait import until

SLOWLY = ("--rate", "64K")


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
    return repository.program.run("recover", "-c", vm.hypervisor.uri, "--into", into(vm), *options, repository.path,
                                  vm.name, **more)


def start_recovery(repository, vm, *options):
    return repository.program.start("recover", "-c", vm.hypervisor.uri, "--into", into(vm), *options, repository.path,
                                    vm.name)


def mountpoint(vm, name=None):
    return f"{into(vm)}/{name or vm.name}.recovery/mnt"


def wait_running(process, vm, name=None):
    """Until it has said that the VM runs."""
    line = process.stderr.readline()
    while line and "runs from" not in line:
        line = process.stderr.readline()
    assert line, process.wait(60)
    assert is_mounted(mountpoint(vm, name))


def hurry(vm, check=True):
    vm.virsh("blockjob", "vda", "--bandwidth", "1000", check=check)


def backing_of(path):
    said = subprocess.run(["qemu-img", "info", "-U", "--output=json", path], check=True, capture_output=True,
                          text=True).stdout
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


# What init of the small guest gets besides: a word on the console, and an agent that knows the time.
MORE_OF_INIT = r"""
echo "this guest is up" > /dev/ttyS0
for port in /sys/class/virtio-ports/*; do
        [ "$(cat $port/name)" = org.qemu.guest_agent.0 ] && agent=/dev/${port##*/}
done
(exec 3<> $agent; while true; do
        read -r line <&3 || { sleep 0.1; continue; }
        case $line in
        *guest-sync*) echo '{"return": '$(echo "$line" | sed 's/.*"id": *\([0-9]*\).*/\1/')'}' >&3 ;;
        *guest-get-time*) echo '{"return": 1}' >&3 ;;
        esac
done) > /dev/null 2>&1 &
"""


@pytest.fixture(scope="module")
def talking_guest(guest, module_place):
    """As guest, with one that tells when it is up, in both ways."""
    place = f"{module_place}/talking"
    os.makedirs(f"{place}/root")
    with open(f"{guest}/init", encoding="utf-8") as file:
        before, line, after = file.read().partition("exec < /dev/ttyS1")
    with open(f"{place}/root/init", "w", encoding="utf-8") as file:
        file.write(before + MORE_OF_INIT + line + after)
    os.chmod(f"{place}/root/init", 0o755)
    subprocess.run(f"cp {guest}/kernel {place}/kernel; cp {guest}/initrd {place}/initrd; cd {place}/root; "
                   "echo init | cpio --quiet -o -H newc -R 0:0 | gzip >> ../initrd", shell=True, check=True)
    return place


def try_point(repository, vm, place, *options):
    return repository.program.run("recover", "--test", "-c", vm.hypervisor.uri, "--into", place, *options, repository.path,
                                  vm.name,
                                  check=False)


def domains(hypervisor):
    return sorted(hypervisor.virsh("list", "--all", "--name").stdout.split())


def talks_and_is_thrown_away(hypervisor, program, place, talking_guest, name):
    with VM(hypervisor, name, [Disk("vda", 2 * MIB)], guest=talking_guest) as vm:
        before = domains(hypervisor)
        vm.define()
        repository = Repository(program, f"{place}/repository").init()
        repository.add(vm)
        point = repository.capture(vm)
        tests = into(vm)
        answered = try_point(repository, vm, tests, "--timeout", "90")
        assert answered.returncode == 0, answered.stderr
        assert f"{name}/{point} boots: its guest agent answered" in answered.stderr, answered.stderr
        said = try_point(repository, vm, tests, "--until", "guest is up", "--timeout", "90")
        assert said.returncode == 0 and 'its console said "guest is up"' in said.stderr, said.stderr
        mute = try_point(repository, vm, tests, "--until", "never said", "--timeout", "1")
        assert mute.returncode == 3 and "does not boot: its console has not said that within 1 s" in mute.stderr, mute.stderr
        assert os.listdir(tests) == [] and domains(hypervisor) == sorted([*before, name])


def test_a_point_that_boots_is_told_from_one_that_does_not(session, program, place, talking_guest):
    talks_and_is_thrown_away(session, program, place, talking_guest, "tried")


@pytest.mark.needs_root
def test_the_system_instance_tests_points_too(system, program, place, talking_guest):
    talks_and_is_thrown_away(system, program, place, talking_guest, "vbfs-tried")


@contextlib.contextmanager
def gone_vm(hypervisor, program, place, name):
    """A VM without a guest, that is gone, a repository with its point (9 MiB), and what its disks were."""
    with VM(hypervisor, name, [Disk("vda", 20 * MIB), Disk("vdb", 3 * MIB)]) as vm:
        vm.start()
        vm.io("vda", "write -P 5 1M 8M")
        vm.io("vdb", "write -P 6 0 1M")
        repository = Repository(program, f"{place}/repository").init()
        repository.add(vm)
        reference = {target: vm.reference(target, f"{place}/{target}.raw") for target in ("vda", "vdb")}
        repository.capture(vm)
        lose(vm)
        try:
            yield vm, repository, reference
        finally:
            vm.destroy()
            if is_mounted(mountpoint(vm)):
                unmount(mountpoint(vm), lazy=True)


@pytest.fixture
def small(session, program, place):
    with gone_vm(session, program, place, "small") as parts:
        yield parts
        session.virsh("destroy", "other", check=False)
        session.virsh("undefine", "other", check=False)


def is_recovered(vm, reference, name=None):
    name = name or vm.name
    nothing_is_left(vm, name)
    if name == vm.name:
        vm.kill()  # what QEMU has in memory is not needed
    else:
        vm.virsh_plain("destroy", name)
    for target, image in reference.items():
        path = f"{into(vm)}/{name}-{target}.qcow2"
        assert backing_of(path) is None
        subprocess.run(["qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", path, image], check=True)


def test_a_recovered_vm_has_an_identity_of_its_own_unless_it_is_kept(session, small):
    vm, repository, reference = small
    assert recover(repository, vm).stdout == "small\n"
    new = ElementTree.fromstring(session.virsh("dumpxml", "small").stdout)
    assert new.findtext("uuid") != vm.uuid
    is_recovered(vm, reference)
    taken = repository.program.run("recover", "-c", session.uri, "--into", into(vm), repository.path, "small", check=False)
    assert taken.returncode == 1 and "there is a VM named small" in taken.stderr and "--name" in taken.stderr, taken.stderr
    recover(repository, vm, "--name", "other", "--keep-identity")
    assert ElementTree.fromstring(session.virsh("dumpxml", "other").stdout).findtext("uuid") == vm.uuid
    is_recovered(vm, reference, "other")
    clash = repository.program.run("recover", "-c", session.uri, "--into", into(vm), "--name", "third", "--keep-identity",
                                   repository.path, "small", check=False)
    assert clash.returncode == 1 and "the VM other" in clash.stderr and "UUID already" in clash.stderr, clash.stderr
    nothing_is_left(vm, "third")


def drive(kind, path, target, format, more):
    return (f"<disk type='file' device='{kind}'><driver name='qemu' type='{format}'/><source file='{path}'/>"
            f"<target dev='{target}' bus='{'sata' if kind == 'cdrom' else 'virtio'}'/>{more}"
            f"<alias name='ua-{target}'/></disk>")


def test_disks_that_are_no_plain_ones_come_as_they_were(session, program, place):
    """Read-only, shared, in no point; and a drive with a medium."""
    images = {name: f"{place}/{name}" for name in ("fixed.qcow2", "shared.raw", "medium.iso", "left-out.qcow2")}
    for name, path in images.items():
        form = "qcow2" if name.endswith("qcow2") else "raw"
        session.person.run("qemu-img", "create", "-q", "-f", form, path, "3M")
        session.person.run("qemu-io", "-f", form, "-c", "write -P 77 1M 1M", path)
    extra = (drive("disk", images["fixed.qcow2"], "vdb", "qcow2", "<readonly/>") +
             drive("disk", images["shared.raw"], "vdc", "raw", "<shareable/>") +
             drive("disk", images["left-out.qcow2"], "vdd", "qcow2", "") +
             drive("cdrom", images["medium.iso"], "sda", "raw", "<readonly/>"))
    with VM(session, "mixed", [Disk("vda", 4 * MIB)], extra=extra) as vm:
        vm.start()
        vm.io("vda", "write -P 5 1M 2M")
        reference = {"vda": vm.reference("vda", f"{place}/vda.raw"), "vdc": images["shared.raw"]}
        subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", images["fixed.qcow2"], f"{place}/vdb.raw"], check=True)
        reference["vdb"] = f"{place}/vdb.raw"
        repository = Repository(program, f"{place}/repository").init()
        program.run("add", repository.path, "mixed", session.uri, "--exclude", "vdd")
        repository.capture(vm)
        lose(vm)
        result = try_point(repository, vm, into(vm), "--until", "never said", "--timeout", "1")
        assert result.returncode == 3 and "its console has not said that" in result.stderr, result.stderr
        result = recover(repository, vm, "--keep-identity")
        assert "disk vdc cannot be shared with other VMs as it was" in result.stderr
        assert "disk vdd is not in the point" in result.stderr
        disks = {disk.find("target").get("dev"): disk for disk in vm.live_xml().iter("disk")}
        assert disks.keys() == {"vda", "vdb", "vdc", "sda"}
        assert disks["vdb"].find("readonly") is not None and disks["vda"].find("readonly") is None
        assert disks["sda"].find("source").get("file") == images["medium.iso"]
        is_recovered(vm, reference)


def test_an_image_that_is_in_the_way_stays(small):
    vm, repository, _ = small
    with open(f"{into(vm)}/small-vdb.qcow2", "wb") as file:
        file.write(b"precious")
    refused = start_recovery(repository, vm)
    assert refused.wait(60) == 1 and "small-vdb.qcow2 is there already" in refused.stderr.read()
    assert os.listdir(into(vm)) == ["small-vdb.qcow2"] and "small" not in domains(vm.hypervisor)


def test_what_is_interrupted_is_gone_on_with(small, program):
    vm, repository, reference = small
    recovery = start_recovery(repository, vm, *SLOWLY)
    wait_running(recovery, vm)
    recovery.send_signal(signal.SIGINT)
    assert recovery.wait(60) == 1
    assert "the same command goes on" in recovery.stderr.read()
    killed = start_recovery(repository, vm, *SLOWLY)
    until(lambda: "goes on with the recovery of small" in killed.stderr.readline(), "it goes on")
    busy = repository.program.run("recover", "-c", vm.hypervisor.uri, "--into", into(vm), repository.path, "small",
                                  check=False)
    assert busy.returncode == 1 and "another process recovers it" in busy.stderr, busy.stderr
    killed.kill()
    killed.wait(60)
    assert vm.state() == "running" and is_mounted(mountpoint(vm))
    hurry(vm)
    recover(repository, vm)
    is_recovered(vm, reference)


def test_a_vm_whose_host_went_down_loses_nothing(small, program):
    vm, repository, reference = small
    recovery = start_recovery(repository, vm, *SLOWLY)
    wait_running(recovery, vm)
    recovery.kill()
    recovery.wait(60)
    vm.io("vda", "write -P 9 12M 64k")
    subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 9 12M 64k", reference["vda"]], check=True, capture_output=True)
    vm.destroy()
    for daemon in processes_of(program.program.path, "mount", mountpoint(vm)):
        os.kill(daemon, signal.SIGKILL)
        wait_gone(daemon)
    recover(repository, vm)
    is_recovered(vm, reference)


def test_qemu_that_dies_before_it_has_written_down_what_it_streamed_loses_nothing(small):
    vm, repository, reference = small
    recovery = start_recovery(repository, vm, *SLOWLY)
    wait_running(recovery, vm)
    until(lambda: vm.virsh("blockjob", "vda", "--raw", check=False).stdout.strip(), "streaming has begun")
    recovery.send_signal(signal.SIGSTOP)
    vm.io("vda", "write -P 9 12M 64k", "write -z -u 2M 1M", "flush")
    hurry(vm)
    until(lambda: vm.live_xml().find("devices/disk").find("backingStore/source") is None, "vda is streamed")
    vm.kill()
    recovery.kill()
    recovery.wait(60)
    path = f"{into(vm)}/small-vda.qcow2"
    assert backing_of(path) is None
    recover(repository, vm)
    nothing_is_left(vm)
    vm.kill()
    subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 9 12M 64k", "-c", "write -z 2M 1M", reference["vda"]],
                   check=True,
                   capture_output=True)
    compared = subprocess.run(["qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, reference["vda"]], check=False,
                              capture_output=True,
                              text=True)
    assert compared.returncode == 0, compared.stdout


def test_points_that_a_recovery_needs_are_not_deleted(small):
    vm, repository, reference = small

    def is_refused():
        result = repository.program.run("forget", "--points", "--force", repository.path, "small", check=False)
        assert result.returncode == 1 and "its points are in use by a recovery" in result.stderr, result.stderr

    recovery = start_recovery(repository, vm, *SLOWLY)
    wait_running(recovery, vm)
    is_refused()
    recovery.kill()
    recovery.wait(60)
    is_refused()
    vm.destroy()  # with its disks closed
    is_refused()
    recover(repository, vm)
    is_recovered(vm, reference)
    repository.program.run("forget", "--points", "--force", repository.path, "small")
    assert repository.program.json("list", repository.path) == {"vms": []}


def test_a_recovery_can_be_taken_away(small):
    vm, repository, _ = small
    recovery = start_recovery(repository, vm, *SLOWLY)
    wait_running(recovery, vm)
    recovery.kill()
    recovery.wait(60)
    assert recover(repository, vm, "--abort").stdout == "small\n"
    assert os.listdir(into(vm)) == [] and "small" not in domains(vm.hypervisor)
    none = repository.program.run("recover", "-c", vm.hypervisor.uri, "--into", into(vm), "--abort", repository.path,
                                  "small",
                                  check=False)
    assert none.returncode == 1 and "no VM small is being recovered" in none.stderr


def wait_for_words(process, words):
    line = process.stderr.readline()
    while line and words not in line:
        line = process.stderr.readline()
    assert line, f"ended with {process.wait(60)}"


def test_one_that_was_killed_before_the_vm_was_started_is_begun_anew(small, place):
    vm, repository, reference = small
    os.mkdir(f"{place}/bin")
    os.mkfifo(f"{place}/fifo")
    with open(f"{place}/bin/qemu-img", "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\nexec cat {place}/fifo\n")  # never done
    os.chmod(f"{place}/bin/qemu-img", 0o755)
    environment = {**vm.person.environment, "PATH": f"{place}/bin:{vm.person.environment['PATH']}"}
    killed = repository.program.start("recover", "-c", vm.hypervisor.uri, "--into", into(vm), repository.path, "small",
                                      env=environment)
    with open(f"{place}/fifo", "wb"):  # it has come to that
        killed.kill()
        killed.wait(60)
        assert is_mounted(mountpoint(vm))
    begun = recover(repository, vm)
    assert "had not come to starting a VM, is taken away" in begun.stderr, begun.stderr
    is_recovered(vm, reference)


def test_a_test_that_was_killed_leaves_no_vm_and_the_next_one_takes_away_the_rest(small):
    vm, repository, _ = small
    before = domains(vm.hypervisor)
    killed = repository.program.start("recover", "--test", "--until", "never said", "-c", vm.hypervisor.uri, "--into",
                                      into(vm),
                                      repository.path, "small")
    until(lambda: [name for name in domains(vm.hypervisor) if name.startswith("small-test-")], "the VM is there")
    killed.kill()
    killed.wait(60)
    until(lambda: domains(vm.hypervisor) == before, "libvirt has ended the VM")
    assert len(os.listdir(into(vm))) == 1
    result = try_point(repository, vm, into(vm), "--until", "never said", "--timeout", "1")
    assert result.returncode == 3 and "which a test left that was killed, is taken away" in result.stderr, result.stderr
    assert os.listdir(into(vm)) == []


@pytest.fixture
def tight(place):
    """A file system of 16 MiB."""
    path = f"{place}/tight"
    os.mkdir(path)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16M,mode=755", "none", path], check=True)
    yield path
    until(lambda: subprocess.run(["umount", path], check=False, capture_output=True).returncode == 0, "it is unmounted")


@pytest.mark.needs_root
def test_a_target_without_room_is_refused_and_one_that_fills_loses_nothing(system, program, place, tight):
    with gone_vm(system, program, place, "vbfs-small") as (vm, repository, reference):
        os.rmdir(into(vm))
        os.symlink(tight, f"{vm.directory}/final")
        with open(f"{tight}/other", "wb") as file:
            file.write(bytes(9 * MIB))
        refused = start_recovery(repository, vm)
        assert refused.wait(60) == 1 and "has no room for the disks" in refused.stderr.read()
        assert os.listdir(tight) == ["other"]
        os.unlink(f"{tight}/other")
        recovery = start_recovery(repository, vm, *SLOWLY)
        wait_running(recovery, vm)
        with open(f"{tight}/other", "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(65536))
        hurry(vm, check=False)  # it may have come to its end already
        wait_for_words(recovery, "there is no room left in")
        assert recovery.wait(60) == 1 and vm.state() in ("running", "paused")
        os.unlink(f"{tight}/other")
        recover(repository, vm)
        is_recovered(vm, reference)


def asks_for_user_allow_other():
    with open("/etc/fuse.conf", encoding="utf-8") as file:
        return "user_allow_other" not in [line.strip() for line in file]


@pytest.mark.needs_root
def test_a_member_of_group_libvirt_recovers_into_the_system_instance(system, binary, place, ground):
    """QEMU, another user, reads the member's mount where that may be; else it is told how."""
    subprocess.run([shutil.which("usermod", path="/usr/sbin:/sbin"), "-aG", "libvirt",
                    ordinary_user("vbfs-admin", f"{ground}/member").name], check=True)
    member = ordinary_user("vbfs-admin", f"{ground}/member", "libvirt")
    home = f"{place}/of-member"
    os.mkdir(home, 0o755)
    member.give(home)
    with VM(system, "vbfs-of-member", [Disk("vda", 5 * MIB)]) as vm:
        vm.start()
        vm.io("vda", "write -P 7 1M 2M")
        reference = vm.reference("vda", f"{place}/vda.raw")
        repository = Repository(binary.by(member), f"{home}/repository").init()
        repository.add(vm)
        repository.capture(vm)
        lose(vm)
        result = repository.program.run("recover", "-c", system.uri, "--into", f"{home}/", repository.path, vm.name,
                                        check=False)
        if asks_for_user_allow_other():
            assert result.returncode == 1, result.stderr
            assert "until /etc/fuse.conf has the line 'user_allow_other'" in result.stderr, result.stderr
            assert os.listdir(home) == ["repository"]
        else:
            assert result.returncode == 0, result.stderr
            vm.destroy()
            subprocess.run(["qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", f"{home}/{vm.name}-vda.qcow2",
                            reference],
                           check=True)
