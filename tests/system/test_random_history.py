"""Thousands of random writes, zero writes and discards, between captures, against a model that is a byte array.

The images' dirty bitmaps are QEMU's own (qemu-img bitmap); there is no VM. A mount reads the points at random places while
the history goes on."""

import random
import subprocess

import pytest
from mount import mounted
from repository import Repository

CLUSTER = 65536
KIB = 1024


class Disk:
    def __init__(self, path, size):
        self.path, self.now = path, bytearray(size)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(size)], check=True)

    @property
    def size(self):
        return len(self.now)

    def change_bitmap(self, change, name):
        subprocess.run(["qemu-img", "bitmap", change, self.path, name], check=True)

    def some_range(self, choose, unit):
        start = choose.randrange(self.size // unit) * unit
        longest = min(self.size - start, choose.choice((4 * KIB, 64 * KIB, 700 * KIB)))
        return start, max(unit, choose.randrange(longest + 1) // unit * unit)

    def change(self, choose, count):
        """That many random changes, of the image and of the model."""
        commands = []
        for _ in range(count):
            kind = choose.choice(("write", "write", "write", "zero", "unmap", "discard", "same"))
            start, length = self.some_range(choose, CLUSTER if kind == "discard" else 512)
            if kind == "same":  # dirty, and not changed
                continue_with = self.now[start]
                length = next((i for i in range(length) if self.now[start + i] != continue_with), length) // 512 * 512
                if length == 0:
                    continue
                commands.append(f"write -P {continue_with} {start} {length}")
            elif kind == "write":
                pattern = choose.randrange(256)
                self.now[start:start + length] = bytes([pattern]) * length
                commands.append(f"write -P {pattern} {start} {length}")
            else:
                length = min(length, self.size - start)
                self.now[start:start + length] = bytes(length)
                commands.append({"zero": "write -z", "unmap": "write -z -u", "discard": "discard"}[kind] +
                                f" {start} {length}")
        words = [word for command in commands for word in ("-c", command)]
        if words:
            done = subprocess.run(["qemu-io", "-f", "qcow2", "-d", "unmap", *words, self.path], capture_output=True,
                                  text=True,
                                  check=True)
            assert "failed" not in done.stdout and "error" not in done.stdout, done.stdout

    def grow(self, choose):
        more = choose.randrange(1, 3000) * 512
        grown = subprocess.run(["qemu-img", "resize", "-q", "-f", "qcow2", self.path, f"+{more}"], check=False,
                               capture_output=True)
        if grown.returncode == 0:
            self.now += bytes(more)


def look_somewhere(choose, mount, points, count):
    """Random reads of random points."""
    for _ in range(count):
        point = choose.choice(list(points))
        target = choose.choice(list(points[point]))
        truth = points[point][target]
        start = choose.randrange(len(truth) + 5000)
        length = choose.choice((1, 511, 4096, 70000, 500000))
        with open(mount / f"images/{point}/{target}.raw", "rb") as file:
            file.seek(start)
            assert file.read(length) == truth[start:start + length], f"{point}/{target}: {length} bytes from {start}"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_random_history_is_kept_byte_for_byte(program, place, seed):
    choose = random.Random(seed)
    disks = {"vda": Disk(f"{place}/vda.qcow2", choose.randrange(4000, 9000) * 512),
             "vdb": Disk(f"{place}/vdb.qcow2", choose.randrange(1, 3000) * 512 + 512 * seed)}
    path = f"{place}/repository"
    Repository(program, path).init()
    program.run("add", path, "images", *(f"{target}=file:{disk.path}?format=qcow2" for target, disk in disks.items()))
    points = {}
    with mounted(program, path, place) as mount:
        for number in range(30):
            for disk in disks.values():
                disk.change(choose, choose.randrange(50))
                if choose.randrange(12) == 0:
                    disk.grow(choose)
            options = choose.choice([["--full"]] + 4 * [["--differential"]] + 10 * [[]])
            options += ["--block-size", choose.choice(("4K", "64K", "64K", "1M")), "--codec",
                        choose.choice(("lz4", "zstd", "none"))]
            for target, disk in disks.items():  # each point starts a bitmap, and ends the one before
                disk.change_bitmap("--add", f"b{number}")
                base = f"&bitmap=b{number - 1}" if number > 0 else ""
                options += ["--source", f"{target}=file:{disk.path}?format=qcow2&checkpoint=b{number}{base}"]
            point = program.run("capture", path, "images", *options).stdout.strip().split("/")[1]
            for disk in disks.values():
                if number > 0:
                    disk.change_bitmap("--remove", f"b{number - 1}")
            points[point] = {target: bytes(disk.now) for target, disk in disks.items()}
            look_somewhere(choose, mount, points, 20)
            if number % 10 == 9:  # a mount that opens the chain anew sees the same
                for name, truth in points.items():
                    for target in truth:
                        with open(mount / f"images/{name}/{target}.raw", "rb") as file:
                            assert file.read() == truth[target], f"{name}/{target}"
    kinds = [each["kind"] for each in Repository(program, path).points("images")]
    assert kinds[0] == "full" and kinds.count("incremental") > 10 and "differential" in kinds
    with mounted(program, path, place) as mount:
        look_somewhere(choose, mount, points, 200)
