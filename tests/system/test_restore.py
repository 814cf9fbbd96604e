"""Disks and points restored to files: bit for bit what they were, whole or not there at all, and gone on with."""

import fcntl
import json
import os
import signal
import stat
import subprocess

import pytest
from made import Made, flip_bit
from program import children_of
from repository import same_image
from restored import MIB, allocated, is_under_way, progress, same_disk, stop_when
from small import small_file_system

ODD = 3 * MIB + 512 + 7


@pytest.fixture(scope="module")
def made(person, module_place):
    """Three points of disks of all sizes."""
    return Made(person, module_place, "--points", "3", "--disk", "vda=40M", "--disk", f"vdb={ODD}", "--disk", "vdc=1000",
                "--disk", "vdd=16M")


@pytest.fixture(scope="module")
def long(person, module_place):
    """A disk that takes a while, when the program is slowed."""
    return Made(person, module_place, "--points", "2", "--disk", "vda=640M", "--codec", "none", name="long")


@pytest.fixture
def restore(program, made):
    def run(path, target, *options, of=made, **more):
        return program.run("restore", of.path, path, target, *options, **more)
    return run


def image_of(made, disk, point=-1):
    return made.images[made.points[point]][disk]


@pytest.mark.parametrize("disk", ["vda", "vdb", "vdc", "vdd"])
@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_restored_disk_is_what_it_was(made, restore, place, disk, form):
    for number, point in enumerate(made.points):
        target = f"{place}/{number}.{form}"
        result = restore(f"vm1/{point}/{disk}", target, "--verify")
        assert (result.stdout, result.stderr) == ("", "")
        assert same_disk(target, image_of(made, disk, number), (form, "raw"))
        assert form != "raw" or same_image(target, image_of(made, disk, number))
        assert stat.S_IMODE(os.stat(target).st_mode) == 0o600
    assert sorted(os.listdir(place)) == [f"{number}.{form}" for number in range(3)]


def test_what_is_zero_takes_no_room(person, program, place):
    with open(f"{place}/from.raw", "wb") as file:
        file.truncate(64 * MIB)
        for at in (0, 5 * MIB, 63 * MIB):
            file.seek(at)
            file.write(os.urandom(64 << 10))
    person.give(f"{place}/from.raw")
    sparse = Made(person, place, "--points", "1", "--from", f"vda={place}/from.raw")
    for form in ("raw", "qcow2"):
        program.run("restore", sparse.path, "vm1/latest/vda", f"{place}/vda.{form}")
        assert same_disk(f"{place}/vda.{form}", f"{place}/from.raw", (form, "raw"))
        assert allocated(f"{place}/vda.{form}") < MIB


def test_zeroes_that_are_stored_as_data_take_no_room_either(person, program, place):
    """Room is set aside for long data before they are read."""
    os.mkdir(f"{place}/images")
    image = f"{place}/images/guest.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=full", image, "600M"], check=True)
    subprocess.run(["qemu-io", "-c", "write -P 3 0 5M", "-c", "write -P 4 300M 1M", "-c", "write -P 5 599M 1M", image],
                   check=True, capture_output=True)
    person.give(f"{place}/images")
    person.give(image)
    vm, = program.json("list", f"{place}/images")["vms"]
    point, = program.json("list", f"{place}/images", f"{vm['name']}/latest")["vms"][0]["points"]
    program.run("restore", f"{place}/images", f"{vm['name']}/latest/{point['disks'][0]['name']}", f"{place}/guest.raw")
    assert same_disk(f"{place}/guest.raw", image, ("raw", "qcow2"))
    assert allocated(f"{place}/guest.raw") < 9 * MIB


def test_the_format_is_that_of_the_name_where_none_is_said(restore, place):
    restore("vm1/latest/vdd", f"{place}/a.qcow2")
    restore("vm1/latest/vdd", f"{place}/a.img", "--format", "qcow2")
    restore("vm1/latest/vdd", f"{place}/b.qcow2", "--format", "raw")
    found = {name: json.loads(subprocess.run(["qemu-img", "info", "--output=json", f"{place}/{name}"], check=True,
                                             capture_output=True).stdout)["format"] for name in os.listdir(place)}
    assert found == {"a.qcow2": "qcow2", "a.img": "qcow2", "b.qcow2": "raw"}


def test_a_whole_point_becomes_a_directory(made, restore, place):
    point = made.points[1]
    restore(f"vm1/{point}", f"{place}/point", "--verify")
    assert set(os.listdir(f"{place}/point")) >= {"vda.raw", "vdb.raw", "vdc.raw", "vdd.raw", "domain.xml"}
    for disk, image in made.images[point].items():
        assert same_image(f"{place}/point/{disk}.raw", image)
    with open(f"{place}/point/domain.xml", "rb") as file, \
            open(os.path.join(made.capture_directory(point), "domain.xml"), "rb") as kept:
        assert file.read() == kept.read()
    assert not [name for name in os.listdir(f"{place}/point") if "restore" in name or "partial" in name]
    os.makedirs(f"{place}/other")
    restore(f"vm1/{point}", f"{place}/other/", "--format", "qcow2")
    assert same_disk(f"{place}/other/vda.qcow2", made.images[point]["vda"], ("qcow2", "raw"))


def test_nothing_that_is_there_is_replaced_unless_that_is_said(made, restore, place):
    os.makedirs(f"{place}/point")
    for path in (f"{place}/vda.raw", f"{place}/point/vdd.raw", f"{place}/vda.qcow2"):
        with open(path, "w", encoding="utf-8") as file:
            file.write("dear to somebody")
        os.chmod(path, 0o640)
    for what, target in (("vm1/latest/vda", "vda.raw"), ("vm1/latest", "point"), ("vm1/latest/vda", "vda.qcow2")):
        result = restore(what, f"{place}/{target}", check=False)
        assert result.returncode == 1 and "is there already: --force replaces it" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    for path in (f"{place}/vda.raw", f"{place}/point/vdd.raw", f"{place}/vda.qcow2"):
        with open(path, encoding="utf-8") as file:
            assert file.read() == "dear to somebody"
    assert os.listdir(f"{place}/point") == ["vdd.raw"]
    restore("vm1/latest/vda", f"{place}/vda.raw", "--force")
    restore("vm1/latest", f"{place}/point", "--force")
    assert same_image(f"{place}/vda.raw", image_of(made, "vda"))
    assert same_image(f"{place}/point/vdd.raw", image_of(made, "vdd"))
    assert stat.S_IMODE(os.stat(f"{place}/vda.raw").st_mode) == 0o640


def test_a_file_that_is_in_use_is_not_replaced(person, made, restore, place):
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", f"{place}/vm.qcow2", "1M"], check=True)
    person.give(f"{place}/vm.qcow2")
    holder = person.popen(["qemu-io", "-f", "qcow2", f"{place}/vm.qcow2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        holder.stdin.write(b"read 0 512\n")
        holder.stdin.flush()
        holder.stdout.readline()
        result = restore("vm1/latest/vda", f"{place}/vm.qcow2", "--force", check=False)
    finally:
        holder.communicate()
    assert result.returncode == 1 and "is in use by another program, a running VM maybe" in result.stderr
    restore("vm1/latest/vda", f"{place}/vm.qcow2", "--force")
    assert same_disk(f"{place}/vm.qcow2", image_of(made, "vda"), ("qcow2", "raw"))


def test_a_symbolic_link_is_followed(made, restore, place):
    os.makedirs(f"{place}/pool")
    with open(f"{place}/pool/disk.img", "w", encoding="utf-8"):
        pass
    os.symlink("pool/disk.img", f"{place}/link.img")
    restore("vm1/latest/vda", f"{place}/link.img")
    assert os.path.islink(f"{place}/link.img") and same_image(f"{place}/pool/disk.img", image_of(made, "vda"))


@pytest.mark.parametrize("what, target, options, words", [
    ("vm1", "x", [], "vm1 names a VM"),
    ("vm1/latest/vdz", "x", [], "has no disk vdz"),
    ("vm1/2020-01-01T000000Z", "x", [], "no point"),
    ("vm1/latest/vda", "nowhere/x", [], "cannot reach the directory"),
    ("vm1/latest/vda", ".", [], "is a directory: name a file in it"),
    ("vm1/latest/vda", "/dev/null", [], "neither a file nor a block device"),
    ("vm1/latest/vda", "", [], "a target has a name"),
    ("vm1/latest/vda", "loop", [], "cannot reach"),
    ("vm1/latest", "file", [], "as a whole point needs one"),
    ("vm1/latest", "nbd://localhost/", [], "cannot make the directory"),
])
def test_what_cannot_be_a_target_is_refused_in_a_line(made, program, place, what, target, options, words):
    os.symlink("loop", f"{place}/loop")
    with open(f"{place}/file", "w", encoding="utf-8"):
        pass
    before = sorted(os.listdir(place))
    result = program.run("restore", made.path, what, target, *options, check=False, cwd=place)
    assert result.returncode == 1 and words in result.stderr and len(result.stderr.splitlines()) == 1
    assert sorted(os.listdir(place)) == before


@pytest.mark.parametrize("options", [["--format", "vmdk"], ["--on-source-error", "wait"], ["--frob"]])
def test_wrong_words_are_wrong_usage(restore, place, options):
    assert restore("vm1/latest/vda", f"{place}/x", *options, check=False).returncode == 2
    assert os.listdir(place) == []


def begun(program, made, target, *options, form="raw"):
    """A restore that has noted that it is more than begun; it is stopped."""
    process = program.start("restore", made.path, "vm1/latest/vda", target, *options)
    stop_when(process, lambda: is_under_way(f"{target}.partial", form))
    return process


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_killed_restore_goes_on_where_it_was(long, program, place, form):
    target = f"{place}/vda.{form}"
    process = begun(program, long, target, form=form)
    assert not children_of(process.pid)
    process.kill()
    process.communicate()
    noted = progress(f"{target}.partial", form)
    assert os.listdir(place) == [f"vda.{form}.partial"] and MIB < noted < 640 * MIB
    result = program.run("restore", long.path, "vm1/latest/vda", target, "--json", "--verify")
    assert f"goes on at {noted >> 20} of 640 MiB" in result.stderr
    assert same_disk(target, image_of(long, "vda"), (form, "raw"))
    assert os.listdir(place) == [f"vda.{form}"]
    if form == "qcow2":
        subprocess.run(["qemu-img", "check", "-q", target], check=True)


def test_points_that_are_restored_are_not_deleted(person, program, place):
    mine = Made(person, place, "--points", "1", "--disk", "vda=64M", "--codec", "none", name="mine")
    process = program.start("restore", mine.path, "vm1/latest/vda", f"{place}/vda.raw")
    stop_when(process, lambda: os.path.exists(f"{place}/vda.raw.partial"))
    result = program.run("forget", "--points", mine.path, "vm1", check=False)
    assert result.returncode == 1 and "its points are in use by a recovery, restore, export or import" in result.stderr
    process.kill()
    process.communicate()
    program.run("forget", "--points", mine.path, "vm1")
    assert program.json("list", mine.path) == {"vms": []}


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_what_is_left_of_another_disk_is_not_gone_on_with(made, long, program, restore, place, form):
    target = f"{place}/vda.{form}"
    process = program.start("restore", long.path, "vm1/latest/vda", target)
    stop_when(process, lambda: os.path.exists(f"{target}.partial") and allocated(f"{target}.partial") > 8 * MIB)
    process.kill()
    process.communicate()
    assert os.listdir(place) == [f"vda.{form}.partial"]
    result = program.run("restore", long.path, f"vm1/{long.points[0]}/vda", target, "--verify")
    assert "goes on" not in result.stderr
    assert same_disk(target, image_of(long, "vda", 0), (form, "raw"))


def test_an_unfinished_image_that_another_program_has_locked_is_left_alone(long, program, place):
    target = f"{place}/vda.qcow2"
    process = begun(program, long, target, form="qcow2")
    process.kill()
    process.communicate()
    with open(f"{target}.partial", "rb") as image:
        fcntl.lockf(image, fcntl.LOCK_SH, 200, 100)  # as QEMU locks what it writes to
        result = program.run("restore", long.path, "vm1/latest/vda", target, check=False)
        assert result.returncode == 1 and "is in use by another program" in result.stderr
    assert "goes on at" in program.run("restore", long.path, "vm1/latest/vda", target).stderr
    assert same_disk(target, image_of(long, "vda"), ("qcow2", "raw"))


def test_two_restores_do_not_make_the_same_file(long, program, place):
    process = begun(program, long, f"{place}/vda.raw")
    result = program.run("restore", long.path, "vm1/latest/vda", f"{place}/vda.raw", check=False)
    assert result.returncode == 1 and "is being made by another restore" in result.stderr
    process.send_signal(signal.SIGCONT)
    assert process.communicate()[1] == "" and process.returncode == 0
    assert same_image(f"{place}/vda.raw", image_of(long, "vda"))


@pytest.mark.parametrize("number, form", [(signal.SIGINT, "raw"), (signal.SIGTERM, "raw"), (signal.SIGINT, "qcow2")])
def test_an_interrupted_restore_says_how_it_goes_on(long, program, place, number, form):
    target = f"{place}/vda.{form}"
    process = begun(program, long, target, form=form)
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"vda.{form}.partial has" in said and "the same command goes on from there" in said
    assert said.splitlines()[-1] == "virtbackupfs: interrupted"
    program.run("restore", long.path, "vm1/latest/vda", target)
    assert same_disk(target, image_of(long, "vda"), (form, "raw"))


def test_an_interrupted_point_keeps_the_disks_that_are_there(person, program, place):
    two = Made(person, place, "--points", "1", "--disk", "vda=8M", "--disk", "vdb=192M", "--codec", "none", name="two")
    process = program.start("restore", two.path, "vm1/latest", f"{place}/point")
    stop_when(process, lambda: is_under_way(f"{place}/point/vdb.raw.partial"))
    process.kill()
    process.communicate()
    assert not os.path.exists(f"{place}/point/domain.xml")
    number = os.stat(f"{place}/point/vda.raw").st_ino
    result = program.run("restore", two.path, "vm1/latest", f"{place}/point")
    assert "goes on at" in result.stderr and os.stat(f"{place}/point/vda.raw").st_ino == number
    for disk, image in two.images[two.points[0]].items():
        assert same_image(f"{place}/point/{disk}.raw", image)
    assert sorted(os.listdir(f"{place}/point")) == ["domain.xml", "nvram", "vda.raw", "vdb.raw"]


def test_progress_is_told_in_lines_of_json(made, restore, place):
    result = restore("vm1/latest", f"{place}/point", "--json")
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert lines and result.stdout == ""
    last = lines[-1]
    assert last["path"] == "vm1/latest" and [disk["name"] for disk in last["disks"]] == ["vda", "vdb", "vdc", "vdd"]
    for line in lines:
        assert line["done"] == sum(disk["done"] for disk in line["disks"]) <= line["total"]


# Damage


def test_what_is_unreadable_is_an_error_that_names_it(person, program, place):
    hurt = Made(person, place, "--points", "2", "--unreadable")
    result = program.run("restore", hurt.path, "vm1/latest/vda", f"{place}/vda.raw", check=False)
    assert result.returncode == 1 and " bytes at " in result.stderr and "cannot be read" in result.stderr
    assert len(result.stderr.splitlines()) == 1 and "vm1/" in result.stderr
    assert not [name for name in os.listdir(place) if name.startswith("vda")]


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_what_is_unreadable_can_be_left_as_zeroes(person, program, place, form):
    hurt = Made(person, place, "--points", "2", "--unreadable")  # its images have zeroes there
    result = program.run("restore", hurt.path, "vm1/latest/vda", f"{place}/vda.{form}", "--on-source-error", "skip",
                         "--verify", check=False)
    assert result.returncode == 3
    assert result.stderr and all("warning: vda: " in line and "are zeroes, as they cannot be read" in line
                                 for line in result.stderr.splitlines())
    assert same_disk(f"{place}/vda.{form}", image_of(hurt, "vda"), (form, "raw"))


def test_a_damaged_block_costs_that_block_alone(person, program, place):
    hurt = Made(person, place, "--points", "1", "--disk", "vda=8M", "--codec", "none")
    layer = os.path.join(hurt.capture_directory(hurt.points[0]), "vda.layer")
    with open(image_of(hurt, "vda"), "rb") as file, open(layer, "rb") as stored:
        image, content = file.read(), stored.read()
    at = next(offset for offset in range(2 * MIB, len(image), 65536) if any(image[offset:offset + 65536]))
    flip_bit(layer, content.index(image[at + 100:at + 1000]))
    result = program.run("restore", hurt.path, "vm1/latest/vda", f"{place}/vda.raw", check=False)
    assert result.returncode == 1 and f"65536 bytes at {at} cannot be read" in result.stderr and "vda.layer" in result.stderr
    assert not os.path.exists(f"{place}/vda.raw")
    result = program.run("restore", hurt.path, "vm1/latest/vda", f"{place}/vda.raw", "--on-source-error", "skip",
                         check=False)
    assert result.returncode == 3 and f"vda: 65536 bytes at {at} are zeroes" in result.stderr
    with open(f"{place}/vda.raw", "rb") as file:
        assert file.read() == image[:at] + bytes(65536) + image[at + 65536:]


# Full and closed places


@pytest.mark.needs_root
@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_full_target_is_an_error_and_goes_on_when_there_is_room(made, program, place, form):
    with small_file_system(f"{place}/small", 20) as small:
        result = program.run("restore", made.path, "vm1/latest/vda", f"{small}/vda.{form}", check=False)
        assert result.returncode == 1 and "No space left on device" in result.stderr.splitlines()[-1]
        assert not os.path.exists(f"{small}/vda.{form}")
        subprocess.run(["mount", "-o", "remount,size=100m", small], check=True)
        program.run("restore", made.path, "vm1/latest/vda", f"{small}/vda.{form}")
        assert same_disk(f"{small}/vda.{form}", image_of(made, "vda"), (form, "raw"))
        assert os.listdir(small) == [f"vda.{form}"]


@pytest.mark.needs_root
def test_a_file_system_that_is_read_only_is_an_error(made, program, place):
    with small_file_system(f"{place}/small", 20) as small:
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        for target in ("vda.raw", "vda.qcow2"):
            result = program.run("restore", made.path, "vm1/latest/vda", f"{small}/{target}", check=False)
            assert result.returncode == 1 and "Read-only file system" in result.stderr
            assert len(result.stderr.splitlines()) == 1


def test_a_directory_that_is_closed_is_an_error(person, made, program, place):
    if person.is_root:
        pytest.skip("root may write anywhere")
    os.makedirs(f"{place}/closed")
    os.chmod(f"{place}/closed", 0o555)
    result = program.run("restore", made.path, "vm1/latest/vda", f"{place}/closed/vda.raw", check=False)
    assert result.returncode == 1 and "Permission denied" in result.stderr
