"""The guest's file systems are frozen while a job begins, where an agent answers; and always thawed, whatever happens."""

import os
import signal
import threading

import pytest
from agent import Agent, channels
from program import processes_of
from vm import MIB, VM, Disk
from wait import until

FREEZE, THAW, PING = "guest-fsfreeze-freeze", "guest-fsfreeze-thaw", "guest-get-time"


@pytest.fixture(scope="module")
def talking(session, guest, person):
    """A guest that runs, with an agent."""
    relay = f"{person.runtime}/relay.sock"
    with VM(session, "talking", [Disk("vda", 4 * MIB)], guest=guest, extra=channels(relay)) as vm:
        vm.start()
        vm.agent = Agent(vm, relay)
        until(lambda: "state='connected'" in vm.virsh("dumpxml").stdout.split("org.qemu.guest_agent.0")[1][:40],
              "libvirt knows of the agent")
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
    assert not [name for name in os.listdir("/var/tmp") if ".note." in name and "virtbackupfs" in name]


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


def test_the_next_capture_thaws_where_the_guardian_was_killed_too(talking, agent, repository):
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
    repository.capture(talking)
    assert agent.calls == [PING, FREEZE, THAW, PING, FREEZE, THAW]
