"""What the mounted tree has in it, and what stat says of it."""

import datetime
import json
import os
import stat
import subprocess

import pytest
from made import Made
from mount import mounted
from repository import without_partitions

SIZES = {"vda": 4 << 20, "vdb": 1000001}


@pytest.fixture(scope="module")
def made(person, module_place):
    return Made(person, module_place, "--points", "4", *(f"--disk={name}={size}" for name, size in SIZES.items()))


@pytest.fixture(scope="module")
def mount(program, made, module_place):
    with mounted(program, made.path, module_place) as mount:
        yield mount


def moment(point):
    return datetime.datetime.strptime(point, "%Y-%m-%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc).timestamp()


def everything(top):
    found = {}
    for directory, directories, files in os.walk(top):
        for name in ["", *directories, *files]:
            path = os.path.join(directory, name).rstrip("/")
            found[os.path.relpath(path, top)] = os.lstat(path)
    return found


def test_directories_list_what_the_contract_says(mount, made):
    assert os.listdir(mount.path) == ["vm1"]
    assert sorted(os.listdir(mount / "vm1")) == sorted([*made.points, "capture", "latest"])
    assert sorted(os.listdir(mount / f"vm1/{made.points[0]}")) == [
        "domain.xml", "info.json", "nvram", "vda.map", "vda.raw", "vdb.map", "vdb.raw"]


def test_latest_is_the_newest_point(mount, made):
    assert os.readlink(mount / "vm1/latest") == made.points[-1]
    assert os.path.samefile(mount / "vm1/latest/vda.raw", mount / f"vm1/{made.points[-1]}/vda.raw")
    assert os.lstat(mount / "vm1/latest").st_size == len(made.points[-1])


def test_disks_have_their_sizes_and_what_they_take(mount, made):
    for point in made.points:
        disks = json.load(open(mount / f"vm1/{point}/info.json", encoding="utf-8"))["disks"]
        for disk in disks:
            st = os.stat(mount / f"vm1/{point}/{disk['name']}.raw")
            assert st.st_size == disk["size"] == SIZES[disk["name"]]
            assert st.st_blocks == -(-disk["allocated"] // 512)


def test_times_are_the_moment_of_the_point(mount, made):
    for point in made.points:
        for name in ("", "vda.raw", "vda.map", "domain.xml", "info.json"):
            st = os.stat(mount / f"vm1/{point}/{name}")
            assert int(st.st_mtime) == int(st.st_ctime) == int(st.st_atime) == moment(point)
            assert st.st_mtime_ns % 10**9 == 123456789


def test_modes_let_the_owner_read_and_pull_the_trigger(mount, person):
    wanted = {"vm1": 0o40500, "vm1/capture": 0o100600, "vm1/latest": 0o120777}
    for name, st in everything(mount.path).items():
        assert (st.st_uid, st.st_gid) == (person.uid, person.gid)
        mode = wanted.get(name, 0o40500 if stat.S_ISDIR(st.st_mode) else 0o100400)
        assert oct(st.st_mode) == oct(mode), name


def test_info_is_what_list_says(mount, made, program):
    listed = {point["name"]: point for point in program.json("list", made.path)["vms"][0]["points"]}
    for point in made.points:
        path = mount / f"vm1/{point}/info.json"
        with open(path, "rb") as file:
            text = file.read()
        assert os.stat(path).st_size == len(text)
        assert without_partitions(json.loads(text)) == {"vm": "vm1", **listed[point]}


def test_map_is_what_map_prints(mount, made, program):
    for point in made.points:
        for disk in SIZES:
            printed = program.run("map", made.path, f"vm1/{point}/{disk}").stdout
            assert open(mount / f"vm1/{point}/{disk}.map", encoding="utf-8").read() == printed


def test_kept_files_are_as_they_were(mount, made):
    for number, point in enumerate(made.points):
        text = open(mount / f"vm1/{point}/domain.xml", encoding="utf-8").read()
        assert f"<title>{number}</title>" in text
        assert os.stat(mount / f"vm1/{point}/domain.xml").st_size == len(text)
        assert open(mount / f"vm1/{point}/nvram", encoding="utf-8").read() == "variables\n"


@pytest.mark.parametrize("command", ["cat {0}", "cp {0} {1}/copy && cat {1}/copy", "wc -c < {0}", "head -c 10 {0}",
                                     "less -f {0} | cat"])
@pytest.mark.parametrize("name", ["capture", "latest/vda.map", "latest/info.json", "latest/domain.xml"])
def test_made_up_files_work_with_ordinary_tools(mount, place, command, name):
    done = subprocess.run(command.format(mount / f"vm1/{name}", place), shell=True, capture_output=True, text=True,
                          check=False)
    text = open(mount / f"vm1/{name}", encoding="utf-8").read()
    assert done.returncode == 0 and not done.stderr, done.stderr
    if command.startswith("wc"):
        assert int(done.stdout) == len(text.encode())
    elif command.startswith("head"):
        assert done.stdout == text[:10]
    else:
        assert done.stdout == text


def test_entries_name_the_numbers_that_stat_gives(mount):
    for directory, _, _ in os.walk(mount.path):
        with os.scandir(directory) as entries:
            for entry in entries:
                assert entry.inode() == os.lstat(entry.path).st_ino


def test_numbers_are_unique_and_the_same_after_a_remount(mount, made, program, place):
    first = {name: st.st_ino for name, st in everything(mount.path).items()}
    assert len(set(first.values())) == len(first)
    assert first["."] == 1
    with mounted(program, made.path, place) as again:
        assert {name: st.st_ino for name, st in everything(again.path).items()} == first


def test_a_listing_that_is_read_again_from_its_beginning_shows_the_same(mount):
    descriptor = os.open(mount / "vm1", os.O_RDONLY | os.O_DIRECTORY)
    try:
        first = sorted(os.listdir(descriptor))
        os.lseek(descriptor, 0, os.SEEK_SET)
        assert sorted(os.listdir(descriptor)) == first
    finally:
        os.close(descriptor)


def test_file_system_figures_are_those_of_the_repository(mount, made):
    ours, theirs = os.statvfs(mount.path), os.statvfs(made.path)
    assert (ours.f_blocks, ours.f_frsize, ours.f_namemax) == (theirs.f_blocks, theirs.f_frsize, 255)


@pytest.mark.parametrize("name", ["nothing", "vm1/nothing", "vm1/2026-11-20T010203Z-02", "vm1/latest/nothing",
                                  "vm1/latest/vdc.raw", "vm1/latest/vda", "vm1/latest/.raw", "vm1/..raw",
                                  "vm1/latest/vda.layer", "vm1/capture/x"])
def test_other_names_are_not_there(mount, name):
    with pytest.raises((FileNotFoundError, NotADirectoryError)):
        os.stat(mount / name)


@pytest.mark.needs_root
def test_nothing_can_be_changed(mount, made):
    point = mount / f"vm1/{made.points[0]}"
    attempts = [
        lambda: os.open(f"{point}/vda.raw", os.O_WRONLY),
        lambda: os.truncate(f"{point}/vda.raw", 0),
        lambda: os.chmod(f"{point}/vda.raw", 0o777),
        lambda: os.utime(f"{point}/vda.raw"),
        lambda: os.unlink(f"{point}/vda.raw"),
        lambda: os.rename(f"{point}/vda.raw", f"{point}/other"),
        lambda: os.link(f"{point}/vda.raw", f"{point}/other"),
        lambda: os.symlink("x", f"{point}/other"),
        lambda: os.mkdir(f"{point}/other"),
        lambda: os.rmdir(point),
        lambda: os.mknod(f"{point}/other"),
        lambda: os.open(mount / "other", os.O_WRONLY | os.O_CREAT),
    ]
    for attempt in attempts:
        with pytest.raises(OSError, match="Read-only file system"):
            attempt()
    with pytest.raises(OSError, match="not supported|Function not implemented"):
        os.setxattr(f"{point}/vda.raw", "user.x", b"")


def test_new_points_and_vms_show_without_a_remount(person, program, place):
    made = Made(person, place, "--points", "1")
    with mounted(program, made.path, place) as mount:
        assert os.listdir(mount.path) == ["vm1"]
        with pytest.raises(FileNotFoundError):
            os.stat(mount / "vm2")
        points = made.more("--vm", "vm2", "--points", "2")
        assert sorted(os.listdir(mount.path)) == ["vm1", "vm2"]
        assert os.readlink(mount / "vm2/latest") == points[-1]
        # One more point of a VM whose directory is known and open.
        directory = os.open(mount / "vm2", os.O_RDONLY)
        try:
            newest = made.stored("points", f"{points[-1]}.json", vm="vm2")
            os.rename(newest, made.path + "/aside")
            assert sorted(os.listdir(mount / "vm2")) == [points[0], "capture", "latest"]
            assert os.readlink("latest", dir_fd=directory) == points[0]
            os.rename(made.path + "/aside", newest)
            assert os.readlink("latest", dir_fd=directory) == points[1]
            assert os.stat(f"{points[1]}/vda.raw", dir_fd=directory).st_size == 4 << 20
        finally:
            os.close(directory)


def test_a_vm_without_points_has_a_trigger_and_no_latest(person, program, place):
    made = Made(person, place, "--points", "0")
    with mounted(program, made.path, place) as mount:
        assert os.listdir(mount / "vm1") == ["capture"]
        with pytest.raises(FileNotFoundError):
            os.readlink(mount / "vm1/latest")


def test_listing_opens_no_layer(person, program, place):
    made = Made(person, place, "--points", "3")
    for point in made.points:
        os.unlink(os.path.join(made.capture_directory(point), "vda.layer"))
    with mounted(program, made.path, place) as mount:
        listing = subprocess.run(["ls", "-laR", mount.path], capture_output=True, text=True, check=False)
        assert listing.returncode == 0 and not listing.stderr, listing.stderr
        assert os.stat(mount / "vm1/latest/vda.raw").st_size == 4 << 20


@pytest.mark.needs_root
def test_a_handle_is_understood_by_a_later_mount(person, program, made, place):
    """As NFS servers keep them: open_by_handle_at(2), without a lookup before."""
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)

    class Handle(ctypes.Structure):
        _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]

    handles, number = {}, ctypes.c_int()
    names = [f"vm1/{made.points[1]}/vda.raw", f"vm1/{made.points[0]}/info.json", f"vm1/{made.points[3]}", "vm1",
             "vm1/capture"]
    with mounted(program, made.path, place) as mount:
        for name in names:
            handle = Handle(bytes=128)
            path = os.fsencode(mount / name)
            assert libc.name_to_handle_at(-100, path, ctypes.byref(handle), ctypes.byref(number), 0) == 0
            handles[name] = handle
    with mounted(program, made.path, place) as mount:
        top = os.open(mount.path, os.O_RDONLY)
        for name, handle in handles.items():
            descriptor = libc.open_by_handle_at(top, ctypes.byref(handle), os.O_RDONLY)
            assert descriptor >= 0, (name, os.strerror(ctypes.get_errno()))
            assert os.fstat(descriptor).st_ino == os.stat(mount / name).st_ino
            os.close(descriptor)
        os.close(top)
