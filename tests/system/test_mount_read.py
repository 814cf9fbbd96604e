"""Every byte of a mounted disk, read in every way that people read files."""

import filecmp
import mmap
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from made import Made
from mount import mounted
from repository import same_image
from wait import until


@pytest.fixture(scope="module")
def made(person, module_place):
    return Made(person, module_place, "--points", "12", "--disk=vda=24M", "--disk=vdb=5000001", "--disk=vdc=0",
                "--disk=vdd=511", "--changes", "40")


@pytest.fixture(scope="module")
def mount(program, made, module_place):
    with mounted(program, made.path, module_place) as mount:
        yield mount


def drop_caches():
    if os.geteuid() == 0:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("3")


def disks(mount, made):
    for point, images in made.images.items():
        for disk, image in images.items():
            yield mount / f"vm1/{point}/{disk}.raw", image


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def holes(path):
    """[(start, end, is data), …] by SEEK_DATA and SEEK_HOLE."""
    found, descriptor = [], os.open(path, os.O_RDONLY)
    try:
        size, offset = os.fstat(descriptor).st_size, 0
        while offset < size:
            try:
                data = os.lseek(descriptor, offset, os.SEEK_DATA)
            except OSError:
                data = size
            if data > offset:
                found.append((offset, data, False))
            if data >= size:
                break
            offset = os.lseek(descriptor, data, os.SEEK_HOLE)
            found.append((data, offset, True))
    finally:
        os.close(descriptor)
    return found


def test_every_disk_of_every_point_is_the_image(mount, made):
    for path, image in disks(mount, made):
        assert filecmp.cmp(path, image, shallow=False), path


def test_reads_at_random_places_are_the_image(mount, made):
    pick = random.Random(1)
    for path, image in disks(mount, made):
        size = os.path.getsize(image)
        with open(path, "rb", buffering=0) as ours, open(image, "rb", buffering=0) as theirs:
            for _ in range(60):
                offset, length = pick.randrange(size + 1), pick.choice([1, 511, 4096, 65536, 70000, 1 << 20])
                assert os.pread(ours.fileno(), length, offset) == os.pread(theirs.fileno(), length, offset)
            assert os.pread(ours.fileno(), 10, size) == b""
            assert os.pread(ours.fileno(), 10, size + 5) == b""


def test_direct_reads_are_the_image(mount, made, place):
    for path, image in list(disks(mount, made))[:8]:
        run("dd", f"if={path}", f"of={place}/copy", "bs=4M", "iflag=direct", "status=none")
        assert filecmp.cmp(f"{place}/copy", image, shallow=False), path


def from_front_to_back(path, length):
    """All of a file, by read(2) with a buffer of that length."""
    pieces, descriptor = [], os.open(path, os.O_RDONLY)
    try:
        while piece := os.read(descriptor, length):
            pieces.append(piece)
    finally:
        os.close(descriptor)
    return b"".join(pieces)


@pytest.mark.parametrize("options", [None, "direct_io", "kernel_cache"])
def test_reads_from_front_to_back_are_the_image(program, made, place, options):
    with mounted(program, made.path, place, options=options) as mount:
        for (path, image), length in zip(disks(mount, made), [8192, 1 << 20, 12345, 100001, 128 << 10, 5 << 20, 70000] * 8):
            with open(image, "rb") as file:
                assert from_front_to_back(path, length) == file.read(), (path, length)


def test_many_go_from_front_to_back_through_one_descriptor(mount, made):
    path, image = list(disks(mount, made))[-4]
    descriptor = os.open(path, os.O_RDONLY)
    with open(image, "rb") as file:
        right = file.read()
    try:
        with ThreadPoolExecutor(8) as pool:
            for offset, got in pool.map(lambda at: (at, os.pread(descriptor, 100000, at)), range(0, len(right), 100000)):
                assert got == right[offset:offset + 100000]
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("options", [None, "kernel_cache"])
def test_a_shared_mapping_is_the_image(program, made, place, options):
    with mounted(program, made.path, place, options=options) as mount:
        path, image = list(disks(mount, made))[-4]
        with open(path, "rb") as ours, open(image, "rb") as theirs:
            with mmap.mmap(ours.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) as mapping:
                assert mapping[:] == theirs.read()


def test_holes_are_where_zeroes_are_and_only_there(mount, made):
    for path, image in disks(mount, made):
        size, data = os.path.getsize(image), 0
        with open(image, "rb") as file:
            for start, end, is_data in holes(path):
                file.seek(start)
                bytes_ = file.read(end - start)
                # The unit of what is stored; each of these has a byte that is not zero.
                for offset in range(0, len(bytes_), 65536):
                    assert any(bytes_[offset:offset + 65536]) == is_data, (path, start + offset)
                data += (end - start) * is_data
        assert os.stat(path).st_blocks == -(-data // 512)
        with open(path, "rb") as file:
            for whence in (os.SEEK_DATA, os.SEEK_HOLE):
                with pytest.raises(OSError, match="No such device or address"):
                    os.lseek(file.fileno(), size, whence)


def test_du_counts_what_is_no_hole(mount, made):
    for path, image in disks(mount, made):
        assert int(run("du", "--apparent-size", "-B1", path).split()[0]) == os.path.getsize(image)
        assert int(run("du", "-B512", path).split()[0]) == os.stat(path).st_blocks


def test_cp_keeps_the_holes(mount, made, place):
    for mode in ("auto", "always", "never"):
        for path, image in list(disks(mount, made))[-8:]:
            run("cp", f"--sparse={mode}", path, f"{place}/copy")
            assert filecmp.cmp(f"{place}/copy", image, shallow=False)
            if mode != "never":
                assert os.stat(f"{place}/copy").st_blocks <= os.stat(path).st_blocks + 64
            os.unlink(f"{place}/copy")


def test_tar_and_rsync_copy_the_whole_tree(mount, made, place):
    run("sh", "-c", f"mkdir {place}/tar {place}/rsync && tar -C {mount.path} -cSf - . | tar -C {place}/tar -xf -")
    run("rsync", "-aS", f"{mount.path}/", f"{place}/rsync/")
    for copies in ("tar", "rsync"):
        for point, images in made.images.items():
            for disk, image in images.items():
                assert filecmp.cmp(f"{place}/{copies}/vm1/{point}/{disk}.raw", image, shallow=False)
    run("chmod", "-R", "u+w", place)


def test_qemu_img_sees_the_same_image(mount, made):
    for path, image in disks(mount, made):
        if os.path.getsize(image) % 512 == 0 and os.path.getsize(image):
            assert same_image(path, image)


def test_many_readers_at_once_verify(mount, made, place):
    """64 processes compare what they read at random places with the image."""
    image = list(made.images.values())[-1]["vda"]
    path = mount / f"vm1/{made.points[-1]}/vda.raw"
    drop_caches()
    program = ("import hashlib,os,random,sys\n"
               "ours, theirs = (os.open(name, os.O_RDONLY) for name in sys.argv[1:3])\n"
               "pick = random.Random(int(sys.argv[3]))\n"
               "size = os.fstat(theirs).st_size\n"
               "for _ in range(100):\n"
               "    at = pick.randrange(size)\n"
               "    length = pick.randrange(1, 300000)\n"
               "    if os.pread(ours, length, at) != os.pread(theirs, length, at): sys.exit(f'differs at {at}')\n")
    readers = [subprocess.Popen([sys.executable, "-c", program, path, image, str(seed)], stderr=subprocess.PIPE, text=True)
               for seed in range(64)]
    for reader in readers:
        _, said = reader.communicate(timeout=300)
        assert reader.returncode == 0, said


def test_fio_verifies_with_64_jobs(person, program, place):
    """The image is what fio wrote, a checksum in each block; 64 readers at once check them through the mount."""
    job = ["--name=verify", "--size=8M", "--bs=64k", "--verify=crc32c", "--ioengine=psync", "--minimal",
           "--verify_state_save=0"]
    image = f"{place}/fio.raw"
    run("fio", *job, f"--filename={image}", "--rw=write", "--do_verify=0")
    made = Made(person, place, "--points", "2", f"--from=vda={image}", "--changes", "0")
    with mounted(program, made.path, place) as mount:
        drop_caches()
        for point in made.points:
            path = mount / f"vm1/{point}/vda.raw"
            run("fio", *job, f"--filename={path}", "--rw=read", "--readonly", "--numjobs=64", "--thread")


@pytest.mark.needs_root
def test_a_loop_device_reads_the_image(mount, made):
    path, image = mount / f"vm1/{made.points[-1]}/vda.raw", list(made.images.values())[-1]["vda"]
    device = run("losetup", "-r", "-f", "--show", path).strip()
    try:
        assert filecmp.cmp(device, image, shallow=False) or run("cmp", device, image) == ""
    finally:
        run("losetup", "-d", device)
    until(lambda: not run("losetup", "-j", path), "the loop device is gone")


@pytest.mark.needs_root
def test_a_file_system_in_an_image_is_mounted(person, program, place):
    image, top = f"{place}/ext4.raw", f"{place}/top"
    os.mkdir(top)
    with open(f"{place}/content", "wb") as file:
        file.write(random.Random(2).randbytes(300000))
    run("truncate", "-s", "16M", image)
    run("mkfs.ext4", "-q", image)
    run("sh", "-c", f"mount -o loop {image} {top} && cp {place}/content {top}/file && umount {top}")
    made = Made(person, place, "--points", "3", f"--from=vda={image}", "--changes", "0")
    with mounted(program, made.path, place) as mount:
        run("mount", "-o", "ro,loop,noload", mount / "vm1/latest/vda.raw", top)
        try:
            assert filecmp.cmp(f"{top}/file", f"{place}/content", shallow=False)
        finally:
            run("umount", top)
        until(lambda: not run("losetup", "-j", mount / "vm1/latest/vda.raw"), "the loop device is gone")


def test_a_chain_of_a_thousand_points(person, program, place):
    made = Made(person, place, "--points", "1000", "--disk=vda=8M", "--changes", "3", "--images-of", "333")
    with mounted(program, made.path, place) as mount:
        assert len(os.listdir(mount / "vm1")) == 1002
        began = time.monotonic()
        for point, images in made.images.items():
            assert filecmp.cmp(mount / f"vm1/{point}/vda.raw", images["vda"], shallow=False), point
        assert time.monotonic() - began < 60
        run("ls", "-laR", mount.path)


def test_an_ordinary_user_mounts_and_reads(program, person, place):
    made = Made(person, place, "--points", "2")
    with mounted(program, made.path, place) as mount:
        for point, images in made.images.items():
            person.run("cmp", images["vda"], mount / f"vm1/{point}/vda.raw")
        if os.geteuid() == 0 and not person.is_root:
            with pytest.raises(PermissionError):
                os.listdir(mount.path)  # closed to all others, root included
