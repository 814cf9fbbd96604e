"""Disks that are to be captured, and those that are not."""

import os

import pytest
from truth import Truth
from vm import MIB, VM, Disk


@pytest.fixture
def vm(session):
    with VM(session, "choosy", [Disk("vda", 4 * MIB), Disk("vdb", 2 * MIB), Disk("vdc", 2 * MIB, "raw")]) as vm:
        vm.start()
        yield vm


def add(repository, vm, *options):
    repository.program.run("add", repository.path, vm.name, vm.hypervisor.uri, *options)


def bitmaps(vm, target):
    nodes = vm.monitor({"execute": "query-named-block-nodes", "arguments": {"flat": True}})["return"]
    return [bitmap["name"] for node in nodes if node.get("file") == vm.disk(target).path
            for bitmap in node.get("dirty-bitmaps", [])]


@pytest.mark.parametrize("options", [("--exclude", "vdb"), ("--include", "vda", "--include", "vdc"),
                                     ("--include", "vda", "--include", "vdb", "--include", "vdc", "--exclude", "vdb")])
def test_a_disk_that_is_left_out_is_not_touched(vm, repository, place, options):
    add(repository, vm, *options)
    truth = Truth(repository, vm, place)
    for number in (1, 2):
        vm.io("vda", f"write -P {number} {number}M 64k")
        vm.io("vdb", f"write -P {number} 1M 64k")
        point = truth.capture(targets=["vda", "vdc"])
        assert set(repository.kinds(vm, point)) == {"vda", "vdc"}
    assert bitmaps(vm, "vda") and not bitmaps(vm, "vdb")
    vm.shut_down()
    os.unlink(vm.disk("vdb").path)  # nor is it looked at
    truth.capture("--incremental", targets=["vda", "vdc"])
    truth.check()


def test_a_name_that_no_disk_has_is_told(vm, repository):
    add(repository, vm, "--exclude", "vdx")
    result = repository.try_capture(vm, check=True)
    assert "it has no disk vdx" in result.stderr
    assert set(repository.kinds(vm, repository.points(vm)[-1]["name"])) == {"vda", "vdb", "vdc"}


def test_where_nothing_is_left_nothing_is_captured(vm, repository):
    add(repository, vm, "--include", "vdx")
    result = repository.try_capture(vm)
    assert result.returncode == 1 and "no disk that could be captured" in result.stderr, result.stderr
    assert not vm.has_job() and repository.points(vm) == []


def test_the_choice_can_be_another_after_forgetting(vm, repository, program):
    add(repository, vm, "--exclude", "vdb")
    repository.capture(vm)
    program.run("forget", repository.path, vm.name)
    add(repository, vm)
    point = repository.capture(vm)
    assert repository.kinds(vm, point)["vdb"] == "full"


def test_a_name_that_cannot_be_is_refused(vm, repository):
    result = repository.program.run("add", repository.path, vm.name, vm.hypervisor.uri, "--exclude", "../x", check=False)
    assert result.returncode == 1 and "cannot be a disk's name" in result.stderr, result.stderr
    assert repository.list() == []
