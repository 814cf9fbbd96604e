"""Chains of qcow2 images that QEMU, libvirt and qemu-img wrote, mounted as they lie."""

import os
import random
import shutil
import struct
import subprocess

import pytest
from mount import mounted
from repository import same_image
from vm import MIB, VM, Disk
from wait import until

NOISE = random.Random(7).randbytes(MIB)


def tool(*command, cwd=None):
    subprocess.run([str(word) for word in command], cwd=cwd, check=True, stdout=subprocess.DEVNULL)


def img(*command, cwd=None):
    tool("qemu-img", *command, cwd=cwd)


def io(path, *commands, format="qcow2"):
    tool("qemu-io", "-f", format, *(word for command in commands for word in ("-c", command)), path)


@pytest.fixture
def backups(place, person):
    """A directory of other tools' backups; vm1 is a VM's."""
    path = f"{place}/backups"
    os.makedirs(f"{path}/vm1")
    person.give(path)
    return path


def points(program, backups, vm="vm1"):
    (found,) = program.json("list", backups, vm)["vms"]
    return found["points"]


def check(program, backups, place, truth, vm="vm1"):
    """truth: for each point, in order, the disks and what each shows: a raw image, or what qemu-img makes of
    (an image) or (an image, its snapshot)."""
    listed = points(program, backups, vm)
    assert [sorted(disk["name"] for disk in point["disks"]) for point in listed] == [sorted(disks) for disks in truth]
    with mounted(program, backups, place) as mount:
        for point, disks in zip(listed, truth, strict=True):
            assert point["complete"], point
            for disk, source in disks.items():
                if isinstance(source, tuple):
                    image, *snapshot = source
                    if snapshot:  # of a size of its own, which qemu-img convert -l does not heed
                        image = shutil.copy(image, f"{place}/expected.qcow2")
                        img("snapshot", "-a", *snapshot, image)
                    img("convert", "-U", "-O", "raw", image, f"{place}/expected.raw")
                    source = f"{place}/expected.raw"
                assert same_image(f"{mount.path}/{vm}/{point['name']}/{disk}.raw", source), (point["name"], disk)
    return listed


def test_a_chain_is_a_point_for_each_image(program, backups, place):
    directory = f"{backups}/vm1"
    base = f"{directory}/vda"  # no extension: what is based on it tells that it is a disk
    with open(base, "wb") as file:
        file.write(NOISE * 3)
    img("create", "-q", "-f", "qcow2", "-b", "vda", "-F", "raw", "vda.monday", 8 * MIB, cwd=directory)
    io(f"{directory}/vda.monday", "write -P 1 1M 300k", "write -P 2 6M 1M")
    img("create", "-q", "-f", "qcow2", "-b", f"{directory}/vda.monday", "-F", "qcow2", "vda.tuesday", 2 * MIB, cwd=directory)
    io(f"{directory}/vda.tuesday", "write -z 1M 100k", "write -P 3 0 64k")
    img("create", "-q", "-f", "qcow2", "-b", "../vm1/vda.tuesday", "-F", "qcow2", "vda.wednesday", 10 * MIB, cwd=directory)
    for age, name in enumerate(("vda.wednesday", "vda.tuesday", "vda.monday", "vda")):
        os.utime(f"{directory}/{name}", (0, 1700000000 - age * 86400))
    listed = check(program, backups, place, [{"vda": base}, *({"vda": (f"{directory}/vda.{day}",)}
                                                              for day in ("monday", "tuesday", "wednesday"))])
    assert [point["name"] for point in listed] == [f"2023-11-{day}T221320Z" for day in (11, 12, 13, 14)]
    assert [point["parent"] for point in listed] == [None, *(point["name"] for point in listed[:-1])]
    assert [point["kind"] for point in listed] == ["full"] + ["incremental"] * 3


def test_chains_in_one_directory_are_disks_of_the_same_points(program, backups, place):
    directory = f"{backups}/vm1"
    for disk in ("vda", "vdb"):
        for name, below in ((disk, None), (f"{disk}-1", disk), (f"{disk}-2", f"{disk}-1")):
            img("create", "-q", "-f", "qcow2", *(("-b", f"{below}.qcow2", "-F", "qcow2") if below else ()), f"{name}.qcow2",
                2 * MIB, cwd=directory)
            io(f"{directory}/{name}.qcow2", f"write -P {len(name) + ord(name[-1])} {random.randrange(16) * 64}k 64k")
    check(program, backups, place, [{disk: (f"{directory}/{disk}{number}.qcow2",) for disk in ("vda", "vdb")}
                                    for number in ("", "-1", "-2")])


def test_images_of_every_kind_read_as_qemu_img_reads_them(program, backups, place):
    directory = f"{backups}/vm1"
    raw = f"{place}/disk.raw"
    with open(raw, "wb") as file:
        file.truncate(5 * MIB + 4608)
        for offset in (0, 700_000, 3_000_000, 5 * MIB):
            file.seek(offset)
            file.write(NOISE[:200_000 if offset < 5 * MIB else 4608])
            file.write(bytes(range(256)) * 300 if offset < 5 * MIB else b"")
    kinds = {f"size{bits}": ("-o", f"cluster_size={1 << bits}") for bits in range(9, 22)}
    for bits in (14, 16, 21):
        kinds[f"extended{bits}"] = ("-o", f"cluster_size={1 << bits},extended_l2=on")
    for name, preallocation in (("metadata", "metadata"), ("falloc", "falloc"), ("full", "full")):
        kinds[name] = ("-o", f"preallocation={preallocation}")
    for compression in ("zlib", "zstd"):
        for bits in (9, 16, 21):
            kinds[f"{compression}{bits}"] = ("-c", "-o", f"cluster_size={1 << bits},compression_type={compression}")
    kinds["old"] = ("-o", "compat=0.10")
    kinds["oldcompressed"] = ("-c", "-o", "compat=0.10,cluster_size=4096")
    kinds["apart"] = ("-o", "data_file=apart.data")
    kinds["apartraw"] = ("-n", "-o", "data_file=apartraw.raw,data_file_raw=on")  # a name that plain images have
    kinds["lazy"] = ("-o", "lazy_refcounts=on,refcount_bits=1")
    for name, options in kinds.items():
        if options[0] == "-n":  # made first: a raw data file has to be there as a whole
            img("create", "-q", "-f", "qcow2", *options[1:], f"{name}.qcow2", 5 * MIB + 4608, cwd=directory)
            img("convert", "-n", "-O", "qcow2", raw, f"{name}.qcow2", cwd=directory)
        else:
            img("convert", "-O", "qcow2", *options, raw, f"{name}.qcow2", cwd=directory)
    (point,) = check(program, backups, place, [{name: raw for name in kinds}])
    assert point["kind"] == "full"
    assert "unrecognised" not in program.json("list", backups)


def test_internal_snapshots_are_points(program, backups, place):
    directory = f"{backups}/vm1"
    for disk in ("vda", "vdb"):
        path = f"{directory}/{disk}.qcow2"
        img("create", "-q", "-f", "qcow2", path, 3 * MIB)
        for number in (1, 2):
            io(path, f"write -P {number} {number}M 1M", f"write -P {number + 4} 0 64k")
            img("snapshot", "-c", f"night{number}", path)
        io(path, "write -P 9 1M 1500k")
        img("resize", "-q", path, 4 * MIB)
    paths = {disk: f"{directory}/{disk}.qcow2" for disk in ("vda", "vdb")}
    listed = check(program, backups, place, [
        *({disk: (path, f"night{number}") for disk, path in paths.items()} for number in (1, 2)),
        {disk: (path,) for disk, path in paths.items()}])
    assert all(point["kind"] == "full" for point in listed)


def test_what_a_moved_directory_holds_is_found_by_its_name(program, backups, place):
    directory = f"{backups}/vm1"
    os.mkdir(f"{place}/elsewhere")
    img("create", "-q", "-f", "qcow2", f"{place}/elsewhere/base.img", MIB)
    io(f"{place}/elsewhere/base.img", "write -P 1 0 1M")
    img("create", "-q", "-f", "qcow2", "-b", f"{place}/elsewhere/base.img", "-F", "qcow2", f"{place}/elsewhere/top.qcow2")
    io(f"{place}/elsewhere/top.qcow2", "write -P 2 0 4k")
    img("convert", "-O", "raw", f"{place}/elsewhere/top.qcow2", f"{place}/top.raw")
    for name in ("base.img", "top.qcow2"):
        os.rename(f"{place}/elsewhere/{name}", f"{directory}/{name}")
    listed = check(program, backups, place, [{"base": (f"{directory}/base.img",)},
                                             {"base": f"{place}/top.raw"}])
    (disk,) = listed[1]["disks"]
    assert disk["note"] == f"its backing file {place}/elsewhere/base.img is taken from beside it"


def test_a_base_that_several_vms_share_is_a_point_of_each(program, backups, place):
    os.mkdir(f"{backups}/templates")
    base = f"{backups}/templates/debian.qcow2"
    img("create", "-q", "-f", "qcow2", base, MIB)
    io(base, "write -P 1 0 1M")
    for number, name in enumerate((f"{backups}/vm1/disk.qcow2", f"{backups}/vm2/disk.qcow2")):
        os.makedirs(os.path.dirname(name), exist_ok=True)
        img("create", "-q", "-f", "qcow2", "-b", (base, "../templates/debian.qcow2")[number], "-F", "qcow2", name)
        io(name, f"write -P {number + 2} 64k 64k")
    for vm in ("vm1", "vm2"):
        check(program, backups, place, [{"debian": (base,)}, {"debian": (f"{backups}/{vm}/disk.qcow2",)}], vm)
    check(program, backups, place, [{"debian": (base,)}], "templates")


def test_nothing_outside_the_root_is_read(program, backups, place):
    directory = f"{backups}/vm1"
    img("create", "-q", "-f", "qcow2", f"{place}/secret.qcow2", MIB)
    img("create", "-q", "-f", "qcow2", "-b", "../../secret.qcow2", "-F", "qcow2", "relative.qcow2", cwd=directory)
    img("create", "-q", "-f", "qcow2", "-b", f"{place}/secret.qcow2", "-F", "qcow2", "absolute.qcow2", cwd=directory)
    img("create", "-q", "-f", "qcow2", "-o", f"data_file={place}/secret.data", "data.qcow2", MIB, cwd=directory)
    os.symlink(f"{place}/secret.qcow2", f"{directory}/link.qcow2")
    img("create", "-q", "-f", "qcow2", "-b", "link.qcow2", "-F", "qcow2", "linked.qcow2", cwd=directory)
    reasons = [point["reason"] for point in points(program, backups)]
    assert reasons and all("is not there" in reason for reason in reasons)


def test_what_is_wrong_with_one_image_is_told_and_spares_the_others(program, backups, place):
    directory = f"{backups}/vm1"
    for name, below in (("good", None), ("loop1", None), ("loop2", "loop1"), ("gone", None), ("orphan", "gone")):
        img("create", "-q", "-f", "qcow2", *(("-b", f"{below}.qcow2", "-F", "qcow2") if below else ()), f"{name}.qcow2",
            MIB, cwd=directory)
    io(f"{directory}/good.qcow2", "write -P 1 0 100k")
    img("convert", "-O", "raw", "good.qcow2", f"{place}/good.raw", cwd=directory)
    img("rebase", "-q", "-u", "-f", "qcow2", "-b", "loop2.qcow2", "-F", "qcow2", "loop1.qcow2", cwd=directory)
    os.unlink(f"{directory}/gone.qcow2")
    for name, at, what in (("encrypted", 32, struct.pack(">I", 2)), ("newer", 72, struct.pack(">Q", 1 << 40))):
        img("create", "-q", "-f", "qcow2", f"{name}.qcow2", MIB, cwd=directory)
        with open(f"{directory}/{name}.qcow2", "r+b") as file:
            file.seek(at)
            file.write(what)
    img("create", "-q", "-f", "vmdk", "disk.vmdk", MIB, cwd=directory)
    img("create", "-q", "-f", "qcow2", "-b", "disk.vmdk", "-F", "vmdk", "vmware.qcow2", cwd=directory)
    listed = program.run("list", backups).stdout
    assert "it is encrypted (LUKS): decrypt it with qemu-img convert first" in listed
    assert "it needs a feature that this version does not know: bit 40" in listed
    disks = {disk["name"]: disk.get("reason") for point in points(program, backups) for disk in point["disks"]
             if disk.get("reason") or disk["name"] == "good"}
    assert disks == {
        "loop2": "its backing files lead back to itself", "orphan": "its backing file gone.qcow2 is not there",
        "vmware": 'its backing file disk.vmdk is of the format "vmdk", which is not read here', "good": None}
    with mounted(program, backups, place) as mount:
        assert same_image(f"{mount.path}/vm1/latest/good.raw", f"{place}/good.raw")


def test_bitmaps_are_listed(program, backups):
    path = f"{backups}/vm1/vda.qcow2"
    img("create", "-q", "-f", "qcow2", path, MIB)
    for name in ("monday", "tuesday"):
        img("bitmap", "--add", path, name)
    (point,) = points(program, backups)
    assert point["disks"][0]["note"] == "persistent bitmaps: monday, tuesday"


def test_ovirts_names_tell_points_and_disks(program, backups, place):
    directory = f"{backups}/vm1"
    disks = ("4a7c1e5e-1111-4f3b-9d2c-000000000001", "4a7c1e5e-1111-4f3b-9d2c-000000000002")
    checkpoints = ("11111111-aaaa-4aaa-8aaa-111111111111", "22222222-aaaa-4aaa-8aaa-222222222222")
    names = {}
    for number, (time, checkpoint) in enumerate(zip(("20240501103000", "20240502103000"), checkpoints, strict=True)):
        for disk in disks:
            name = f"{time}.{checkpoint}.{disk}.{('full', 'incremental')[number]}.qcow2"
            img("create", "-q", "-f", "qcow2", *(("-b", names[0, disk], "-F", "qcow2") if number else ()), name, MIB,
                cwd=directory)
            io(f"{directory}/{name}", f"write -P {number + 1} {number * 128}k 128k")
            names[number, disk] = name
    listed = check(program, backups, place, [{disk: (f"{directory}/{names[number, disk]}",) for disk in disks}
                                             for number in (0, 1)])
    assert [point["name"] for point in listed] == ["2024-05-01T103000Z", "2024-05-02T103000Z"]
    assert [point["checkpoint"] for point in listed] == list(checkpoints)


def test_a_chain_of_a_thousand_opens(program, backups, place):
    directory = f"{backups}/vm1"
    img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", "vda-0.qcow2", MIB, cwd=directory)
    with open(f"{directory}/vda-0.qcow2", "rb") as file:
        empty = file.read()
    img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", "-b", "vda-0.qcow2", "-F", "qcow2", "vda-1.qcow2",
        cwd=directory)
    with open(f"{directory}/vda-1.qcow2", "rb") as file:
        overlay = file.read()
    where = overlay.index(b"vda-0.qcow2")
    for number in range(1, 1000):
        below = f"vda-{number - 1}.qcow2".encode()
        header = bytearray(overlay)
        header[where:where + len(below)] = below
        struct.pack_into(">I", header, 16, len(below))
        with open(f"{directory}/vda-{number}.qcow2", "wb") as file:
            file.write(header)
        os.utime(f"{directory}/vda-{number}.qcow2", (0, 1700000000 + number))
    os.utime(f"{directory}/vda-0.qcow2", (0, 1700000000))
    assert empty
    for number in (0, 400, 999):
        io(f"{directory}/vda-{number}.qcow2", f"write -P {number % 255 + 1} {number}k 4k") if number < 999 else None
        os.utime(f"{directory}/vda-{number}.qcow2", (0, 1700000000 + number))
    assert len(points(program, backups)) == 1000
    with mounted(program, backups, place) as mount:
        with open(f"{mount.path}/vm1/latest/vda-0.raw", "rb") as file:
            content = file.read()
    assert content == b"\1" * 4096 + bytes(396 * 1024) + bytes([400 % 255 + 1]) * 4096 + bytes(MIB - 404 * 1024)


# libvirt's push backups


def push(vm, place, checkpoint, incremental=None):
    """A push backup to files that libvirt names, with a checkpoint of this name."""
    since = f"<incremental>{incremental}</incremental>" if incremental else ""
    for name, text in (("backup", f"<domainbackup mode='push'>{since}</domainbackup>"),
                       ("checkpoint", f"<domaincheckpoint><name>{checkpoint}</name></domaincheckpoint>")):
        with open(f"{place}/{name}.xml", "w", encoding="utf-8") as file:
            file.write(text)
    vm.virsh("backup-begin", f"{place}/backup.xml", f"{place}/checkpoint.xml")
    until(lambda: not vm.has_job(), "the backup is done")


def test_push_backups_of_libvirt_show_the_disks_as_they_were(session, program, backups, place):
    with VM(session, "pushed", [Disk("vda", 16 * MIB), Disk("vdb", 4 * MIB)]) as vm:
        vm.start()
        vm.io("vda", "write -P 1 0 6M", "write -P 2 9M 64k")
        vm.io("vdb", "write -P 3 1M 1M")
        truth, since = [], None
        for number, checkpoint in enumerate(("monday", "tuesday", "wednesday")):
            os.mkdir(f"{place}/{checkpoint}")
            truth.append({disk.path.rsplit("/", 1)[1].removesuffix(".qcow2"):
                          vm.reference(disk.target, f"{place}/{checkpoint}/{disk.target}.raw") for disk in vm.disks})
            push(vm, place, checkpoint, since)
            since = checkpoint
            vm.io("vda", f"write -P {16 + number} {number * 2}M 1M", f"write -z -u {number * 2 + 1}M 512k")
            vm.io("vdb", f"discard {1024 + number * 64}k 64k")
        for name in os.listdir(vm.directory):
            if not name.endswith(".qcow2"):
                os.rename(f"{vm.directory}/{name}", f"{backups}/vm1/{name}")
        listed = check(program, backups, place, truth)
        assert [point["checkpoint"] for point in listed] == ["monday", "tuesday", "wednesday"]
        assert [point["kind"] for point in listed] == ["full", "incremental", "incremental"]
        assert all("taken for that is" in disk["note"] for point in listed[1:] for disk in point["disks"])


def test_external_snapshots_of_libvirt_are_points(session, program, place):
    with VM(session, "snapped", [Disk("vda", 8 * MIB), Disk("vdb", 4 * MIB)]) as vm:
        vm.start()
        truth = []
        for number, name in enumerate(("noon", "evening")):
            for disk in vm.disks:
                vm.io(disk.target, f"write -P {number + 1} {number}M 1500k")
            os.mkdir(f"{place}/{name}")
            bases = {disk.target: disk.path for disk in vm.disks}
            truth.append({target: vm.reference(target, f"{place}/{name}/{target}.raw") for target in bases})
            if number == 0:
                stems = {target: path.rsplit("/", 1)[1].removesuffix(".qcow2") for target, path in bases.items()}
                vm.virsh("snapshot-create-as", name, "--disk-only", "--no-metadata")
                for disk in vm.disks:
                    disk.path = disk.path.removesuffix("qcow2") + name
        vm.destroy()
        check(program, os.path.dirname(vm.directory), place,
              [{stems[target]: path for target, path in point.items()} for point in truth], "snapped")


def test_our_own_exports_are_points_of_the_same_times(repository, program, backups, place):
    disk = f"{place}/vda.raw"
    for number in range(3):
        with open(disk, "r+b" if number else "wb") as file:
            file.truncate(4 * MIB)
            file.seek(number * MIB)
            file.write(NOISE[:300_000 + number])
        if not number:
            program.run("add", repository.path, "vm", f"vda=file://{disk}")
        program.run("capture", repository.path, "vm")
    program.run("export", repository.path, "vm/latest/vda", f"{backups}/vm1", "--format", "qcow2", "--chain")
    (exported,) = program.json("list", repository.path)["vms"]
    names = [point["name"] for point in exported["points"]]
    listed = check(program, backups, place, [{"vda": (f"{backups}/vm1/vda.{name}.qcow2",)} for name in names])
    assert [point["name"] for point in listed] == names
