"""How a mount begins and ends."""

import contextlib
import os
import signal
import stat
import subprocess
import threading

import pytest
from made import Made
from mount import is_mounted, mounted, unmount
from program import processes_of, wait_gone
from wait import until


@pytest.fixture(scope="module")
def made(person, module_place):
    return Made(person, module_place, "--points", "2")


@pytest.fixture
def top(place):
    os.mkdir(f"{place}/top")
    yield f"{place}/top"
    if is_mounted(f"{place}/top"):
        unmount(f"{place}/top", lazy=True)


def daemons(binary, made, top):
    return processes_of(binary.path, made.path, top)


def in_background(program, binary, made, top, *options):
    """Mounts; the daemon's number."""
    done = program.run("mount", *options, made.path, top, timeout=60)
    assert done.stdout == "" and done.stderr == ""
    assert os.listdir(f"{top}/vm1"), "it answers as soon as the command has returned"
    (pid,) = daemons(binary, made, top)
    return pid


def failed(result, *words, status=1):
    assert result.returncode == status, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("virtbackupfs: ")
    for word in words:
        assert word in result.stderr, f"{result.stderr!r} does not say {word!r}"


def test_the_background_has_nothing_of_where_it_came_from(program, binary, made, top):
    pid = in_background(program, binary, made, top)
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        _, _, group, session = file.read().rsplit(")", 1)[1].split()[:4]
    assert int(session) == pid == int(group)
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert {os.readlink(f"/proc/{pid}/fd/{stream}") for stream in range(3)} == {"/dev/null"}
    assert unmount(top).returncode == 0
    wait_gone(pid)


def test_the_background_keeps_no_descriptor_of_a_script(program, binary, made, top, place):
    with open(f"{place}/lock", "w", encoding="utf-8") as lock:
        program.run("mount", made.path, top, pass_fds=[lock.fileno()])
    (pid,) = processes_of(binary.path, made.path, top)
    assert f"{place}/lock" not in {os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")}
    assert unmount(top).returncode == 0
    wait_gone(pid)


def test_relative_paths_are_understood(program, binary, made, top):
    done = program.run("mount", os.path.relpath(made.path, "/"), os.path.relpath(top, "/"), cwd="/")
    assert done.stderr == "" and os.listdir(top) == ["vm1"]
    (pid,) = processes_of(binary.path, "mount", os.path.relpath(top, "/"))
    assert unmount(top).returncode == 0
    wait_gone(pid)


def test_the_mount_names_the_repository(program, binary, made, top):
    in_background(program, binary, made, top)
    with open("/proc/self/mounts", encoding="utf-8") as file:
        source, kind, options = next((line.split()[0], line.split()[2], line.split()[3].split(","))
                                     for line in file if line.split()[1] == top)
    assert (source, kind) == (made.path, "fuse.virtbackupfs")
    assert {"nosuid", "nodev", "default_permissions"} <= set(options)
    assert "allow_other" not in options


@pytest.mark.parametrize("how", [pytest.param("umount", marks=pytest.mark.needs_root), "fusermount3"])
def test_unmounting_ends_it(program, binary, made, top, how):
    pid = in_background(program, binary, made, top)
    subprocess.run([how, *(["-u"] if how == "fusermount3" else []), top], check=True)
    wait_gone(pid)
    assert os.listdir(top) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("foreground", [True, False])
def test_a_signal_ends_it_with_files_open(program, binary, made, top, number, foreground):
    if foreground:
        process = program.start("mount", "-f", made.path, top)
        until(lambda: is_mounted(top) and os.listdir(top), "it is mounted")
        pid = process.pid
    else:
        pid = in_background(program, binary, made, top)
    with open(f"{top}/vm1/latest/vda.raw", "rb", buffering=0) as file:
        descriptor = os.open(f"{top}/vm1", os.O_RDONLY)
        os.kill(pid, number)
        if foreground:
            out, err = process.communicate(timeout=60)
            assert (process.returncode, out, err) == (0, "", "")
        wait_gone(pid)
        assert not is_mounted(top) and os.listdir(top) == []
        with pytest.raises(OSError):
            os.pread(file.fileno(), 4096, 3 << 20)
        os.close(descriptor)


def test_a_signal_ends_it_while_many_read(program, binary, made, top):
    pid = in_background(program, binary, made, top)
    over = threading.Event()

    def read(offset):
        with contextlib.suppress(OSError):
            while not over.is_set():
                descriptor = os.open(f"{top}/vm1/latest/vda.raw", os.O_RDONLY)
                os.pread(descriptor, 65536, offset << 16)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)

    threads = [threading.Thread(target=read, args=(offset,)) for offset in range(32)]
    for thread in threads:
        thread.start()
    os.kill(pid, signal.SIGTERM)
    wait_gone(pid)
    over.set()
    for thread in threads:
        thread.join()
    assert not is_mounted(top)


def test_it_can_be_mounted_and_unmounted_over_and_over(program, binary, made, top):
    for _ in range(20):
        pid = in_background(program, binary, made, top)
        assert until(lambda: unmount(top).returncode == 0, "umount")
        wait_gone(pid)


def test_a_lazy_unmount_lets_readers_finish(program, binary, made, top):
    pid = in_background(program, binary, made, top)
    image = list(made.images.values())[-1]["vda"]
    with open(f"{top}/vm1/latest/vda.raw", "rb", buffering=0) as file:
        file.read(10)
        assert unmount(top, lazy=True).returncode == 0
        with open(image, "rb") as theirs:
            assert os.pread(file.fileno(), 4 << 20, 0) == theirs.read()
    wait_gone(pid)


@pytest.mark.needs_root
def test_a_mount_that_only_another_namespace_keeps_is_noticed(program, binary, made, top):
    """As the private mount namespace of each of libvirt's domains does."""
    pid = in_background(program, binary, made, top)
    with subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 1000"],
                          stdout=subprocess.PIPE) as keeper:
        try:
            keeper.stdout.readline()
            assert until(lambda: unmount(top).returncode == 0, "umount")
            wait_gone(pid)
        finally:
            keeper.kill()


@pytest.mark.needs_root
def test_a_lost_mount_leaves_what_is_mounted_there_now_alone(program, binary, made, top):
    pid = in_background(program, binary, made, top)
    with open(f"{top}/vm1/latest/vda.raw", "rb") as file:
        assert unmount(top, lazy=True).returncode == 0
        subprocess.run(["mount", "-t", "tmpfs", "none", top], check=True)
        file.close()
        wait_gone(pid)
        assert is_mounted(top)
    subprocess.run(["umount", top], check=True)


@pytest.mark.needs_root
def test_a_move_of_the_mount_is_no_loss(program, binary, made, top, place):
    pid = in_background(program, binary, made, top)
    os.mkdir(f"{place}/other")
    subprocess.run(["mount", "--bind", top, f"{place}/other"], check=True)
    subprocess.run(["umount", top], check=True)
    assert os.listdir(f"{place}/other") == ["vm1"]
    subprocess.run(["umount", f"{place}/other"], check=True)
    wait_gone(pid)


@pytest.mark.needs_root
def test_mount_and_fstab_start_it(program, binary, made, top, person):
    """mount(8) asks mount.fuse3, which finds the program in its PATH."""
    link = "/usr/local/bin/virtbackupfs"
    if os.path.lexists(link):
        pytest.skip("virtbackupfs is installed")
    os.symlink(binary.path, link)
    try:
        options = "allow_other,umask=022,_netdev,nofail,x-systemd.automount,noatime"
        subprocess.run(["mount", "-t", "fuse.virtbackupfs", "-o", options, made.path, top], check=True, timeout=60)
        person.run("sha256sum", f"{top}/vm1/latest/vda.raw")
        assert stat.S_IMODE(os.stat(f"{top}/vm1/latest/vda.raw").st_mode) == 0o444
        (pid,) = processes_of(binary.path, made.path, top) or processes_of(link, made.path, top)
        subprocess.run(["umount", top], check=True)
        wait_gone(pid)
    finally:
        os.unlink(link)


@pytest.mark.needs_root
def test_options_set_owner_and_modes(program, binary, made, top, person):
    in_background(program, binary, made, top, "-o", f"uid={person.uid},gid={person.gid}", "-o", "umask=0027,allow_other")
    st = os.stat(f"{top}/vm1/latest/vda.raw")
    assert (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (person.uid, person.gid, 0o440)
    assert stat.S_IMODE(os.stat(f"{top}/vm1/capture").st_mode) == 0o640
    person.run("sha256sum", f"{top}/vm1/latest/vda.raw")


@pytest.mark.needs_root
def test_read_ahead_is_as_long_as_a_request(program, binary, made, top):
    in_background(program, binary, made, top)
    device = os.stat(top).st_dev
    with open(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb", encoding="ascii") as file:
        assert file.read() == "1024\n"


@pytest.mark.parametrize("options", [
    "defaults", "rw,dev,suid", "nodev,nosuid,noexec,noatime", "auto,noauto,nofail,_netdev,user,users,nouser",
    "relatime,strictatime",
    "x-systemd.automount,x-gvfs-show,comment=x", "cache-size=1M", "cache-size=1G", "cache_size=5000000", "max_threads=2",
    "fsname=a\\b", "", ",,ro,,",
])
def test_options_that_are_ours_or_others_are_accepted(program, binary, made, top, options):
    in_background(program, binary, made, top, "-o", options)


@pytest.mark.parametrize("options", ["nonsense", "uid=x", "uid=-1", "umask=9", "umask=1000", "cache-size=1X", "cache-size=",
                                     "max_threads=0", "ro,allow_others", "uid", "cache-size=99999999999G"])
def test_other_options_are_wrong_usage(program, made, top, options):
    result = program.run("mount", "-o", options, made.path, top, check=False)
    failed(result, options.split(",")[-1].split("=")[0], status=2)
    assert not is_mounted(top)


def test_what_cannot_be_mounted_is_told_in_one_line(program, made, top, place):
    def attempt(repository, mountpoint, *options):
        return program.run("mount", *options, repository, mountpoint, check=False, timeout=60)

    with open(f"{place}/file", "w", encoding="utf-8"):
        pass
    for options in ([], ["-f"]):
        failed(attempt(made.path, f"{place}/nothing", *options), "nothing", "No such file")
        failed(attempt(made.path, f"{place}/file", *options), "file", "Not a directory")
        failed(attempt(f"{place}/nothing", top, *options), "nothing", "No such file")
        failed(attempt(f"{place}/file", top, *options), f"{place}/file")
        failed(attempt(place, top, *options), place)
        failed(attempt(made.path, made.path, *options), "hide the repository")
        failed(attempt(made.path, os.path.dirname(made.path), *options), "hide the repository")
        assert not is_mounted(top)


def test_a_directory_that_is_not_empty_will_do(program, binary, made, top):
    os.mkdir(f"{top}/content")
    in_background(program, binary, made, top)
    assert os.listdir(top) == ["vm1"]


def test_wrong_usage_is_told(program, made, top):
    for words in ([], [made.path], [made.path, top, "more"], ["-x", made.path, top], ["-o"]):
        assert program.run("mount", *words, check=False).returncode == 2


def test_without_a_command_two_paths_mount(program, binary, made, top):
    program.run(made.path, top, "-o", "rw,dev,suid")
    assert os.listdir(top) == ["vm1"]
    assert unmount(top).returncode == 0
    program.run(made.path, top, "-snv", "-o", "ro", "-t", "fuse.virtbackupfs")  # as mount -snv hands on
    assert os.listdir(top) == ["vm1"]


def test_an_ordinary_user_is_told_what_is_missing(program, person, place, binary):
    made = Made(person, place, "--points", "1")
    os.mkdir(f"{place}/top")
    person.give(f"{place}/top")
    with open("/etc/fuse.conf", encoding="utf-8") as file:
        allowed = any(line.strip() == "user_allow_other" for line in file)
    if not person.is_root and not allowed:
        failed(program.run("mount", "-o", "allow_other", made.path, f"{place}/top", check=False), "user_allow_other")
    if not person.is_root and os.geteuid() == 0:
        os.mkdir(f"{place}/roots", 0o755)
        os.chown(f"{place}/roots", 0, 0)
        failed(program.run("mount", made.path, f"{place}/roots", check=False), "roots")
    program.run("mount", made.path, f"{place}/top")
    person.run("ls", f"{place}/top/vm1")
    (pid,) = processes_of(binary.path, made.path, f"{place}/top")
    person.run("fusermount3", "-u", f"{place}/top")
    wait_gone(pid)
    program.run("mount", made.path, f"{place}/top")
    (pid,) = processes_of(binary.path, made.path, f"{place}/top")
    os.kill(pid, signal.SIGTERM)
    wait_gone(pid)
    assert not is_mounted(f"{place}/top")


def test_a_dead_mount_is_told_and_can_be_ended(program, binary, made, top):
    pid = in_background(program, binary, made, top)
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)
    failed(program.run("mount", made.path, top, check=False), "fusermount3 -u")
    subprocess.run(["fusermount3", "-u", top], check=True)
    in_background(program, binary, made, top)


def test_a_repository_that_vanishes_gives_errors_and_no_more(person, program, place):
    made = Made(person, place, "--points", "2")
    with mounted(program, made.path, place) as mount:
        latest = os.readlink(mount / "vm1/latest")
        os.rename(made.path, made.path + "-away")
        os.mkdir(made.path)
        os.rename(made.path + "-away/vms", made.path + "-away/sv")
        for name in ("vm1", "vm1/latest", "vm1/capture", f"vm1/{latest}/vda.raw", ""):
            for act in (os.stat, os.listdir, lambda path: open(path, "rb").read()):
                with contextlib.suppress(OSError):
                    act(mount / name)
        os.rename(made.path + "-away/sv", made.path + "-away/vms")
        os.rmdir(made.path)
        os.rename(made.path + "-away", made.path)
        assert os.listdir(mount.path) == ["vm1"]
        assert len(open(mount / "vm1/latest/vda.raw", "rb").read()) == 4 << 20


def test_a_read_that_has_nothing_to_say_is_silent(program, made, place):
    with mounted(program, made.path, place) as mount:
        subprocess.run(["find", mount.path, "-type", "f", "-exec", "cat", "{}", "+"], stdout=subprocess.DEVNULL, check=True)
        assert mount.messages() == ""
