"""Archives of Proxmox, mounted as they lie, packed or not, and made of points of ours. They are made and read by
tests/lib, from the description of the format alone."""

import contextlib
import errno
import fcntl
import json
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

import vma_archive
from made import Made, flip_bit
from mount import mounted
from program import wait_gone
from wait import until

CONFIG = b"name: web1\nsmbios1: uuid=5f0c2a5e-1111-4222-8333-444455556666\n\n[before]\nname: other\n"
NAME = "vzdump-qemu-100-2023_11_14-22_13_20.vma"
POINT = "web1/2023-11-14T221320Z"
PACKERS = {".zst": ["zstd", "-q"], ".gz": ["gzip"], ".lzo": ["lzop", "-q"]}


def content(size, seed, grain=4096):
    """Data and zeroes in turn, by pieces of random length."""
    source, data = random.Random(seed), bytearray(size)
    at = 0
    while at < size:
        length = source.randrange(1, 40) * grain
        if source.random() < 0.5:
            data[at:at + length] = source.randbytes(len(data[at:at + length]))
        at += length
    return bytes(data)


def make(person, directory, name=NAME, devices=None, configs=None, **options):
    """An archive in a directory of its own; its devices."""
    os.makedirs(directory, exist_ok=True)
    if devices is None:
        devices = {"drive-scsi0": content(12 << 20, 1), "drive-efidisk0": content(540672, 2, 512)}
    vma_archive.write(f"{directory}/{name}", devices, {"qemu-server.conf": CONFIG} if configs is None else configs,
                      **{"ctime": 1700000000, **options})
    give(person, directory)
    return devices


def give(person, directory):
    person.give(directory)
    for name in os.listdir(directory):
        person.give(f"{directory}/{name}")


def pack(person, directory, ending, name=NAME):
    subprocess.run([*PACKERS[ending], f"{directory}/{name}"], check=True)
    if os.path.exists(f"{directory}/{name}"):
        os.unlink(f"{directory}/{name}")
    give(person, directory)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def check(mount, devices, point=POINT):
    for device, data in devices.items():
        assert read(mount / f"{point}/{device.removeprefix('drive-')}.raw") == data, device


@pytest.fixture
def archives(place):
    return f"{place}/archives"


@pytest.mark.parametrize("order", ["sequential", "interleaved", "random"])
@pytest.mark.parametrize("entries", [58, 59, 1])
def test_an_archive_of_any_shape_shows_its_disks(program, person, place, archives, order, entries):
    devices = make(person, archives, order=order, entries=entries,
                   devices={"drive-scsi0": content(5 * 65536 * 59 + 4608, entries), "drive-sata1": content(1 << 20, 3),
                            "drive-tpmstate0-backup": content(4 << 20, 4)})
    devices["tpmstate0"] = devices.pop("drive-tpmstate0-backup")
    with mounted(program, archives, place) as mount:
        check(mount, devices)
        assert "vmstate" not in os.listdir(mount / POINT)


def test_ram_and_configuration_are_files_of_the_point(program, person, place, archives):
    ram = content(3000001, 5)
    make(person, archives, order="random", configs={"qemu-server.conf": CONFIG, "qemu-server.fw": b"[OPTIONS]\n"},
         devices={"vmstate": ram, "drive-scsi0": content(1 << 20, 6)})
    with mounted(program, archives, place) as mount:
        assert read(mount / f"{POINT}/vmstate") == ram
        assert read(mount / f"{POINT}/qemu-server.conf") == CONFIG
        assert read(mount / f"{POINT}/qemu-server.fw") == b"[OPTIONS]\n"
        with open(mount / f"{POINT}/info.json", encoding="utf-8") as file:
            info = json.load(file)
    assert (info["vm"], info["kind"], info["time"], info["complete"]) == ("web1", "full", "2023-11-14T22:13:20Z", True)
    assert [disk["name"] for disk in info["disks"]] == ["scsi0"]


def test_holes_are_blocks_that_are_not_stored(program, person, place, archives):
    data = bytearray(4 << 20)
    data[1 << 20:(1 << 20) + 4096] = b"x" * 4096
    data[3 << 20:(3 << 20) + 65536] = b"y" * 65536
    make(person, archives, devices={"drive-scsi0": bytes(data)})
    extents = program.json("map", archives, f"{POINT}/scsi0")
    assert [(e["start"], e["length"]) for e in extents if not e["zero"]] == [(1 << 20, 4096), (3 << 20, 65536)]


@pytest.mark.parametrize("ending", PACKERS)
def test_a_packed_archive_is_unpacked_once_into_the_cache_directory(program, person, place, archives, ending):
    cache = f"{place}/cache"
    devices = make(person, archives, order="interleaved")
    pack(person, archives, ending)
    before = {name: read(f"{archives}/{name}") for name in os.listdir(archives)}
    with mounted(program, archives, place, f"cache_dir={cache}") as mount:
        check(mount, devices)
        until(lambda: f"{NAME}{ending}: unpacked" in mount.messages(), "it is unpacked")
    name, = os.listdir(cache)
    assert name.endswith(".vma")
    inode = os.stat(f"{cache}/{name}").st_ino
    with mounted(program, archives, place, f"cache_dir={cache}") as mount:
        check(mount, devices)
        assert mount.messages() == ""
    assert [os.stat(f"{cache}/{name}").st_ino for name in os.listdir(cache)] == [inode]
    assert {name: read(f"{archives}/{name}") for name in os.listdir(archives)} == before


def test_looking_at_packed_archives_unpacks_nothing(program, person, place, archives):
    make(person, archives)
    pack(person, archives, ".zst")
    assert program.json("list", archives)["vms"][0]["points"][0]["disks"][1]["size"] == 12 << 20
    with mounted(program, archives, place, f"cache_dir={place}/cache") as mount:
        assert os.stat(mount / f"{POINT}/scsi0.raw").st_size == 12 << 20
        assert read(mount / f"{POINT}/qemu-server.conf") == CONFIG
        os.listdir(mount / POINT)
        assert not os.path.exists(f"{place}/cache")


def test_an_archive_of_many_zstd_frames_is_read_in_place(program, person, place, archives):
    devices = make(person, archives, order="random")
    archive = read(f"{archives}/{NAME}")
    with open(f"{archives}/{NAME}.zst", "wb") as packed:
        for at in range(0, len(archive), 1000003):
            piece = f"{place}/piece"
            with open(piece, "wb") as file:
                file.write(archive[at:at + 1000003])
            packed.write(subprocess.run(["zstd", "-q", "-c", piece], check=True, stdout=subprocess.PIPE).stdout)
    os.unlink(f"{archives}/{NAME}")
    give(person, archives)
    with mounted(program, archives, place, f"cache_dir={place}/cache") as mount:
        check(mount, devices)
        assert not os.path.exists(f"{place}/cache")


def test_of_a_damaged_archive_the_rest_is_read(program, person, place, archives):
    disk = random.Random(7).randbytes(200 * 65536)
    make(person, archives, devices={"drive-scsi0": disk})
    flip_bit(f"{archives}/{NAME}", 12800 + 512 + 58 * 65536 + 100)  # in the header of the second extent
    with mounted(program, archives, place) as mount:
        path = mount / f"{POINT}/scsi0.raw"
        with open(path, "rb", buffering=0) as file:
            for cluster in range(200):
                file.seek(cluster * 65536)
                if 58 <= cluster < 116:
                    with pytest.raises(OSError) as failure:
                        file.read(65536)
                    assert failure.value.errno == errno.EIO
                else:
                    assert file.read(65536) == disk[cluster * 65536:(cluster + 1) * 65536]
        assert "the MD5 of the extent's header does not fit" in mount.messages()


@pytest.mark.parametrize("shape, words", [({"lost": {("drive-scsi0", 5)}}, "cluster 5 of drive-scsi0 is missing"),
                                          ({"doubled": [("drive-scsi0", 5)]},
                                           "cluster 5 of drive-scsi0 is in it several times")])
def test_a_cluster_that_is_missing_or_there_twice_is_an_error(program, person, place, archives, shape, words):
    disk = make(person, archives, devices={"drive-scsi0": content(1 << 20, 8)}, **shape)["drive-scsi0"]
    with mounted(program, archives, place, "kernel_cache") as mount:
        with open(mount / f"{POINT}/scsi0.raw", "rb", buffering=0) as file:
            assert os.pread(file.fileno(), 4096, 9 * 65536) == disk[9 * 65536:9 * 65536 + 4096]
            with pytest.raises(OSError):
                os.pread(file.fileno(), 4096, 5 * 65536)
        assert words in mount.messages()


def test_what_is_no_archive_is_listed_with_the_reason(program, person, archives):
    make(person, archives)
    archive = read(f"{archives}/{NAME}")
    for name, data in {"a.vma": archive[:4000], "b.vma": b"nothing" * 9000, "c.vma.zst": archive,
                       "d.vma.gz": b"\x1f\x8b\x08" + b"\xff" * 999,
                       "e.vma": archive[:40] + b"\0" + archive[41:]}.items():
        with open(f"{archives}/{name}", "wb") as file:
            file.write(data)
    give(person, archives)
    listed = program.json("list", archives)
    reasons = {entry["path"]: entry["reason"] for entry in listed["unrecognised"]}
    assert "cut off" in reasons["a.vma"]
    assert "does not begin as a VMA archive does" in reasons["b.vma"]
    assert "gzip cannot unpack it" in reasons["d.vma.gz"]
    assert "MD5" in reasons["e.vma"]
    assert [vm["name"] for vm in listed["vms"]] == ["web1"]


def test_a_packed_archive_that_is_damaged_is_read_up_to_there_and_leaves_nothing(program, person, place, archives):
    cache = f"{place}/cache"
    disk = random.Random(9).randbytes(20 << 20)
    make(person, archives, devices={"drive-scsi0": disk})
    pack(person, archives, ".gz")
    flip_bit(f"{archives}/{NAME}.gz", 15 << 20)
    with mounted(program, archives, place, f"cache_dir={cache}") as mount:
        with open(mount / f"{POINT}/scsi0.raw", "rb", buffering=0) as file:
            assert os.pread(file.fileno(), 1 << 20, 0) == disk[:1 << 20]
            with pytest.raises(OSError):
                os.pread(file.fileno(), 4096, (20 << 20) - 4096)
        assert "gzip cannot unpack it" in mount.messages()
    assert os.listdir(cache) == []


def test_what_does_not_fit_into_the_cache_directory_is_told(program, person, place, archives):
    devices = make(person, archives)
    pack(person, archives, ".gz")
    with mounted(program, archives, place, f"cache_dir={place}/cache,cache_dir_size=2M") as mount:
        with pytest.raises(OSError):
            read(mount / f"{POINT}/scsi0.raw")
        assert "raise the limit (mount option cache_dir_size=)" in mount.messages()
    with mounted(program, archives, place, f"cache_dir={place}/cache,cache_dir_size=200M") as mount:
        check(mount, devices)


def test_what_was_used_longest_ago_makes_room(program, person, place, archives):
    cache, names = f"{place}/cache", [f"vzdump-qemu-{n}-x.vma" for n in (1, 2, 3)]
    disks = {}
    for n, name in enumerate(names):
        configs = {"qemu-server.conf": f"name: vm{n}\n".encode()}
        disks[n] = make(person, archives, name, {"drive-scsi0": random.Random(n).randbytes(8 << 20)}, configs)
        pack(person, archives, ".gz", name)
    for n in range(3):  # a mount each: what is in use is not deleted
        with mounted(program, archives, place, f"cache_dir={cache},cache_dir_size=20M") as mount:
            check(mount, disks[n], f"vm{n}/latest")
            until(lambda: "unpacked" in mount.messages(), "it is unpacked")
        assert len(os.listdir(cache)) == min(n + 1, 2)


def test_a_cache_directory_that_cannot_be_used_is_told_with_what_names_another(program, person, archives, place):
    make(person, archives)
    pack(person, archives, ".gz")
    with open(f"{place}/file", "w", encoding="ascii"):
        pass
    with mounted(program, archives, place, f"cache_dir={place}/file/cache") as mount:
        with pytest.raises(OSError) as refusal:
            read(mount / f"{POINT}/scsi0.raw")
        assert refusal.value.errno == errno.EIO
        assert "names another one" in mount.messages()


PROGRESS = "user.virtbackupfs.progress"


def is_stopped(pid):
    """Every thread of it: a signal stops them one by one."""
    with contextlib.suppress(FileNotFoundError):  # one that ends meanwhile
        return all(Path(f"/proc/{pid}/task/{thread}/stat").read_text(encoding="utf-8").rsplit(") ", 1)[1][0] == "T"
                   for thread in os.listdir(f"/proc/{pid}/task"))
    return False


def test_how_far_the_unpacking_is_can_be_listed_by_others(program, person, archives, place):
    if person.is_root:
        pytest.skip("root's cache directory is the machine's")
    make(person, archives, devices={"drive-scsi0": random.Random(13).randbytes(96 << 20)}, entries=59)
    pack(person, archives, ".gz")
    packed, = os.listdir(archives)
    with mounted(program, archives, place) as mount:
        cache = f"{person.environment['XDG_CACHE_HOME']}/virtbackupfs"
        reader = person.popen(["cat", mount / f"{POINT}/scsi0.raw"], stdout=subprocess.DEVNULL)
        partial = until(lambda: os.path.isdir(cache) and [name for name in os.listdir(cache) if name.endswith(".partial")],
                        "it is being unpacked")[0]
        until(lambda: PROGRESS in os.listxattr(f"{cache}/{partial}"), "how far it is, is told")
        mount.process.send_signal(signal.SIGSTOP)
        try:
            until(lambda: is_stopped(mount.process.pid), "it is stopped")
            done, total = map(int, os.getxattr(f"{cache}/{partial}", PROGRESS).split())
            assert 0 <= done < total == os.path.getsize(f"{archives}/{packed}")
            disk, = program.json("list", archives, POINT)["vms"][0]["points"][0]["disks"]
            assert disk["unpacking"] == {"done": done, "total": total} and disk["allocated"] is None
            for path in ("web1", POINT):
                assert f"being unpacked: {done * 100 / total:.0f} %" in program.run("list", archives, path).stdout
        finally:
            mount.process.send_signal(signal.SIGCONT)
        assert reader.wait(60) == 0
        until(lambda: not [name for name in os.listdir(cache) if name.endswith(".partial")], "it is unpacked")
        kept, = os.listdir(cache)
        assert PROGRESS not in os.listxattr(f"{cache}/{kept}")
        disk, = program.json("list", archives, POINT)["vms"][0]["points"][0]["disks"]
        assert "unpacking" not in disk


@contextlib.contextmanager
def locked(path):
    """As if another process were making it."""
    with open(path, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def waits_in_kernel(pid):
    """In a request of the mount: interruptible or not."""
    with open(f"/proc/{pid}/syscall", encoding="utf-8") as file:
        return file.read().split()[0] in ("0", "17", "257")  # read, pread64, openat


def test_two_processes_unpack_once_and_who_waits_can_be_interrupted(program, person, place, archives):
    cache = f"{place}/cache"
    devices = make(person, archives)
    pack(person, archives, ".gz")
    with mounted(program, archives, place, f"cache_dir={cache}") as mount:
        check(mount, devices)
        until(lambda: "unpacked" in mount.messages(), "it is unpacked")
    name, = os.listdir(cache)
    os.unlink(f"{cache}/{name}")
    with mounted(program, archives, place, f"cache_dir={cache}") as mount:
        with locked(f"{cache}/{name}.partial"):
            person.give(f"{cache}/{name}.partial")
            reader = person.popen(["cat", mount / f"{POINT}/scsi0.raw"], stdout=subprocess.PIPE)
            until(lambda: waits_in_kernel(reader.pid), "the reader waits")
            assert "scsi0.raw" in os.listdir(mount / POINT) and read(mount / f"{POINT}/qemu-server.conf") == CONFIG
            # Nor does what tells how far it is, or how much is in it, wait for the end.
            assert os.stat(mount / f"{POINT}/scsi0.raw").st_size == 12 << 20
            info = json.loads(read(mount / f"{POINT}/info.json"))
            assert [disk.get("unpacking") for disk in info["disks"]] == [None, None]
            os.setxattr(f"{cache}/{name}.partial", PROGRESS, b"1 4")
            until(lambda: [disk.get("unpacking") for disk in json.loads(read(mount / f"{POINT}/info.json"))["disks"]]
                  == [{"done": 1, "total": 4}] * 2, "info.json tells the progress")
            reader.send_signal(signal.SIGINT)
            wait_gone(reader.pid)
            reader.communicate()
            assert os.listdir(cache) == [f"{name}.partial"]
        os.unlink(f"{cache}/{name}.partial")
        check(mount, devices)
        until(lambda: "unpacked" in mount.messages(), "it is unpacked")
    assert os.listdir(cache) == [name]


def test_a_killed_mount_leaves_nothing_that_looks_whole(program, person, place, archives):
    cache = f"{place}/cache"
    devices = make(person, archives, devices={"drive-scsi0": random.Random(11).randbytes(96 << 20)}, entries=59)
    pack(person, archives, ".gz")
    with contextlib.suppress(AssertionError), mounted(program, archives, place, f"cache_dir={cache}") as mount:
        with open(mount / f"{POINT}/scsi0.raw", "rb", buffering=0) as file:
            read_start = os.pread(file.fileno(), 65536, 0)
        mount.process.kill()
        mount.process.wait()
        assert read_start == devices["drive-scsi0"][:65536]
    for name in os.listdir(cache):  # killed in the middle, or afterwards
        assert name.endswith(".partial") or os.path.getsize(f"{cache}/{name}") > 96 << 20
    with mounted(program, archives, place, f"cache_dir={cache}") as mount:
        check(mount, devices)
        until(lambda: not [name for name in os.listdir(cache) if name.endswith(".partial")], "it is kept, and nothing else")


@pytest.fixture
def made(person, place):
    return Made(person, place, "--points", "4", "--disk=vda=9M", "--disk=vdb=1000448")


def exported_equals(made, point, archive):
    result = vma_archive.read(archive)
    names = {"vda": "drive-virtio0", "vdb": "drive-virtio1"}
    assert sorted(result["devices"]) == sorted(names[disk] for disk in made.images[point])
    for disk, image in made.images[point].items():
        assert result["devices"][names[disk]] == read(image), disk
    return result


def test_a_point_becomes_an_archive_that_a_strict_reader_accepts(program, made, place):
    for number, point in enumerate(made.points):
        program.run("export", made.path, f"vm1/{point}", f"{place}/{number}.vma")
        result = exported_equals(made, point, f"{place}/{number}.vma")
        config = result["configs"]["qemu-server.conf"].decode().splitlines()
        assert "name: vm1" in config and "#qmdump#map:virtio0:drive-virtio0::raw:" in config


def test_an_archive_goes_through_a_pipe(program, made, place, person):
    with open(f"{place}/piped.vma", "wb") as out:
        export = program.start("export", "--format=vma", made.path, "vm1/latest", "-", text=False)
        subprocess.run(["cat"], stdin=export.stdout, stdout=out, check=True)
        assert export.wait() == 0
    exported_equals(made, made.points[-1], f"{place}/piped.vma")


def test_an_archive_with_ram_comes_out_as_it_went_in(program, person, place, archives):
    devices = make(person, archives, order="random",
                   devices={"drive-scsi0": content(5 << 20, 1), "drive-tpmstate0-backup": content(1 << 20, 2),
                            "vmstate": content(777777, 3)})
    program.run("export", archives, "web1/latest", f"{place}/again.vma")
    result = vma_archive.read(f"{place}/again.vma")
    assert result["devices"] == devices
    assert result["configs"] == {"qemu-server.conf": CONFIG} and result["ctime"] == 1700000000


def test_what_was_exported_is_mounted_again(program, made, place, person):
    os.mkdir(f"{place}/out")
    person.give(f"{place}/out")
    for number, point in enumerate(made.points):
        program.run("export", made.path, f"vm1/{point}", f"{place}/out/{number}.vma")
    with mounted(program, f"{place}/out", place) as mount:
        points = sorted(name for name in os.listdir(mount / "vm1") if name[0] == "2")
        assert len(points) == len(made.points)
        for mine, theirs in zip(points, made.points):
            for disk, image in made.images[theirs].items():
                shown = {"vda": "virtio0", "vdb": "virtio1"}[disk]
                assert read(mount / f"vm1/{mine}/{shown}.raw") == read(image)


def test_a_chain_of_images_equals_each_point(program, made, place):
    program.run("export", "--chain", made.path, "vm1/latest/vda", f"{place}/chain")
    chain = sorted(os.listdir(f"{place}/chain"))
    assert chain == [f"vda.{point}.qcow2" for point in made.points]
    for name, point in zip(chain, made.points):
        subprocess.run(["qemu-img", "compare", "-f", "qcow2", "-F", "raw", f"{place}/chain/{name}",
                        made.images[point]["vda"]],
                       check=True)
        subprocess.run(["qemu-img", "check", "-q", f"{place}/chain/{name}"], check=True)
    info = json.loads(subprocess.run(["qemu-img", "info", "--output=json", f"{place}/chain/{chain[-1]}"], check=True,
                                     stdout=subprocess.PIPE).stdout)
    assert info["backing-filename"] == chain[-2]


@pytest.mark.parametrize("target", ["point.vma", "disk.raw", "disk.qcow2"])
def test_what_is_there_is_replaced_on_demand_only(program, made, place, target):
    path = "vm1/latest" if target.endswith("vma") else "vm1/latest/vda"
    with open(f"{place}/{target}", "w", encoding="utf-8") as file:
        file.write("mine")
    program.person.give(f"{place}/{target}")
    refused = program.run("export", made.path, path, f"{place}/{target}", check=False)
    assert refused.returncode == 1 and "--force replaces it" in refused.stderr
    assert read(f"{place}/{target}") == b"mine"
    program.run("export", "--force", made.path, path, f"{place}/{target}")
    assert read(f"{place}/{target}") != b"mine"


@pytest.mark.parametrize("words, status, said", [
    (["vm1/latest", "x.foo"], 2, "x.foo does not end as a format does: --format is vma, qcow2 or raw"),
    (["--format=vmdk", "vm1/latest", "x.vma"], 2, "--format is vma, qcow2 or raw, not vmdk"),
    (["vm1", "x.vma"], 1, "what is exported is VM/POINT"),
    (["vm1/latest/vda", "x.vma"], 1, "a VMA archive has all of a point"),
    (["--format=raw", "vm1/latest/vda", "-"], 1, "only a VMA archive can be written to standard output"),
    (["--chain", "vm1/latest", "x"], 1, "a chain is that of one disk"),
    (["--chain", "--format=vma", "vm1/latest", "x"], 2, "only qcow2 images can be a chain"),
    (["vm1/latest", "/nowhere/x.vma"], 1, "cannot reach the directory"),
])
def test_an_export_that_makes_no_sense_is_refused(program, made, place, words, status, said):
    result = program.run("export", *words[:-2], made.path, *words[-2:], check=False, cwd=place)
    assert result.returncode == status and said in result.stderr
    assert not [name for name in os.listdir(place) if name.startswith("x")]


def test_an_interrupted_export_leaves_no_file(program, made, place):
    """Interrupted at a moment when it surely is not done: nobody takes what it writes."""
    export = program.start("export", "--format=vma", made.path, "vm1/latest", "-", text=False)
    assert export.stdout.read(1) == b"V"
    export.send_signal(signal.SIGINT)
    assert export.wait(60) == 1 and b"interrupted" in export.stderr.read()
    export.stdout.close()
    export.stderr.close()


def test_an_export_of_a_damaged_point_fails_and_leaves_nothing(program, made, place):
    layer = f"{made.capture_directory(made.points[0])}/vda.layer"
    flip_bit(layer, os.path.getsize(layer) // 2)
    result = program.run("export", made.path, f"vm1/{made.points[0]}", f"{place}/x.vma", check=False)
    assert result.returncode == 1 and "is damaged" in result.stderr
    assert not [name for name in os.listdir(place) if name.startswith("x.vma")]


def test_an_export_to_a_closed_pipe_fails(program, made):
    export = program.start("export", "--format=vma", made.path, "vm1/latest", "-", text=False)
    export.stdout.close()
    assert export.wait(60) == 1 and b"cannot write standard output" in export.stderr.read()
    export.stderr.close()
