"""The mount seen by others: file handles, an NFS server and a Samba server on top of it, another user."""

import contextlib
import ctypes
import errno
import os
import pwd
import shutil
import socket
import subprocess

import pytest
from mount import mounted
from repository import same_image
from wait import until

MIB = 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def points(program, repository, place):
    """Two points of a VM "disk": the raw images that they show, by name."""
    images, image = {}, f"{place}/vda.raw"
    for number in range(2):
        with open(image, "wb") as file:
            file.write(os.urandom(3 * MIB))
            file.truncate(8 * MIB)
        os.chmod(image, 0o644)
        if not images:
            program.run("add", repository.path, "disk", f"vda=file://{image}")
        images[repository.capture("disk", "--full")] = shutil.copy(image, f"{place}/{number}.raw")
    return images


class Handle(ctypes.Structure):
    """struct file_handle of open_by_handle_at(2)."""
    _fields_ = [("size", ctypes.c_uint), ("type", ctypes.c_int), ("bytes", ctypes.c_ubyte * 128)]


def handle_of(path):
    """What an NFS server keeps of a file."""
    handle, mount = Handle(size=128), ctypes.c_int()
    if LIBC.name_to_handle_at(-100, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount), 0) < 0:
        raise OSError(ctypes.get_errno(), "name_to_handle_at", path)
    return handle


def open_handle(mountpoint, handle):
    directory = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fd = LIBC.open_by_handle_at(directory, ctypes.byref(handle), os.O_RDONLY)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "open_by_handle_at")
        return fd
    finally:
        os.close(directory)


def content(mountpoint, handle):
    with open(open_handle(mountpoint, handle), "rb") as file:
        return file.read()


@pytest.mark.needs_root
def test_handles_outlive_the_mount(program, repository, points, place):
    first, second = points
    names = [f"disk/{point}/{file}" for point in points for file in ("vda.raw", "vda.map", "info.json")]
    with mounted(program, repository.path, place) as mount:
        handles = {name: handle_of(mount / name) for name in names}
        before = {name: content(mount.path, handles[name]) for name in names}
        directory = handle_of(mount / f"disk/{second}")
    with mounted(program, repository.path, place) as mount:
        for name in names:  # nothing was looked up by name in this mount
            assert content(mount.path, handles[name]) == before[name], name
        with open(points[first], "rb") as file:
            assert content(mount.path, handles[f"disk/{first}/vda.raw"]) == file.read()
        fd = open_handle(mount.path, directory)
        try:
            assert sorted(os.listdir(fd)) == sorted(os.listdir(mount / f"disk/{second}"))
            parent = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
            assert os.fstat(parent).st_ino == os.stat(mount / "disk").st_ino
            os.close(parent)
        finally:
            os.close(fd)


@pytest.mark.needs_root
def test_a_handle_of_what_is_gone_is_stale(program, repository, points, place):
    first, second = points
    with mounted(program, repository.path, place) as mount:
        gone, kept = handle_of(mount / f"disk/{second}/vda.raw"), handle_of(mount / f"disk/{first}/vda.raw")
    os.unlink(f"{repository.directory('disk')}/points/{second}.json")
    with mounted(program, repository.path, place) as mount:
        with pytest.raises(OSError) as refused:
            open_handle(mount.path, gone)
        assert refused.value.errno == errno.ESTALE
        assert len(content(mount.path, kept)) == 8 * MIB
        never = handle_of(mount / f"disk/{first}/vda.raw")
        for at in range(8):
            never.bytes[at] = 0xff
        with pytest.raises(OSError) as refused:
            open_handle(mount.path, never)
        assert refused.value.errno == errno.ESTALE


@pytest.mark.needs_root
def test_a_handle_never_becomes_another_points(program, repository, points, place):
    """The newest point's number is given again after it was removed; its handles are not."""
    newest = list(points)[-1]
    with mounted(program, repository.path, place) as mount:
        names = ("", "/vda.raw", "/info.json")
        handles = [handle_of(mount / f"disk/{newest}{name}") for name in names]
        number = os.stat(mount / f"disk/{newest}").st_ino
    os.unlink(f"{repository.directory('disk')}/points/{newest}.json")
    again = repository.capture("disk")
    with mounted(program, repository.path, place) as mount:
        assert os.stat(mount / f"disk/{again}").st_ino == number, "it was not given again: nothing is shown here"
        for handle in handles:
            with pytest.raises(OSError) as refused:
                open_handle(mount.path, handle)
            assert refused.value.errno == errno.ESTALE


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def server(command, port, log):
    """Runs it until the block ends; it listens on the port."""
    def listens():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            return True
        return process.poll() is not None

    with open(f"{log}.said", "w", encoding="utf-8") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                   start_new_session=True)  # smbd ends its whole process group with itself
    try:
        until(listens, f"{command[0]} listens", 60, pause=0.1)
        with open(f"{log}.said", encoding="utf-8", errors="replace") as said:
            assert process.poll() is None, said.read()
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def nfs_server(path, place, port):
    """nfs-ganesha, which opens the files of the mount by their handles. The URL of its export, and what goes behind a
    path."""
    os.makedirs(f"{place}/recovery", exist_ok=True)
    with open(f"{place}/ganesha.conf", "w", encoding="utf-8") as file:
        file.write(f"""
NFS_CORE_PARAM {{ Protocols = 4; NFS_Port = {port}; Bind_addr = 127.0.0.1;
                 Enable_NLM = false; Enable_RQUOTA = false; }}
NFSv4 {{ Graceless = true; RecoveryBackend = fs; RecoveryRoot = {place}/recovery; Only_Numeric_Owners = true; }}
EXPORT_DEFAULTS {{ Attr_Expiration_Time = 0; Access_Type = RO; Squash = No_Root_Squash; SecType = sys; }}
EXPORT {{ Export_Id = 1; Path = {path}; Pseudo = /backups; Filesystem_id = 7.1; FSAL {{ Name = VFS; }} }}
""")
    command = ["ganesha.nfsd", "-F", "-f", f"{place}/ganesha.conf", "-L", f"{place}/ganesha.log", "-p",
               f"{place}/ganesha.pid"]
    with server(command, port, f"{place}/ganesha"):
        yield "nfs://127.0.0.1/backups", f"?version=4&nfsport={port}"


def client(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.needs_root
def test_an_nfs_server_exports_the_mount(program, repository, points, place):
    port = free_port()
    with mounted(program, repository.path, place) as mount, nfs_server(mount.path, place, port) as (url, behind):
        listed = client("nfs-ls", "-R", url + behind)
        for point, image in points.items():
            assert f"disk/{point}/vda.raw" in listed
            client("nfs-cp", f"{url}/disk/{point}/vda.raw{behind}", f"{place}/copied.raw")
            assert same_image(f"{place}/copied.raw", image)
            os.unlink(f"{place}/copied.raw")
        newest = list(points)[-1]
        assert f'"name": "{newest}"' in client("nfs-cat", f"{url}/disk/{newest}/info.json{behind}")
        later = repository.capture("disk")
        until(lambda: f"disk/{later}/vda.raw" in client("nfs-ls", "-R", url + behind), "the server shows the new point", 60)


SAMBA = """[global]
server role = standalone server
map to guest = bad user
guest account = {user}
smb ports = {port}
interfaces = lo
bind interfaces only = yes
disable netbios = yes
load printers = no
printcap name = /dev/null
log file = {place}/samba.log
private dir = {place}/private
ncalrpc dir = {place}/ncalrpc
lock directory = {place}/lock
state directory = {place}/state
cache directory = {place}/cache
pid directory = {place}/pid
[backups]
path = {path}
read only = yes
guest only = yes
"""


@pytest.mark.parametrize("who", ["an ordinary user", pytest.param("root", marks=pytest.mark.needs_root)])
def test_a_samba_server_of_who_has_mounted_it_exports_the_mount(program, repository, points, place, who):
    port, configuration = free_port(), f"{place}/smb.conf"
    smbd = shutil.which("smbd", path="/usr/sbin:/usr/bin")
    smbclient = ["smbclient", "-s", configuration, "-p", str(port), "-N", "//127.0.0.1/backups", "-c"]
    for name in ("private", "ncalrpc", "lock", "state", "cache", "pid"):
        os.mkdir(f"{place}/{name}")
    with mounted(program, repository.path, place) as mount:
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(SAMBA.format(port=port, place=place, path=mount.path, user=pwd.getpwuid(os.geteuid()).pw_name))
        with server([smbd, "--foreground", "--no-process-group", "-s", configuration], port, f"{place}/samba"):
            for point, image in points.items():
                client(*smbclient, f"cd disk\\{point}; get vda.raw {place}/copied.raw")
                assert same_image(f"{place}/copied.raw", image)
                os.unlink(f"{place}/copied.raw")
            put = subprocess.run([*smbclient, f"put {configuration} disk\\x"], capture_output=True, text=True, timeout=60,
                                 check=False)
            assert put.returncode != 0 and "NT_STATUS" in put.stdout + put.stderr


NOBODY = 65534


@pytest.mark.needs_root
@pytest.mark.parametrize("options, sees, triggers", [
    ("", False, False),
    ("allow_other", False, False),
    ("allow_other,umask=027", False, False),
    ("allow_other,umask=022", True, False),
    (f"allow_other,umask=027,gid={NOBODY}", True, False),
    (f"allow_other,umask=077,uid={NOBODY}", True, True),
    (f"allow_other,umask=0277,uid={NOBODY}", True, False),
])
def test_another_user_gets_what_the_options_give_him(program, repository, points, place, options, sees, triggers):
    def as_nobody(*command):
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, user=NOBODY, group=NOBODY,
                              extra_groups=[])

    with mounted(program, repository.path, place, options or None) as mount:
        for point, image in points.items():
            compared = as_nobody("cmp", image, mount / f"disk/{point}/vda.raw")
            assert (compared.returncode == 0) == sees, compared
            assert sees or "Permission denied" in compared.stderr
        assert (as_nobody("ls", mount.path).returncode == 0) == sees
        told = as_nobody("bash", "-c", f"echo nonsense > {mount / 'disk/capture'}")
        assert ("Invalid argument" if triggers else "Permission denied") in told.stderr, told
