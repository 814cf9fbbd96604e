"""A QEMU without libvirt, reached by its monitor."""

import pytest

from qemu import Qemu
from repository import same_image
from truth import Truth
from vm import MIB, Disk


@pytest.fixture
def vm(person, place):
    with Qemu(person, place, "vm", [Disk("vda", 24 * MIB), Disk("vdb", 9 * MIB, format="raw")]) as qemu:
        yield qemu


def add(repository, vm, **options):
    return repository.add(vm, uri=vm.uri, **options)


def clean(vm):
    assert vm.job_parts() == []


def test_full_and_incremental_points_show_both_disks_as_they_were(repository, vm, place):
    truth = Truth(repository, vm, place)
    add(repository, vm)
    vm.io("vda", "write -P 0x11 0 3M", "write -P 0x12 20M 1M")
    vm.io("vdb", "write -P 0x13 1M 2M")
    first = truth.capture()
    clean(vm)
    assert repository.kinds(vm, first) == {"vda": "full", "vdb": "full"}
    vm.io("vda", "write -P 0x21 1M 64k", "write -z -u 20M 1M", "discard 2M 64k")
    vm.io("vdb", "write -P 0x23 2M 64k")
    second = truth.capture("--incremental")
    assert repository.kinds(vm, second) == {"vda": "incremental", "vdb": "incremental"}
    vm.io("vda", "write -P 0x31 8M 64k")
    third = truth.capture("--incremental")
    assert repository.point(vm, third)["stored"] < MIB
    clean(vm)
    names = vm.bitmaps()
    assert names["vda"] == names["vdb"] == [repository.point(vm, third)["checkpoint"]]
    truth.check()
