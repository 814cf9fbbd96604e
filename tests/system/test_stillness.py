"""The guest's file systems are frozen while a job begins, where an agent answers; and always thawed, whatever happens."""

import os
import signal
import subprocess
import threading
import time

import pytest
from agent import Agent, channels
from program import processes_of
from vm import MIB, VM, Disk
from wait import until

FREEZE, THAW, PING = "guest-fsfreeze-freeze", "guest-fsfreeze-thaw", "guest-get-time"


def notes(vm):
    """What captures have noted of what they do to the VM."""
    return [name for name in os.listdir("/var/tmp") if name.startswith("note-virtbackupfs-") and vm.uuid[:8] in name]


@pytest.fixture(scope="module")
def talking(session, guest, person):
    """A guest that runs, with an agent."""
    relay = f"{person.runtime}/relay.sock"
    with VM(session, "talking", [Disk("vda", 4 * MIB)], guest=guest, extra=channels(relay)) as vm:
        vm.start()
        vm.agent = Agent(vm, relay)
        yield vm
        vm.agent.close()


@pytest.fixture
def agent(talking, repository):
    agent = talking.agent
    agent.calls.clear()
    agent.mute.clear()
    agent.refused.clear()
    agent.on_call = None
    repository.add(talking)
    yield agent
    agent.on_call = None
    assert agent.frozen == 0 and talking.state() == "running"
    assert not notes(talking)


def settled(repository, vm):
    path = repository.program.program.path
    until(lambda: not processes_of(path, repository.path, vm.name), "nothing of the capture runs")


def test_file_systems_are_frozen_while_the_job_begins(talking, agent, repository):
    had_job = []
    agent.on_call = lambda command: had_job.append((command, talking.has_job()))
    result = repository.try_capture(talking, check=True)
    assert "frozen" not in result.stderr
    assert had_job == [(PING, False), (FREEZE, False), (THAW, True)]


def test_an_agent_that_does_not_answer_is_no_failure(talking, agent, repository):
    agent.mute.update((PING, "guest-sync"))
    result = repository.try_capture(talking, check=True)
    assert "not frozen" in result.stderr and "does not answer" in result.stderr
    assert agent.calls in ([], [PING])
    agent.mute.clear()
    agent.say({"return": 1})  # it comes to itself: others can ask it again
    talking.virsh("domtime")
    agent.calls.clear()
    repository.capture(talking)
    assert agent.calls == [PING, FREEZE, THAW]


def test_an_agent_is_not_asked_where_that_is_not_wanted(talking, agent, repository):
    repository.capture(talking, "--no-freeze")
    assert agent.calls == []


def refused(talking, repository, words):
    result = repository.try_capture(talking, "--freeze")
    assert result.returncode == 1 and "cannot be frozen" in result.stderr and words in result.stderr, result.stderr
    assert not talking.has_job()


def test_where_freezing_is_a_must_its_failure_is_one(talking, agent, repository, session):
    repository.capture(talking, "--freeze")
    assert agent.calls == [PING, FREEZE, THAW]
    agent.refused.add(FREEZE)
    refused(talking, repository, "refused here")
    agent.refused.clear()
    talking.virsh("suspend")
    refused(talking, repository, "it is paused")
    talking.virsh("resume")
    with VM(session, "silent", [Disk("vda", 2 * MIB)]) as silent:
        silent.start()
        repository.add(silent)
        refused(silent, repository, "it is paused")
        silent.virsh("resume")
        refused(silent, repository, "no channel to a guest agent")


class Events:
    """What libvirt tells of a VM's life: "Suspended", "Resumed"."""

    def __init__(self, vm):
        self.vm, self.words = vm, []
        self.process = vm.person.popen(["virsh", "-q", "-c", vm.hypervisor.uri, "event", "--domain", vm.name, "--event",
                                        "lifecycle", "--loop"], stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self.listen, daemon=True).start()
        until(lambda: self.provoke() and self.words, "events are told")
        self.take("Resumed")

    def listen(self):
        for line in self.process.stdout:
            if "': " in line:
                self.words.append(line.split("': ")[1].split()[0])

    def provoke(self):
        return self.vm.virsh("suspend") and self.vm.virsh("resume")

    def take(self, last):
        """The words so far, once the last of them is this one."""
        until(lambda: self.words[-1:] == [last], f"{last} is told")
        words = list(self.words)
        self.words.clear()
        return words

    def close(self):
        self.process.terminate()
        self.process.wait()


def test_a_vm_is_paused_while_the_job_begins(talking, agent, repository):
    states = []
    agent.on_call = lambda command: states.append((command, talking.state()))
    events = Events(talking)
    try:
        repository.capture(talking, "--pause")
        assert events.take("Resumed")[-2:] == ["Suspended", "Resumed"]
        assert states == [(PING, "running"), (FREEZE, "running"), (THAW, "running")]
        talking.virsh("suspend")
        repository.capture(talking, "--pause")
        assert talking.state() == "paused"  # as it was before
        assert events.take("Suspended") == ["Suspended"]
        talking.virsh("resume")
    finally:
        events.close()


def test_a_vm_that_a_killed_capture_left_paused_goes_on(talking, agent, repository):
    """The VM is paused for some milliseconds only: captures are killed one after the other until one has left it so."""
    path = repository.program.program.path

    def kill_one(after):
        process = repository.start_capture(talking, "--full", "--pause", "--no-freeze")
        until(lambda: notes(talking) or process.poll() is not None, "the VM is about to be paused", pause=0)
        time.sleep(after)
        for pid in processes_of(path, "guardian", repository.path):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate(timeout=60)
        settled(repository, talking)
        paused = talking.state() == "paused"
        repository.capture(talking, "--no-freeze")
        assert talking.state() == "running" and not notes(talking)
        return paused

    assert any(kill_one(milliseconds / 1000) for milliseconds in range(0, 60, 2)), "no capture could be killed in time"


def test_an_agent_that_refuses_to_freeze_is_no_failure(talking, agent, repository):
    agent.refused.add(FREEZE)
    result = repository.try_capture(talking, check=True)
    assert "not frozen" in result.stderr and "refused here" in result.stderr
    assert agent.calls == [PING, FREEZE, THAW]


def test_file_systems_are_thawed_when_the_job_cannot_begin(talking, agent, repository, place):
    os.chmod(place, 0o500)  # no scratch file can be made in it
    result = repository.try_capture(talking, "--scratch-dir", place)
    os.chmod(place, 0o755)
    assert result.returncode == 1 and "backup job" in result.stderr, result.stderr
    assert agent.calls == [PING, FREEZE, THAW]
    assert not talking.has_job()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("moment", [FREEZE, THAW])
def test_file_systems_are_thawed_when_the_capture_ends_meanwhile(talking, agent, repository, moment, how):
    reached, go_on = threading.Event(), threading.Event()

    def hold(command):
        if command == moment:
            agent.on_call = None
            reached.set()
            go_on.wait(60)

    agent.on_call = hold
    process = repository.start_capture(talking)
    try:
        assert reached.wait(60)
        os.kill(process.pid, how)
    finally:
        go_on.set()
    process.communicate(timeout=60)
    settled(repository, talking)
    assert agent.calls[-1] == THAW and agent.frozen == 0
    assert not talking.has_job()
    agent.calls.clear()
    repository.capture(talking)
    assert agent.calls == [PING, FREEZE, THAW]


def leave_frozen(talking, agent, repository):
    """A capture and its guardian are killed while the guest is being frozen."""
    path = repository.program.program.path
    reached, go_on = threading.Event(), threading.Event()

    def hold(command):
        if command == FREEZE:
            agent.on_call = None
            reached.set()
            go_on.wait(60)

    agent.on_call = hold
    process = repository.start_capture(talking)
    assert reached.wait(60)
    for pid in processes_of(path, "guardian", repository.path):
        os.kill(pid, signal.SIGKILL)
    process.kill()
    process.communicate(timeout=60)
    go_on.set()
    until(lambda: agent.frozen, "the guest is frozen")
    settled(repository, talking)
    assert agent.calls == [PING, FREEZE]


def test_the_next_capture_thaws_where_the_guardian_was_killed_too(talking, agent, repository):
    leave_frozen(talking, agent, repository)
    repository.capture(talking)
    assert agent.calls == [PING, FREEZE, THAW, PING, FREEZE, THAW]


def test_an_agent_that_has_gone_thaws_when_it_is_back(talking, agent, repository):
    leave_frozen(talking, agent, repository)
    agent.stop()
    result = repository.try_capture(talking, check=True)
    assert "cannot thaw" in result.stderr, result.stderr
    agent.start()
    agent.calls.clear()
    repository.capture(talking)
    assert agent.calls == [THAW, PING, FREEZE, THAW]
