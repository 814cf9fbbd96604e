"""Damage is an error where it is, told once, and nothing more: right bytes or EIO, never wrong bytes."""

import errno
import json
import os
import random

import pytest
from made import Made, flip_bit
from mount import mounted

BLOCK = 65536


def read(path):
    with open(path, "rb") as file:
        return file.read()


def read_blocks(path, size, block=BLOCK):
    """{offset: bytes, or None where it is EIO}."""
    found, descriptor = {}, os.open(path, os.O_RDONLY)
    try:
        for offset in range(0, size, block):
            length = min(block, size - offset)
            try:
                found[offset] = os.pread(descriptor, length, offset)
                assert len(found[offset]) == length
            except OSError as error:
                assert error.errno == errno.EIO
                found[offset] = None
    finally:
        os.close(descriptor)
    return found


def differing(path, image, block=BLOCK):
    """The offsets of blocks that are EIO; wrong bytes fail the test."""
    right = read(image)
    lost = []
    for offset, got in read_blocks(path, len(right), block).items():
        assert got is None or got == right[offset:offset + block], f"wrong bytes at {offset} of {path}"
        if got is None:
            lost.append(offset)
    return lost


def test_a_damaged_block_is_lost_alone_and_told_once(person, program, place):
    made = Made(person, place, "--points", "2", "--codec", "none")
    first, second = made.points
    layer = os.path.join(made.capture_directory(first), "vda.layer")
    image = read(made.images[first]["vda"])
    later = read(made.images[second]["vda"])
    # A block of the full layer that the second point still uses.
    at = next(offset for offset in range(0, len(image), BLOCK)
              if any(image[offset:offset + BLOCK]) and image[offset:offset + BLOCK] == later[offset:offset + BLOCK])
    flip_bit(layer, read(layer).index(image[at + 100:at + 1000]))
    with mounted(program, made.path, place) as mount:
        for _ in range(3):
            for point in made.points:
                assert differing(mount / f"vm1/{point}/vda.raw", made.images[point]["vda"]) == [at]
        told = mount.messages().splitlines()
        assert len(told) == 2, told  # one for each point
        for line, point in zip(sorted(told), made.points):
            assert line.startswith(f"virtbackupfs: vm1/{point}/vda: ") and "vda.layer" in line
            assert f"block {at // BLOCK} " in line and line.endswith(f"; it reaches {first}, {second}")
        # It is data and not a hole; and what is around it is read in one go with it only by who asks for both.
        descriptor = os.open(mount / f"vm1/{first}/vda.raw", os.O_RDONLY)
        assert os.lseek(descriptor, at, os.SEEK_DATA) == at
        os.close(descriptor)


def test_the_points_that_damage_reaches_are_told(person, program, place):
    made = Made(person, place, "--points", "12", "--changes", "1", "--codec", "none")
    reached = []
    images = [read(made.images[point]["vda"]) for point in made.points]
    layer = os.path.join(made.capture_directory(made.points[0]), "vda.layer")
    # A block that some later points have anew, so that those show another.
    at = next(offset for offset in range(0, len(images[0]), BLOCK) if any(images[0][offset:offset + BLOCK])
              and 8 < sum(image[offset:offset + BLOCK] == images[0][offset:offset + BLOCK] for image in images) < 12)
    for point, image in zip(made.points, images, strict=True):
        if image[at:at + BLOCK] == images[0][at:at + BLOCK]:
            reached.append(point)
    flip_bit(layer, read(layer).index(images[0][at + 100:at + 1000]))
    with mounted(program, made.path, place) as mount:
        assert differing(mount / f"vm1/{reached[-1]}/vda.raw", made.images[reached[-1]]["vda"]) == [at]
        line, = mount.messages().splitlines()
    assert line.endswith(f"; it reaches {', '.join(reached[:8])} and {len(reached) - 8} more")


@pytest.mark.parametrize("options", ["direct_io", "kernel_cache"])
def test_what_lies_before_damage_is_read(person, program, place, options):
    made = Made(person, place, "--points", "1", "--unreadable")
    right = read(made.images[made.points[0]]["vda"])
    with mounted(program, made.path, place, options=options) as mount:
        path = mount / f"vm1/{made.points[0]}/vda.raw"
        lost = differing(path, made.images[made.points[0]]["vda"])
        assert lost
        descriptor, got = os.open(path, os.O_RDONLY), b""
        with pytest.raises(OSError) as raised:
            while piece := os.read(descriptor, 1 << 20):
                got += piece
        os.close(descriptor)
        assert raised.value.errno == errno.EIO
        assert got == right[:lost[0]]


def test_unreadable_ranges_are_errors_and_never_zeroes(person, program, place):
    made = Made(person, place, "--points", "3", "--unreadable")
    with mounted(program, made.path, place) as mount:
        lost = differing(mount / f"vm1/{made.points[0]}/vda.raw", made.images[made.points[0]]["vda"])
        assert len(lost) == 1
        assert "unreadable" in open(mount / f"vm1/{made.points[0]}/vda.map", encoding="utf-8").read()


def test_a_lost_parent_is_an_error_where_it_is_needed(person, program, place):
    made = Made(person, place, "--points", "3", "--changes", "12")
    os.unlink(os.path.join(made.capture_directory(made.points[0]), "vda.layer"))
    with mounted(program, made.path, place) as mount:
        for point in made.points:
            lost = differing(mount / f"vm1/{point}/vda.raw", made.images[point]["vda"])
            assert lost and (point == made.points[0] or len(lost) < 64)
        for line in mount.messages().splitlines():
            assert "vda" in line


def test_a_damaged_manifest_leaves_the_directory_and_says_why(person, program, place):
    made = Made(person, place, "--points", "3")
    damaged = made.points[1]
    flip_bit(made.stored("points", f"{damaged}.json"), 100)
    with mounted(program, made.path, place) as mount:
        assert sorted(os.listdir(mount / "vm1")) == sorted([*made.points, "capture", "latest"])
        assert os.listdir(mount / f"vm1/{damaged}") == ["info.json"]
        for name in ("vda.raw", "domain.xml", "nothing"):
            with pytest.raises(OSError) as refusal:
                os.stat(mount / f"vm1/{damaged}/{name}")
            assert refusal.value.errno == errno.EIO
        info = json.load(open(mount / f"vm1/{damaged}/info.json", encoding="utf-8"))
        assert info["complete"] is False and info["reason"] and info["name"] == damaged
        assert os.stat(mount / f"vm1/{damaged}/info.json").st_size == len(read(mount / f"vm1/{damaged}/info.json"))
        # The one before is whole; the one behind has lost what it needs of it.
        assert differing(mount / f"vm1/{made.points[0]}/vda.raw", made.images[made.points[0]]["vda"]) == []
        assert differing(mount / f"vm1/{made.points[2]}/vda.raw", made.images[made.points[2]]["vda"])
        assert json.load(open(mount / f"vm1/{made.points[2]}/info.json", encoding="utf-8"))["complete"] is False
        assert f"vm1/{damaged}: " in mount.messages()
        # Brought back from a copy it is there again.
        flip_bit(made.stored("points", f"{damaged}.json"), 100)
        assert differing(mount / f"vm1/{damaged}/vda.raw", made.images[damaged]["vda"]) == []


def test_a_damaged_registration_hides_no_point(person, program, place):
    made = Made(person, place, "--points", "2")
    flip_bit(made.stored("vm.json"), 40)
    with mounted(program, made.path, place) as mount:
        for point in made.points:
            assert differing(mount / f"vm1/{point}/vda.raw", made.images[point]["vda"]) == []
        number = os.stat(mount / "vm1").st_ino
        with pytest.raises(OSError) as refusal:
            with open(mount / "vm1/capture", "wb", buffering=0) as trigger:
                trigger.write(b"auto\n")
        assert refusal.value.errno == errno.EROFS
    with mounted(program, made.path, place) as mount:
        assert os.stat(mount / "vm1").st_ino == number


def test_a_damaged_kept_file_is_an_error(person, program, place):
    made = Made(person, place, "--points", "1")
    flip_bit(os.path.join(made.capture_directory(made.points[0]), "domain.xml"), 30)
    with mounted(program, made.path, place) as mount:
        with pytest.raises(OSError) as refusal:
            read(mount / "vm1/latest/domain.xml")
        assert refusal.value.errno == errno.EIO
        assert read(mount / "vm1/latest/nvram") == b"variables\n"
        assert "domain.xml" in mount.messages()


def test_a_damaged_state_reads_as_failed(person, program, place):
    made = Made(person, place, "--points", "1")
    with open(made.stored("state.json"), "w", encoding="utf-8") as file:
        file.write("{}")
    with mounted(program, made.path, place) as mount:
        assert read(mount / "vm1/capture").startswith(b"state: failed\n")


def test_whatever_is_in_the_repository_nothing_leads_out_of_it(person, program, place):
    made = Made(person, place, "--points", "2")
    os.symlink("/etc", made.stored("../link"))
    os.symlink("/etc/passwd", made.stored("points/2026-11-20T080000Z.json"))
    os.unlink(os.path.join(made.capture_directory(made.points[1]), "domain.xml"))
    os.symlink("/etc/passwd", os.path.join(made.capture_directory(made.points[1]), "domain.xml"))
    with mounted(program, made.path, place) as mount:
        assert "passwd" not in os.listdir(mount.path)
        for path in ("link/passwd", f"vm1/{made.points[1]}/domain.xml", "vm1/2026-11-20T080000Z/vda.raw"):
            with pytest.raises(OSError):
                read(mount / path)


def look_at(mount, made):
    """Reads all there is. What is read of a disk is right or an error."""
    for point, images in made.images.items():
        for disk, image in images.items():
            try:
                differing(mount / f"vm1/{point}/{disk}.raw", image, 4096)
            except OSError:
                pass
        for name in ("info.json", "domain.xml", "nvram", "vda.map"):
            try:
                text = read(mount / f"vm1/{point}/{name}")
            except OSError:
                continue
            if name == "nvram":
                assert text == b"variables\n"
            if name == "domain.xml":
                assert b"<name>vm1</name>" in text
    for name in ("", "vm1"):
        try:
            os.listdir(mount / name)
        except OSError:
            pass


def files_of(top):
    return sorted(os.path.join(directory, name) for directory, _, names in os.walk(top) for name in names)


@pytest.mark.parametrize("codec", ["lz4", "zstd", "none"])
def test_flipped_bits_give_right_bytes_or_errors(person, program, place, codec):
    """A sample of all bits through the mount; the tests of the library turn every one."""
    made = Made(person, place, "--points", "3", "--disk=vda=70000", "--block-size", "4K", "--changes", "3", "--codec", codec)
    pick = random.Random(codec)
    flips = [(path, offset) for path in files_of(f"{made.path}/vms") for offset in range(os.path.getsize(path))]
    with mounted(program, made.path, place, "cache-size=1M") as mount:
        look_at(mount, made)
    for path, offset in pick.sample(flips, 40):
        bit = pick.randrange(8)
        flip_bit(path, offset, bit)
        with mounted(program, made.path, place, "cache-size=1M") as mount:
            look_at(mount, made)
        flip_bit(path, offset, bit)


def test_files_cut_off_while_they_are_mounted(person, program, place):
    """A truncated file (or a lost server) is an error, and does not end the daemon."""
    made = Made(person, place, "--points", "3", "--disk=vda=8M")
    with mounted(program, made.path, place, "cache-size=1M") as mount:
        with open(mount / "vm1/latest/vda.raw", "rb", buffering=0) as file:
            file.read(4096)
            for path in files_of(f"{made.path}/vms"):
                if path.endswith(".layer"):
                    os.truncate(path, os.path.getsize(path) // 2)
            look_at(mount, made)
        assert mount.process.poll() is None
