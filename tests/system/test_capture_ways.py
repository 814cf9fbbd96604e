"""The ways to capture a VM besides the usual one: differential, with a threshold, only the top, other codecs."""

import os

import pytest
from mount import mounted
from repository import same_image, state_of
from truth import Truth
from vm import MIB, VM, Disk


@pytest.fixture
def vm(session, repository):
    with VM(session, "ways", [Disk("vda", 16 * MIB), Disk("vdb", 4 * MIB)]) as started:
        started.start()
        repository.add(started)
        started.io("vda", "write -P 1 0 16M")
        started.io("vdb", "write -P 2 1M 1M")
        yield started


@pytest.fixture
def truth(repository, vm, place):
    return Truth(repository, vm, place)


def our_checkpoints(vm):
    return {name for name in vm.checkpoints() if name.startswith("virtbackupfs-")}


def stored(repository, vm, point):
    return repository.point(vm, point)["stored"]


def test_differential_points_hold_all_since_the_full_one_and_need_no_other(repository, vm, truth):
    full = truth.capture("--full", "--codec", "none")
    checkpoints = {full: repository.point(vm, full)["checkpoint"]}
    points = []
    for number in range(3):
        vm.io("vda", f"write -P {16 + number} {number * 2}M 1M")
        points.append(truth.capture("--differential", "--codec", "none"))
        checkpoints[points[-1]] = repository.point(vm, points[-1])["checkpoint"]
        assert our_checkpoints(vm) == {checkpoints[full], checkpoints[points[-1]]}
        vm.io("vdb", f"write -P {16 + number} 2M 64k")
        between = truth.capture("--incremental")
        assert repository.point(vm, between)["parent"] == points[-1]
        assert our_checkpoints(vm) == {checkpoints[full], repository.point(vm, between)["checkpoint"]}
    for number, point in enumerate(points):
        described = repository.point(vm, point)
        assert (described["kind"], described["parent"]) == ("differential", full)
        assert repository.kinds(vm, point) == {"vda": "differential", "vdb": "differential"}
        assert (number + 1) * MIB < described["stored"] < (number + 2) * MIB
        holders = {each["point"] for each in repository.program.json("map", repository.path, f"ways/{point}/vda")}
        assert holders == {full, point}
    truth.check()
    newer = truth.capture("--full")
    assert our_checkpoints(vm) == {repository.point(vm, newer)["checkpoint"]}
    truth.check()


def test_a_differential_point_without_the_full_ones_checkpoint_is_compared(repository, vm, truth):
    full = truth.capture()
    vm.io("vda", "write -P 16 2M 1M")
    truth.capture("--incremental")
    vm.io("vda", "write -P 17 4M 1M", "write -z -u 6M 1M")
    references = truth.look()
    result = repository.try_capture(vm, "--differential", "--codec", "none", check=True)
    point = truth.keep(result.stdout.strip().split("/")[1], references)
    assert f"ways/vda: compared with {full}, as the checkpoint of {full} was not kept" in result.stderr
    assert repository.point(vm, point)["parent"] == full
    assert 2 * MIB < stored(repository, vm, point) < 3 * MIB
    truth.check()


def test_a_threshold_that_is_not_reached_leaves_all_as_it_was(repository, vm, truth, place, program):
    last = truth.capture()
    vm.io("vda", "write -P 3 1M 192k")
    vm.io("vdb", "write -z -u 1M 64k")
    kept = our_checkpoints(vm)
    for _ in range(2):
        result = repository.try_capture(vm, "--threshold", "262145", check=True)
        assert result.stdout == "" and len(result.stderr.splitlines()) == 1
        assert f"nothing was captured: 262144 bytes changed since {last}, less than 262145" in result.stderr
        assert our_checkpoints(vm) == kept and not vm.has_job()
        assert os.listdir(f"{repository.directory(vm)}/data") == [os.path.basename(os.path.dirname(path)) for path in
                                                                 repository.stored_files(vm, "data/*/vda.layer")]
        with mounted(program, repository.path, place) as mount:
            state = state_of(mount / "ways/capture")
            assert (state["state"], state["last"]) == ("idle", last)
    truth.check()
    point = truth.capture("--threshold", "256K", "--incremental")
    assert stored(repository, vm, point) > 0
    truth.check()


def test_only_the_top_is_refused_where_the_source_cannot_tell(repository, vm, truth):
    truth.capture()
    kept = our_checkpoints(vm)
    result = repository.try_capture(vm, "--top")
    assert result.returncode == 1 and result.stdout == "" and len(result.stderr.splitlines()) == 1
    assert "libvirt" in result.stderr
    assert our_checkpoints(vm) == kept and not vm.has_job()
    truth.check()


@pytest.mark.parametrize("options", [["--codec", "zstd:19"], ["--codec", "lz4:50"], ["--codec", "none"],
                                     ["--no-zero-detection"],
                                     ["--no-freeze", "--rate", "100M", "--memory", "8M"], ["--compare"]])
def test_a_point_is_the_same_whatever_it_costs(repository, vm, truth, options):
    truth.capture(*options)
    vm.io("vda", "write -P 9 5M 3M", "write -z -u 10M 2M")
    truth.capture("--incremental", *options)
    truth.check()


def test_a_bitmap_that_is_kept_since_the_full_point_serves_differential_ones(person, repository, place, program):
    image = f"{place}/disk.qcow2"
    person.run("qemu-img", "create", "-q", "-f", "qcow2", image, "16M")
    person.run("qemu-io", "-c", "write -P 1 0 8M", image)
    person.run("qemu-img", "bitmap", "--add", image, "since")
    program.run("add", repository.path, "disk", f"vda=file://{image}?format=qcow2&bitmap=since")
    full = repository.capture("disk", "--full")
    for number, kind in enumerate(("incremental", "differential", "incremental", "differential")):
        person.run("qemu-io", "-c", f"write -P {16 + number} {number}M 64k", image)
        result = repository.try_capture("disk", f"--{kind}", check=True)
        point = result.stdout.strip().split("/")[1]
        assert "compared" not in result.stderr
        assert repository.kinds("disk", point) == {"vda": kind}
        if kind == "differential":
            assert repository.point("disk", point)["parent"] == full
    person.run("qemu-img", "convert", "-O", "raw", image, f"{place}/now.raw")
    with mounted(program, repository.path, place) as mount:
        assert same_image(f"{place}/now.raw", mount / "disk/latest/vda.raw")
