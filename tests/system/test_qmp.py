"""A QEMU without libvirt, reached by its monitor."""

import contextlib
import os
import shutil
import signal
import socket
import threading

import pytest
from agent import ListeningAgent
from person import ordinary_user
from program import processes_of
from qemu import Monitor, Qemu
from repository import Repository
from slow import Progress, slowed
from small import small_file_system
from truth import Truth
from vm import MIB, Disk, random_image
from wait import until

FREEZE, THAW = "guest-fsfreeze-freeze", "guest-fsfreeze-thaw"
UUID = "6f4b5e5c-2f56-4f5e-9d0a-0c6a4f3f2a11"


@pytest.fixture
def vm(person, place):
    with Qemu(person, place, "vm", [Disk("vda", 24 * MIB), Disk("vdb", 9 * MIB, format="raw")]) as qemu:
        yield qemu


@pytest.fixture
def truth(repository, vm, place):
    repository.add(vm, uri=vm.uri)
    return Truth(repository, vm, place)


def change(vm, number):
    vm.io("vda", f"write -P {number} {number % 20}M 256k", f"write -z -u {number * 3 % 20}M 64k")
    vm.io("vdb", f"write -P {number} {number % 100 * 64}k 64k")


def checkpoint(repository, vm, point):
    return repository.point(vm, point)["checkpoint"]


def settled(repository, vm):
    """Nothing of a capture runs any more."""
    path = repository.program.program.path
    until(lambda: not processes_of(path, repository.path, vm.name), "the capture has ended")


def refused(repository, vm, *words, options=()):
    result = repository.try_capture(vm, *options)
    assert result.returncode == 1 and result.stdout == "", result
    for word in words:
        assert word in result.stderr.splitlines()[-1], result.stderr


def test_full_and_incremental_points_show_both_disks_as_they_were(repository, vm, truth):
    vm.io("vda", "write -P 0x11 0 3M", "write -P 0x12 20M 1M")
    vm.io("vdb", "write -P 0x13 1M 2M")
    first = truth.capture()
    assert vm.job_parts() == []
    assert repository.kinds(vm, first) == {"vda": "full", "vdb": "full"}
    vm.io("vda", "write -P 0x21 1M 64k", "write -z -u 20M 1M", "discard 2M 64k")
    vm.io("vdb", "write -P 0x23 2M 64k")
    second = truth.capture("--incremental")
    assert repository.kinds(vm, second) == {"vda": "incremental", "vdb": "incremental"}
    vm.io("vda", "write -P 0x31 8M 64k")
    third = truth.capture("--incremental")
    assert repository.point(vm, third)["stored"] < MIB
    assert vm.job_parts() == []
    assert vm.bitmaps() == {"vda": [checkpoint(repository, vm, third)], "vdb": [checkpoint(repository, vm, third)]}
    truth.check()


def test_a_processor_that_runs_and_drives_of_the_old_kind(person, repository, place):
    disks = [Disk("vda", 8 * MIB), Disk("vdb", 4 * MIB, format="raw")]
    with Qemu(person, place, "old", disks, uuid=UUID, drives=True, running=True) as vm:
        repository.add(vm, uri=vm.uri)
        assert repository.list()[0]["uuid"] == UUID
        truth = Truth(repository, vm, place)
        change(vm, 1)
        truth.capture()
        change(vm, 2)
        truth.capture("--incremental", "--pause")
        assert vm.execute("query-status")["running"]
        assert vm.job_parts() == []
        truth.check()


def test_nodes_below_filters_and_iothreads(person, repository, place):
    disk = Disk("vda", 8 * MIB)
    vm = Qemu(person, place, "filters", [], extra=[])
    vm.disks.append(disk)
    disk.make(vm)
    vm.disks.clear()
    vm.extra = ["-object", "iothread,id=thread", "-object", "throttle-group,id=group",
                "-blockdev", f"driver=file,node-name=file,filename={disk.path},discard=unmap",
                "-blockdev", "driver=qcow2,node-name=image,file=file,discard=unmap",
                "-blockdev", "driver=throttle,node-name=slow,throttle-group=group,file=image",
                "-device", "virtio-blk-pci,drive=slow,id=vda,iothread=thread",
                "-device", "virtio-scsi-pci", "-device", "scsi-cd,id=cd",
                "-drive", "if=none,id=spare,driver=null-co,size=1M"]
    with vm:
        vm.disks.append(disk)
        added = repository.add(vm, uri=vm.uri)
        assert added.stderr == ""
        truth = Truth(repository, vm, place)
        change_vda = lambda number: vm.io("vda", f"write -P {number} {number}M 64k")  # noqa: E731
        change_vda(1)
        references = truth.look()
        result = repository.try_capture(vm, check=True)
        truth.keep(result.stdout.strip().split("/")[-1], references)
        assert "cd is left out: it is a CD-ROM or a floppy" in result.stderr
        assert "spare is left out: no device of the VM uses it" in result.stderr
        change_vda(2)
        truth.capture("--incremental")
        image = next(node for node in vm.nodes() if node["node-name"] == "image")
        assert [bitmap["persistent"] for bitmap in image["dirty-bitmaps"] if "name" in bitmap] == [True]
        vm.shut_down()
        vm.disks.clear()
        vm.start()
        vm.disks.append(disk)
        change_vda(3)
        truth.capture("--incremental")
        truth.check()


def test_what_is_written_while_a_capture_runs_is_in_the_next_point(person, repository, place):
    path = random_image(person, f"{place}/random.qcow2", 96 * MIB, 48 * MIB)
    with Qemu(person, place, "busy", [Disk("vda", 96 * MIB, path=path), Disk("vdb", 8 * MIB, format="raw")]) as vm:
        repository.add(vm, uri=vm.uri)
        truth = Truth(repository, vm, place)
        for number, options in enumerate((["--full"], ["--incremental"], ["--full"]), 1):
            references = truth.look()
            progress = Progress(repository, vm)
            process = repository.start_capture(vm, *options)
            with slowed(process.pid):
                progress.wait("begun", process)
                for at in range(0, 96, 3):
                    vm.io("vda", f"write -P {number * 7} {at}M 1M", f"discard {at + 1}M 64k")
                vm.io("vdb", f"write -P {number} {number}M 1M")
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, err
            truth.keep(out.strip().split("/")[-1], references)
        truth.capture("--incremental")
        assert vm.job_parts() == []
        truth.check()


def test_after_a_restart_an_image_has_its_bitmap_and_a_raw_one_none(repository, vm, truth):
    change(vm, 1)
    truth.capture()
    vm.shut_down()
    vm.start()
    change(vm, 2)
    point = truth.capture()
    assert repository.kinds(vm, point)["vda"] == "incremental"
    assert repository.point(vm, point)["kind"] == "incremental"
    change(vm, 3)
    truth.capture("--incremental")
    truth.check()


def test_after_a_kill_of_qemu_the_bitmaps_say_nothing_and_go(repository, vm, truth):
    change(vm, 1)
    truth.capture()
    vm.kill()
    vm.start()
    refused(repository, vm, "cannot be incremental", "no bitmap of an earlier backup", options=["--incremental"])
    change(vm, 2)
    truth.capture()
    vm.shut_down()
    vm.start()
    vm.kill()
    vm.start()
    change(vm, 3)
    refused(repository, vm, "cannot be incremental", "inconsistent", options=["--incremental"])
    references = truth.look()
    result = repository.try_capture(vm, check=True)
    assert "inconsistent" in result.stderr
    point = truth.keep(result.stdout.strip().split("/")[-1], references)
    assert vm.bitmaps() == {"vda": [checkpoint(repository, vm, point)], "vdb": [checkpoint(repository, vm, point)]}
    change(vm, 4)
    truth.capture("--incremental")
    truth.check()


def test_bitmaps_of_others_stay(repository, vm, truth):
    vm.execute("block-dirty-bitmap-add", node="drive-vda", name="mine", persistent=True)
    vm.execute("block-dirty-bitmap-add", node="drive-vdb", name="virtbackupfs-000000000000-other")
    change(vm, 1)
    truth.capture()
    change(vm, 2)
    point = truth.capture("--incremental")
    name = checkpoint(repository, vm, point)
    assert vm.bitmaps() == {"vda": ["mine", name], "vdb": sorted([name, "virtbackupfs-000000000000-other"])}
    repository.program.run("forget", repository.path, vm.name)
    assert vm.bitmaps() == {"vda": ["mine"], "vdb": ["virtbackupfs-000000000000-other"]}


def test_disks_that_grow_get_a_snapshot_or_are_swapped(repository, vm, truth):
    change(vm, 1)
    truth.capture()
    for target, size in (("vda", 30), ("vdb", 12)):
        vm.execute("block_resize", node_name=f"drive-{target}", size=size * MIB)
    vm.io("vda", "write -P 2 29M 64k")
    change(vm, 2)
    truth.capture("--incremental")
    overlay = f"{vm.directory}/overlay.qcow2"
    vm.execute("blockdev-snapshot-sync", node_name="drive-vda", snapshot_file=overlay, format="qcow2",
               snapshot_node_name="over")
    vm.disk("vda").path = overlay
    change(vm, 3)
    point = truth.capture()
    assert repository.kinds(vm, point) == {"vda": "incremental", "vdb": "incremental"}
    change(vm, 4)
    truth.capture("--incremental")
    vm.shut_down()
    vm.disks[0].target, vm.disks[1].target = "vdb", "vda"
    vm.start()
    change(vm, 5)
    point = truth.capture()
    assert repository.kinds(vm, point) == {"vda": "full", "vdb": "full"}
    change(vm, 6)
    truth.capture("--incremental")
    assert vm.job_parts() == []
    truth.check()


class Case:
    """A QEMU with so much to capture that the capture can be met."""

    def __init__(self, person, repository, place, template):
        path = f"{place}/vda.qcow2"
        shutil.copy(template, path)
        self.repository = repository
        disks = [Disk("vda", 128 * MIB, path=path), Disk("vdb", 8 * MIB, format="raw")]
        self.vm = Qemu(person, place, "case", disks).start()
        repository.add(self.vm, uri=self.vm.uri)
        self.truth = Truth(repository, self.vm, place)
        self.truth.capture()
        change(self.vm, 1)

    @contextlib.contextmanager
    def meet(self, moment=8 * MIB):
        progress = Progress(self.repository, self.vm)
        process = self.repository.start_capture(self.vm, "--full", "--rate", "32M")
        with slowed(process.pid):
            progress.wait(moment, process)
            assert process.poll() is None, process.communicate()
            yield process

    def whole(self, kind="incremental"):
        """Nothing is left anywhere, and the next captures need no hand."""
        settled(self.repository, self.vm)
        assert self.vm.job_parts() == []
        change(self.vm, 5)
        point = self.truth.capture()
        assert kind in (None, self.repository.point(self.vm, point)["kind"])
        change(self.vm, 6)
        point = self.truth.capture("--incremental")
        name = checkpoint(self.repository, self.vm, point)
        assert self.vm.bitmaps() == {"vda": [name], "vdb": [name]}
        assert self.vm.job_parts() == []
        self.truth.check()
        for directory in (self.vm.person.runtime, f"{self.vm.person.directory}/.cache", "/var/tmp"):
            with contextlib.suppress(FileNotFoundError):
                ours = self.repository.list()[0]["uuid"].replace("-", "")[:8]
                assert not [name for name in os.listdir(directory) if name.startswith("virtbackupfs-") and ours in name]


@pytest.fixture(scope="module")
def template(module_place, person):
    return random_image(person, f"{module_place}/template.qcow2", 128 * MIB, 64 * MIB)


@pytest.fixture
def case(person, repository, place, template):
    case = Case(person, repository, place, template)
    yield case
    settled(repository, case.vm)
    case.vm.remove()


@pytest.mark.parametrize("moment", ["begun", 16 * MIB])
def test_a_killed_capture_leaves_nothing_in_qemu(case, moment):
    with case.meet(moment) as process:
        process.kill()
    process.communicate()
    case.whole()


def test_what_a_capture_and_its_guardian_left_is_cleaned_by_the_next(case):
    with case.meet() as process:
        for pid in processes_of(case.repository.program.program.path, case.repository.path, case.vm.name):
            if pid != process.pid:
                os.kill(pid, signal.SIGKILL)
        process.kill()
    process.communicate()
    settled(case.repository, case.vm)
    assert len(case.vm.job_parts()) > 3
    change(case.vm, 2)
    case.truth.capture()
    assert case.vm.job_parts() == []
    case.whole()


def test_an_interrupted_capture_leaves_nothing_in_qemu(case):
    with case.meet() as process:
        process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 1
    process.communicate()
    assert case.vm.job_parts() == []
    case.whole()


@pytest.mark.parametrize("end, kind", [("kill", None), ("shut_down", "incremental")])
def test_qemu_ends_during_a_capture(case, end, kind):
    with case.meet() as process:
        getattr(case.vm, end)()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and out == ""
    assert "case was shut off while it was captured" in err, err
    settled(case.repository, case.vm)
    refused(case.repository, case.vm, "QEMU does not run: nothing listens at", case.vm.socket)
    case.vm.start()
    case.whole(kind)


def test_a_job_that_somebody_ends_is_no_backup(case):
    with case.meet() as process:
        job = next(job["id"] for job in case.vm.execute("query-jobs"))
        case.vm.execute("block-job-cancel", device=job, force=True)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and out == ""
    assert "in QEMU has ended" in err, err
    case.whole()


def test_an_nbd_server_of_somebody_else_is_not_disturbed(repository, vm, truth, person):
    path = f"{vm.directory}/other.sock"
    vm.execute("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    vm.execute("block-export-add", type="nbd", id="theirs", node_name="drive-vdb", name="theirs")
    refused(repository, vm, "another program", "nbd-socket=PATH")
    exports = [each["id"] for each in vm.execute("query-block-exports")]
    assert exports == ["theirs"]
    assert vm.job_parts() == ["theirs"]
    repository.program.run("forget", repository.path, vm.name)
    repository.add(vm, uri=f"{vm.uri}?nbd-socket={path}")
    change(vm, 1)
    truth.capture()
    change(vm, 2)
    truth.capture("--incremental")
    assert vm.job_parts() == ["theirs"]
    person.run("qemu-img", "info", f"nbd+unix:///theirs?socket={path}")
    truth.check()


def test_a_monitor_that_another_program_uses_is_told(repository, vm, truth):
    other = Monitor(vm.socket)
    refused(repository, vm, "another program uses this monitor", "-qmp of its own")
    other.close()
    truth.capture()
    assert vm.job_parts() == []


def test_sources_that_cannot_be_are_refused(repository, vm, place):
    def add(source):
        result = repository.program.run("add", repository.path, "x", source, check=False)
        assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
        return result.stderr
    assert "QEMU does not run: nothing listens at /nowhere/qmp.sock" in add("qmp:///nowhere/qmp.sock")
    assert "written as qmp:///path" in add("qmp://qmp.sock")
    assert "no parameter" in add(f"{vm.uri}?domain=x")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{place}/silent")
        assert "QEMU does not run" in add(f"qmp://{place}/silent")
    assert repository.list() == []


def test_another_vm_at_the_same_socket_is_refused(person, repository, place):
    with Qemu(person, place, "vm", [Disk("vda", MIB)], uuid=UUID) as vm:
        repository.add(vm, uri=vm.uri)
        repository.capture(vm)
        vm.shut_down()
        vm.uuid = UUID[:-1] + "2"
        vm.start()
        refused(repository, vm, "is another one now")


@pytest.fixture
def talking(person, place, repository):
    """A VM that runs, with an agent."""
    with Qemu(person, place, "talk", [Disk("vda", 4 * MIB)], running=True) as vm:
        vm.agent = ListeningAgent(f"{vm.directory}/agent.sock")
        os.chmod(f"{vm.directory}/agent.sock", 0o666)
        repository.add(vm, uri=f"{vm.uri}?agent={vm.directory}/agent.sock")
        yield vm
        vm.agent.close()
        assert vm.agent.frozen == 0 and vm.execute("query-status")["running"] and vm.job_parts() == []
        assert not [name for name in os.listdir("/var/tmp") if name.startswith("note-virtbackupfs-")]


def test_file_systems_are_frozen_while_the_job_begins(talking, repository):
    parts = []

    def look(command):
        parts.append((command, any(part.endswith("-b000") for part in talking.job_parts())))
    talking.agent.on_call = look
    result = repository.try_capture(talking, "--freeze", "--pause", check=True)
    assert "frozen" not in result.stderr
    assert parts == [(FREEZE, False), (THAW, True)]
    repository.capture(talking, "--no-freeze")
    assert len(parts) == 2


def test_an_agent_that_does_not_answer_is_no_failure_but_where_it_is_a_must(talking, repository):
    talking.agent.mute.add("guest-sync")
    result = repository.try_capture(talking, check=True)
    assert "not frozen" in result.stderr and "does not answer" in result.stderr
    refused(repository, talking, "cannot be frozen", "does not answer", options=["--freeze"])
    talking.agent.mute.clear()
    talking.agent.refused.add(FREEZE)
    result = repository.try_capture(talking, check=True)
    assert "not frozen" in result.stderr and "refused here" in result.stderr
    assert talking.agent.calls == [FREEZE, THAW]


def test_file_systems_are_thawed_after_a_kill(talking, repository):
    frozen = threading.Event()
    talking.agent.on_call = lambda command: command == FREEZE and frozen.set()
    talking.agent.mute.add(FREEZE)
    process = repository.start_capture(talking, "--freeze")
    assert frozen.wait(60)
    talking.agent.frozen = 2
    process.kill()
    process.communicate()
    settled(repository, talking)
    assert talking.agent.calls[-1] == THAW and talking.agent.frozen == 0


def test_a_freeze_needs_an_agent(repository, vm, truth):
    refused(repository, vm, "cannot be frozen", "agent=PATH", options=["--freeze"])
    assert vm.job_parts() == [] and vm.bitmaps() == {"vda": [], "vdb": []}


def test_what_lies_above_the_backing_file_is_enough(person, repository, place):
    base = f"{place}/base.qcow2"
    random_image(person, base, 32 * MIB, 8 * MIB)
    with Qemu(person, place, "top", [Disk("vda", 32 * MIB, options=[f"backing_file={base}", "backing_fmt=qcow2"])]) as vm:
        repository.add(vm, uri=vm.uri)
        vm.io("vda", "write -P 0x41 1M 1M")
        whole, top = repository.capture(vm, "--full"), repository.capture(vm, "--full", "--top")
        assert repository.point(vm, whole)["stored"] > 8 * MIB > 2 * MIB > repository.point(vm, top)["stored"] > 0
        assert vm.job_parts() == []


@pytest.mark.needs_root
def test_a_qemu_of_another_user(place, program, ground):
    """It can enter neither root's directories nor those of the scratch files."""
    user = ordinary_user("vbfs-test", f"{place}/user")
    os.chmod(f"{place}/user", 0o755)
    repository = Repository(program, f"{place}/repository").init()
    scratch = f"{place}/scratch"
    os.mkdir(scratch, 0o700)
    with Qemu(user, f"{place}/user", "vm", [Disk("vda", 24 * MIB), Disk("vdb", 9 * MIB, format="raw")]) as vm:
        repository.add(vm, uri=vm.uri)
        truth = Truth(repository, vm, place)
        change(vm, 1)
        truth.capture()
        change(vm, 2)
        truth.capture("--incremental", "--scratch-dir", scratch)
        assert vm.job_parts() == [] and os.listdir(scratch) == []
        truth.check()


@pytest.mark.needs_root
def test_the_guest_goes_on_where_scratch_space_runs_out(place, program, person, template):
    repository = Repository(program, f"{place}/repository").init()
    case = Case(person, repository, place, template)
    limits = {"bps": 40 * MIB, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0}  # no tmpfs is that slow
    case.vm.execute("block_set_io_throttle", id=case.vm.device("vda"), **limits)
    with small_file_system(f"{place}/small", 40) as small:
        progress = Progress(repository, case.vm)
        process = repository.start_capture(case.vm, "--full", "--rate", "4M", "--scratch-dir", small)
        progress.wait("begun", process)
        written = 0
        while process.poll() is None and written < 128:
            case.vm.io("vda", f"write -P 0x77 {written}M 1M")
            written += 1
        out, err = process.communicate(timeout=120)
        assert process.returncode == 1 and out == "", err
        assert "are about to fill it" in err, err
        settled(repository, case.vm)
        assert os.listdir(small) == []
    with open(case.vm.reference("vda", f"{place}/now.raw"), "rb") as now:
        assert now.read(written * MIB) == b"\x77" * written * MIB, "a write of the guest failed"
    case.whole()
    case.vm.remove()


def test_a_qemu_by_tcp_keeps_scratch_files_at_its_own_place(person, repository, place):
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in (one, two)]
    scratch = f"{place}/scratch"
    os.mkdir(scratch)
    person.give(scratch)
    with Qemu(person, place, "far", [Disk("vda", 4 * MIB), Disk("vdb", 4 * MIB, format="raw")],
              extra=["-qmp", f"tcp:127.0.0.1:{ports[0]},server=on,wait=off"]) as vm:
        repository.add(vm, uri=f"qmp+tcp://127.0.0.1:{ports[0]}?nbd-address=127.0.0.1:{ports[1]}&scratch={scratch}")
        truth = Truth(repository, vm, place)
        change(vm, 1)
        truth.capture()
        change(vm, 2)
        truth.capture("--incremental")
        assert vm.job_parts() == []
        assert [os.path.getsize(f"{scratch}/{name}") for name in os.listdir(scratch)] == [0, 0]
        truth.check()
