"""Disks restored to block devices and servers: over old content, over several connections, whatever goes wrong."""

import contextlib
import os
import signal
import subprocess

import pytest
from imageio_server import Authority, ImageioServer
from made import Made
from nbd_server import serving, writable_nbdkit
from restored import MIB, fill, is_under_way, progress, same_disk, stop_when
from small import small_file_system

ODD = 3 * MIB + 512 + 7
MARK = b"virtbackupfs unfinished restore"


@pytest.fixture(scope="module")
def made(person, module_place):
    return Made(person, module_place, "--points", "3", "--disk", "vda=24M", "--disk", f"vdb={ODD}", "--disk", "vdc=1000")


@pytest.fixture(scope="module")
def long(person, module_place):
    return Made(person, module_place, "--points", "1", "--disk", "vda=256M", "--codec", "none", name="long")


@pytest.fixture
def restore(program, made):
    def run(disk, target, *options, check=True, of=made, **more):
        return program.run("restore", of.path, f"vm1/latest/{disk}", target, *options, check=check, **more)
    return run


def image_of(made, disk):
    return made.images[made.points[-1]][disk]


def begins_with(path, image):
    """Whether what is at path begins with the image, byte for byte."""
    return subprocess.run(["cmp", "-s", "-n", str(os.stat(image).st_size), path, image], check=False).returncode == 0


def is_refused(result, words):
    return result.returncode == 1 and words in result.stderr and len(result.stderr.splitlines()) == 1


def old_image(person, path, size):
    fill(path, size)
    person.give(path)
    return path


# NBD servers


@pytest.fixture
def socket_path(person):
    path = f"{person.directory}/restore.sock"
    yield path
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def uri(path):
    return f"nbd+unix:///?socket={path}"


@pytest.mark.parametrize("disk", ["vda", "vdb", "vdc"])
@pytest.mark.parametrize("options", [[], ["--filter=nozero", "zeromode=none"],
                                     ["--filter=multi-conn", "multi-conn-mode=disable"],
                                     ["--filter=blocksize-policy", "blocksize-minimum=16K", "blocksize-preferred=64K",
                                      "blocksize-maximum=256K", "blocksize-error-policy=error"],
                                     ["--filter=nozero", "zeromode=emulate"]])
def test_an_nbd_server_gets_the_disk_whatever_it_has_and_can_do(person, made, restore, place, socket_path, disk, options):
    size = 25 * MIB + (0 if "--filter=blocksize-policy" in options else 512)
    target = old_image(person, f"{place}/target.img", size)
    filters = [word for word in options if word.startswith("--")]
    parameters = [word for word in options if not word.startswith("--")]
    with writable_nbdkit(person, socket_path, *filters, "file", target, *parameters):
        assert is_refused(restore(disk, uri(socket_path), check=False), "is not empty: --force writes over what it has")
        restore(disk, uri(socket_path), "--force", "--verify")
    assert begins_with(target, image_of(made, disk))
    with open(target, "rb") as file:  # where a RAID or a second partition table would be found
        file.seek(-4096, os.SEEK_END)
        assert file.read() == bytes(4096)


def test_an_empty_nbd_server_needs_no_force_and_stays_sparse(person, made, restore, place, socket_path):
    with open(f"{place}/target.img", "wb") as file:
        file.truncate(24 * MIB)
    person.give(f"{place}/target.img")
    with writable_nbdkit(person, socket_path, "file", f"{place}/target.img"):
        restore("vda", uri(socket_path))
    assert begins_with(f"{place}/target.img", image_of(made, "vda"))
    assert os.stat(f"{place}/target.img").st_blocks <= os.stat(image_of(made, "vda")).st_blocks + 256


def test_a_qemu_nbd_that_serves_one_connection_is_enough(person, made, restore, place, socket_path):
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", f"{place}/target.qcow2", "24M"], check=True)
    person.give(f"{place}/target.qcow2")
    with serving(person, socket_path, "qemu-nbd", "--persistent", f"--socket={socket_path}", "--format=qcow2",
                 f"{place}/target.qcow2"):
        restore("vda", uri(socket_path), "--verify")
    assert same_disk(f"{place}/target.qcow2", image_of(made, "vda"), ("qcow2", "raw"))


@pytest.mark.parametrize("options, words", [
    (["-r", "memory", "64M"], "lets nobody write"),
    (["memory", "1M"], "which is less than the disk's"),
    (["--filter=error", "memory", "64M", "error=ENOSPC", "error-pwrite-rate=100%"], "No space left on device"),
])
def test_a_server_that_cannot_take_the_disk_is_an_error(person, restore, socket_path, options, words):
    with writable_nbdkit(person, socket_path, *options):
        result = restore("vda", uri(socket_path), check=False)
        assert result.returncode == 1 and words in result.stderr.splitlines()[-1]


def test_a_server_that_is_not_there_is_an_error(restore, place):
    assert is_refused(restore("vda", uri(f"{place}/nowhere.sock"), check=False), "cannot connect to the NBD server")
    assert is_refused(restore("vda", uri(f"{place}/x") + "&bitmap=b", check=False), "parameters of what is captured")
    assert is_refused(restore("vda", uri(f"{place}/x"), "--format", "qcow2", check=False), "is written raw")


def test_a_server_that_forgets_what_it_is_given_is_found_out(person, restore, socket_path):
    with writable_nbdkit(person, socket_path, "null", "64M"):
        result = restore("vda", uri(socket_path), "--verify", check=False)
    assert result.returncode == 1 and "reads back differently from what was written, first at" in result.stderr


def begun(program, made, target, image, *options):
    process = program.start("restore", made.path, "vm1/latest/vda", target, *options)
    stop_when(process, lambda: is_under_way(image))
    return process


def test_a_killed_restore_to_a_server_says_so_on_it_and_goes_on(person, program, long, restore, place, socket_path):
    target = old_image(person, f"{place}/target.img", 256 * MIB)
    with writable_nbdkit(person, socket_path, "file", target):
        process = begun(program, long, uri(socket_path), target, "--force")
        process.kill()
        process.communicate()
        noted = progress(target)
        with open(target, "rb") as file:
            head = file.read(MIB)
        assert MARK in head and not head[510:512] == b"\x55\xaa" and not any(head[128 << 10:])
        assert is_refused(program.run("restore", long.path, "vm1/latest/vda", uri(f"{place}/x"), check=False),
                          "cannot connect")
        result = program.run("restore", long.path, "vm1/latest/vda", uri(socket_path), "--verify")
        assert f"goes on at {noted >> 20} of 256 MiB" in result.stderr
    assert begins_with(target, image_of(long, "vda"))


def test_an_interrupted_restore_to_a_server_says_that_it_is_not_whole(person, program, long, place, socket_path):
    target = old_image(person, f"{place}/target.img", 256 * MIB)
    with writable_nbdkit(person, socket_path, "file", target):
        process = begun(program, long, uri(socket_path), target, "--force")
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1 and "is not whole: restore to it again" in said
        assert said.splitlines()[-1] == "virtbackupfs: interrupted"


def test_a_server_that_dies_is_an_error(person, program, long, place, socket_path):
    target = old_image(person, f"{place}/target.img", 256 * MIB)
    with writable_nbdkit(person, socket_path, "file", target) as server:
        process = begun(program, long, uri(socket_path), target, "--force")
        server.kill()
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1 and socket_path in said.splitlines()[-1] and "is not whole" in said


# imageio servers


@pytest.fixture(scope="module")
def authority(module_place):
    return Authority(module_place, "authority")


@pytest.fixture
def server(authority):
    with ImageioServer(authority.certificate("DNS:localhost")) as server:
        yield server


class Upload:
    """A disk of oVirt's, full of something else, and the URL by which it is written."""

    def __init__(self, server, authority, person, path, size):
        self.path = old_image(person, path, size)
        ticket = server.transfer(self.path)
        self.ticket, self.url = server.tickets[ticket], server.url(ticket, cafile=authority.path)
        self.name = ticket


@pytest.fixture
def upload(server, authority, person, place):
    return lambda size: Upload(server, authority, person, f"{place}/target.img", size)


@pytest.mark.parametrize("disk, size", [("vda", 24 * MIB), ("vda", 30 * MIB), ("vdb", ODD), ("vdb", 4 * MIB), ("vdc", 1000)])
def test_an_oVirt_disk_gets_the_image(made, server, restore, upload, disk, size):
    target = upload(size)
    assert is_refused(restore(disk, target.url, check=False), "is not empty")
    restore(disk, target.url, "--force", "--verify")
    assert begins_with(target.path, image_of(made, disk))
    assert target.ticket.flushes >= 1
    assert server.connections == 0 or server.connections_max > 0


def test_an_oVirt_disk_is_sent_its_data_alone_over_several_connections(made, server, restore, upload):
    target = upload(24 * MIB)
    restore("vda", target.url, "--force")
    data = os.stat(image_of(made, "vda")).st_blocks * 512
    assert sum(length for _, length in target.ticket.written) <= data + 2 * MIB
    assert sum(length for _, length in target.ticket.zeroed) > 0
    assert server.connections_max > 1
    assert target.ticket.flushes < len(target.ticket.written)


@pytest.mark.parametrize("features", [[], ["zero"], ["flush"]])
def test_older_servers_of_oVirt_will_do(made, server, restore, upload, features):
    server.options = {"features": features, "max_writers": 1}
    target = upload(24 * MIB)
    restore("vda", target.url, "--force", "--verify")
    assert begins_with(target.path, image_of(made, "vda"))
    assert bool(target.ticket.zeroed) == ("zero" in features)


@pytest.mark.parametrize("trouble", ["close", "half a head", "status 500", "status 403", "garbage"])
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_request_that_fails_ends_the_restore_or_is_sent_again(made, server, restore, upload, trouble, method):
    target = upload(24 * MIB)
    hit = []

    def once(request):
        if request.method == method and request.number > 12 and not hit:
            hit.append(request)
            return True
        return False

    server.cause(trouble, once)
    result = restore("vda", target.url, "--force", check=False)
    assert hit and target.name not in result.stderr
    if result.returncode == 0:
        assert not trouble.startswith("status") and begins_with(target.path, image_of(made, "vda"))
    else:
        assert "is not whole: restore to it again" in result.stderr
        with open(target.path, "rb") as file:
            assert MARK in file.read(MIB)
    server.cause()
    restore("vda", target.url, "--force", "--verify")
    assert begins_with(target.path, image_of(made, "vda"))


def test_whatever_request_fails_nothing_looks_whole_that_is_not(made, server, restore, upload):
    target = upload(4 * MIB)
    with open(target.path, "rb") as file:
        old = file.read()
    seen = set()
    for number in range(1, 200):
        with open(target.path, "wb") as file:
            file.write(old)
        server.cause("status 500", lambda request, number=number: request.number == number)
        result = restore("vdb", target.url, "--force", check=False)
        if result.returncode == 0:
            break
        with open(target.path, "rb") as file:
            now = file.read()
        state = "old" if now == old else "unfinished" if MARK in now[:4096] else "whole"
        assert state != "whole" or begins_with(target.path, image_of(made, "vdb"))
        seen.add(state)
    assert seen == {"old", "unfinished", "whole"} and begins_with(target.path, image_of(made, "vdb"))


def test_a_ticket_comes_from_standard_input_and_is_not_shown(program, made, restore, upload):
    target = upload(24 * MIB)
    restore("vda", "-", "--force", input=target.url)
    assert begins_with(target.path, image_of(made, "vda"))
    result = restore("vda", target.url, check=False)
    assert result.returncode == 1 and target.name not in result.stderr


def test_a_server_whose_disk_is_too_small_is_an_error(restore, upload):
    assert is_refused(restore("vda", upload(23 * MIB).url, "--force", check=False), "which is less than the disk's")


# Block devices


@pytest.fixture
def device(person, place):
    """A loop device of 32 MiB, full of something else."""
    fill(f"{place}/device.img", 32 * MIB)
    with loop(f"{place}/device.img") as path:
        yield path


@contextlib.contextmanager
def loop(path, *options):
    device = subprocess.run(["losetup", "-f", "--show", *options, path], check=True, capture_output=True,
                            text=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


@pytest.mark.needs_root
@pytest.mark.parametrize("disk", ["vda", "vdb", "vdc"])
@pytest.mark.parametrize("sector", ["512", "4096"])
def test_a_block_device_becomes_the_disk_whatever_it_had(made, restore, place, disk, sector):
    fill(f"{place}/device.img", 32 * MIB)
    with loop(f"{place}/device.img", "--sector-size", sector) as device:
        assert is_refused(restore(disk, device, check=False), "is not empty: --force writes over what it has")
        restore(disk, device, "--force", "--verify")
        assert begins_with(device, image_of(made, disk))
        with open(device, "rb") as file:
            file.seek(-4096, os.SEEK_END)
            assert file.read() == bytes(4096)


@pytest.mark.needs_root
def test_a_block_device_in_use_is_refused_even_with_force(restore, device, place):
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    os.makedirs(f"{place}/mounted")
    subprocess.run(["mount", device, f"{place}/mounted"], check=True)
    try:
        assert is_refused(restore("vda", device, "--force", check=False), "is in use: it is mounted")
    finally:
        subprocess.run(["umount", f"{place}/mounted"], check=True)
    holder = subprocess.Popen(["qemu-io", "-f", "raw", device], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        holder.stdin.write(b"read 0 512\n")
        holder.stdin.flush()
        holder.stdout.readline()
        assert is_refused(restore("vda", device, "--force", check=False), "is in use by another program")
    finally:
        holder.communicate()
    restore("vda", device, "--force")


@pytest.mark.needs_root
def test_a_block_device_that_cannot_be_written_is_an_error(made, restore, place):
    fill(f"{place}/device.img", 32 * MIB)
    with loop(f"{place}/device.img", "-r") as device:
        result = restore("vda", device, "--force", check=False)
        assert result.returncode == 1 and device in result.stderr and len(result.stderr.splitlines()) == 1
    fill(f"{place}/small.img", 4 * MIB)
    with loop(f"{place}/small.img") as device:
        assert is_refused(restore("vda", device, "--force", check=False), "which is less than the disk's")
        assert is_refused(restore("vda", device, "--format", "qcow2", check=False), "is written raw, not as qcow2")


@pytest.mark.needs_root
def test_a_killed_restore_to_a_device_goes_on(program, long, place):
    fill(f"{place}/device.img", 256 * MIB)
    with loop(f"{place}/device.img") as device:
        process = begun(program, long, device, device, "--force")
        process.kill()
        process.communicate()
        result = program.run("restore", long.path, "vm1/latest/vda", device, "--verify")
        assert "goes on at" in result.stderr and begins_with(device, image_of(long, "vda"))


@pytest.mark.needs_root
def test_a_device_whose_disk_is_full_is_an_error(made, restore, place):
    with small_file_system(f"{place}/small", 12) as small:
        with open(f"{small}/device.img", "wb") as file:
            file.truncate(32 * MIB)
        with loop(f"{small}/device.img") as device:
            result = restore("vda", device, "--force", check=False)
            assert result.returncode == 1 and device in result.stderr.splitlines()[-1]
