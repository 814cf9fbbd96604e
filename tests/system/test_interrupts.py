"""Ctrl-C and SIGTERM end a capture in good order wherever it is, also where something does not answer.

Servers may say nothing for a minute: what ends earlier was interrupted."""

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from mount import mounted
from nbd_server import WrongServer
from program import processes_of
from repository import state_of
from slow import Progress
from truth import Truth
from vm import MIB, VM, Disk, random_image
from wait import until

SECONDS = 30  # for a machine that is busy


@pytest.fixture
def image(repository, place):
    """A VM "vm" with one disk, behind an NBD server's socket at s."""
    path = f"{place}/disk.raw"
    with open(path, "wb") as file:
        file.write(os.urandom(4 * MIB))
    repository.program.run("add", repository.path, "vm", f"vda=nbd+unix:///?socket={place}/s&timeout=300")
    return path


def guardians(repository, vm="vm"):
    return processes_of(repository.program.program.path, "guardian", repository.path, vm)


def ends(process, repository, vm="vm"):
    """It ends soon, saying so, and nothing of it is left; what it said."""
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1, err
    said = [line for line in err.splitlines() if ": warning: " not in line]
    assert len(said) == 1 and "interrupted" in said[0], err
    until(lambda: not guardians(repository, vm), "its guardian has ended")
    return said[0]


def check_state(repository, place):
    """It is what the guardian wrote."""
    with mounted(repository.program, repository.path, place) as mount:
        state = state_of(mount / "vm/capture")
    assert (state["state"], state["error"]) == ("failed", "interrupted"), state


def check_nothing_left(repository):
    assert repository.points("vm") == [] and repository.stored_files("vm", "data/*") == []


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_does_not_answer(repository, image, place, number, end):
    """To the question for extents, a read, and whatever comes then."""
    with WrongServer(image, f"{place}/s") as server:
        server.cause("say nothing", lambda request: request >= number)
        process = repository.start_capture("vm")
        until(lambda: server.count >= number or process.poll() is not None, "the server is asked")
        process.send_signal(end)
        ends(process, repository)
    check_nothing_left(repository)


def test_a_server_that_does_not_greet(repository, image, place):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{place}/s")
        listener.listen(1)
        listener.settimeout(SECONDS)
        process = repository.start_capture("vm")
        connection, _ = listener.accept()
        with connection:
            process.send_signal(signal.SIGTERM)
            ends(process, repository)
    check_nothing_left(repository)


def test_a_connection_that_is_to_replace_a_lost_one(repository, image, place):
    replaced = threading.Event()
    with WrongServer(image, f"{place}/s") as server:
        server.cause("hang up", lambda request: request >= 2 and replaced.wait(SECONDS))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{place}/other")
            listener.listen(16)
            listener.settimeout(SECONDS)
            os.rename(f"{place}/s", f"{place}/first")
            os.symlink("first", f"{place}/s")
            process = repository.start_capture("vm", "--on-source-error", "retry")
            until(lambda: server.count >= 1 or process.poll() is not None, "the server is asked")
            os.symlink("other", f"{place}/next")
            os.rename(f"{place}/next", f"{place}/s")
            replaced.set()
            connection, _ = listener.accept()
            with connection:
                process.send_signal(signal.SIGTERM)
                ends(process, repository)
        os.rename(f"{place}/first", f"{place}/s")
    check_nothing_left(repository)


# Waits that cannot be cut short


@pytest.fixture
def slow_case(session, repository, place):
    """A VM that is captured slowly: its vm, and truth."""
    with VM(session, "vm", []) as vm:
        vm.disks.append(Disk("vda", 64 * MIB, path=random_image(vm.person, f"{vm.directory}/vda.qcow2", 64 * MIB, 32 * MIB)))
        vm.start()
        repository.add(vm)
        yield vm, Truth(repository, vm, place)


@pytest.mark.parametrize("moment", ["connecting", "copying"])
def test_a_libvirtd_that_hangs(slow_case, session, repository, place, moment):
    vm, truth = slow_case
    truth.capture()
    daemon = session.daemon_pid()
    progress = Progress(repository, vm)
    if moment == "copying":
        process = repository.start_capture(vm, "--full", "--rate", "4M")
        progress.wait(MIB, process)
        os.kill(daemon, signal.SIGSTOP)
    else:
        os.kill(daemon, signal.SIGSTOP)
        process = repository.start_capture(vm, "--full")
        until(lambda: guardians(repository), "the capture has begun")
    try:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 1 and "interrupted" in err.splitlines()[-1] and "background" in err, err
    finally:
        os.kill(daemon, signal.SIGCONT)
    until(lambda: not guardians(repository), "its guardian has ended")
    check_state(repository, place)
    assert not vm.has_job()
    vm.io("vda", "write -P 3 1M 1M")
    truth.capture("--incremental")
    assert len(repository.stored_files(vm, "data/*")) == 2
    truth.check()


DEAF = """
import os, socket, sys
deaf = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
deaf.bind(("127.0.0.1", 53))
os.set_inheritable(deaf.fileno(), True)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.needs_root
def test_a_name_server_that_does_not_answer(program, repository, place):
    """In a network of its own, in which one listens and says nothing."""
    program.run("add", repository.path, "vm", "vda=nbd://far.example/disk?timeout=300")
    with open(f"{place}/resolv.conf", "w", encoding="utf-8") as file:
        file.write("nameserver 127.0.0.1\noptions timeout:30 attempts:5\n")
    script = f"ip link set lo up && mount --bind {place}/resolv.conf /etc/resolv.conf && exec \"$@\""
    process = subprocess.Popen(["unshare", "--mount", "--net", "sh", "-c", script, "sh", sys.executable, "-c", DEAF,
                                program.program.path, "capture", repository.path, "vm"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def asks():
        """Its socket to port 53 of 127.0.0.1 is there."""
        with open(f"/proc/{process.pid}/net/udp", encoding="ascii") as file:
            return any(line.split()[2] == "0100007F:0035" for line in file)

    until(lambda: process.poll() is not None or asks(), "the name is asked for")
    process.send_signal(signal.SIGTERM)
    assert "background" in ends(process, repository)
    check_state(repository, place)
    check_nothing_left(repository)
