"""Where two points of a disk differ: `diff`, and DISK.changes in the mounted tree."""

import itertools
import json
import os
import subprocess

import pytest
from made import Made, flip_bit
from mount import mounted

BLOCK = 4096


def read(path):
    with open(path, "rb") as file:
        return file.read()


def truth(before, after):
    """The blocks that differ in what both have, and the size that only one has."""
    left, right = read(before), read(after)
    both = min(len(left), len(right))
    blocks = {at // BLOCK for at in range(0, both, BLOCK)
              if left[at:min(at + BLOCK, both)] != right[at:min(at + BLOCK, both)]}
    return blocks, both, max(len(left), len(right))


def blocks_of(extents, end):
    found = set()
    for extent in extents:
        if extent["start"] < end:
            stop = min(extent["start"] + extent["length"], end)
            assert extent["start"] % BLOCK == 0 and (stop % BLOCK == 0 or stop == end)
            found |= set(range(extent["start"] // BLOCK, -(-stop // BLOCK)))
    return found


def lines_of(text):
    """The extents that a text in the manner of `map` has."""
    names = ("start", "length", "state", "point")
    return [dict(zip(names, (int(start), int(length), state, point)))
            for start, length, state, point in (line.split() for line in text.splitlines()[1:])]


def test_the_extents_are_exactly_the_blocks_that_differ(program, person, place):
    made = Made(person, place, "--points", "5", "--disk=vda=6M", "--disk=vdb=1000001", "--changes", "6")
    images = made.images
    for disk in ("vda", "vdb"):
        for before, after in itertools.permutations(made.points, 2):
            extents = program.json("diff", made.path, f"vm1/{before}/{disk}", f"vm1/{after}/{disk}")
            blocks, both, _ = truth(images[before][disk], images[after][disk])
            assert blocks_of(extents, both) == blocks
            content = read(images[after][disk])
            for extent in extents:
                assert not extent.get("unreadable") and not extent.get("absent")
                if extent["zero"]:
                    assert not any(content[extent["start"]:extent["start"] + extent["length"]])
                assert extent["point"] <= after
            for one, other in itertools.pairwise(extents):
                assert one["start"] + one["length"] <= other["start"]


def test_a_point_does_not_differ_from_itself(program, person, place):
    made = Made(person, place, "--points", "2")
    path = f"vm1/{made.points[1]}/vda"
    assert program.json("diff", made.path, path, path) == []
    assert program.run("diff", made.path, path, "vm1/latest/vda").stdout.splitlines() == [
        "Start                Length               State      Point"]


def test_text_and_json_say_the_same(program, person, place):
    made = Made(person, place, "--points", "3")
    paths = [f"vm1/{made.points[0]}/vda", "vm1/latest/vda"]
    extents = program.json("diff", made.path, *paths)
    assert extents
    told = [{"start": each["start"], "length": each["length"], "state": "zero" if each["zero"] else "data",
             "point": each["point"]} for each in extents]
    assert lines_of(program.run("diff", made.path, *paths).stdout) == told


def test_what_only_the_longer_one_has_is_told(program, repository, place):
    image = f"{place}/disk.img"
    with open(image, "wb") as file:
        file.write(os.urandom(1 << 20))
    program.person.give(image)
    repository.program.run("add", repository.path, "disk", f"vda=file://{image}")
    first = repository.capture("disk", "--full")
    os.truncate(image, 3 << 20)
    second = repository.capture("disk", "--full")
    paths = [f"disk/{first}/vda", f"disk/{second}/vda"]
    grown = program.json("diff", repository.path, *paths)
    assert [(each["start"], each["length"], each["zero"]) for each in grown] == [(1 << 20, 2 << 20, True)]
    shrunk = program.json("diff", repository.path, *reversed(paths))
    assert shrunk == [{"start": 1 << 20, "length": 2 << 20, "data": False, "zero": False, "absent": True, "point": None}]
    assert "absent" in program.run("diff", repository.path, *reversed(paths)).stdout


def test_disks_of_different_vms_are_compared_by_their_bytes(program, person, place):
    made = Made(person, place, "--points", "1", "--seed", "5")
    other = made.more("--points", "1", "--seed", "5", "--vm", "vm2")
    assert program.json("diff", made.path, f"vm1/{made.points[0]}/vda", f"vm2/{other[0]}/vda") == []


def test_what_cannot_be_read_is_said_and_nothing_else_is_lost(program, person, place):
    made = Made(person, place, "--points", "2", "--codec", "none", "--disk=vda=4M")
    first, second = made.points
    paths = [f"vm1/{first}/vda", f"vm1/{second}/vda"]
    whole = program.json("diff", made.path, *paths)
    flip_bit(os.path.join(made.capture_directory(second), "vda.layer"), 8192)
    result = program.run("diff", made.path, *paths, "--json", check=False)
    assert result.returncode == 3 and "vda.layer" in result.stderr
    damaged = json.loads(result.stdout)
    lost = [each for each in damaged if each.get("unreadable")]
    assert lost
    end = 4 << 20
    assert blocks_of(damaged, end) >= blocks_of(whole, end) - blocks_of(lost, end)
    assert blocks_of([each for each in damaged if not each.get("unreadable")], end) <= blocks_of(whole, end)


@pytest.mark.parametrize("words, says", [
    (["vm1/latest", "vm1/latest/vda"], "names no disk"),
    (["vm1/latest/vda", "vm1/latest/vdz"], "has neither a disk nor a partition vdz"),
    (["vm1/latest/vda", "vm1/latest/vda1"], "has neither a disk nor a partition vda1"),
    (["vm1/2020-01-01T000000Z/vda", "vm1/latest/vda"], "has no point"),
])
def test_what_is_no_disk_is_refused(program, person, place, words, says):
    made = Made(person, place, "--points", "1")
    result = program.run("diff", made.path, *words, check=False)
    assert result.returncode == 1 and says in result.stderr and result.stdout == ""


def test_changes_are_what_was_stored_since_the_parent(program, person, place):
    made = Made(person, place, "--points", "4", "--disk=vda=6M", "--disk=vdb=1000001")
    images = made.images
    with mounted(program, made.path, place) as mount:
        assert not os.path.exists(mount / f"vm1/{made.points[0]}/vda.changes"), "a full point has no parent"
        for before, after in itertools.pairwise(made.points):
            for disk in ("vda", "vdb"):
                with open(mount / f"vm1/{after}/{disk}.changes", encoding="utf-8") as file:
                    text = file.read()
                blocks, both, _ = truth(images[before][disk], images[after][disk])
                assert blocks_of(lines_of(text), both) >= blocks
                assert all(extent["point"] == after for extent in lines_of(text))
                assert text == program.run("diff", "--maps", made.path, f"vm1/{before}/{disk}", f"vm1/{after}/{disk}").stdout


def test_partitions_are_compared_and_mapped_by_their_names(program, repository, place):
    image = f"{place}/disk.img"
    with open(image, "wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["sfdisk", "-q", image], input="label: gpt\nsize=10M\nsize=10M\n", text=True, check=True,
                   capture_output=True)
    program.person.give(image)
    program.run("add", repository.path, "disk", f"vda=file://{image}")
    first = repository.capture("disk", "--full")
    with open(image, "r+b") as file:
        file.seek((11 << 20) + BLOCK * 3)
        file.write(b"new")
    second = repository.capture("disk", "--full")
    paths = [f"disk/{point}/vda" for point in (first, second)]
    assert [each["start"] for each in program.json("diff", repository.path, *paths)] == [(11 << 20) + BLOCK * 3]
    assert program.json("diff", repository.path, *(f"{path}1" for path in paths)) == []
    assert [each["start"] for each in program.json("diff", repository.path, *(f"{path}2" for path in paths))] == [BLOCK * 3]
    extents = program.json("map", repository.path, f"disk/{second}/vda2")
    assert sum(each["length"] for each in extents) == 10 << 20 and extents[0]["start"] == 0
