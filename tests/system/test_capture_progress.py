"""What a capture tells while it runs, and how it waits for a full repository."""

import contextlib
import json
import os
import shutil
import signal
import subprocess

import pytest
from mount import mounted
from repository import Repository, same_image, state_of
from wait import until

MIB = 1 << 20


def make_image(path, mib):
    with open(path, "wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))
    os.chmod(path, 0o644)


@pytest.fixture
def images(program, repository, place):
    """A VM of two images of the same content, registered as "disk"."""
    for name in ("vda", "vdb"):
        make_image(f"{place}/{name}.raw", 24)
    program.run("add", repository.path, "disk", f"vda=file://{place}/vda.raw", f"vdb=file://{place}/vdb.raw")


def test_json_lines_tell_of_each_disk_and_of_all(repository, images):
    result = repository.try_capture("disk", "--json", "--rate", "32M", check=True)
    assert result.stdout == f"disk/{repository.points('disk')[0]['name']}\n"
    lines = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    assert len(lines) >= 2, "nothing was said on the way"
    others = [line for line in result.stderr.splitlines() if not line.startswith("{")]
    assert len(others) == 1 and "captured in full" in others[0]
    for before, line in zip([None] + lines, lines):
        assert set(line) == {"vm", "done", "total", "rate", "disks"} and line["vm"] == "disk"
        assert [disk["name"] for disk in line["disks"]] == ["vda", "vdb"]
        assert line["done"] == sum(disk["done"] for disk in line["disks"]) <= line["total"] == 48 * MIB
        assert line["rate"] >= 0 and (not before or line["done"] >= before["done"])
    assert lines[-1]["done"] == lines[-1]["total"]


def test_nothing_but_errors_is_said_where_nobody_looks(repository, images):
    repository.capture("disk")
    result = repository.try_capture("disk", check=True)
    assert all(line.startswith("virtbackupfs: ") for line in result.stderr.splitlines()), result.stderr


@contextlib.contextmanager
def small_repository(program, place, mib):
    """One on a file system of that size, which can be made larger: grow(MIB)."""
    path = f"{place}/small"
    os.makedirs(path)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=0755", "none", path], check=True)
    try:
        shutil.chown(path, program.person.name, program.person.name)

        def grow(larger):
            subprocess.run(["mount", "-o", f"remount,size={larger}m", path], check=True)

        yield Repository(program, f"{path}/repository").init(), grow
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def fill(directory, but):
    """Takes all space of the file system but so many bytes."""
    with open(f"{directory}/filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(64 << 10))
    size = os.stat(f"{directory}/filler").st_size
    os.truncate(f"{directory}/filler", max(size - but, 0))


def waits(mount):
    return lambda: "waits" in state_of(mount / "disk/capture")


@pytest.mark.needs_root
def test_a_full_repository_is_waited_for_until_there_is_space(program, place):
    make_image(f"{place}/vda.raw", 24)
    with small_repository(program, place, 16) as (repository, grow), mounted(program, repository.path, place) as mount:
        program.run("add", repository.path, "disk", f"vda=file://{place}/vda.raw")
        process = repository.start_capture("disk", "--on-target-error", "wait")
        until(waits(mount), "the capture waits for space")
        state = state_of(mount / "disk/capture")
        assert state["state"] == "running" and "No space left" in state["waits"]
        assert state["disks"]["vda"][0] < 24 * MIB
        grow(64)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.startswith("disk/2") and "waits for space" in err
        assert state_of(mount / "disk/capture")["state"] == "idle"
        assert same_image(f"{place}/vda.raw", mount / "disk/latest/vda.raw")


@pytest.mark.needs_root
def test_what_waits_for_space_ends_at_once_when_it_is_told_to(program, place):
    make_image(f"{place}/vda.raw", 24)
    with small_repository(program, place, 16) as (repository, _), mounted(program, repository.path, place) as mount:
        program.run("add", repository.path, "disk", f"vda=file://{place}/vda.raw")
        process = repository.start_capture("disk", "--on-target-error", "wait")
        until(waits(mount), "the capture waits for space")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 1 and "interrupted" in err.splitlines()[-1], err
        assert state_of(mount / "disk/capture")["state"] == "failed"
        assert repository.stored_files("disk", "data/*") == [] and repository.points("disk") == []


@pytest.mark.needs_root
def test_a_manifest_that_finds_no_space_is_waited_for_too(program, place):
    """There is room for the state and for the layer of a disk of zeroes, a page each, and for no more."""
    with open(f"{place}/vda.raw", "wb") as file:
        file.truncate(24 * MIB)
    os.chmod(f"{place}/vda.raw", 0o644)
    with small_repository(program, place, 16) as (repository, grow), open(f"{place}/said", "w+", encoding="utf-8") as said:
        program.run("add", repository.path, "disk", f"vda=file://{place}/vda.raw")
        fill(f"{place}/small", 2 * os.sysconf("SC_PAGESIZE"))
        process = program.start("capture", repository.path, "disk", "--on-target-error", "wait", stderr=said)

        def words():
            said.seek(0)
            return said.read()

        until(lambda: "waits for space" in words() or process.poll() is not None, "the capture waits for space")
        assert process.poll() is None, words()
        assert "points/" in words(), words()
        assert repository.stored_files("disk", "points/*") == []
        grow(64)
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0, words()
        assert out.strip().split("/")[1] == repository.points("disk")[0]["name"]
        with mounted(program, repository.path, place) as mount:
            assert same_image(f"{place}/vda.raw", mount / "disk/latest/vda.raw")
