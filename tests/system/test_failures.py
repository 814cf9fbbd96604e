"""Whatever dies or goes missing: every visible point stays whole, the VM has no job left, and the next capture needs no
hand."""

import contextlib
import errno
import os
import shutil
import signal

import pytest
from mount import is_mounted, mounted, unmount
from program import children_of, processes_of, wait_gone
from repository import Repository, pull, pull_at_once, state_of, wait_captured
from slow import Progress, slowed
from small import small_file_system
from truth import Truth
from vm import MIB, VM, Disk, random_image
from wait import until

SIZE = 192 * MIB
DATA = 96 * MIB  # that does not compress: what a capture of it takes is long enough to be met


@pytest.fixture(scope="module")
def template(module_place, person):
    return random_image(person, f"{module_place}/template.qcow2", SIZE, DATA)


class Case:
    """A running VM with much to capture, its repository and truth."""

    def __init__(self, hypervisor, repository, place, template, name):
        self.vm = VM(hypervisor, name, [Disk("vdb", 4 * MIB)])
        path = f"{self.vm.directory}/vda.qcow2"
        shutil.copy(template, path)
        self.vm.disks.insert(0, Disk("vda", SIZE, path=path))
        self.vm.start()
        self.repository = repository
        repository.add(self.vm)
        self.truth = Truth(repository, self.vm, place)

    def change(self, number):
        self.vm.io("vda", f"write -P {number} {number}M 1M", f"write -z -u {number * 3}M 64k")
        self.vm.io("vdb", f"write -P {number} {number * 64}k 64k")

    def kill_capture(self, pids):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def worker(self):
        """The number of the process that captures. One that is being started looks like its parent for a moment."""
        def only():
            found = processes_of(self.repository.program.program.path, "capture", self.repository.path, self.vm.name)
            return found[0] if len(found) == 1 else None
        return until(only, "one process captures")

    def settled(self):
        """Nothing of a capture of this VM runs any more."""
        words = (self.repository.path, self.vm.name)
        until(lambda: not processes_of(self.repository.program.program.path, "guardian", *words)
              and not processes_of(self.repository.program.program.path, "capture", *words), "the capture has ended")

    def whole(self, expected_kind=None):
        """No job is left; the next capture works; every point shows what it must; no leftovers lie about."""
        self.change(11)
        point = self.truth.capture()
        if expected_kind:
            assert self.repository.point(self.vm, point)["kind"] == expected_kind
        assert not self.vm.has_job()
        self.truth.check()
        captures = {os.path.basename(os.path.dirname(path))
                    for path in self.repository.stored_files(self.vm, "data/*/domain.xml")}
        assert len(captures) == len(self.truth.points), "what a failed capture wrote is still there"
        assert len(self.repository.stored_files(self.vm, "data/*")) == len(self.truth.points)
        ours = [name for name in self.vm.checkpoints() if "virtbackupfs" in name]
        assert ours == [self.repository.point(self.vm, point)["checkpoint"]]
        self.change(12)
        point = self.truth.capture("--incremental")
        self.truth.check()

    def adopt_new_points(self, references):
        """A killed capture may have made its point visible before it died: then that one is whole."""
        for point in self.repository.points(self.vm):
            if point["name"] not in self.truth.points:
                self.truth.keep(point["name"], references)


@pytest.fixture
def case(session, repository, place, template):
    case = Case(session, repository, place, template, "fail")
    case.truth.capture()
    case.change(5)
    yield case
    case.settled()
    case.vm.remove()


@pytest.mark.parametrize("moment", ["begun", 8 * MIB, 80 * MIB, "committed"])
@pytest.mark.parametrize("victim", ["capture", "guardian", "both"])
def test_a_killed_capture_loses_nothing(case, victim, moment):
    references = case.truth.look()
    progress = Progress(case.repository, case.vm)
    process = case.repository.start_capture(case.vm, "--full")
    with slowed(process.pid) if moment != "committed" else contextlib.nullcontext():
        progress.wait(moment, process)
        guardians = children_of(process.pid)
        if victim != "capture":
            case.kill_capture(guardians)
        if victim != "guardian":
            case.kill_capture([process.pid])
    out, err = process.communicate(timeout=120)
    if victim == "guardian" and process.returncode == 0:
        assert out.startswith("fail/"), err  # it has started another one and gone on
    case.settled()
    if victim == "capture":
        assert not case.vm.has_job(), "the guardian left the job behind"
        assert case.repository.list()  # readable in any case
    case.adopt_new_points(references)
    if victim == "guardian":
        assert len(case.truth.points) == 2, err
    case.whole("incremental")


@pytest.mark.parametrize("moment", ["begun", 40 * MIB])
def test_a_capture_that_is_interrupted_ends_in_good_order(case, moment):
    progress = Progress(case.repository, case.vm)
    process = case.repository.start_capture(case.vm, "--full")
    with slowed(process.pid):
        progress.wait(moment, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 1
    assert process.stderr.read().startswith("virtbackupfs: ")
    case.settled()
    assert not case.vm.has_job()
    case.whole("incremental")


@pytest.mark.parametrize("moment", ["begun", 40 * MIB])
def test_qemu_killed_during_a_capture(case, moment):
    progress = Progress(case.repository, case.vm)
    process = case.repository.start_capture(case.vm, "--full")
    with slowed(process.pid):
        progress.wait(moment, process)
        case.vm.kill()
    assert process.wait(120) == 1
    assert len(process.stderr.read().splitlines()) == 1
    case.settled()
    case.vm.start()
    refused = case.repository.try_capture(case.vm, "--incremental")
    assert refused.returncode == 1 and "bitmap" in refused.stderr, refused.stderr
    case.whole()


def test_bitmaps_that_qemu_left_inconsistent(case):
    case.vm.kill()
    case.vm.start()
    refused = case.repository.try_capture(case.vm, "--incremental")
    assert refused.returncode == 1 and "bitmap" in refused.stderr, refused.stderr
    result = case.repository.try_capture(case.vm, check=False)
    assert result.returncode == 0 and "compared with" in result.stderr, result.stderr
    case.truth.keep(result.stdout.strip().split("/")[1], case.truth.look())
    case.whole("incremental")


def remove_bitmap(vm, target, name):
    """Behind libvirt's back, while the VM runs."""
    nodes = vm.monitor({"execute": "query-named-block-nodes", "arguments": {"flat": True}})["return"]
    image = vm.disk(target).path
    node = next(node["node-name"] for node in nodes
                if node.get("file") == image and any(bitmap["name"] == name for bitmap in node.get("dirty-bitmaps", [])))
    answer = vm.monitor({"execute": "block-dirty-bitmap-remove", "arguments": {"node": node, "name": name}})
    assert "error" not in answer, answer


@pytest.mark.parametrize("targets", [["vda"], ["vda", "vdb"]])
def test_a_bitmap_that_was_deleted(case, targets):
    checkpoint = case.repository.points(case.vm)[-1]["checkpoint"]
    for target in targets:
        remove_bitmap(case.vm, target, checkpoint)
    if len(targets) == 2:
        refused = case.repository.try_capture(case.vm, "--incremental")
        assert refused.returncode == 1 and "bitmap" in refused.stderr, refused.stderr
    references = case.truth.look()
    result = case.repository.try_capture(case.vm)
    assert result.returncode == 0 and "bitmap" in result.stderr, result.stderr
    point = case.truth.keep(result.stdout.strip().split("/")[1], references)
    for disk in case.repository.point(case.vm, point)["disks"]:
        assert disk["kind"] == "incremental"
        assert disk.get("why", "").startswith("compared with") == (disk["name"] in targets), disk
    case.whole("incremental")


def test_a_checkpoint_that_was_deleted(case):
    case.vm.virsh("checkpoint-delete", case.repository.points(case.vm)[-1]["checkpoint"])
    case.whole("incremental")
    assert case.repository.points(case.vm)[-2]["disks"][0]["why"].startswith("compared with")


def test_a_checkpoint_of_which_only_the_bitmap_is_left(case):
    """It is redefined: nothing is lost."""
    case.vm.virsh("checkpoint-delete", case.repository.points(case.vm)[-1]["checkpoint"], "--metadata")
    case.whole("incremental")


def test_libvirtd_restarted_during_a_capture(case, session):
    references = case.truth.look()
    progress = Progress(case.repository, case.vm)
    process = case.repository.start_capture(case.vm, "--full")
    with slowed(process.pid):
        progress.wait(20 * MIB, process)
        session.restart_daemon()
    process.communicate(timeout=120)
    case.settled()
    if process.returncode == 0:
        case.adopt_new_points(references)
    assert len(case.repository.points(case.vm)) == len(case.truth.points)
    case.whole("incremental")


def test_libvirtd_killed_together_with_the_capture(case, session):
    progress = Progress(case.repository, case.vm)
    process = case.repository.start_capture(case.vm, "--full")
    with slowed(process.pid):
        progress.wait(20 * MIB, process)
        case.kill_capture([process.pid, session.daemon_pid()])
    process.communicate(timeout=60)
    case.settled()
    case.whole("incremental")


def test_a_mount_that_is_killed_does_not_take_its_capture_along(case, program, place):
    case.truth.taken = 10
    with contextlib.ExitStack() as stack:
        mount = stack.enter_context(mounted(program, case.repository.path, place))
        trigger = mount / "fail/capture"
        references = case.truth.look()
        pull(trigger, "full")
        worker = case.worker()
        os.kill(worker, signal.SIGSTOP)
        os.kill(mount.pid, signal.SIGKILL)
        wait_gone(mount.pid)
        unmount(mount.path, lazy=True)
        until(lambda: not is_mounted(mount.path), "the dead mount is gone")
        assert case.repository.points(case.vm)[-1]["name"] in case.truth.points
        os.kill(worker, signal.SIGCONT)
        wait_gone(worker, 120)
    case.settled()
    case.adopt_new_points(references)
    assert len(case.truth.points) == 2
    case.whole("incremental")


def test_a_capture_goes_on_when_its_mount_is_unmounted(case, program, place):
    references = case.truth.look()
    with mounted(program, case.repository.path, place) as mount:
        pull(mount / "fail/capture", "full")
        worker = case.worker()
        os.kill(worker, signal.SIGSTOP)
    os.kill(worker, signal.SIGCONT)
    wait_gone(worker, 120)
    case.settled()
    case.adopt_new_points(references)
    assert len(case.truth.points) == 2
    case.whole("incremental")


def test_of_many_writers_at_once_one_starts_a_capture(case, program, place):
    with mounted(program, case.repository.path, place) as mount:
        trigger = mount / "fail/capture"
        assert pull_at_once(trigger, "full", 64) == [0] + [errno.EBUSY] * 63
        assert wait_captured(trigger)["state"] == "idle"
        assert len(case.repository.points(case.vm)) == 2
        case.settled()


def test_a_triggered_capture_that_is_killed_reads_as_failed(case, program, place):
    with mounted(program, case.repository.path, place) as mount:
        trigger = mount / "fail/capture"
        progress = Progress(case.repository, case.vm)
        pull(trigger, "full")
        worker = case.worker()
        with slowed(worker):
            until(lambda: progress.written() > 8 * MIB, "something is written")
            with pytest.raises(OSError) as refusal:
                pull(trigger, "auto")
            assert refusal.value.errno == errno.EBUSY
            assert state_of(trigger)["state"] == "running"
            refused = case.repository.try_capture(case.vm)
            assert refused.returncode == 1, refused.stderr
            assert "busy" in refused.stderr.lower() or "running" in refused.stderr, refused.stderr
            with pytest.raises(OSError) as refusal:
                pull(trigger, "nonsense")
            assert refusal.value.errno == errno.EINVAL
            assert state_of(trigger)["state"] == "running"
            os.kill(worker, signal.SIGKILL)
        state = wait_captured(trigger)
        assert state["state"] == "failed" and state["error"], state
        case.settled()
        assert os.listdir(mount / "fail").count("latest") == 1
        pull(trigger, "auto")
        references = case.truth.look()
        state = wait_captured(trigger)
        assert state["state"] == "idle" and "error" not in state, state
        case.truth.keep(state["last"], references)
    case.whole("incremental")


def test_the_trigger_refuses_what_cannot_be(case, program, place):
    repository = case.repository
    with mounted(program, repository.path, place, "ro") as mount:
        with pytest.raises(OSError) as refusal:
            pull(mount / "fail/capture", "auto")
        assert refusal.value.errno == errno.EROFS
        assert state_of(mount / "fail/capture")["state"] == "idle"
    program.run("forget", repository.path, "fail")
    with mounted(program, repository.path, place) as mount:
        with pytest.raises(OSError) as refusal:
            pull(mount / "fail/capture", "auto")
        assert refusal.value.errno == errno.EROFS
        with pytest.raises(OSError) as refusal:
            pull(mount / "fail/capture", "")
        assert refusal.value.errno in (errno.EINVAL, errno.EROFS)


def test_a_vm_that_is_undefined_fails_the_capture_alone(case, program, place):
    with mounted(program, case.repository.path, place) as mount:
        case.vm.shut_down()
        case.truth.capture("--incremental")
        case.vm.virsh("undefine", "--checkpoints-metadata")
        result = case.repository.try_capture(case.vm)
        assert result.returncode == 1 and len(result.stderr.splitlines()) == 1, result.stderr
        case.truth.check_in(mount)
    case.vm.start()  # the same UUID and images; the hypervisor has forgotten the checkpoint
    case.whole("incremental")


def test_a_job_of_somebody_else_is_left_alone(case, place):
    path = f"{case.vm.directory}/job.xml"
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"<domainbackup mode='pull'><server transport='unix' socket='{case.vm.directory}/other.sock'/><disks>"
                   f"<disk name='vda' backup='yes' type='file'><scratch file='{case.vm.directory}/other.scratch'/></disk>"
                   "<disk name='vdb' backup='no'/></disks></domainbackup>")
    case.vm.virsh("backup-begin", path)
    refused = case.repository.try_capture(case.vm)
    assert refused.returncode == 1 and "job" in refused.stderr, refused.stderr
    assert case.vm.has_job()
    case.vm.virsh("domjobabort")
    until(lambda: not case.vm.has_job(), "the other job has ended")
    case.whole("incremental")


# Damage


def flip(path, at, bit=0):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ (1 << bit)]))


def damaged_ranges(image, reference, step=65536):
    """Where the image cannot be read. What can be read must be right."""
    bad = []
    with open(image, "rb", buffering=0) as shown, open(reference, "rb") as truth:
        at, size = 0, os.stat(reference).st_size
        while at < size:
            shown.seek(at)
            truth.seek(at)
            try:
                got = shown.read(step - at % step)
            except OSError as error:
                assert error.errno == errno.EIO
                bad.append(at)
                at += step - at % step
                continue
            # Less than asked for, where an unreadable part follows.
            assert got and got == truth.read(len(got)), f"wrong bytes in the {len(got)} from {at}"
            at += len(got)
    return bad


def test_a_damaged_block_is_an_error_for_its_range_alone(case, program, place):
    point = case.truth.capture()
    (layer,) = case.repository.stored_files(case.vm, f"data/{os.path.basename(newest_data(case))}/vda.layer")
    flip(layer, os.stat(layer).st_size // 3)
    with mounted(program, case.repository.path, place) as mount:
        bad = damaged_ranges(mount / f"fail/{point}/vda.raw", case.truth.points[point]["vda"])
        assert len(bad) <= 1
    (first, second) = sorted(case.truth.points)
    # A full layer of data that does not compress: some block is hit.
    full = max(case.repository.stored_files(case.vm, "data/*/vda.layer"), key=os.path.getsize)
    flip(full, os.stat(full).st_size // 2)
    with mounted(program, case.repository.path, place) as mount:
        for point in (first, second):
            bad = damaged_ranges(mount / f"fail/{point}/vda.raw", case.truth.points[point]["vda"])
            assert 1 <= len(bad) <= 2
        assert "vda.layer" in mount.messages(), "the log does not name the file"
    # Goes on: whether in full or not, the new point has all that is readable.
    result = case.repository.try_capture(case.vm, "--full", check=True)
    new = result.stdout.strip().split("/")[1]
    references = case.truth.look()
    with mounted(program, case.repository.path, place) as mount:
        assert damaged_ranges(mount / f"fail/{new}/vda.raw", references["vda"]) == []


def newest_data(case):
    return max(case.repository.stored_files(case.vm, "data/*"), key=os.path.getmtime)


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "flipped", "other"])
@pytest.mark.parametrize("what", ["layer", "manifest"])
def test_a_lost_or_damaged_file_never_shows_wrong_bytes(case, program, place, what, damage):
    first = case.repository.points(case.vm)[0]["name"]
    if what == "layer":
        (path,) = case.repository.stored_files(case.vm, "data/*/vda.layer")
        (other,) = case.repository.stored_files(case.vm, "data/*/vdb.layer")
    else:
        (path,) = case.repository.stored_files(case.vm, "points/*.json")
        other = f"{case.repository.path}/repository.json"
    second = case.truth.capture()
    if damage == "gone":
        os.unlink(path)
    elif damage == "empty":
        os.truncate(path, 0)
    elif damage == "cut":
        os.truncate(path, os.stat(path).st_size * 2 // 3)
    elif damage == "flipped":
        for at in range(1, min(os.stat(path).st_size, 4000), 97):
            flip(path, os.stat(path).st_size - at, at % 8)
    else:
        shutil.copy(other, path)
    with mounted(program, case.repository.path, place) as mount:
        for point in (first, second):
            image = mount / f"fail/{point}/vda.raw"
            with contextlib.suppress(OSError):
                with open(image, "rb"):
                    damaged_ranges(image, case.truth.points[point]["vda"], 1 << 20)
    listed = {point["name"]: point for point in case.repository.points(case.vm)}
    if what == "manifest":
        assert listed[second]["complete"] is False and listed[second]["reason"], listed
    # A capture that says incremental and rests on damage would be worth nothing: the next one is good by itself.
    references = case.truth.look()
    result = case.repository.try_capture(case.vm)
    assert result.returncode == 0, result.stderr
    new = result.stdout.strip().split("/")[1]
    if what == "manifest":
        assert case.repository.point(case.vm, new)["kind"] == "full", result.stderr
    if case.repository.kinds(case.vm, new)["vda"] == "full":
        with mounted(program, case.repository.path, place) as mount:
            assert damaged_ranges(mount / f"fail/{new}/vda.raw", references["vda"], 1 << 20) == []


def test_a_damaged_state_or_registration_says_so(case, program, place):
    directory = case.repository.directory(case.vm)
    flip(f"{directory}/state.json", 40)
    with mounted(program, case.repository.path, place) as mount:
        assert state_of(mount / "fail/capture")["state"] in ("failed", "idle")
    case.truth.capture()  # replaces it
    flip(f"{directory}/vm.json", 40)
    result = case.repository.try_capture(case.vm)
    assert result.returncode == 1 and "vm.json" in result.stderr, result.stderr
    with mounted(program, case.repository.path, place) as mount:
        for point in case.truth.points:
            assert damaged_ranges(mount / f"fail/{point}/vda.raw", case.truth.points[point]["vda"], 1 << 20) == []
    flip(f"{directory}/vm.json", 40)
    case.whole("incremental")


# Full disks: small file systems are root's to make


@pytest.fixture
def system_case(system, program, place, template):
    with small_file_system(f"{place}/small", 130) as small:
        case = Case(system, Repository(program, f"{small}/repository").init(), place, template, "vbfs-fail")
        yield case
        case.settled()
        case.vm.remove()


@pytest.mark.needs_root
def test_the_disk_under_the_repository_is_full(system_case):
    case = system_case
    case.truth.capture()
    case.change(5)
    result = case.repository.try_capture(case.vm, "--full")
    assert result.returncode == 1 and "No space left" in result.stderr, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert not case.vm.has_job()
    case.whole("incremental")
    # To the last byte: not even a state can be written then.
    filler = f"{os.path.dirname(case.repository.path)}/filler"
    with open(filler, "wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(MIB))
    result = case.repository.try_capture(case.vm)
    assert result.returncode == 1 and "No space left" in result.stderr, result.stderr
    assert not case.vm.has_job()
    case.truth.check()
    os.unlink(filler)
    case.whole("incremental")


@pytest.mark.needs_root
def test_the_disk_under_the_scratch_file_is_full(system_case, place):
    """The guest goes on; the capture fails before its scratch file fails the guest."""
    case = system_case
    case.truth.capture()
    with small_file_system(f"{place}/scratch", 48, "libvirt-qemu") as scratch:
        process = case.repository.start_capture(case.vm, "--full", "--scratch-dir", scratch)
        progress = Progress(case.repository, case.vm)
        with slowed(process.pid):
            until(lambda: case.vm.has_job() or process.poll() is not None, "the job began")
            # From the end: what has not been copied yet goes to the scratch file first. Each write must succeed.
            at = SIZE
            while process.poll() is None and at >= 2 * MIB:
                at -= 2 * MIB
                case.vm.io("vda", f"write -P {at // MIB % 251} {at} 2M")
        out, err = process.communicate(timeout=120)
        assert process.returncode == 1 and "scratch" in err, out + err
        assert not progress.committed()
        case.settled()
        assert not case.vm.has_job()
        assert os.listdir(scratch) == []
        case.vm.io("vda", "write -P 9 0 2M", "read -P 9 0 2M")
        result = case.repository.try_capture(case.vm, "--scratch-dir", f"{place}/nowhere")
        assert result.returncode == 1 and "nowhere" in result.stderr
    case.whole("incremental")
