"""Chains that virtnbdbackup itself wrote, mounted as they lie: against the disks of their moments and virtnbdrestore."""

import glob
import os
import shutil
import subprocess
import zipfile

import pytest

from mount import mounted
from repository import same_image
from virtnbd import Tool, needs
from vm import MIB, VM, Disk

pytestmark = pytest.mark.skipif(not needs("virtnbdbackup", "virtnbdrestore"), reason="needs virtnbdbackup")


class History:
    """A VM, the directory that the tool writes to, and what the disks were at each of its backups."""

    def __init__(self, vm, place):
        self.vm, self.place = vm, place
        self.tool = Tool(vm, f"{place}/backup")
        self.moments = []

    def look(self):
        """The disks as they are now."""
        directory = f"{self.place}/moment{len(self.moments)}"
        os.mkdir(directory)
        self.moments.append({disk.target: self.vm.reference(disk.target, f"{directory}/{disk.target}.raw")
                             for disk in self.vm.disks})
        return self.moments[-1]

    def backup(self, level, *options):
        self.look()
        self.tool.backup(level, *options)

    def points(self, program):
        vms = program.json("list", self.tool.directory)["vms"]
        assert [vm["name"] for vm in vms] == [self.vm.name]
        assert vms[0]["uuid"] == self.vm.uuid
        return vms[0]["points"]

    def check(self, program):
        """Every backup is a point that shows the disks as they were."""
        points = self.points(program)
        assert all(point["complete"] for point in points), points
        with mounted(program, self.tool.directory, self.place) as mount:
            for point, moment in zip(points, self.moments, strict=True):
                directory = mount / f"{self.vm.name}/{point['name']}"
                for target, reference in moment.items():
                    assert same_image(f"{directory}/{target}.raw", reference), f"{point['name']}/{target} is another"
        return points


@pytest.fixture
def history(session, place):
    with VM(session, "kept", [Disk("vda", 64 * MIB), Disk("vdb", 3 * MIB + 512 * 7)]) as vm:
        vm.start()
        vm.io("vda", "write -P 0x11 0 8M", "write -P 0x22 20M 1M", "write -P 0x23 63M 1M")
        vm.io("vdb", "write -P 0x44 1M 8k")
        yield History(vm, place)


@pytest.mark.parametrize("options", [(), ("-z",)], ids=["plain", "compressed"])
def test_each_backup_of_a_chain_is_a_point_that_shows_the_disks_of_its_moment(program, history, place, options):
    vm = history.vm
    history.backup("full", *options)
    vm.io("vda", "write -P 0x33 1M 64k", "write -z 5M 1M", "discard 20M 1M")
    history.backup("inc", *options)
    history.backup("inc", *options)  # nothing has changed
    vm.io("vda", "write -P 0x55 3M 512", "write -P 0x56 40M 2M")
    vm.io("vdb", "write -P 0x57 0 4k")
    history.backup("diff", *options)
    vm.io("vda", "write -P 0x66 41M 4k")
    history.backup("diff", *options)
    vm.io("vda", "write -P 0x77 7M 2M")
    history.backup("inc", *options)

    points = history.check(program)
    names = [point["name"] for point in points]
    assert [point["kind"] for point in points] == ["full", "incremental", "incremental", "differential", "differential",
                                                   "incremental"]
    # A differential backup is nobody's parent, and neither is what looks like its checkpoint.
    assert [point["parent"] for point in points] == [None, names[0], names[1], names[2], names[2], names[2]]
    assert [point["checkpoint"] for point in points] == ["virtnbdbackup.0", "virtnbdbackup.1", "virtnbdbackup.2", None, None,
                                                         "virtnbdbackup.3"]
    assert "unrecognised" not in program.json("list", history.tool.directory)

    # What the tool restores itself, all of it and up to a checkpoint; differential backups would be in its way, and it does
    # not stop at the increment of vdb that is empty.
    for path in glob.glob(f"{history.tool.directory}/*.diff.*"):
        os.unlink(path)
    with mounted(program, history.tool.directory, place) as mount:
        for until, point, targets in ((None, names[5], ["vda", "vdb"]), ("virtnbdbackup.1", names[1], ["vda"])):
            for target in targets:
                image = history.tool.restore(target, f"{place}/restored-{until}", *(["--until", until] if until else []))
                subprocess.run(["qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", image,
                                mount / f"kept/{point}/{target}.raw"], check=True)


def test_what_lies_beside_the_streams_is_in_the_point_and_nothing_is_written_there(program, history, place):
    def see():
        entries = os.scandir(history.tool.directory)
        return sorted((entry.name, entry.stat().st_mtime_ns, entry.stat().st_size) for entry in entries)

    history.backup("full")
    history.backup("inc")
    before = see()
    points = history.points(program)
    with mounted(program, history.tool.directory, place) as mount:
        for i, point in enumerate(points):
            directory = mount / f"kept/{point['name']}"
            for name, original in (("domain.xml", f"vmconfig.virtnbdbackup.{i}.xml"),
                                   ("vda.qcow.json", f"vda.virtnbdbackup.{i}.qcow.json"),
                                   ("vdb.qcow.json", f"vdb.virtnbdbackup.{i}.qcow.json"),
                                   ("checkpoint.xml", f"checkpoints/virtnbdbackup.{i}.xml")):
                with open(f"{directory}/{name}", "rb") as shown, open(f"{history.tool.directory}/{original}", "rb") as kept:
                    assert shown.read() == kept.read()
            assert same_image(f"{directory}/vda.raw", history.moments[i]["vda"])
    assert see() == before


def test_times_of_files_and_strange_names_link_nothing(program, history):
    history.backup("full")
    for i in range(3):
        history.vm.io("vda", f"write -P {i + 1} {i}M 1M")
        history.backup("inc")
    for i, path in enumerate(sorted(glob.glob(f"{history.tool.directory}/*.data"))):
        os.utime(path, (1000000000 - i * 86400,) * 2)
    history.check(program)


def test_an_increment_of_a_vm_that_was_off_is_a_leaf(program, history):
    vm = history.vm
    history.backup("full")
    vm.io("vda", "write -P 0x33 1M 64k")
    references = history.look()
    vm.shut_down()
    history.tool.backup("inc")  # onto the first checkpoint, and without one of its own
    vm.virsh("start", "--paused")
    vm.io("vda", "write -P 0x34 2M 64k")
    history.backup("inc")
    points = history.check(program)
    assert references and [point["parent"] for point in points] == [None, points[0]["name"], points[0]["name"]]
    assert [point["checkpoint"] for point in points] == ["virtnbdbackup.0", None, "virtnbdbackup.1"]


def test_an_increment_that_another_has_replaced_makes_what_is_onto_it_incomplete(program, history, place):
    """virtnbdrestore goes on without it and shows a disk that never was."""
    vm = history.vm
    history.backup("full")
    vm.io("vda", "write -P 0x33 1M 64k")
    history.backup("inc")
    vm.io("vda", "write -P 0x34 9M 64k")
    vm.shut_down()
    history.tool.backup("inc")
    assert glob.glob(f"{history.tool.directory}/vda.inc.*") == [f"{history.tool.directory}/vda.inc.virtnbdbackup.1.data"]
    points = history.points(program)
    assert [point["complete"] for point in points] == [True, False]
    assert "it is onto checkpoint virtnbdbackup.1" in points[1]["reason"]
    assert "taken while the VM was off, has replaced it" in points[1]["reason"]
    with mounted(program, history.tool.directory, place) as mount:
        assert same_image(mount / f"kept/{points[0]['name']}/vda.raw", history.moments[0]["vda"])
        with pytest.raises(OSError), open(mount / f"kept/{points[1]['name']}/vda.raw", "rb") as file:
            file.read()


def test_a_lost_increment_leaves_the_points_before_it(program, history, place):
    history.backup("full")
    for i in range(3):
        history.vm.io("vda", f"write -P {i + 1} {i}M 1M")
        history.backup("inc")
    os.unlink(f"{history.tool.directory}/vda.inc.virtnbdbackup.2.data")
    points = history.points(program)
    assert [point["complete"] for point in points] == [True, True, False, False]
    assert "vda was backed up, as vda.virtnbdbackup.2.qcow.json tells, but its data are not here" in points[2]["reason"]
    assert [(disk["name"], disk["size"]) for disk in points[2]["disks"]][0] == ("vda", 64 * MIB)
    assert "checkpoint virtnbdbackup.2, whose backup of vda is not here" in points[3]["reason"]
    with mounted(program, history.tool.directory, place) as mount:
        for i in range(2):
            assert same_image(mount / f"kept/{points[i]['name']}/vda.raw", history.moments[i]["vda"])
        for i in (2, 3):
            assert same_image(mount / f"kept/{points[i]['name']}/vdb.raw", history.moments[i]["vdb"])
            with pytest.raises(OSError), open(mount / f"kept/{points[i]['name']}/vda.raw", "rb") as file:
                file.read()


def test_a_backup_that_failed_is_incomplete_and_the_others_are_whole(program, history, place):
    history.backup("full")
    history.vm.io("vda", "write -P 1 0 1M")
    history.backup("inc")
    data = f"{history.tool.directory}/vda.inc.virtnbdbackup.1.data"
    os.rename(data, f"{data}.partial")
    os.truncate(f"{data}.partial", 5000)
    points = history.points(program)
    assert [point["complete"] for point in points] == [True, False]
    assert "failed, or is still being written" in points[1]["reason"]
    with mounted(program, history.tool.directory, place) as mount:
        assert same_image(mount / f"kept/{points[0]['name']}/vda.raw", history.moments[0]["vda"])


def test_a_disk_that_has_grown_is_shown_in_both_sizes(program, history):
    vm = history.vm
    history.backup("full")
    vm.virsh("blockresize", "vda", "80M")
    vm.io("vda", "write -P 0x12 70M 1M", "write -P 0x13 80150k 100k")
    history.backup("inc")
    vm.io("vda", "write -P 0x14 0 64k")
    history.backup("inc")
    points = history.check(program)
    assert [point["disks"][0]["size"] for point in points] == [64 * MIB, 80 * MIB, 80 * MIB]


def test_a_zip_file_is_read_in_place_where_it_is_stored(program, history, place):
    moment = history.look()
    original = history.tool.zip("copy", f"{place}/original.zip")
    for kind in ("stored", "deflated", "cut"):
        os.mkdir(f"{place}/{kind}")
        path = f"{place}/{kind}/kept.zip"
        if kind == "deflated":
            with zipfile.ZipFile(original) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
                for name in source.namelist():
                    target.writestr(name, source.read(name))
        else:
            shutil.copy(original, path)
        if kind == "cut":
            os.truncate(path, os.path.getsize(path) // 2)
    for kind, words in (("deflated", "its member vda.copy.data is compressed or encrypted: unpack it first"),
                        ("cut", "it is no zip file, or has been cut off")):
        refused = program.run("list", f"{place}/{kind}", check=False)
        assert refused.returncode == 1 and f"kept.zip: {words}" in refused.stderr
    listed = program.json("list", f"{place}/stored")
    assert "unrecognised" not in listed and [vm["name"] for vm in listed["vms"]] == ["kept"]
    with mounted(program, f"{place}/stored", place) as mount:
        for target, reference in moment.items():
            assert same_image(mount / f"kept/latest/{target}.raw", reference)
        with open(mount / "kept/latest/domain.xml", encoding="utf-8") as file:
            assert "<name>kept</name>" in file.read()


def test_a_chain_may_lie_in_zip_files(program, history, place):
    os.mkdir(history.tool.directory)
    for number, (level, options) in enumerate([("full", ()), ("inc", ()), ("inc", ("-z",))]):
        history.look()
        history.tool.zip(level, f"{history.tool.directory}/{number}.zip", "-C", f"{place}/checkpoints", *options)
        history.vm.io("vda", f"write -P {number + 1} {number}M 1M")
    points = history.check(program)
    assert [point["kind"] for point in points] == ["full", "incremental", "incremental"]
    assert "unrecognised" not in program.json("list", history.tool.directory)


def test_an_increment_may_be_onto_raw_images(program, history):
    history.backup("full", "-t", "raw")
    history.vm.io("vda", "write -P 0x33 1M 64k")
    history.backup("inc")
    points = history.check(program)
    assert [point["kind"] for point in points] == ["full", "incremental"]


def test_raw_disks_are_copies_as_they_are(program, session, place):
    with VM(session, "plain", [Disk("vda", 8 * MIB), Disk("vdb", 5 * MIB, "raw")]) as vm:
        vm.start()
        vm.io("vda", "write -P 0x11 0 64k")
        vm.io("vdb", "write -P 0x12 1M 64k")
        history = History(vm, place)
        history.backup("full", "-r")
        assert os.path.getsize(f"{place}/backup/vdb.copy.data") == 5 * MIB
        points = history.check(program)
        assert {disk["name"]: disk["kind"] for disk in points[0]["disks"]} == {"vda": "full", "vdb": "full"}


def test_a_chain_is_imported_point_by_point(program, history, place, repository):
    history.backup("full", "-z")
    history.vm.io("vda", "write -P 0x33 1M 64k")
    history.backup("inc", "-z")
    program.run("import", repository.path, history.tool.directory)
    points = repository.points("kept")
    assert [point["kind"] for point in points] == ["full", "incremental"]
    with mounted(program, repository.path, place) as mount:
        for point, moment in zip(points, history.moments, strict=True):
            for target, reference in moment.items():
                assert same_image(mount / f"kept/{point['name']}/{target}.raw", reference)
