"""The main job: a guest that boots, writes and deletes files, and every one of its points."""

import os
import subprocess

import pytest
from mount import mounted
from person import ordinary_user
from repository import Repository, pull, same_image, state_of, wait_captured
from truth import Truth
from vm import GUEST_TOOLS, VM, Disk
from wait import until

PARTITION = 2048 * 512  # bytes; contrib/guest/make-disk puts it there
DEBUGFS, E2FSCK, SFDISK = "/sbin/debugfs", "/sbin/e2fsck", "/sbin/sfdisk"

# Each step is done in the guest between two points.
STEPS = [
    "mkdir /mnt/d; for i in 1 2 3; do dd if=/dev/urandom of=/mnt/d/$i bs=1M count=3; done",
    "rm /mnt/d/2; echo changed > /mnt/d/1; dd if=/dev/urandom of=/mnt/big bs=64k count=100",
    "fstrim /mnt",
    "rm /mnt/big; sync; fstrim /mnt; dd if=/dev/zero of=/mnt/zeroes bs=1M count=8; "
    "dd if=/dev/urandom of=/mnt/d/4 bs=1k count=7",
    "true",
    "dd if=/dev/urandom of=/mnt/d/3 bs=4k count=1 seek=100 conv=notrunc; mv /mnt/d/4 /mnt/d/five; rm /mnt/zeroes; "
    "fstrim /mnt",
]


def start_guest(hypervisor, guest, name, mib=96, **options):
    vm = VM(hypervisor, name, [], guest=guest, **options)
    path = f"{vm.directory}/vda.qcow2"
    subprocess.run([f"{GUEST_TOOLS}/make-disk", path, str(mib)], check=True)
    vm.disks.append(Disk("vda", mib << 20, path=path))
    vm.start()
    vm.sh("mount -o discard /dev/vda1 /mnt")
    return vm


def sums_in_guest(vm):
    """What sha256sum says of every file in the guest, with what is in the page cache written out."""
    return vm.sh("sync; cd /mnt && find . -type f | LC_ALL=C sort | xargs sha256sum")


def sums_in(directory):
    return subprocess.run("find . -type f | LC_ALL=C sort | xargs sha256sum", shell=True, cwd=directory, check=True,
                          capture_output=True, text=True).stdout


class History:
    """Points of a running guest, each with a reference image and the sums of its files."""

    def __init__(self, vm, mount, place, freeze=False):
        self.vm, self.mount, self.place, self.freeze = vm, mount, place, freeze
        self.trigger = mount / f"{vm.name}/capture"
        self.points = {}

    def take(self, word):
        sums = sums_in_guest(self.vm)
        if self.freeze:
            self.vm.sh("fsfreeze --freeze /mnt")
        self.vm.virsh("suspend")
        reference = self.vm.reference("vda", f"{self.place}/truth{len(self.points)}.raw")
        pull(self.trigger, word)
        # The moment of the point is there as soon as the job is; the guest may go on then.
        until(lambda: self.vm.has_job() or state_of(self.trigger)["state"] != "running", "the job began")
        self.vm.virsh("resume")
        if self.freeze:
            self.vm.sh("fsfreeze --unfreeze /mnt")
        state = wait_captured(self.trigger)
        assert state["state"] == "idle", state
        point = state["last"]
        assert os.readlink(self.mount / f"{self.vm.name}/latest") == point
        self.points[point] = (reference, sums)
        return point

    def check_images(self):
        assert sorted(self.points) == sorted(name for name in os.listdir(self.mount / self.vm.name) if name[0] == "2")
        for point, (reference, _) in self.points.items():
            copy = f"{self.place}/copy.raw"
            subprocess.run(["cp", "--remove-destination", "--sparse=always", self.mount / f"{self.vm.name}/{point}/vda.raw",
                            copy], check=True)
            assert same_image(copy, reference), f"{point} is not what the disk was then"

    def check_files(self):
        """Without root: the journal replayed in a copy, then all files read from it."""
        for point, (_, sums) in self.points.items():
            check_tables(self.mount, self.vm, [point], self.place)
            directory = f"{self.place}/files-{point}"
            os.mkdir(directory)
            subprocess.run([DEBUGFS, "-R", f"rdump / {directory}", f"{self.place}/partition.raw"], check=True,
                           capture_output=True)
            assert sums_in(directory) == sums, f"{point} shows other files"

    def check_loop_mounts(self):
        """Through a loop device and the kernel's ext4."""
        directory = f"{self.place}/partition"
        os.makedirs(directory, exist_ok=True)
        for point, (_, sums) in self.points.items():
            image = self.mount / f"{self.vm.name}/{point}/vda.raw"
            subprocess.run(["mount", "-o", f"ro,loop,offset={PARTITION}", image, directory], check=True)
            try:
                assert sums_in(directory) == sums, f"{point} shows other files"
            finally:
                subprocess.run(["umount", directory], check=True)


def check_tables(mount, vm, points, place):
    """sfdisk and e2fsck are content with every point."""
    for point in points:
        image = mount / f"{vm.name}/{point}/vda.raw"
        subprocess.run([SFDISK, "--verify", "-q", image], check=True, capture_output=True)
        # A copy: the journal of a mounted file system is replayed first.
        copy = f"{place}/partition.raw"
        subprocess.run(["dd", f"if={image}", f"of={copy}", "bs=1M", "skip=1", "status=none"], check=True)
        checked = subprocess.run([E2FSCK, "-fy", copy], check=False, capture_output=True, text=True)
        assert checked.returncode in (0, 1), checked.stdout


def test_every_point_shows_the_disk_and_the_files_of_its_moment(session, guest, program, place):
    vm = start_guest(session, guest, "guest")
    with vm:
        repository = Repository(program, f"{place}/repository").init()
        repository.add(vm)
        with mounted(program, repository.path, place) as mount:
            history = History(vm, mount, place)
            history.take("full")
            for number, step in enumerate(STEPS):
                vm.sh(step)
                point = history.take("auto" if number % 2 else "incremental")
                assert repository.point(vm, point)["kind"] == "incremental"
            history.check_images()
            history.check_files()
        # Nothing of it lived in the mount alone.
        with mounted(program, repository.path, place) as mount:
            history.mount = mount
            history.check_images()


def test_a_guest_that_writes_all_the_time_gets_a_sound_file_system(session, guest, program, place):
    vm = start_guest(session, guest, "busy")
    with vm:
        repository = Repository(program, f"{place}/repository").init()
        repository.add(vm)
        vm.sh("(i=0; while true; do i=$((i + 1)); dd if=/dev/urandom of=/mnt/f$((i % 9)) bs=64k count=9; "
              "rm /mnt/f$((i * 7 % 9)); "
              "sync; done) > /dev/null 2>&1 &")
        with mounted(program, repository.path, place) as mount:
            points = [repository.capture(vm) for _ in range(4)]
            check_tables(mount, vm, points, place)
            assert [repository.point(vm, point)["kind"] for point in points] == ["full"] + ["incremental"] * 3


def test_two_disks_show_one_moment(session, guest, program, place):
    """The guest writes a number to one disk, then to the other: at no moment do they differ by more than one."""
    vm = VM(session, "pair", [Disk("vda", 8 << 20), Disk("vdb", 8 << 20)], guest=guest)
    with vm:
        vm.start()
        repository = Repository(program, f"{place}/repository").init()
        repository.add(vm)
        vm.sh("(i=0; while true; do i=$((i + 1)); echo $i > /tmp/n; truncate -s 512 /tmp/n; for d in a b; do "
              "dd if=/tmp/n of=/dev/vd$d bs=512 seek=2048 oflag=direct; done; done) > /dev/null 2>&1 &")
        numbers = []
        with mounted(program, repository.path, place) as mount:
            for _ in range(5):
                point = repository.capture(vm)
                pair = []
                for target in ("vda", "vdb"):
                    with open(mount / f"pair/{point}/{target}.raw", "rb") as file:
                        file.seek(1 << 20)
                        pair.append(int(file.read(512).strip(b"\0").decode() or 0))
                assert pair[0] - pair[1] in (0, 1), pair
                numbers.append(pair[0])
        assert numbers == sorted(set(numbers)), "the guest did not go on between the points"


@pytest.mark.needs_root
def test_the_system_instance_is_captured_by_root(system, guest, program, place):
    vm = start_guest(system, guest, "vbfs-system")
    with vm:
        repository = Repository(program, f"{place}/repository").init()
        repository.add(vm)
        with mounted(program, repository.path, place) as mount:
            history = History(vm, mount, place, freeze=True)
            history.take("full")
            for step in STEPS:
                vm.sh(step)
                history.take("incremental")
            history.check_images()
            history.check_loop_mounts()
        assert vm.checkpoints() == [repository.points(vm)[-1]["checkpoint"]]
        program.run("forget", repository.path, vm.name)
        assert vm.checkpoints() == []


@pytest.mark.needs_root
def test_the_system_instance_is_captured_by_a_member_of_group_libvirt(system, binary, place, ground):
    """The member's mount is closed to root: what it shows is copied by the member."""
    subprocess.run(["/usr/sbin/usermod", "-aG", "libvirt", ordinary_user("vbfs-admin", f"{ground}/member").name], check=True)
    member = ordinary_user("vbfs-admin", f"{ground}/member", "libvirt")
    home = f"{place}/of-member"
    os.mkdir(home)
    member.give(home)
    with VM(system, "vbfs-member", [Disk("vda", 40 << 20), Disk("vdb", 3 << 20)]) as vm:
        vm.start()
        vm.io("vda", "write -P 1 0 9M")
        repository = Repository(binary.by(member), f"{home}/repository").init()
        repository.add(vm)
        truth = Truth(repository, vm, place)
        truth.capture("--full")
        vm.io("vda", "write -P 2 1M 3M", "write -z -u 8M 1M")
        vm.io("vdb", "write -P 3 1M 4k")
        truth.capture("--incremental")
        vm.io("vda", "write -P 4 20M 3M")
        truth.capture("--incremental")
        with mounted(repository.program, repository.path, home) as mount:
            copy = f"{home}/copy.raw"
            for point, references in truth.points.items():
                for target, reference in references.items():
                    member.run("cp", "--remove-destination", "--sparse=always", mount / f"{vm.name}/{point}/{target}.raw",
                               copy)
                    assert same_image(copy, reference)
