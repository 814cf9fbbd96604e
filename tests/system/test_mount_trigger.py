"""VM/capture behaves like a file in sysfs. Captures of real VMs are tested elsewhere; these here are refused or fail."""

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
import threading
import time

import pytest
from made import Made
from mount import mounted
from program import children_of
from repository import pull, pull_at_once, state_of, wait_captured
from wait import until

# libvirt's test driver has no VM of that name: a capture is accepted, and then fails.
FAILS = "test:///default"
WORDS = "has no VM named"
F_OFD_SETLK = 37


@pytest.fixture(scope="module")
def made(person, module_place):
    made = Made(person, module_place, "--points", "2", "--source", FAILS)
    made.more("--vm", "gone", "--points", "1", "--source", "-")
    made.more("--vm", "idle", "--points", "1", "--source", FAILS)
    return made


@pytest.fixture(scope="module")
def mount(program, made, module_place):
    with mounted(program, made.path, module_place) as mount:
        yield mount


@pytest.fixture
def trigger(mount):
    yield mount / "vm1/capture"
    wait_captured(mount / "vm1/capture")


@contextlib.contextmanager
def lock_held(made, vm="vm1"):
    """As a capture on another host has it."""
    descriptor = os.open(made.stored("lock", vm=vm), os.O_RDWR | os.O_CREAT, 0o600)

    def take():
        with contextlib.suppress(BlockingIOError):
            return fcntl.fcntl(descriptor, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))

    try:
        until(take, "the last capture has given the lock up")
        yield
    finally:
        os.close(descriptor)


def refused(trigger, data, code, flags=os.O_WRONLY):
    descriptor = os.open(trigger, flags)
    try:
        with pytest.raises(OSError) as refusal:
            os.write(descriptor, data)
        assert refusal.value.errno == code, refusal.value
    finally:
        os.close(descriptor)


def test_before_the_first_capture_it_is_idle(mount):
    assert open(mount / "idle/capture", encoding="utf-8").read() == "state: idle\n"


@pytest.mark.parametrize("word", ["full", "incremental", "auto"])
def test_a_word_starts_a_capture_whose_failure_is_told(trigger, word):
    pull(trigger, word)
    state = wait_captured(trigger)
    assert state["state"] == "failed" and state["kind"] == word
    assert WORDS in state["error"]


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND, os.O_RDWR,
                                   os.O_WRONLY | os.O_CREAT | os.O_TRUNC])
def test_any_way_of_opening_does(trigger, flags):
    started = state_of(trigger).get("started")
    descriptor = os.open(trigger, flags)
    try:
        assert os.write(descriptor, b"auto\n") == 5
    finally:
        os.close(descriptor)
    assert wait_captured(trigger)["started"] != started


def test_without_a_newline_and_at_any_offset(trigger):
    descriptor = os.open(trigger, os.O_RDWR)
    try:
        assert os.pwrite(descriptor, b"auto", 12345) == 4
        wait_captured(trigger)
        assert os.write(descriptor, b"full") == 4
        wait_captured(trigger)
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def test_truncation_and_touching_do_nothing(trigger):
    before = state_of(trigger)
    os.truncate(trigger, 0)
    os.truncate(trigger, 1000)
    os.utime(trigger)
    os.close(os.open(trigger, os.O_WRONLY | os.O_TRUNC))
    assert state_of(trigger) == before


@pytest.mark.parametrize("data", [b"x", b"\n", b"Full", b"full\n\n", b" full", b"full ", b"full\0", b"auto\nfull\n",
                                  b"incrementa", b"incremental" + b" " * 100, b"f" * 70000])
def test_other_words_are_invalid(trigger, data):
    before = state_of(trigger)
    refused(trigger, data, errno.EINVAL)
    assert state_of(trigger) == before


def test_a_capture_that_runs_makes_it_busy(trigger, made):
    before = state_of(trigger)
    with lock_held(made):
        refused(trigger, b"auto\n", errno.EBUSY)
        refused(trigger, b"nonsense\n", errno.EINVAL)
    assert state_of(trigger) == before
    pull(trigger, "auto")


def test_a_forgotten_vm_cannot_capture(mount):
    refused(mount / "gone/capture", b"auto\n", errno.EROFS)


def test_a_vm_added_again_can(mount, made, program):
    made.more("--vm", "again", "--points", "1", "--source", "-")
    trigger = mount / "again/capture"
    descriptor = os.open(trigger, os.O_WRONLY)
    try:
        with pytest.raises(OSError):
            os.write(descriptor, b"auto\n")
        made.more("--vm", "again", "--points", "0", "--source", FAILS)
        os.write(descriptor, b"auto\n")
    finally:
        os.close(descriptor)
    assert WORDS in wait_captured(trigger)["error"]


def test_a_read_only_mount_cannot_capture(made, program, place):
    with mounted(program, made.path, place, "ro") as mount:
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            with pytest.raises(OSError) as refusal:
                os.open(mount / "vm1/capture", flags)
            assert refusal.value.errno == errno.EROFS
        assert state_of(mount / "vm1/capture")["state"] in ("idle", "failed")


def test_a_repository_that_cannot_be_written_to_cannot_capture(person, program, place):
    if person.is_root:
        pytest.skip("root may write everywhere")
    made = Made(person, place, "--points", "1")
    os.chmod(made.stored(), 0o500)
    try:
        with mounted(program, made.path, place) as mount:
            refused(mount / "vm1/capture", b"auto\n", errno.EROFS)
    finally:
        os.chmod(made.stored(), 0o700)


def test_only_the_owner_writes(made, program, place, person):
    with mounted(program, made.path, place, "umask=000") as mount:
        assert os.stat(mount / "vm1/capture").st_mode & 0o777 == 0o644
        assert os.stat(mount / "vm1").st_mode & 0o777 == 0o555


def test_a_snapshot_is_read_on(trigger):
    descriptor = os.open(trigger, os.O_RDWR)
    try:
        text = os.pread(descriptor, 4096, 0)
        os.write(descriptor, b"full\n")
        wait_captured(trigger)
        pieces = b"".join(os.pread(descriptor, 5, offset) for offset in range(5, len(text), 5))
        assert text[:5] + pieces == text
        assert os.pread(descriptor, 4096, 0) != text
        assert os.pread(descriptor, 10, 100000) == b""
    finally:
        os.close(descriptor)


def events(descriptor, mask, timeout):
    poll = select.poll()
    poll.register(descriptor, mask)
    return dict(poll.poll(timeout)).get(descriptor, 0)


def test_poll_tells_a_change_since_the_last_read(trigger):
    descriptor = os.open(trigger, os.O_RDONLY)
    try:
        changed = select.POLLPRI | select.POLLERR
        # As sysfs: who has read nothing is told at once.
        assert events(descriptor, select.POLLPRI, 0) & changed == changed
        os.pread(descriptor, 4096, 0)
        assert events(descriptor, select.POLLPRI, 0) == 0
        assert events(descriptor, select.POLLIN, 0) == select.POLLIN
        thread = threading.Timer(0.5, pull, (trigger, "full"))
        thread.start()
        began = time.monotonic()
        assert events(descriptor, select.POLLPRI, 20000) & changed == changed
        assert time.monotonic() - began < 10
        thread.join()
        # Until it is read it stays changed.
        assert events(descriptor, select.POLLPRI, 0) & changed == changed
        wait_captured(trigger)
        os.pread(descriptor, 4096, 0)
        assert events(descriptor, select.POLLPRI, 300) == 0
    finally:
        os.close(descriptor)


def test_edge_triggered_waiting_misses_nothing(trigger):
    descriptor, epoll = os.open(trigger, os.O_RDONLY), select.epoll()
    try:
        os.pread(descriptor, 4096, 0)
        epoll.register(descriptor, select.EPOLLPRI | select.EPOLLET)
        while epoll.poll(0):
            pass
        for _ in range(3):
            pull(trigger, "full")
            wait_captured(trigger)
            assert epoll.poll(20), "a change is told"
            os.pread(descriptor, 4096, 0)
            while epoll.poll(0.6):
                os.pread(descriptor, 4096, 0)
    finally:
        epoll.close()
        os.close(descriptor)


def test_many_wait_at_once(trigger):
    waiting = [os.open(trigger, os.O_RDONLY) for _ in range(40)]
    told, all_have_read = [], threading.Barrier(len(waiting) + 1)

    def wait(descriptor):
        os.pread(descriptor, 4096, 0)
        all_have_read.wait(20)
        if events(descriptor, select.POLLPRI, 20000):
            told.append(descriptor)

    threads = [threading.Thread(target=wait, args=(descriptor,)) for descriptor in waiting]
    for thread in threads:
        thread.start()
    all_have_read.wait(20)
    pull(trigger, "full")
    for thread in threads:
        thread.join()
    for descriptor in waiting:
        os.close(descriptor)
    assert sorted(told) == sorted(waiting)


def test_ordinary_files_are_always_ready(mount):
    descriptor = os.open(mount / "vm1/latest/vda.raw", os.O_RDONLY)
    try:
        assert events(descriptor, select.POLLIN | select.POLLPRI, 0) == select.POLLIN
    finally:
        os.close(descriptor)


@pytest.mark.needs_root
def test_what_a_triggered_capture_has_to_say_is_logged(trigger):
    """As nobody sees its stderr."""
    if os.path.lexists("/dev/log"):
        pytest.skip("somebody else reads the system's log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind("/dev/log")
        try:
            log.settimeout(30)
            pull(trigger, "full")
            while WORDS not in log.recv(4096).decode(errors="replace"):  # others may have something to say
                pass
        finally:
            os.unlink("/dev/log")


def test_captures_leave_no_zombies(mount, trigger):
    for _ in range(5):
        pull(trigger, "full")
        wait_captured(trigger)
    until(lambda: not children_of(mount.pid), "all captures are buried")


def test_writers_at_once_start_one_capture_each_or_are_refused(trigger):
    results = pull_at_once(trigger, "full", 16)
    assert 0 in results and set(results) <= {0, errno.EBUSY}, results
