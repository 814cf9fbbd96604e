"""A VM that is shut off: its images are read, by their bitmaps, and nothing keeps it from starting."""

import os
import signal

import pytest
from program import processes_of
from slow import Progress, slowed
from truth import Truth
from vm import MIB, VM, Disk, random_image
from wait import until


class Case:
    def __init__(self, hypervisor, repository, place, name="resting", disks=None):
        self.vm = VM(hypervisor, name, [Disk("vda", 8 * MIB), Disk("vdb", 3 * MIB, "raw")] if disks is None else disks)
        self.repository = repository
        self.truth = Truth(repository, self.vm, place)

    def change(self, number):
        self.vm.io("vda", f"write -P {number} {number * 100}k 300k", "write -z -u 5M 64k")
        self.vm.io("vdb", f"write -P {number} {number}k 20k")

    def capture(self, kind=None, *options):
        point = self.truth.capture(*options)
        if kind:
            assert self.repository.kinds(self.vm, point)["vda"] == kind
        return point

    def checkpoint(self, point):
        return self.repository.point(self.vm, point)["checkpoint"]


@pytest.fixture
def case(session, repository, place):
    case = Case(session, repository, place)
    case.vm.start()
    repository.add(case.vm)
    yield case
    case.vm.remove()


def test_points_of_a_vm_that_runs_and_rests_by_turns(case):
    case.change(1)
    kept = case.checkpoint(case.capture("full"))
    for number in range(2, 5):
        case.change(number)
        case.vm.shut_down()
        assert case.checkpoint(case.capture("incremental")) == kept
        assert case.checkpoint(case.capture("incremental", "--incremental")) == kept
        case.vm.start()
        case.change(number + 10)
        kept = case.checkpoint(case.capture("incremental", "--incremental"))
        assert [name for name in case.vm.checkpoints() if "virtbackupfs" in name] == [kept]
    case.truth.check()


def test_a_vm_that_never_ran(session, repository, place):
    case = Case(session, repository, place, "unborn")
    case.vm.define()
    try:
        repository.add(case.vm)
        point = case.capture("full")
        assert case.checkpoint(point) is None
        case.capture()
        case.vm.start()
        case.change(3)
        case.capture()
        case.change(4)
        case.capture("incremental")
        case.truth.check()
    finally:
        case.vm.remove()


def test_a_full_point_of_a_vm_that_is_off_rests_on_the_checkpoint_that_is_there(case):
    kept = case.checkpoint(case.capture("full"))
    case.change(2)
    case.vm.shut_down()
    assert case.checkpoint(case.capture("full", "--full")) == kept
    case.vm.start()
    case.change(3)
    new = case.checkpoint(case.capture("incremental", "--incremental"))
    assert [name for name in case.vm.checkpoints() if "virtbackupfs" in name] == [new]
    case.truth.check()


@pytest.mark.parametrize("stored", ["never stored", "inconsistent"])
def test_a_vm_whose_qemu_was_killed(case, stored):
    case.capture("full")
    if stored == "inconsistent":
        case.vm.shut_down()
        case.vm.start()
    case.change(2)
    case.vm.kill()
    refused = case.repository.try_capture(case.vm, "--incremental")
    assert refused.returncode == 1 and "bitmap" in refused.stderr, refused.stderr
    assert "inconsistent" in refused.stderr or stored == "never stored", refused.stderr
    references = case.truth.look()
    result = case.repository.try_capture(case.vm, check=True)
    assert "bitmap" in result.stderr
    case.truth.keep(result.stdout.strip().split("/")[1], references)
    case.vm.start()
    case.change(3)
    new = case.checkpoint(case.capture())
    assert [name for name in case.vm.checkpoints() if "virtbackupfs" in name] == [new]
    case.truth.check()


@pytest.fixture
def slow_case(session, repository, place, person):
    """One whose disk takes a while to read."""
    case = Case(session, repository, place, "waking", [])
    image = random_image(person, f"{case.vm.directory}/vda.qcow2", 128 * MIB, 96 * MIB)
    case.vm.disks.append(Disk("vda", 128 * MIB, path=image))
    case.vm.start()
    repository.add(case.vm)
    case.capture("full")
    case.vm.io("vda", "write -P 7 1M 1M")
    case.vm.shut_down()
    yield case
    case.vm.remove()


def begun(case, *options):
    progress = Progress(case.repository, case.vm)
    process = case.repository.start_capture(case.vm, *options)
    return progress, process


def nothing_left(case):
    path = case.repository.program.program.path
    until(lambda: not processes_of(path, case.repository.path, case.vm.name), "nothing of the capture runs")
    tag = case.vm.uuid[:8]
    assert not [name for name in os.listdir("/var/tmp") if "virtbackupfs" in name and tag in name]
    servers = [pid for pid in os.listdir("/proc") if pid.isdigit() and is_server(pid, case.vm.disk("vda").path)]
    assert not servers, "an NBD server is left"
    assert len(case.repository.stored_files(case.vm, "data/*")) == len(case.truth.points)


def is_server(pid, image):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().decode(errors="replace")
        return "qemu-nbd" in words and image in words
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return False


def test_it_starts_while_it_is_captured(slow_case):
    progress, process = begun(slow_case, "--full")
    with slowed(process.pid):
        progress.wait(MIB, process)
        slow_case.vm.virsh("start", "--paused")
        slow_case.vm.io("vda", "write -P 9 100M 8M")
        out, err = process.communicate(timeout=120)
    assert process.returncode == 1 and "was started while it was captured" in err, out + err
    assert slow_case.vm.state() == "paused"
    nothing_left(slow_case)
    slow_case.capture("incremental", "--incremental")
    slow_case.truth.check()


def test_an_image_that_is_written_to_while_it_is_captured(slow_case):
    progress, process = begun(slow_case, "--full")
    with slowed(process.pid):
        progress.wait(MIB, process)
        slow_case.vm.person.run("qemu-io", "-f", "qcow2", "-c", "write -P 8 50M 1M", slow_case.vm.disk("vda").path)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 1 and "was written to" in err, out + err
    nothing_left(slow_case)
    slow_case.capture("incremental")
    slow_case.truth.check()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_capture_that_ends_early_leaves_nothing(slow_case, how):
    progress, process = begun(slow_case, "--full")
    with slowed(process.pid):
        progress.wait(MIB, process)
        process.send_signal(how)
        process.communicate(timeout=60)
    assert process.returncode != 0
    nothing_left(slow_case)
    slow_case.capture("incremental", "--incremental")
    slow_case.truth.check()


def test_a_snapshot_taken_since_the_last_point(session, repository, place, person):
    case = Case(session, repository, place, "layered", [Disk("vda", 8 * MIB)])
    try:
        case.vm.start()
        repository.add(case.vm)
        case.vm.io("vda", "write -P 1 1M 1M")
        case.capture("full")
        case.vm.io("vda", "write -P 2 2M 1M")
        case.vm.shut_down()
        base = case.vm.disk("vda").path
        top = f"{case.vm.directory}/top.qcow2"
        person.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, top)
        case.vm.disks = [Disk("vda", 8 * MIB, path=top)]
        case.vm.define()
        result = repository.try_capture(case.vm, "--incremental")
        assert result.returncode == 1 and "bitmap" in result.stderr, result.stderr
        case.capture()
        case.truth.check()
        # Nor does a backing file whose format is not told count for what it may not be.
        with open(top, "r+b") as file:
            header = file.read(4096)
            file.seek(header.index(bytes.fromhex("e2792aca")))  # the header extension that tells it
            file.write(bytes.fromhex("11111111"))
        result = repository.try_capture(case.vm)
        assert result.returncode == 1 and "format of its backing file" in result.stderr, result.stderr
    finally:
        case.vm.remove()


def test_a_raw_image_that_looks_like_another(session, repository, place, person):
    """What is in it was the guest's to write."""
    case = Case(session, repository, place, "faking", [Disk("vda", 2 * MIB, "raw")])
    try:
        case.vm.define()
        person.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", case.vm.disk("vda").path,
                   "2M")
        os.truncate(case.vm.disk("vda").path, 2 * MIB)
        repository.add(case.vm)
        case.capture("full")
        case.truth.check()
    finally:
        case.vm.remove()


@pytest.mark.needs_root
def test_root_captures_a_vm_of_the_system_that_is_off(system, repository, place):
    case = Case(system, repository, place, "vbfs-resting")
    try:
        case.vm.start()
        repository.add(case.vm)
        case.capture("full")
        case.change(2)
        case.vm.shut_down()
        case.capture("incremental", "--incremental")
        case.vm.virsh("start", "--paused")
        case.change(3)
        case.capture("incremental", "--incremental")
        case.truth.check()
    finally:
        case.vm.remove()
