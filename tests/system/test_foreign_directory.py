"""Directories in which other tools store, mounted as they lie; with plain images, which every format stands on."""

import contextlib
import errno
import hashlib
import json
import os
import random
import subprocess

import pytest
import vma_archive

from mount import mounted
from repository import pull, same_image, state_of
from virtnbd import stream
from wait import until


def make_image(path, size, seed, pieces=8):
    """An image with data here and there."""
    source = random.Random(seed)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.truncate(size)
        for _ in range(pieces):
            file.seek(source.randrange(max(1, size - 70000)))
            file.write(source.randbytes(source.randrange(1, 70000)))
        file.truncate(size)


def fingerprint(root):
    """All that can be seen of a tree, access times left out."""
    seen = {}
    for directory, _, names in os.walk(root):
        for path in [directory, *(os.path.join(directory, name) for name in names)]:
            status = os.lstat(path)
            content = b""
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).digest()
            seen[path] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino, content)
    return seen


@pytest.fixture
def foreign(place, person):
    """Two VMs, a file that is nobody's, and a link."""
    root = f"{place}/backups"
    make_image(f"{root}/web/vda.raw", 9 << 20, 1)
    make_image(f"{root}/web/vdb.img", (3 << 20) + 5, 2)
    make_image(f"{root}/2026/db/disk.raw", 5 << 20, 3)
    with open(f"{root}/notes.txt", "w", encoding="utf-8") as file:
        file.write("nothing\n")
    os.symlink("/etc/passwd", f"{root}/link.raw")
    person.give(root)
    for directory, _, names in os.walk(root):
        for name in [directory, *(os.path.join(directory, each) for each in names)]:
            if not os.path.islink(name):
                person.give(name)
    return root


def test_a_directory_of_images_is_mounted_listed_and_read(program, foreign, place):
    with mounted(program, foreign, place) as mount:
        assert sorted(os.listdir(mount.path)) == ["db", "web"]
        assert same_image(mount / "web/latest/vda.raw", f"{foreign}/web/vda.raw")
        assert same_image(mount / "db/latest/disk.raw", f"{foreign}/2026/db/disk.raw")
        subprocess.run(["cp", mount / "web/latest/vdb.raw", f"{place}/copy"], check=True)
        subprocess.run(["cmp", f"{place}/copy", f"{foreign}/web/vdb.img"], check=True)
        with open(mount / "web/latest/info.json", encoding="utf-8") as file:
            info = json.load(file)
        assert info["kind"] == "full" and info["complete"] and info["parent"] is None
        assert [disk["name"] for disk in info["disks"]] == ["vda", "vdb"]
        assert all(0 < disk["allocated"] <= disk["size"] for disk in info["disks"])
        vda = os.stat(mount / "web/latest/vda.raw")
        assert vda.st_size == 9 << 20 and vda.st_blocks * 512 == info["disks"][0]["allocated"]


def test_holes_are_where_the_image_has_them(program, foreign, place):
    image = f"{foreign}/web/vda.raw"
    shown = program.json("map", foreign, "web/latest/vda")
    real = json.loads(subprocess.run(["qemu-img", "map", "-f", "raw", "--output=json", image], check=True,
                                     capture_output=True, text=True).stdout)
    assert [(each["start"], each["length"], each["zero"]) for each in shown] == \
           [(each["start"], each["length"], each["zero"]) for each in real]
    with mounted(program, foreign, place) as mount, open(mount / "web/latest/vda.raw", "rb") as file:
        hole = next(each for each in real if each["zero"])
        assert os.lseek(file.fileno(), hole["start"], os.SEEK_HOLE) == hole["start"]


def test_what_no_format_knows_is_listed_with_the_reason(program, foreign):
    listed = program.json("list", foreign)
    assert [vm["name"] for vm in listed["vms"]] == ["db", "web"]
    assert {each["path"]: each["reason"] for each in listed["unrecognised"]} == {
        "notes.txt": "no format that this version knows", "link.raw": "a symbolic link, which is not followed"}
    text = program.run("list", foreign).stdout
    assert "notes.txt" in text and "no format that this version knows" in text


def test_what_a_point_lacks_stands_beside_its_parent(program, place):
    make_chain = [f"{place}/backups/web/vda.{number}.qcow2" for number in range(3)]
    os.makedirs(f"{place}/backups/web")
    for number, image in enumerate(make_chain):
        backing = ["-b", make_chain[number - 1], "-F", "qcow2"] if number else []
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, image, "1M"], check=True)
        os.utime(image, (1_700_000_000 + number,) * 2)
    with open(make_chain[0], "r+b") as file:
        file.write(b"no qcow2")
    names = [point["name"] for point in program.json("list", f"{place}/backups")["vms"][0]["points"]]
    assert " 2 (2 incomplete) " in program.run("list", f"{place}/backups").stdout
    lines = program.run("list", f"{place}/backups", "web").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == names and len(names) == 2
    assert f"  {names[0]}  incomplete: " in lines[2] and "vda.0.qcow2" in lines[2]
    lines = program.run("list", f"{place}/backups", f"web/{names[0]}").stdout.splitlines()
    assert lines[1].startswith("vda") and "incomplete: " in lines[1]


def test_nothing_is_written_and_nothing_need_be_writable(program, foreign, place):
    for directory, _, names in os.walk(foreign, topdown=False):
        for name in names:
            if not os.path.islink(f"{directory}/{name}"):
                os.chmod(f"{directory}/{name}", 0o400)
        os.chmod(directory, 0o500)
    before = fingerprint(foreign)
    with mounted(program, foreign, place) as mount:
        assert same_image(mount / "web/latest/vda.raw", f"{foreign}/web/vda.raw")
        subprocess.run(["find", mount.path, "-ls"], check=True, capture_output=True)
    program.run("list", foreign, "web/latest")
    program.run("map", foreign, "web/latest/vda")
    assert fingerprint(foreign) == before
    for directory, _, _ in os.walk(foreign):
        os.chmod(directory, 0o700)


@pytest.mark.needs_root
def test_a_read_only_file_system_is_enough(program, foreign, place):
    image = f"{place}/small"
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-d", foreign, image], check=True)
    os.mkdir(f"{place}/disk")
    subprocess.run(["mount", "-o", "loop,ro", image, f"{place}/disk"], check=True)
    try:
        with mounted(program, f"{place}/disk", place) as mount:
            assert same_image(mount / "web/latest/vda.raw", f"{foreign}/web/vda.raw")
    finally:
        subprocess.run(["umount", f"{place}/disk"], check=True)


def test_the_trigger_is_idle_and_cannot_be_pulled(program, foreign, place):
    with mounted(program, foreign, place) as mount:
        assert state_of(mount / "web/capture")["state"] == "idle"
        with pytest.raises(OSError) as refused:
            pull(mount / "web/capture", "full")
        assert refused.value.errno == errno.EROFS
    refused = program.run("capture", foreign, "web", check=False)
    assert refused.returncode == 1 and "cannot capture" in refused.stderr
    refused = program.run("add", foreign, "web", "qemu:///session", check=False)
    assert refused.returncode == 1


def test_what_appears_is_seen_without_a_remount(program, foreign, place, person):
    with mounted(program, foreign, place) as mount:
        with open(mount / "web/latest/vda.raw", "rb") as held:
            first = held.read(1 << 16)
            make_image(f"{foreign}/mail/sda.raw", 2 << 20, 9)
            person.give(f"{foreign}/mail")
            person.give(f"{foreign}/mail/sda.raw")
            until(lambda: "mail" in os.listdir(mount.path), "the new VM is shown", 30)
            assert same_image(mount / "mail/latest/sda.raw", f"{foreign}/mail/sda.raw")
            held.seek(0)
            assert held.read(1 << 16) == first


def test_an_image_that_is_written_to_is_shown_as_it_has_become(program, foreign, place):
    with mounted(program, foreign, place) as mount:
        name = os.readlink(mount / "web/latest")
        assert same_image(mount / "web/latest/vda.raw", f"{foreign}/web/vda.raw")
        with open(f"{foreign}/web/vda.raw", "r+b") as file:
            file.write(b"changed" * 1000)
        os.utime(f"{foreign}/web/vda.raw", (2_000_000_000, 2_000_000_000))
        until(lambda: os.readlink(mount / "web/latest") != name, "the point has another time", 30)
        assert os.readlink(mount / "web/latest") == "2033-05-18T033320Z"
        assert same_image(mount / "web/latest/vda.raw", f"{foreign}/web/vda.raw")


def test_what_vanishes_is_an_error_there_and_nowhere_else(program, foreign, place):
    with mounted(program, foreign, place) as mount:
        assert os.stat(mount / "web/latest/vda.raw").st_size == 9 << 20
        held = os.open(mount / "web/latest/vda.raw", os.O_RDONLY)
        os.unlink(f"{foreign}/web/vda.raw")
        until(lambda: sorted(os.listdir(mount / "web/latest/")) == ["info.json", "vdb.map", "vdb.raw"],
              "the disk is gone", 30)
        with pytest.raises(OSError):
            os.stat(mount / "web/latest/vda.raw")
        os.close(held)
        assert same_image(mount / "web/latest/vdb.raw", f"{foreign}/web/vdb.img")
        assert same_image(mount / "db/latest/disk.raw", f"{foreign}/2026/db/disk.raw")


def test_a_directory_in_the_place_of_the_first_is_what_is_shown(program, foreign, place, person):
    with mounted(program, foreign, place) as mount:
        held = os.open(mount / "web/latest/vda.raw", os.O_RDONLY)
        first = os.pread(held, 1 << 20, 0)
        os.rename(foreign, f"{foreign}-away")
        make_image(f"{foreign}/web/vda.raw", 9 << 20, 77)
        for name in foreign, f"{foreign}/web", f"{foreign}/web/vda.raw":
            person.give(name)
        until(lambda: os.listdir(mount.path) == ["web"], "the other directory is shown", 30)
        assert same_image(mount / "web/latest/vda.raw", f"{foreign}/web/vda.raw")
        # Whoever has the old one open reads that, or nothing more.
        try:
            assert os.pread(held, 1 << 20, 0) == first
        except OSError as error:
            assert error.errno == errno.EIO
        with contextlib.suppress(OSError):
            os.close(held)


def test_numbers_are_the_same_over_remounts(program, foreign, place):
    def numbers(mount):
        return {path: os.lstat(mount / path).st_ino for path in
                ("web", "db", "web/latest", "web/latest/", "web/latest/vda.raw", "web/latest/info.json", "web/capture")}
    with mounted(program, foreign, place) as mount:
        before = numbers(mount)
        assert len(set(before.values())) == len(before)
    with mounted(program, foreign, place) as mount:
        assert numbers(mount) == before


def test_a_directory_without_backups_is_refused_in_words(program, place, person):
    os.mkdir(f"{place}/empty")
    refused = program.run("list", f"{place}/empty", check=False)
    assert refused.returncode == 1 and "is not a virtbackupfs repository" in refused.stderr
    with open(f"{place}/empty/letter.txt", "w", encoding="utf-8") as file:
        file.write("Dear all\n")
    refused = program.run("list", f"{place}/empty", check=False)
    assert refused.returncode == 1
    assert "it holds no backup of a format that this version knows (letter.txt: " in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_repository_of_ours_within_is_told_and_not_looked_into(program, foreign):
    program.run("init", f"{foreign}/ours")
    assert {"path": "ours", "reason": "a repository of virtbackupfs: mount it by itself"} in \
        program.json("list", foreign)["unrecognised"]


def test_a_directory_is_shown_beside_our_own_vms(program, repository, foreign, place):
    before = fingerprint(foreign)
    program.run("add", repository.path, "web", foreign)
    program.run("add", repository.path, "old-db", f"{foreign}/2026")
    assert {vm["name"]: len(vm["points"]) for vm in repository.list()} == {"old-db": 1, "web": 1}
    assert {each["path"] for each in program.json("list", repository.path)["unrecognised"]} == \
        {f"{foreign}/notes.txt", f"{foreign}/link.raw"}
    refused = repository.try_capture("web")
    assert refused.returncode == 1 and "its points are what another tool stores" in refused.stderr
    with mounted(program, repository.path, place) as mount:
        assert sorted(os.listdir(mount.path)) == ["old-db", "web"]
        assert same_image(mount / "old-db/latest/disk.raw", f"{foreign}/2026/db/disk.raw")
        assert state_of(mount / "web/capture")["state"] == "idle"
        with pytest.raises(OSError) as refused:
            pull(mount / "web/capture", "auto")
        assert refused.value.errno == errno.EROFS
        program.run("forget", repository.path, "old-db")
        assert os.listdir(mount.path) == ["web"]
    program.run("forget", repository.path, "web", "--points")
    assert repository.list() == []
    assert fingerprint(foreign) == before


def test_of_several_vms_the_one_of_the_name_is_added(program, repository, foreign):
    refused = program.run("add", repository.path, "mail", foreign, check=False)
    assert refused.returncode == 1 and "holds several VMs, and none of that name: db, web" in refused.stderr
    program.run("add", repository.path, "db", foreign)
    refused = program.run("add", repository.path, "db", foreign, check=False)
    assert refused.returncode == 1 and "it is registered already" in refused.stderr


def test_a_directory_that_is_away_is_the_trouble_of_its_vm_alone(program, repository, foreign, place):
    program.run("add", repository.path, "web", foreign)
    program.run("add", repository.path, "db", f"{foreign}/2026/db")
    os.rename(f"{foreign}/2026/db", f"{place}/away")
    listed = {vm["name"]: vm for vm in repository.list()}
    assert len(listed["web"]["points"]) == 1
    assert "No such file or directory" in listed["db"]["reason"]
    with mounted(program, repository.path, place) as mount:
        with pytest.raises(OSError) as refused:
            os.listdir(mount / "db")
        assert refused.value.errno == errno.EIO
        assert same_image(mount / "web/latest/vda.raw", f"{foreign}/web/vda.raw")
        os.rename(f"{place}/away", f"{foreign}/2026/db")
        assert same_image(mount / "db/latest/disk.raw", f"{foreign}/2026/db/disk.raw")


def test_a_mount_below_the_directory_does_not_show_itself(program, foreign, place, person):
    os.mkdir(f"{foreign}/here")
    person.give(f"{foreign}/here")
    with mounted(program, foreign, f"{foreign}/here") as mount:
        assert sorted(os.listdir(mount.path)) == ["db", "web"]
        make_image(f"{foreign}/mail/sda.raw", 1 << 20, 9)
        person.give(f"{foreign}/mail")
        person.give(f"{foreign}/mail/sda.raw")
        until(lambda: "mail" in os.listdir(mount.path), "the new VM is shown", 30)
        assert sorted(os.listdir(mount.path)) == ["db", "mail", "web"]
        assert {"path": "here/mnt0", "reason": "a mount of virtbackupfs"} in program.json("list", foreign)["unrecognised"]


def test_what_several_tools_wrote_of_one_vm_lies_in_several_directories(program, place):
    uuid = "5f0c2a5e-1111-4222-8333-444455556666"
    root = f"{place}/backups"
    for month in ("07", "08"):
        directory = f"{root}/libvirt/2026-{month}"
        os.makedirs(directory)
        for number, name in enumerate(["vda.full.data", "vda.inc.virtnbdbackup.1.data"]):
            with open(f"{directory}/{name}", "wb") as file:
                file.write(stream(number, bytes([65 + number]) * 65536, number * 65536, f"2026-{month}-0{number + 1}"))
            with open(f"{directory}/vmconfig.virtnbdbackup.{number}.xml", "w", encoding="ascii") as file:
                file.write(f"<domain><name>shop</name><uuid>{uuid}</uuid></domain>")
    os.makedirs(f"{root}/proxmox")
    for number, config in (("100", f"name: shop\nsmbios1: uuid={uuid}\n"), ("101", "name: mail\n")):
        vma_archive.write(f"{root}/proxmox/vzdump-qemu-{number}-2026_06_01-00_00_00.vma", {"drive-scsi0": b"z" * 200000},
                          {"qemu-server.conf": config.encode()}, ctime=1780272000)
    os.makedirs(f"{root}/images/shop")  # called so by its directory alone
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", f"{root}/images/shop/vda.qcow2", "1M"], check=True)
    make_image(f"{root}/images/a/b/c/d/wiki/vda.img", 1 << 20, 4)

    listed = program.json("list", root)
    assert "unrecognised" not in listed
    vms = {vm["name"]: vm for vm in listed["vms"]}
    assert sorted(vms) == ["images-shop", "mail", "shop", "wiki"] and vms["shop"]["uuid"] == uuid
    assert [(point["kind"], [disk["name"] for disk in point["disks"]]) for point in vms["shop"]["points"]] == [
        ("full", ["scsi0"]), ("full", ["vda"]), ("incremental", ["vda"]), ("full", ["vda"]), ("incremental", ["vda"])]
    assert all(point["complete"] for point in vms["shop"]["points"])
    with mounted(program, root, place) as mount:
        for point in vms["shop"]["points"][1:]:
            expected = b"A" * 65536 + (b"B" * 65536 if point["kind"] == "incremental" else b"")
            with open(mount / f"shop/{point['name']}/vda.raw", "rb") as file:
                assert file.read() == expected.ljust(1 << 20, b"\0")
        with open(mount / f"shop/{vms['shop']['points'][0]['name']}/scsi0.raw", "rb") as file:
            assert file.read() == b"z" * 200000
        assert same_image(mount / "wiki/latest/vda.raw", f"{root}/images/a/b/c/d/wiki/vda.img")
