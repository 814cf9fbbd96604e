"""Chains of other tools become chains of ours."""

import json
import os
import random
import signal
import subprocess
import zipfile
import zlib

import pytest
import vma_archive

from mount import mounted
from repository import same_image
from test_foreign_directory import fingerprint, make_image
from virtnbd import stream
from wait import until

SIZE = 24 << 20


def qemu(*arguments):
    subprocess.run(arguments, check=True, capture_output=True)


def write_some(image, source, times=6):
    """Data and zeroes, at offsets and lengths of any kind."""
    for _ in range(times):
        start = source.randrange(SIZE // 512 - 1) * 512
        length = min(source.randrange(1, 2000) * 512, SIZE - start)
        command = source.choice([f"write -P {source.randrange(1, 256)}", "write -z -u", "discard"])
        qemu("qemu-io", "-f", "qcow2", "-c", f"{command} {start} {length}", image)


def make_chain(directory, length, seed):
    """A qcow2 chain, every image an hour younger than the one below it."""
    source = random.Random(seed)
    os.makedirs(directory)
    below = None
    for number in range(length):
        image = f"{directory}/vda.{number}.qcow2"
        backing = ["-b", os.path.basename(below), "-F", "qcow2"] if below else []
        qemu("qemu-img", "create", "-q", "-f", "qcow2", *backing, image, *([] if below else [str(SIZE)]))
        write_some(image, source, 20 if number == 0 else 6)
        os.utime(image, (1_700_000_000 + 3600 * number,) * 2)
        below = image
    return below


@pytest.fixture
def chain(place):
    make_chain(f"{place}/backups/web", 5, 11)
    return f"{place}/backups"


def points(listed):
    return [(point["name"], point["kind"], point["parent"], point["time"]) for point in listed["points"]]


def same_points(program, repository, chain, place, vm="web"):
    """Whether each disk of each point is the same in both mounts."""
    with mounted(program, repository.path, place) as ours, mounted(program, chain, place) as theirs:
        for point in (each["name"] for each in repository.list(vm)[0]["points"]):
            for name in os.listdir(theirs / f"{vm}/{point}"):
                if name.endswith(".raw"):
                    assert same_image(ours / f"{vm}/{point}/{name}", theirs / f"{vm}/{point}/{name}"), f"{point}/{name}"


def test_a_chain_stays_a_chain_with_its_names_and_times(program, repository, chain, place):
    before = fingerprint(chain)
    printed = program.run("import", repository.path, chain).stdout.splitlines()
    [theirs], [ours] = program.json("list", chain)["vms"], repository.list()
    assert points(ours) == points(theirs)
    assert [point["kind"] for point in ours["points"]] == ["full"] + ["incremental"] * 4
    assert printed == [f"web/{point['name']}" for point in ours["points"]]
    assert all(point["complete"] for point in ours["points"])
    same_points(program, repository, chain, place)
    assert fingerprint(chain) == before
    for number, point in enumerate(ours["points"]):
        disk = point["disks"][0]["name"]
        raw = f"{place}/{number}.raw"
        qemu("qemu-img", "convert", "-O", "raw", f"{chain}/web/vda.{number}.qcow2", raw)
        program.run("restore", repository.path, f"web/{point['name']}/{disk}", f"{raw}.ours")
        assert same_image(raw, f"{raw}.ours")


def test_an_increment_takes_what_changed_and_no_more(program, repository, chain):
    program.run("import", repository.path, chain)
    for point in repository.list("web")[0]["points"][1:]:
        disk = point["disks"][0]["name"]
        theirs = program.json("map", chain, f"web/{point['name']}/{disk}")
        ours = program.json("map", repository.path, f"web/{point['name']}/{disk}")
        blocks = {offset >> 16 for each in theirs if each["point"] == point["name"]
                  for offset in range(each["start"] & ~0xffff, each["start"] + each["length"], 1 << 16)}
        for each in ours:
            if each["point"] == point["name"]:
                assert all(block in blocks for block in range(each["start"] >> 16,
                                                              (each["start"] + each["length"] - 1 >> 16) + 1))


def test_what_is_there_is_passed_over(program, repository, chain, place):
    program.run("import", repository.path, chain)
    files = fingerprint(repository.path)
    assert program.run("import", repository.path, chain).stdout == ""
    assert {path: seen[4] for path, seen in fingerprint(repository.path).items() if "/data/" in path} == \
        {path: seen[4] for path, seen in files.items() if "/data/" in path}
    qemu("qemu-img", "create", "-q", "-f", "qcow2", "-b", "vda.4.qcow2", "-F", "qcow2", f"{chain}/web/vda.5.qcow2")
    write_some(f"{chain}/web/vda.5.qcow2", random.Random(5))
    assert len(program.run("import", repository.path, chain).stdout.splitlines()) == 1
    same_points(program, repository, chain, place)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_import_goes_on_where_it_was(program, repository, place, how):
    for number in range(6):
        make_image(f"{place}/backups/{number}/vda.raw", 64 << 20, number, 2000)
    started = program.start("import", repository.path, f"{place}/backups", "--codec", "zstd:9")
    until(lambda: repository.stored_files("*", "data/*/*.layer"), "it has begun", 60)
    started.send_signal(how)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == (-how if how == signal.SIGKILL else 1), errors
    for vm in repository.list():
        assert all(point["complete"] for point in vm["points"])
    done = sum(len(vm["points"]) for vm in repository.list())
    assert len(program.run("import", repository.path, f"{place}/backups").stdout.splitlines()) == 6 - done
    for number in range(6):
        same_points(program, repository, f"{place}/backups", place, str(number))
    assert len(repository.stored_files("*", "data/*")) == 6


def test_what_is_incomplete_is_told_and_left_out(program, repository, chain, place):
    make_image(f"{chain}/other/vda.raw", 1 << 20, 3)
    os.rename(f"{chain}/web/vda.2.qcow2", f"{place}/away")
    imported = program.run("import", repository.path, chain, check=False)
    assert imported.returncode == 3
    assert imported.stderr.count("is not imported: ") >= 1
    listed = {vm["name"]: vm for vm in repository.list()}
    assert len(listed["web"]["points"]) == 2 and len(listed["other"]["points"]) == 1
    os.rename(f"{place}/away", f"{chain}/web/vda.2.qcow2")
    assert program.run("import", repository.path, chain, check=False).returncode == 0
    assert len(repository.list("web")[0]["points"]) == 5
    same_points(program, repository, chain, place)


def test_what_no_format_can_use_is_told(program, repository, chain):
    for name, content in (("notes.txt", "by hand"), ("web/vda.inc.virtnbdbackup.9.data", "no stream")):
        with open(f"{chain}/{name}", "w", encoding="ascii") as file:
            file.write(content)
    imported = program.run("import", repository.path, chain)
    assert sorted(imported.stderr.splitlines()) == [
        "virtbackupfs: warning: notes.txt is not imported: no format that this version knows",
        "virtbackupfs: warning: web/vda.inc.virtnbdbackup.9.data is not imported: it does not begin as a stream does"]
    assert len(repository.points("web")) == 5
    assert program.run("import", repository.path, chain, "web").stderr == ""


def test_a_vm_is_chosen_and_gets_another_name(program, repository, chain, place):
    make_image(f"{chain}/db/vda.raw", 1 << 20, 3)
    program.run("import", repository.path, chain, "web", "--as", "old-web")
    assert [vm["name"] for vm in repository.list()] == ["old-web"]
    refused = program.run("import", repository.path, chain, "--as", "both", check=False)
    assert refused.returncode == 1 and "one name for 2 VMs" in refused.stderr
    refused = program.run("import", repository.path, chain, "mail", check=False)
    assert refused.returncode == 1 and "there is no VM mail" in refused.stderr
    refused = program.run("import", repository.path, f"{place}/nothing", check=False)
    assert refused.returncode == 1
    refused = program.run("import", chain, chain, check=False)
    assert refused.returncode == 1 and "is no repository of ours" in refused.stderr


def test_points_of_our_own_that_are_newer_are_not_mixed_with(program, repository, chain, place):
    program.run("import", repository.path, chain)
    os.makedirs(f"{place}/older/web")
    os.rename(f"{chain}/web/vda.0.qcow2", f"{place}/older/web/vda.0.qcow2")
    os.utime(f"{place}/older/web/vda.0.qcow2", (1_600_000_000,) * 2)
    refused = program.run("import", repository.path, f"{place}/older", check=False)
    assert refused.returncode == 3 and "--as" in refused.stderr
    program.run("import", repository.path, f"{place}/older", "--as", "older-web")
    assert len(repository.list("older-web")[0]["points"]) == 1


def test_progress_is_told_in_lines_for_programs(program, repository, chain):
    told = [json.loads(line) for line in program.run("import", repository.path, chain, "--json").stderr.splitlines()]
    assert told and all(line["point"].startswith("web/") for line in told)
    assert told[-1]["done"] == told[-1]["total"]


def test_files_kept_with_a_point_come_too_however_long(program, repository, place):
    source = random.Random(21)
    ram = b"".join(source.randbytes(65536) if source.random() < 0.5 else bytes(65536) for _ in range(20 * 16))
    disk = b"".join(source.randbytes(65536) if source.random() < 0.3 else bytes(65536) for _ in range(64))
    os.makedirs(f"{place}/dump")
    vma_archive.write(f"{place}/dump/vzdump-qemu-100-2026_01_02-03_04_05.vma", {"drive-scsi0": disk, "vmstate": ram},
                      {"qemu-server.conf": b"name: web\nmemory: 2048\n"}, ctime=1_767_323_045)
    [vm] = program.json("list", f"{place}/dump")["vms"]
    program.run("import", repository.path, f"{place}/dump")
    [point] = repository.list(vm["name"])[0]["points"]
    with mounted(program, repository.path, place) as ours, mounted(program, f"{place}/dump", place) as theirs:
        for mount in ours, theirs:
            shown = mount / f"{vm['name']}/{point['name']}"
            assert "qemu-server.conf" in os.listdir(shown)
            with open(f"{shown}/vmstate", "rb") as file:
                assert file.read() == ram
            with open(f"{shown}/scsi0.raw", "rb") as file:
                assert file.read() == disk
    for number, where in enumerate((repository.path, f"{place}/dump")):
        program.run("restore", where, f"{vm['name']}/latest", f"{place}/restored{number}")
        with open(f"{place}/restored{number}/vmstate", "rb") as file:
            assert file.read() == ram


def flip_last_byte_of_data(content):
    at = len(content) - 45
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1:]


def test_what_is_not_as_its_writer_noted_is_told_and_left_out(program, repository, place):
    """Payloads have no checksum of their own: that beside them, which reading does not look at, is of the whole file."""
    names = ["vda.full.data", "vda.inc.virtnbdbackup.1.data"]
    streams = [stream(0, b"a" * 65536), stream(1, b"b" * 4096)]
    for vm, damaged in (("whole", False), ("damaged", True)):
        os.makedirs(f"{place}/backups/{vm}")
        for name, content in zip(names, streams, strict=True):
            with open(f"{place}/backups/{vm}/{name}.chksum", "w", encoding="ascii") as file:
                file.write(str(zlib.adler32(content)))
            if damaged and name != names[0]:
                content = flip_last_byte_of_data(content)
            with open(f"{place}/backups/{vm}/{name}", "wb") as file:
                file.write(content)
    done = program.run("import", repository.path, f"{place}/backups", check=False)
    assert done.returncode == 3
    assert [len(repository.points(vm)) for vm in ("whole", "damaged")] == [2, 1]
    warning, = done.stderr.splitlines()
    assert "/2026-01-02T" in warning and f"is not imported: damaged/{names[1]} is damaged: its checksum is" in warning
    assert warning.endswith(f"in damaged/{names[1]}.chksum")
    with mounted(program, f"{place}/backups", place) as mount:
        with open(mount / "damaged/latest/vda.raw", "rb") as file:
            assert file.read(4096) != b"b" * 4096


def test_a_disk_takes_no_more_than_its_streams_tell_until_all_of_them_have_been_looked_at(program, place):
    os.makedirs(f"{place}/backups/web")
    for number, name in enumerate(["vda.full.data"] + [f"vda.inc.virtnbdbackup.{i}.data" for i in range(1, 9)]):
        with open(f"{place}/backups/web/{name}", "wb") as file:
            file.write(stream(number, b"a" * (65536 if number == 0 else 4096)))
    with mounted(program, f"{place}/backups", place) as mount:
        path = mount / "web/latest/vda.raw"
        assert 65536 + 8 * 4096 <= os.stat(path).st_blocks * 512 < 65536 + 8 * (4096 + 1024) + 1024
        with open(mount / "web/latest/info.json", encoding="utf-8") as file:
            assert json.load(file)["disks"][0]["allocated"] == 65536
        until(lambda: os.stat(path).st_blocks * 512 == 65536, "it is known what it takes")


@pytest.mark.parametrize("lost", [0, 1])
def test_what_an_incomplete_point_lacks_is_not_missed_by_points_that_do_not_need_it(program, repository, place, lost):
    directory = f"{place}/backups/web"
    os.makedirs(directory)
    for number in range(4):
        name = f"vda.inc.virtnbdbackup.{number}.data" if number else "vda.full.data"
        with open(f"{directory}/{name}", "wb") as file:
            file.write(stream(number, bytes([65 + number]) * 4096, 4096 * number))
    with open(f"{directory}/vdb.virtnbdbackup.{lost}.qcow.json", "w", encoding="ascii") as file:
        file.write('{"virtual-size": 4096}')
    for _ in range(2):  # the second time what is there is passed over
        done = program.run("import", repository.path, f"{place}/backups", check=False)
        warning, = done.stderr.splitlines()
        assert done.returncode == 3 and f"-0{lost + 1}T000000Z is not imported: vdb was backed up" in warning
    stored = program.json("list", f"{place}/backups")["vms"][0]["points"]
    del stored[lost]
    listed = repository.points("web")
    assert [point["name"] for point in listed] == [point["name"] for point in stored]
    assert [point["kind"] for point in listed] == ["full", "incremental", "incremental"]
    assert [point["parent"] for point in listed] == [None, listed[0]["name"], listed[1]["name"]]
    with mounted(program, f"{place}/backups", place) as theirs, mounted(program, repository.path, place) as ours:
        for point in listed:
            assert same_image(theirs / f"web/{point['name']}/vda.raw", ours / f"web/{point['name']}/vda.raw")


def test_a_member_of_a_zip_file_that_is_damaged_is_told_and_left_out(program, repository, place):
    os.makedirs(f"{place}/backups/web")
    path = f"{place}/backups/web/backup.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("vda.full.data", stream(0, b"a" * 65536))
    with open(path, "r+b") as file:
        content = file.read()
        file.seek(content.index(b"a" * 100))
        file.write(b"b")
    done = program.run("import", repository.path, f"{place}/backups", check=False)
    assert done.returncode == 3
    assert "web/backup.zip: vda.full.data is damaged: its checksum is" in done.stderr
    assert repository.points("web") == []
