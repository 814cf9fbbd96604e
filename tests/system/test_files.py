"""Single files: `virtbackupfs files` mounts the file systems of a point."""

import contextlib
import filecmp
import glob
import json
import os
import re
import shutil
import signal
import subprocess

import pytest
from mount import is_mounted, mounted
from program import processes_of, wait_gone
from test_partitions import MIB, make_filesystem
from wait import until

HERE = os.path.dirname(os.path.abspath(__file__))


def make_tree(path):
    """Files with bytes, names and links that have to come through."""
    os.makedirs(f"{path}/etc/deep/er")
    for number, name in enumerate(("plain", "with space", "ümläut", "empty", "etc/deep/er/file")):
        with open(f"{path}/{name}", "wb") as file:
            file.write(os.urandom(number * 30000) if name != "empty" else b"")
    os.symlink("plain", f"{path}/link")
    shutil.copytree(HERE, f"{path}/tests", ignore=shutil.ignore_patterns("__pycache__"))


def same_tree(left, right):
    """What rsync would have to change to make the right one like the left; mkfs.ext4 -d gives the top its own time."""
    return subprocess.run(["rsync", "-n", "-rlt", "--omit-dir-times", "--modify-window=1", "--checksum", "--itemize-changes",
                           "--delete", "--exclude=lost+found", f"{left}/", f"{right}/"], capture_output=True, text=True,
                          check=True).stdout


def disk_with(place, kinds):
    """A GPT disk with a partition for each of kinds (name, size in MiB); its path and the partitions' starts."""
    image, starts, offset = f"{place}/disk.img", [], MIB
    with open(image, "wb") as file:
        file.truncate((sum(size for _, size in kinds) + 2) * MIB)
    subprocess.run(["sfdisk", "-q", image], input="label: gpt\n" + "".join(f"size={size}M\n" for _, size in kinds),
                   text=True, check=True, capture_output=True)
    for kind, size in kinds:
        if kind:
            make_filesystem(kind, image, offset, size * MIB, "label")
        starts.append(offset)
        offset += size * MIB
    return image, starts


def put_ext4(image, start, size, tree):
    """An ext4 with the tree in it, made without mounting anything."""
    part = f"{image}.part"
    with open(part, "wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-d", tree, part], check=True, capture_output=True)
    subprocess.run(["dd", f"if={part}", f"of={image}", "bs=1M", f"seek={start // MIB}", "conv=notrunc,sparse"], check=True,
                   capture_output=True)
    os.remove(part)


def capture(repository, image):
    repository.program.person.give(image)
    repository.program.run("add", repository.path, "vm1", f"vda=file://{image}")
    return repository.capture("vm1", "--full")


@contextlib.contextmanager
def shown(program, repository, path, place, **options):
    """What `files` prints and says, with all of it taken down in the end."""
    result = program.run("files", repository.path, path, f"{place}/files", check=False, **options)
    try:
        yield result
    finally:
        if os.path.exists(f"{place}/files/.virtbackupfs"):
            program.run("files", "--unmount", f"{place}/files")
    assert not os.path.exists(f"{place}/files"), "what was made is removed again"
    assert not mounts_below(place)


def mounts_below(place):
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return [line.split()[4] for line in file if line.split()[4].startswith(place + "/")]


@pytest.fixture
def with_ext4(repository, place):
    """A point of a disk with ext4 on its first partition and swap on its second; the tree that is in it."""
    tree = f"{place}/tree"
    os.mkdir(tree)
    make_tree(tree)
    image, starts = disk_with(place, [(None, 30), ("swap", 5)])
    put_ext4(image, starts[0], 30 * MIB, tree)
    capture(repository, image)
    return tree


def test_an_ordinary_user_copies_files_out_of_ext4(program, repository, place, with_ext4):
    with shown(program, repository, "vm1/latest", place) as result:
        assert result.returncode == 0, result.stderr
        assert result.stdout == f"{place}/files/vda1\n", "and swap space has no files"
        assert same_tree(with_ext4, f"{place}/files/vda1") == ""
        with pytest.raises(OSError):
            with open(f"{place}/files/vda1/new", "wb"):
                pass


def test_one_partition_may_be_named(program, repository, place, with_ext4):
    for path, status in (("vm1/latest/vda1", 0), ("vm1/latest/vda", 0), ("vm1/latest/vda2", 1), ("vm1/latest/vda3", 1)):
        with shown(program, repository, path, place) as result:
            assert result.returncode == status, result.stderr
            assert bool(result.stdout) == (status == 0)


def test_a_dirty_journal_is_not_replayed_and_no_obstacle(program, repository, place):
    tree = f"{place}/tree"
    os.mkdir(tree)
    make_tree(tree)
    image, starts = disk_with(place, [(None, 30)])
    put_ext4(image, starts[0], 30 * MIB, tree)
    part = f"{place}/part"
    subprocess.run(["dd", f"if={image}", f"of={part}", "bs=1M", f"skip={starts[0] // MIB}", "count=30"], check=True,
                   capture_output=True)
    # The superblock says that the journal has to be replayed.
    subprocess.run(["debugfs", "-w", "-R", "feature +needs_recovery", part], check=True, capture_output=True)
    subprocess.run(["dd", f"if={part}", f"of={image}", "bs=1M", f"seek={starts[0] // MIB}", "conv=notrunc"], check=True,
                   capture_output=True)
    capture(repository, image)
    with shown(program, repository, "vm1/latest", place) as result:
        assert result.returncode == 0, result.stderr
        assert same_tree(tree, f"{place}/files/vda1") == ""


def test_what_cannot_be_mounted_is_said_and_the_rest_is_shown(program, repository, place):
    tree = f"{place}/tree"
    os.mkdir(tree)
    make_tree(tree)
    image, starts = disk_with(place, [(None, 30), (None, 20)])
    put_ext4(image, starts[0], 30 * MIB, tree)
    with open(image, "r+b") as file:  # what cryptsetup writes first
        file.seek(starts[1])
        file.write(b"LUKS\xba\xbe\0\1aes" + bytes(200))
    capture(repository, image)
    with shown(program, repository, "vm1/latest", place) as result:
        assert result.returncode == 3 and result.stdout == f"{place}/files/vda1\n"
        assert "vda2: it is encrypted (LUKS)" in result.stderr
    with shown(program, repository, "vm1/latest/vda2", place) as result:
        assert result.returncode == 1 and "none of the file systems can be mounted" in result.stderr


@pytest.mark.parametrize("words, says", [
    (["vm1", "files"], "names a VM"),
    (["vm1/latest/vdz", "files"], "has neither a disk nor a partition vdz"),
    (["vm2/latest", "files"], "no VM vm2"),
    (["vm1/latest", "taken"], "is not empty"),
    (["vm1/latest", "none/such"], "cannot make"),
])
def test_what_is_wrong_is_refused_before_anything_is_mounted(program, repository, place, with_ext4, words, says):
    os.mkdir(f"{place}/taken")
    with open(f"{place}/taken/file", "wb"):
        pass
    program.person.give(f"{place}/taken")
    result = program.run("files", repository.path, words[0], f"{place}/{words[1]}", check=False)
    assert result.returncode == 1 and says in result.stderr
    assert not mounts_below(place) and os.listdir(f"{place}/taken") == ["file"]
    result = program.run("files", "--unmount", f"{place}/taken", check=False)
    assert result.returncode == 1 and "no files of a point are shown there" in result.stderr


def test_what_is_in_use_stays_and_is_named(program, repository, place, with_ext4):
    with shown(program, repository, "vm1/latest", place):
        again = program.run("files", repository.path, "vm1/latest", f"{place}/files", check=False)
        assert again.returncode == 1 and "shows files already" in again.stderr
        with open(f"{place}/files/vda1/plain", "rb"):
            result = program.run("files", "--unmount", f"{place}/files", check=False)
            assert result.returncode == 1 and "files/vda1" in result.stderr and "has to end first" in result.stderr
        assert is_mounted(f"{place}/files/vda1")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_a_signal_takes_it_down(program, repository, place, with_ext4, number):
    process = program.start("files", "-f", repository.path, "vm1/latest", f"{place}/files")
    assert process.stdout.readline() == f"{place}/files/vda1\n"
    assert same_tree(with_ext4, f"{place}/files/vda1") == ""
    process.send_signal(number)
    assert process.wait(60) == 0
    assert not os.path.exists(f"{place}/files") and not mounts_below(place)


def test_what_a_killed_run_left_is_taken_down_by_the_next(program, repository, place, with_ext4):
    process = program.start("files", "-f", repository.path, "vm1/latest", f"{place}/files")
    assert process.stdout.readline()
    process.kill()
    process.wait()
    assert is_mounted(f"{place}/files/vda1")
    with shown(program, repository, "vm1/latest", place) as result:
        assert result.returncode == 0 and "interrupted run" in result.stderr
        assert same_tree(with_ext4, f"{place}/files/vda1") == ""


def test_a_mount_that_died_is_taken_down_too(program, repository, place, with_ext4):
    program.run("files", repository.path, "vm1/latest", f"{place}/files")
    daemon, = processes_of(program.program.path, f"{place}/files/.virtbackupfs/tree")
    os.kill(daemon, signal.SIGKILL)
    wait_gone(daemon)
    with shown(program, repository, "vm1/latest", place) as result:
        assert result.returncode == 0, result.stderr
        assert same_tree(with_ext4, f"{place}/files/vda1") == ""


def test_on_a_terminal_it_asks(program, repository, place, with_ext4):
    """Through script(1), which gives it a terminal."""
    command = f"exec {program.program.path} files"
    with open(f"{place}/said", "wb") as said:
        process = program.person.popen(["script", "-qec", command, "/dev/null"], stdin=subprocess.PIPE, stdout=said,
                                       stderr=subprocess.STDOUT, cwd=place)
        # One VM and one point are no question.
        process.stdin.write(f"{repository.path}\n2\n\n".encode())
        process.stdin.flush()
        until(lambda: is_mounted(f"{place}/vm1-files/vda1"), "the files are shown", 60)
        assert same_tree(with_ext4, f"{place}/vm1-files/vda1") == ""
        process.stdin.write(b"\3")
        process.stdin.flush()
        assert process.wait(60) == 0
        process.stdin.close()
    with open(f"{place}/said", encoding="utf-8") as said:
        assert "ext4" in said.read()
    assert not mounts_below(place)


def test_a_directory_of_another_tool_shows_its_files_too(program, place):
    tree = f"{place}/tree"
    os.mkdir(tree)
    make_tree(tree)
    image, starts = disk_with(place, [(None, 30)])
    put_ext4(image, starts[0], 30 * MIB, tree)
    os.mkdir(f"{place}/images")
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", "-c", image, f"{place}/images/guest.qcow2"], check=True)
    program.person.give(f"{place}/images")
    program.person.give(f"{place}/images/guest.qcow2")
    with mounted(program, f"{place}/images", place) as mount:
        vm, = os.listdir(mount.path)
        found, = (os.path.basename(path) for path in glob.glob(f"{mount.path}/{vm}/latest/*1.raw"))
    result = program.run("files", f"{place}/images", f"{vm}/latest", f"{place}/files")
    try:
        assert same_tree(tree, f"{place}/files/{found.removesuffix('.raw')}") == ""
    finally:
        program.run("files", "--unmount", f"{place}/files")
    assert result.stdout


EXTENT = 4 * MIB
HOME = [(30, 15), (50, 10)]  # where the volume home lies: its first extent, and how many


def put_physical_volume(image, start):
    """The head of a physical volume as pvcreate and vgcfgrestore wrote it: the group vgroot has the volumes root (extents
    0 to 24 of 4 MiB, behind the first MiB) and home, which lies in two pieces."""
    with open(f"{HERE}/../fuzz/corpus/partitions/lvm", "rb") as head, open(image, "r+b") as file:
        file.seek(start)
        file.write(head.read()[1:])  # the first byte is the fuzzer's


def put_ext4_in_pieces(image, start, tree):
    """An ext4 on the volume home; its bytes."""
    part = f"{image}.part"
    with open(part, "wb") as file:
        file.truncate(25 * EXTENT)
    subprocess.run(["mkfs.ext4", "-q", "-d", tree, part], check=True, capture_output=True)
    with open(part, "r+b") as file:
        file.seek(HOME[0][1] * EXTENT - 100)
        file.write(os.urandom(200))  # on both sides of the gap, in free space
    done = 0
    for first, count in HOME:
        subprocess.run(["dd", f"if={part}", f"of={image}", "bs=1M", "conv=notrunc,sparse", f"skip={done * EXTENT // MIB}",
                        f"seek={(start + MIB + first * EXTENT) // MIB}", f"count={count * EXTENT // MIB}"], check=True,
                       capture_output=True)
        done += count
    return part


def test_logical_volumes_are_read_without_being_activated(program, repository, place):
    tree = f"{place}/tree"
    os.mkdir(tree)
    make_tree(tree)
    image, starts = disk_with(place, [(None, 5), (None, 300)])
    put_ext4(image, starts[1] + MIB, 30 * MIB, tree)
    home_bytes = put_ext4_in_pieces(image, starts[1], tree)
    put_physical_volume(image, starts[1])
    point = capture(repository, image)
    with mounted(program, repository.path, place) as mount:
        with open(f"{mount.path}/vm1/{point}/info.json", encoding="utf-8") as file:
            partitions = {each["name"]: each for each in json.load(file)["disks"][0]["partitions"]}
        assert partitions["vda2"]["filesystem"] == "LVM2_member"
        root, home = partitions["vda2.vgroot-root"], partitions["vda2.vgroot-home"]
        assert (root["start"], root["size"], root["filesystem"]) == (starts[1] + MIB, 100 * MIB, "ext4")
        assert "pieces" not in root
        assert (home["start"], home["size"], home["filesystem"]) == (starts[1] + MIB + 30 * EXTENT, 100 * MIB, "ext4")
        assert home["pieces"] == [
            {"size": count * EXTENT, "places": [{"disk": "vda", "start": starts[1] + MIB + first * EXTENT}]}
            for first, count in HOME]
        assert {"vda2.vgroot-root.raw", "vda2.vgroot-home.raw"} <= set(os.listdir(f"{mount.path}/vm1/{point}"))
        shown_home = f"{mount.path}/vm1/{point}/vda2.vgroot-home.raw"
        assert filecmp.cmp(home_bytes, shown_home, shallow=False)
        assert_holes_hold_no_data(shown_home)
        extents = program.json("map", repository.path, "vm1/latest/vda2.vgroot-home")
        assert os.stat(shown_home).st_blocks * 512 == sum(each["length"] for each in extents if not each["zero"])
        assert sum(each["length"] for each in extents) == 100 * MIB
    for path in ("vm1/latest", "vm1/latest/vda2", "vm1/latest/vda2.vgroot-root", "vm1/latest/vda2.vgroot-home"):
        with shown(program, repository, path, place) as result:
            assert result.returncode == 0, result.stderr
            names = [path.rpartition("/")[2]] if "-" in path else ["vda2.vgroot-root", "vda2.vgroot-home"]
            assert result.stdout.split() == [f"{place}/files/{name}" for name in names]
            for name in names:
                assert same_tree(tree, f"{place}/files/{name}") == ""
    assert program.json("diff", repository.path, "vm1/latest/vda2.vgroot-home", "vm1/latest/vda2.vgroot-home") == []
    assert program.json("diff", repository.path, "vm1/latest/vda2.vgroot-root", "vm1/latest/vda2.vgroot-home") != []


def assert_holes_hold_no_data(path):
    """lseek(2) tells all data, and holes that are there: what it says is a hole reads as zeroes."""
    with open(path, "rb") as file:
        end, at, data = os.fstat(file.fileno()).st_size, 0, 0
        while at < end:
            hole = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            data += hole - at
            try:
                following = os.lseek(file.fileno(), hole, os.SEEK_DATA) if hole < end else end
            except OSError:
                following = end
            assert not os.pread(file.fileno(), min(following - hole, 16 * MIB), hole).strip(b"\0")
            at = following
    assert data == os.stat(path).st_blocks * 512


class VolumeGroup:
    """A group of LVM's own making on loop devices over images; nothing is activated, so that no device mapper is needed."""

    def __init__(self, place, images):
        self.place, self.images, self.devices = place, images, []
        self.environment = dict(os.environ, LVM_SYSTEM_DIR=f"{place}/lvm", LVM_SUPPRESS_FD_WARNINGS="1")

    def __enter__(self):
        for image in self.images:
            self.devices.append(subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True,
                                               check=True).stdout.strip())
        os.mkdir(f"{self.place}/lvm")
        ours = ", ".join(f'"a|^{device}$|"' for device in self.devices)
        with open(f"{self.place}/lvm/lvm.conf", "w", encoding="utf-8") as file:
            file.write(f'devices {{ use_devicesfile = 0\n global_filter = [ {ours}, "r|.*|" ] }}\n'
                       "activation { udev_sync = 0\n udev_rules = 0 }\nglobal { event_activation = 0\n use_lvmpolld = 0\n"
                       f'locking_dir = "{self.place}/lvm/lock" }}\nbackup {{ backup = 0\n archive = 0 }}\n')
        return self

    def __exit__(self, *error):
        for device in self.devices:
            subprocess.run(["losetup", "--detach", device], check=True)

    def run(self, *words):
        return subprocess.run([words[0], "--driverloaded", "n", *words[1:]], env=self.environment, capture_output=True,
                              text=True, check=True).stdout

    def create(self, name, extents, *words):
        self.run("lvcreate", "-q", "-an", "-Zn", "-Wn", "-n", name, "-l", str(extents), *words)

    def segments(self):
        """What LVM reports: for each volume (start, size, stripe size, [(image, start)])."""
        starts = {pv["pv_name"]: int(pv["pe_start"]) for pv in self.report("pvs", "pv", "pv_name,pe_start")}
        volumes = {}
        for each in self.report("lvs", "lv", "lv_name,seg_start,seg_size,stripe_size,devices"):
            places = []
            for device, extent in re.findall(r"([^,(]+)\((\d+)\)", each["devices"]):
                places.append((self.images[self.devices.index(device)], starts[device] + int(extent) * EXTENT))
            volumes.setdefault(each["lv_name"], []).append((int(each["seg_start"]), int(each["seg_size"]),
                                                            int(each["stripe_size"]) or EXTENT, places))
        return volumes

    def report(self, command, kind, columns):
        text = self.run(command, "--reportformat", "json", "--units", "b", "--nosuffix", "-o", columns)
        return json.loads(text)["report"][0][kind]


def fill_volume(path, segments):
    """Writes the bytes at path to where LVM says that the volume has them, in stripes."""
    with open(path, "rb") as source:
        for start, size, stripe, places in segments:
            for at in range(0, size, stripe):
                image, base = places[at // stripe % len(places)]
                bytes_ = os.pread(source.fileno(), min(stripe, size - at), start + at)
                if bytes_.strip(b"\0"):
                    with open(image, "r+b") as file:
                        os.pwrite(file.fileno(), bytes_, base + at // stripe // len(places) * stripe)


@pytest.mark.needs_root
def test_volumes_of_lvm_in_pieces_on_several_disks_and_striped_ones_read_as_what_was_written(program, repository, place):
    disks = {disk: f"{place}/{disk}.img" for disk in ("vda", "vdb", "vdc")}
    for path in disks.values():
        with open(path, "wb") as file:
            file.truncate(200 * MIB)
    tree = f"{place}/tree"
    os.mkdir(tree)
    make_tree(tree)
    with VolumeGroup(place, list(disks.values())) as group:
        vda, vdb, vdc = group.devices
        group.run("pvcreate", "-q", vda, vdc)
        group.run("pvcreate", "-q", "--metadatacopies", "0", vdb)
        group.run("vgcreate", "-q", "-s", "4M", "vg", vda, vdb, vdc)
        group.create("root", 5, "vg", vda)
        group.create("home", 3, "vg", vda)
        group.run("lvextend", "-q", "-l", "+4", "vg/root", vda)
        group.run("lvextend", "-q", "-l", "+4", "vg/root", vdc)
        group.run("lvextend", "-q", "-l", "+2", "vg/home", vdb)
        group.create("fast", 12, "-i", "2", "-I", "64", "vg", vdb, vdc)
        group.create("faster", 6, "-i", "3", "-I", "4", "vg")
        segments = group.segments()
    assert {name: len(pieces) for name, pieces in segments.items()} == {"root": 3, "home": 2, "fast": 1, "faster": 1}
    for name, pieces in segments.items():
        with open(f"{place}/{name}", "wb") as file:
            file.truncate(sum(size for _, size, _, _ in pieces))
        subprocess.run(["mkfs.ext4", "-q", "-d", tree, f"{place}/{name}"], check=True, capture_output=True)
        fill_volume(f"{place}/{name}", pieces)
    for path in disks.values():
        program.person.give(path)
    program.run("add", repository.path, "vm1", *(f"{disk}=file://{path}" for disk, path in disks.items()))
    point = repository.capture("vm1", "--full")
    names = {"root": "vda.vg-root", "home": "vda.vg-home", "fast": "vdb.vg-fast", "faster": "vda.vg-faster"}
    with mounted(program, repository.path, place) as mount:
        seen = {name for name in os.listdir(f"{mount.path}/vm1/{point}") if "-" in name}
        assert seen == {f"{name}.raw" for name in names.values()}, "each once, with the disk that it begins on"
        for name, file in names.items():
            shown_file = f"{mount.path}/vm1/{point}/{file}.raw"
            assert filecmp.cmp(f"{place}/{name}", shown_file, shallow=False)
            assert_holes_hold_no_data(shown_file)
            target = f"{place}/kernel"
            os.makedirs(target, exist_ok=True)
            subprocess.run(["mount", "-o", "ro,loop", shown_file, target], check=True)
            try:
                assert same_tree(tree, target) == ""
            finally:
                subprocess.run(["umount", target], check=True)
    with shown(program, repository, "vm1/latest", place) as result:
        assert result.returncode == 0, result.stderr
        assert sorted(result.stdout.split()) == sorted(f"{place}/files/{name}" for name in names.values())
        for file in names.values():
            assert same_tree(tree, f"{place}/files/{file}") == ""


@pytest.mark.needs_root
def test_a_volume_of_which_a_disk_was_not_captured_says_so(program, repository, place):
    disks = {disk: f"{place}/{disk}.img" for disk in ("vda", "vdb")}
    for path in disks.values():
        with open(path, "wb") as file:
            file.truncate(100 * MIB)
    with VolumeGroup(place, list(disks.values())) as group:
        group.run("vgcreate", "-q", "-s", "4M", "vg", *group.devices)
        group.create("here", 5, "vg", group.devices[0])
        group.create("both", 5, "vg", group.devices[0])
        group.run("lvextend", "-q", "-l", "+4", "vg/both", group.devices[1])
        group.create("there", 5, "vg", group.devices[1])
    program.person.give(disks["vda"])
    program.run("add", repository.path, "vm1", f"vda=file://{disks['vda']}")
    point = repository.capture("vm1", "--full")
    with mounted(program, repository.path, place) as mount:
        with open(f"{mount.path}/vm1/{point}/info.json", encoding="utf-8") as file:
            volumes = {each["name"]: each for each in json.load(file)["disks"][0]["partitions"]}
        assert volumes.keys() == {"vda.vg-here", "vda.vg-both", "vda.vg-there"}
        assert volumes["vda.vg-here"]["readable"]
        for name in ("both", "there"):
            assert not volumes[f"vda.vg-{name}"]["readable"]
            assert "on the physical volume pv1, which no disk of the point has" in volumes[f"vda.vg-{name}"]["reason"]
        assert os.stat(f"{mount.path}/vm1/{point}/vda.vg-here.raw").st_size == 20 * MIB
        assert not os.path.exists(f"{mount.path}/vm1/{point}/vda.vg-both.raw")


@pytest.mark.needs_root
def test_root_mounts_what_the_kernel_knows(program, repository, place):
    kinds = [("ext4", 30), ("xfs", 310), ("btrfs", 120), ("ntfs", 30)]
    tree, target = f"{place}/tree", f"{place}/target"
    os.mkdir(tree)
    os.mkdir(target)
    make_tree(tree)
    image, starts = disk_with(place, kinds)
    for (kind, size), start in zip(kinds, starts):
        device = subprocess.run(["losetup", "--find", "--show", "-o", str(start), "--sizelimit", str(size * MIB), image],
                                capture_output=True, text=True, check=True).stdout.strip()
        try:
            subprocess.run(["ntfs-3g" if kind == "ntfs" else "mount", device, target], check=True)
            subprocess.run(["cp", "-a", f"{tree}/.", target], check=True)
            subprocess.run(["umount", target], check=True)
        finally:
            # ntfs-3g ends a moment after it was unmounted.
            until(lambda: subprocess.run(["losetup", "--detach", device], check=False).returncode == 0, "it is detached", 10)
    capture(repository, image)
    with shown(program, repository, "vm1/latest", place) as result:
        assert result.returncode == 0, result.stderr
        assert result.stdout.split() == [f"{place}/files/vda{number}" for number in (1, 2, 3, 4)]
        for number in (1, 2, 3, 4):
            assert same_tree(tree, f"{place}/files/vda{number}") == ""
            with pytest.raises(OSError):
                with open(f"{place}/files/vda{number}/new", "wb"):
                    pass
    assert not [line for line in subprocess.run(["losetup", "--list"], capture_output=True, text=True, check=True).stdout
                .splitlines() if place in line]
