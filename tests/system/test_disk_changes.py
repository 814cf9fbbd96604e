"""What befalls the disks of a VM between two points: each point shows the disks as they were all the same."""

import os
import shutil
import subprocess

import pytest
from mount import mounted
from repository import Repository
from truth import Truth
from vm import MIB, VM, Disk


@pytest.fixture
def started(session, repository, place):
    """start(name, *disks) gives a running VM that is registered, and its truth."""
    running = []

    def start(name, *disks, **options):
        vm = VM(session, name, disks, **options)
        running.append(vm)
        vm.start()
        repository.add(vm)
        return vm, Truth(repository, vm, place)

    yield start
    for vm in running:
        vm.remove()


def restarted_with(vm, change):
    """Shuts the VM down in good order, changes something, starts it again."""
    vm.shut_down()
    change()
    vm.start()


def test_zeroed_and_discarded_ranges_read_as_zeroes(started, repository):
    vm, truth = started("zeroes", Disk("vda", 16 * MIB))
    vm.io("vda", "write -P 0x11 0 16M")
    truth.capture()
    for commands in (["write -z -u 1M 2M"], ["discard 4M 1M"], ["write -z 6M 64k"], ["discard 8M 192k", "write -P 2 8M 512"],
                     ["write -P 0 10M 1M"], ["write -z -u 12M 512"], ["discard 0 16M"]):
        vm.io("vda", *commands)
        point = truth.capture()
        assert repository.kinds(vm, point) == {"vda": "incremental"}
    truth.check()


def test_sizes_that_fit_no_block_are_kept_to_the_byte(started, repository):
    vm, truth = started("odd", Disk("vda", 5 * MIB + 512), Disk("vdb", 512), Disk("vdc", 3 * MIB + 65536 + 1024, "raw"))
    vm.io("vda", f"write -P 1 {5 * MIB} 512", "write -P 2 512 1024")
    vm.io("vdb", "write -P 3 0 512")
    vm.io("vdc", f"write -P 4 {3 * MIB + 65536} 1024")
    truth.capture("--full", "--block-size", "4K")
    vm.io("vda", f"write -P 5 {5 * MIB} 512", "write -P 6 65024 1024")
    truth.capture("--incremental", "--block-size", "2M")
    vm.io("vdb", "write -z 0 512")
    truth.capture("--incremental")
    assert [disk["size"] for disk in repository.points(vm)[-1]["disks"]] == [5 * MIB + 512, 512, 3 * MIB + 65536 + 1024]
    truth.check()


def test_a_raw_disk_is_compared_each_time_and_that_is_said(started, repository):
    vm, truth = started("rawdisk", Disk("vda", 4 * MIB), Disk("vdb", 4 * MIB, "raw"))
    vm.io("vdb", "write -P 1 0 2M")
    first = truth.capture()
    vm.io("vda", "write -P 2 0 64k")
    vm.io("vdb", "write -P 3 512k 64k", "write -z 1M 256k", "write -P 1 64k 64k")
    references = truth.look()
    result = repository.try_capture(vm, "--incremental", check=True)
    assert f"vdb: compared with {first}, as " in result.stderr and "raw" in result.stderr
    point = truth.keep(result.stdout.strip().split("/")[1], references)
    assert repository.kinds(vm, point) == {"vda": "incremental", "vdb": "incremental"}
    assert repository.point(vm, point)["kind"] == "incremental"
    held = [(each["start"], each["length"], each["zero"])
            for each in repository.program.json("map", repository.path, f"rawdisk/{point}/vdb") if each["point"] == point]
    assert held == [(512 << 10, 64 << 10, False), (1 << 20, 256 << 10, True)]
    truth.check()


def test_a_vm_of_raw_disks_alone_can_be_captured(started, repository):
    vm, truth = started("allraw", Disk("vda", 4 * MIB, "raw"))
    vm.io("vda", "write -P 1 0 1M")
    truth.capture()
    vm.io("vda", "write -P 2 0 64k")
    assert repository.point(vm, truth.capture())["kind"] == "incremental"
    result = repository.try_capture(vm, "--incremental")
    assert result.returncode == 1 and "raw" in result.stderr
    truth.check()


def test_what_cannot_be_read_is_left_out_with_a_warning(started, repository, person, place):
    image = f"{place}/cd.iso"
    person.run("qemu-img", "create", "-q", "-f", "raw", image, "1M")
    drives = (f"<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='{image}'/>"
              "<target dev='sda' bus='sata'/><readonly/></disk>"
              "<disk type='file' device='cdrom'><target dev='sdb' bus='sata'/><readonly/></disk>"
              f"<disk type='file' device='floppy'><driver name='qemu' type='raw'/><source file='{place}/floppy'/>"
              "<target dev='fda' bus='fdc'/></disk>")
    person.run("qemu-img", "create", "-q", "-f", "raw", f"{place}/floppy", "1440k")
    vm, truth = started("drives", Disk("vda", 4 * MIB), extra=drives)
    vm.io("vda", "write -P 1 0 1M")
    references = truth.look()
    result = repository.try_capture(vm, check=True)
    for target in ("sda", "fda"):
        assert target in result.stderr
    truth.keep(result.stdout.strip().split("/")[1], references)
    truth.check()


def test_a_disk_that_grew_while_running(started, repository):
    vm, truth = started("grown", Disk("vda", 8 * MIB))
    vm.io("vda", "write -P 1 0 8M")
    truth.capture()
    vm.virsh("blockresize", "vda", str(20 * MIB + 512) + "B")
    vm.io("vda", "write -P 2 19M 1M", "write -P 3 0 64k")
    truth.capture()
    assert repository.points(vm)[-1]["disks"][0]["size"] == 20 * MIB + 512
    vm.io("vda", "write -P 4 10M 1M")
    point = truth.capture()
    assert repository.kinds(vm, point) == {"vda": "incremental"}
    truth.check()


def test_a_disk_that_was_shrunk_and_grown_again_while_off(started, repository):
    """Its bitmap is clean where the content has become zeroes."""
    vm, truth = started("shrunk", Disk("vda", 16 * MIB))
    vm.io("vda", "write -P 1 0 16M")
    truth.capture()

    def change():
        image = vm.disk("vda").path
        subprocess.run(["qemu-img", "resize", "-q", "--shrink", image, "4M"], check=True)
        subprocess.run(["qemu-img", "resize", "-q", image, "16M"], check=True)

    restarted_with(vm, change)
    point = truth.capture("--incremental")
    assert repository.kinds(vm, point) == {"vda": "incremental"}
    truth.check()


def test_a_disk_that_was_only_shrunk(started, repository):
    vm, truth = started("smaller", Disk("vda", 16 * MIB))
    vm.io("vda", "write -P 1 0 16M")
    truth.capture()

    def change():
        subprocess.run(["qemu-img", "resize", "-q", "--shrink", vm.disk("vda").path, "5M"], check=True)

    restarted_with(vm, change)
    truth.capture()
    assert repository.points(vm)[-1]["disks"][0]["size"] == 5 * MIB
    truth.check()


def test_a_disk_that_was_added_is_full_in_an_incremental_point(started, repository):
    vm, truth = started("added", Disk("vda", 8 * MIB))
    vm.io("vda", "write -P 1 0 8M")
    truth.capture()
    restarted_with(vm, lambda: vm.disks.append(Disk("vdb", 4 * MIB)))
    vm.io("vdb", "write -P 2 0 4M")
    point = truth.capture("--incremental")
    assert repository.kinds(vm, point) == {"vda": "incremental", "vdb": "full"}
    vm.io("vdb", "write -P 3 0 1M")
    point = truth.capture("--incremental")
    assert repository.kinds(vm, point) == {"vda": "incremental", "vdb": "incremental"}
    truth.check()


def test_a_disk_that_was_plugged_in_while_running(started, repository):
    ports = "<controller type='pci' model='pcie-root'/>" + 6 * "<controller type='pci' model='pcie-root-port'/>"
    vm, truth = started("plugged", Disk("vda", 8 * MIB), extra=ports)
    truth.capture()
    disk = Disk("vdb", 4 * MIB)
    disk.make(vm)
    path = f"{vm.directory}/disk.xml"
    with open(path, "w", encoding="utf-8") as file:
        file.write(disk.xml())
    vm.virsh("attach-device", path, "--live")
    vm.disks.append(disk)
    vm.io("vdb", "write -P 2 0 4M")
    point = truth.capture("--incremental")
    assert repository.kinds(vm, point) == {"vda": "incremental", "vdb": "full"}
    truth.check()


def test_a_disk_that_was_removed_is_not_in_the_point(started, repository):
    vm, truth = started("removed", Disk("vda", 8 * MIB), Disk("vdb", 4 * MIB))
    vm.io("vdb", "write -P 2 0 4M")
    truth.capture()
    restarted_with(vm, vm.disks.pop)
    vm.io("vda", "write -P 3 1M 1M")
    point = truth.capture()
    assert list(repository.kinds(vm, point)) == ["vda"]
    vm.io("vda", "write -P 4 2M 1M")
    truth.capture("--incremental")
    truth.check()


def test_a_disk_that_was_replaced_by_another_image(started, repository):
    vm, truth = started("replaced", Disk("vda", 8 * MIB), Disk("vdb", 8 * MIB))
    vm.io("vda", "write -P 1 0 8M")
    vm.io("vdb", "write -P 2 0 8M")
    truth.capture()

    def change():
        vm.disks[1] = Disk("vdb", 8 * MIB)

    restarted_with(vm, change)
    vm.io("vdb", "write -P 3 4M 64k")
    point = truth.capture()
    assert repository.kinds(vm, point)["vdb"] == "full"
    truth.check()


def test_a_disk_whose_image_was_overwritten_by_an_older_copy_of_itself(started, repository):
    """Restored behind the back of every bitmap: the file is another one."""
    vm, truth = started("restored", Disk("vda", 8 * MIB))
    vm.io("vda", "write -P 1 0 8M")
    vm.shut_down()
    image = vm.disk("vda").path
    shutil.copy(image, f"{image}.old")
    vm.start()
    truth.capture()
    vm.io("vda", "write -P 2 2M 4M")
    truth.capture()
    restarted_with(vm, lambda: os.replace(f"{image}.old", image))
    truth.capture()
    vm.io("vda", "write -P 3 1M 64k")
    truth.capture("--incremental")
    truth.check()


def test_two_disks_that_were_swapped(started, repository):
    """Both have the checkpoint's bitmap, both are clean, and each is the other."""
    vm, truth = started("swapped", Disk("vda", 8 * MIB), Disk("vdb", 8 * MIB))
    vm.io("vda", "write -P 1 0 8M")
    vm.io("vdb", "write -P 2 0 8M")
    truth.capture()

    def change():
        first, second = vm.disks
        first.path, second.path = second.path, first.path

    restarted_with(vm, change)
    point = truth.capture()
    assert repository.kinds(vm, point) == {"vda": "full", "vdb": "full"}
    truth.check()


def test_a_snapshot_overlay_carries_on(started, repository):
    vm, truth = started("overlay", Disk("vda", 8 * MIB))
    vm.io("vda", "write -P 1 0 8M")
    truth.capture()
    overlay = f"{vm.directory}/overlay.qcow2"
    # libvirt refuses snapshots of a VM with checkpoints: as an administrator would who works around it, while the VM is off.

    def change():
        image = vm.disk("vda").path
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image, overlay], check=True)
        vm.disk("vda").path = overlay

    restarted_with(vm, change)
    vm.io("vda", "write -P 2 3M 1M")
    truth.capture()
    vm.io("vda", "write -P 3 5M 1M")
    point = truth.capture()
    assert repository.kinds(vm, point) == {"vda": "incremental"}
    truth.check()


def test_a_transient_vm_that_was_restarted_goes_on_incrementally(started, repository):
    """The hypervisor has forgotten its checkpoint; the image has not."""
    vm, truth = started("transient", Disk("vda", 8 * MIB), transient=True)
    vm.io("vda", "write -P 1 0 8M")
    truth.capture()
    vm.io("vda", "write -P 2 2M 64k")
    vm.shut_down()
    vm.start()
    assert vm.checkpoints() == []
    vm.io("vda", "write -P 3 4M 64k")
    point = truth.capture("--incremental")
    assert repository.kinds(vm, point) == {"vda": "incremental"}
    truth.check()


def test_two_repositories_of_one_vm_do_not_disturb_each_other(started, repository, program, place):
    vm, truth = started("shared", Disk("vda", 8 * MIB))
    other = Repository(program, f"{place}/other").init()
    other.add(vm)
    other_truth = Truth(other, vm, place)
    other_truth.taken = 100
    vm.io("vda", "write -P 1 0 8M")
    truth.capture()
    for i in range(2, 8):
        vm.io("vda", f"write -P {i} {i * 512}k 256k", f"write -z -u {i * 256}k 64k")
        point = (truth if i % 3 else other_truth).capture()
        repository_of_point = repository if i % 3 else other
        assert repository_of_point.point(vm, point)["kind"] == ("full" if i == 3 else "incremental")
    truth.check()
    other_truth.check()
    foreign = other.points(vm)[-1]["checkpoint"]
    program.run("forget", repository.path, vm.name)
    assert vm.checkpoints() == [foreign]


def test_checkpoints_of_other_tools_are_left_alone(started, repository):
    vm, truth = started("foreign", Disk("vda", 8 * MIB))
    vm.virsh("checkpoint-create-as", "nightly")
    vm.io("vda", "write -P 1 0 1M")
    truth.capture()
    vm.virsh("checkpoint-create-as", "hourly")
    vm.io("vda", "write -P 2 0 64k")
    point = truth.capture()
    assert repository.kinds(vm, point) == {"vda": "incremental"}
    assert {"nightly", "hourly"} <= set(vm.checkpoints())
    truth.check()


def test_points_of_a_chain_of_many_show_their_moments(started, repository):
    vm, truth = started("long", Disk("vda", 4 * MIB))
    vm.io("vda", "write -P 255 0 4M")
    for i in range(25):
        vm.io("vda", f"write -P {i} {i * 131}k 37k", f"write -z {i * 77}k 13k")
        truth.capture()
    truth.check()


def test_a_new_point_shows_up_in_a_mount_that_was_there_before(started, repository, program, place):
    vm, truth = started("fresh", Disk("vda", 4 * MIB))
    with mounted(program, repository.path, place) as mount:
        assert os.listdir(mount.path) == ["fresh"]
        for _ in range(3):
            vm.io("vda", "write -P 7 1M 1M")
            point = truth.capture()
            assert os.readlink(mount / "fresh/latest") == point
            assert point in os.listdir(mount / "fresh")
        truth.check_in(mount)
