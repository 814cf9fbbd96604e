"""The partitions of disks, as files beside them."""

import contextlib
import filecmp
import glob
import json
import os
import random
import shutil
import subprocess

import pytest
from mount import mounted

MIB = 1 << 20
# Names of disks, and what sfdisk is told to make of each.
TABLES = {
    "gpt": 'label: gpt\nsize=8M,type=U,name="EFI system"\nsize=20M\n3: size=3M,type=swap\n9: size=9M\n',
    "mbr": "label: dos\nsize=8M,type=c,bootable\nsize=20M,type=83\nsize=3M,type=82\n",
    "logical": "label: dos\nsize=8M,type=7\nsize=80M,type=5\n3: size=4M\n" + "".join(f"size={n}M,type=83\n"
                                                                                     for n in range(3, 11)),
    "nvme0n1": "label: gpt\nsize=5M\nsize=6M\n",
    "sun": "label: sun\nsize=16M\nsize=16M\n",
}
DISK_SIZE = 128 * MIB


def make_table(path, script):
    with open(path, "wb") as file:
        file.truncate(DISK_SIZE)
    subprocess.run(["sfdisk", "-q", path], input=script, text=True, check=True, capture_output=True)


def table_of(path):
    return json.loads(subprocess.run(["sfdisk", "--json", path], capture_output=True, text=True, check=True).stdout)[
        "partitiontable"]


def scatter(path, seed, places=200):
    """Random bytes here and there in the partitions, whose tables stay as they are."""
    dice = random.Random(seed)
    with open(path, "r+b") as file:
        for partition in table_of(path)["partitions"]:
            if partition["type"] == "5":
                continue
            start, size = partition["start"] * 512, partition["size"] * 512
            for _ in range(places // 10):
                offset = dice.randrange(0, size - 5000) // 512 * 512
                # The first megabyte is kept free of what could be taken for a file system.
                file.seek(start + max(offset, MIB))
                file.write(dice.randbytes(dice.randrange(1, 5000)))


def make_filesystem(kind, path, offset, size, label):
    """One in a part of an image, made apart and put into its place."""
    apart = path + ".part"
    with open(apart, "wb") as file:
        file.truncate(size)
    command = {
        "ext4": ["mkfs.ext4", "-q", "-L", label],
        "vfat": ["mkfs.vfat", "-F", "32", "-n", label.upper()],
        "exfat": ["mkfs.exfat", "-L", label],
        "ntfs": ["mkntfs", "-q", "-F", "-L", label],
        "btrfs": ["mkfs.btrfs", "-q", "-L", label],
        "xfs": ["mkfs.xfs", "-q", "-L", label],
        "swap": ["mkswap", "-L", label],
    }[kind]
    subprocess.run([*command, apart], check=True, capture_output=True)
    subprocess.run(["dd", f"if={apart}", f"of={path}", "bs=1M", f"seek={offset // MIB}", "conv=notrunc,sparse"], check=True,
                   capture_output=True)
    os.remove(apart)


def capture(repository, place, images, name="disks"):
    """A VM whose disks are these image files, and a point of it; the point's name."""
    uris = [f"{disk}=file://{path}" for disk, path in images.items()]
    repository.program.run("add", repository.path, name, *uris)
    return repository.capture(name, "--full")


def info(mount, point, name="disks"):
    with open(mount / f"{name}/{point}/info.json", encoding="utf-8") as file:
        return {disk["name"]: disk for disk in json.load(file)["disks"]}


def read_at(path, offset, size):
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


@contextlib.contextmanager
def shown(program, repository, place, images):
    for path in images.values():
        program.person.give(path)
    point = capture(repository, place, images)
    with mounted(program, repository.path, place) as mount:
        yield mount, point


def assert_files_are_slices(mount, point, images):
    """Every partition that is said to be readable is a file with the bytes of its place on the disk, and no other is one."""
    for disk, described in info(mount, point).items():
        files = {os.path.basename(path) for path in glob.glob(mount / f"disks/{point}/{disk}*.raw")} - {f"{disk}.raw"}
        assert files == {f"{part['name']}.raw" for part in described["partitions"] if part["readable"]}
        for part in described["partitions"]:
            if part["readable"]:
                path = mount / f"disks/{point}/{part['name']}.raw"
                assert os.stat(path).st_size == part["size"]
                with open(path, "rb") as file:
                    assert file.read() == read_at(images[disk], part["start"], part["size"]), part["name"]


def test_tables_of_every_kind_are_read_as_sfdisk_does(program, repository, place):
    images = {disk: f"{place}/{disk}.img" for disk in TABLES}
    for number, (disk, path) in enumerate(images.items()):
        make_table(path, TABLES[disk])
        scatter(path, number)
    with shown(program, repository, place, images) as (mount, point):
        for disk, described in info(mount, point).items():
            table = table_of(images[disk])
            assert described["table"] == table["label"]
            assert described["sector_size"] == table["sectorsize"]
            assert "table_reason" not in described
            theirs = []
            for part in table["partitions"]:
                number = part["node"].removeprefix(images[disk]).removeprefix("p")
                theirs.append((int(number), part["start"] * 512, part["size"] * 512))
            ours = [(part["number"], part["start"], part["size"]) for part in described["partitions"]]
            assert [part for part in ours] == sorted(theirs)
            for part, other in zip(described["partitions"], sorted(table["partitions"], key=lambda each: each["start"])):
                if table["label"] == "gpt":
                    assert part["type"] == other["type"].lower() and part["partition_uuid"] == other["uuid"].lower()
                    assert part.get("partition_label") == other.get("name")
        assert os.path.exists(mount / f"disks/{point}/nvme0n1p2.raw")
        assert os.path.exists(mount / f"disks/{point}/gpt9.raw")
        assert not os.path.exists(mount / f"disks/{point}/logical2.raw"), "the extended partition holds the others"
        assert_files_are_slices(mount, point, images)


def test_file_systems_have_their_type_label_and_uuid(program, repository, place):
    kinds = {"ext4": 20, "vfat": 40, "exfat": 20, "ntfs": 20, "btrfs": 120, "xfs": 310, "swap": 8}
    image = f"{place}/many.img"
    with open(image, "wb") as file:
        file.truncate((sum(kinds.values()) + 2) * MIB)
    subprocess.run(["sfdisk", "-q", image], input="label: gpt\n" + "".join(f"size={size}M\n" for size in kinds.values()),
                   text=True, check=True, capture_output=True)
    offset = MIB
    for kind, size in kinds.items():
        make_filesystem(kind, image, offset, size * MIB, f"my{kind}")
        offset += size * MIB
    with shown(program, repository, place, {"vda": image}) as (mount, point):
        parts = info(mount, point)["vda"]["partitions"]
        assert [part["filesystem"] for part in parts] == list(kinds)
        for part in parts:
            told = subprocess.run(["blkid", "-p", "-o", "export", "-O", str(part["start"]), "-S", str(part["size"]), image],
                                  capture_output=True, text=True, check=True).stdout
            values = dict(line.split("=", 1) for line in told.splitlines())
            assert (part.get("label"), part["uuid"]) == (values["LABEL"], values["UUID"])


def test_sectors_of_4096_bytes_are_noticed(program, repository, place):
    image = f"{place}/large.img"
    with open(image, "wb") as file:
        file.truncate(DISK_SIZE)
    subprocess.run(["fdisk", "-b", "4096", image], input="g\nn\n1\n\n+10M\nn\n2\n\n+20M\nw\n", text=True, check=True,
                   capture_output=True)
    with shown(program, repository, place, {"vda": image}) as (mount, point):
        described = info(mount, point)["vda"]
        assert described["sector_size"] == 4096
        assert [(part["start"], part["size"]) for part in described["partitions"]] == [(MIB, 10 * MIB), (11 * MIB, 20 * MIB)]
        assert_files_are_slices(mount, point, {"vda": image})


def test_an_mbr_of_4096_byte_sectors_is_known_by_what_it_leads_to(program, repository, place):
    image = f"{place}/large.img"
    with open(image, "wb") as file:
        file.truncate(DISK_SIZE)
    subprocess.run(["fdisk", "-b", "4096", image], input="o\nn\np\n1\n\n+40M\nw\n", text=True, check=True,
                   capture_output=True)
    make_filesystem("ext4", image, MIB, 40 * MIB, "root")
    with shown(program, repository, place, {"vda": image}) as (mount, point):
        described = info(mount, point)["vda"]
        assert described["sector_size"] == 4096
        assert [(part["start"], part["size"], part["label"])
                for part in described["partitions"]] == [(MIB, 40 * MIB, "root")]


def test_a_disk_without_a_table_says_what_it_is(program, repository, place):
    images = {"vda": f"{place}/whole.img", "vdb": f"{place}/empty.img", "vdc": f"{place}/fat.img"}
    for path in images.values():
        with open(path, "wb") as file:
            file.truncate(40 * MIB)
    make_filesystem("ext4", images["vda"], 0, 40 * MIB, "whole")
    make_filesystem("vfat", images["vdc"], 0, 40 * MIB, "fat")
    with shown(program, repository, place, images) as (mount, point):
        described = info(mount, point)
        assert (described["vda"]["filesystem"], described["vda"]["label"]) == ("ext4", "whole")
        assert described["vdc"]["filesystem"] == "vfat"
        assert "filesystem" not in described["vdb"]
        for disk in described.values():
            assert disk["partitions"] == [] and "table" not in disk and "table_reason" not in disk


def break_table(path, how):
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        if how in ("first", "both"):
            file.seek(512 + 8)
            file.write(b"\xff" * 8)
        if how == "both":
            file.seek(size - 512 + 8)
            file.write(b"\xff" * 8)
        if how == "cut":
            file.truncate(20 * MIB)
        if how == "loop":
            # The second record of the logical partitions leads back to the first.
            part = table_of(path)["partitions"]
            start = next(each["start"] for each in part if each["type"] == "5") * 512
            file.seek(start + 446 + 16 + 8)
            file.write(bytes(4))


def test_a_broken_table_says_why_and_shows_what_can_be_read(program, repository, place):
    plan = {"first": "gpt", "both": "gpt", "cut": "mbr", "loop": "logical"}
    images = {how: f"{place}/{how}.img" for how in plan}
    for how, path in images.items():
        make_table(path, TABLES[plan[how]])
        break_table(path, how)
    with shown(program, repository, place, images) as (mount, point):
        described = info(mount, point)
        assert "copy at the disk's end" in described["first"]["table_reason"]
        assert len(described["first"]["partitions"]) == 4
        assert "no copy is valid" in described["both"]["table_reason"]
        assert described["both"]["partitions"] == []
        assert glob.glob(mount / f"disks/{point}/both*.raw") == [mount / f"disks/{point}/both.raw"]
        cut = {part["number"]: part for part in described["cut"]["partitions"]}
        assert cut[1]["readable"] and not cut[2]["readable"] and "within the disk" in cut[2]["reason"]
        assert not os.path.exists(mount / f"disks/{point}/cut2.raw")
        assert [part["number"] for part in described["loop"]["partitions"]][:5] == [1, 2, 3, 4, 5]
        for how, path in images.items():
            assert filecmp.cmp(path, mount / f"disks/{point}/{how}.raw", shallow=False)


def test_partitions_within_a_bsd_slice_are_numbered_as_linux_does(program, repository, place):
    image = f"{place}/bsd.img"
    with open(image, "wb") as file:
        file.truncate(DISK_SIZE)
    words = "o n p 1 2048 +60M t a5 n p 2 124928 +20M b y n a 4096 +20M t a 7 n b 48000 +10M t b 7 w r w"
    subprocess.run(["fdisk", image], input="\n".join(words.split()) + "\n", text=True, check=True, capture_output=True)
    with shown(program, repository, place, {"vda": image}) as (mount, point):
        assert [(part["number"], part["start"], part["table"]) for part in info(mount, point)["vda"]["partitions"]] == [
            (1, MIB, "dos"), (2, 61 * MIB, "dos"), (5, 4096 * 512, "freebsd"), (6, 48000 * 512, "freebsd")]
        assert_files_are_slices(mount, point, {"vda": image})


def test_holes_and_blocks_are_those_of_the_place(program, repository, place):
    image = f"{place}/holes.img"
    make_table(image, TABLES["mbr"])
    with open(image, "r+b") as file:
        for offset in (MIB, 5 * MIB, 10 * MIB, 11 * MIB + 65536):
            file.seek(offset)
            file.write(os.urandom(65536))
    with shown(program, repository, place, {"vda": image}) as (mount, point):
        first, second, third = (mount / f"disks/{point}/vda{number}.raw" for number in (1, 2, 3))
        assert [os.stat(path).st_blocks * 512 for path in (first, second, third)] == [131072, 131072, 0]
        with open(first, "rb") as file:
            fd = file.fileno()
            assert os.lseek(fd, 0, os.SEEK_DATA) == 0
            assert os.lseek(fd, 0, os.SEEK_HOLE) == 65536
            assert os.lseek(fd, 65536, os.SEEK_DATA) == 4 * MIB
            # What follows is another partition's.
            with pytest.raises(OSError):
                os.lseek(fd, 4 * MIB + 65536, os.SEEK_DATA)
            assert os.lseek(fd, 4 * MIB + 65536, os.SEEK_HOLE) == 4 * MIB + 65536
        with open(third, "rb") as file:
            assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 0
            assert os.lseek(file.fileno(), 0, os.SEEK_END) == 3 * MIB
            assert os.pread(file.fileno(), 100, 3 * MIB - 10) == bytes(10)


def test_names_and_numbers_stay_the_same_over_remounts(program, repository, place):
    image = f"{place}/logical.img"
    make_table(image, TABLES["logical"])
    seen = []
    with shown(program, repository, place, {"vda": image}) as (mount, point):
        seen.append({name: os.stat(mount / f"disks/{point}/{name}").st_ino for name in os.listdir(mount / f"disks/{point}")})
        assert len(set(seen[0].values())) == len(seen[0])
    with mounted(program, repository.path, place) as mount:
        # A single name is found without a listing before it.
        assert os.stat(mount / f"disks/{point}/vda7.raw").st_ino == seen[0]["vda7.raw"]
        for name in ("vda99.raw", "vda.raw1", "vda1", "vda01.raw", "vda5.raw.raw"):
            assert not os.path.exists(mount / f"disks/{point}/{name}")
        seen.append({name: os.stat(mount / f"disks/{point}/{name}").st_ino for name in os.listdir(mount / f"disks/{point}")})
    assert seen[0] == seen[1]


def test_a_disk_has_its_name_before_a_partition(program, repository, place):
    images = {"vda": f"{place}/vda.img", "vda1": f"{place}/vda1.img"}
    make_table(images["vda"], TABLES["mbr"])
    with open(images["vda1"], "wb") as file:
        file.write(os.urandom(MIB))
    with shown(program, repository, place, images) as (mount, point):
        assert filecmp.cmp(images["vda1"], mount / f"disks/{point}/vda1.raw", shallow=False)
        names = os.listdir(mount / f"disks/{point}")
        assert len(names) == len(set(names)) and "vda2.raw" in names


def loop(*arguments):
    return subprocess.run(["losetup", *arguments], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.needs_root
@pytest.mark.parametrize("kind, size", [("ext4", 20), ("xfs", 310), ("btrfs", 120)])
def test_the_kernel_mounts_a_partition_through_loop(program, repository, place, kind, size):
    image, tree = f"{place}/disk.img", f"{place}/tree"
    shutil.copytree(os.path.dirname(__file__), f"{tree}/some/tests")
    with open(image, "wb") as file:
        file.truncate((size + 20) * MIB)
    subprocess.run(["sfdisk", "-q", image], input=f"label: gpt\nsize=10M\nsize={size}M\n", text=True, check=True,
                   capture_output=True)
    make_filesystem(kind, image, 11 * MIB, size * MIB, "root")
    target = f"{place}/fs"
    os.mkdir(target)
    options = "ro" if kind == "ext4" else "ro,norecovery" if kind == "xfs" else "ro"
    device = loop("--find", "--show", "-o", str(11 * MIB), "--sizelimit", str(size * MIB), image)
    subprocess.run(["mount", device, target], check=True)
    shutil.copytree(tree, f"{target}/tree")
    subprocess.run(["umount", target], check=True)
    loop("--detach", device)
    with shown(program, repository, place, {"vda": image}) as (mount, point):
        subprocess.run(["mount", "-o", f"{options},loop", mount / f"disks/{point}/vda2.raw", target], check=True)
        try:
            compared = subprocess.run(["rsync", "-n", "-a", "--delete", "--checksum", "--itemize-changes", f"{tree}/",
                                       f"{target}/tree/"], capture_output=True, text=True, check=True)
            assert compared.stdout == ""
        finally:
            subprocess.run(["umount", target], check=True)
