"""Fixtures of the system tests. They need VIRTBACKUPFS, the path of the binary; see contrib/run-tests.

Most tests are an ordinary user's, with a libvirt session of its own: a FUSE mount is closed to everybody but the one who
made it, root too. Those marked needs_root are root's, with the system's instance of libvirt."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

HERE = os.path.dirname(__file__)
sys.path.insert(0, os.path.join(HERE, "../lib"))

# Not before the path is known.
import hypervisor as hypervisors  # noqa: E402
from person import Person  # noqa: E402
from program import Program  # noqa: E402
from repository import Repository  # noqa: E402

CACHE = os.environ.get("VIRTBACKUPFS_TEST_CACHE", "/var/tmp/virtbackupfs-tests")
SANITIZER_LOGS = os.environ.get("VIRTBACKUPFS_SANITIZER_LOGS")


def pytest_configure(config):
    # A shell starts what runs in the background deaf to SIGINT, and so would all programs under test be, which keep to that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup
    config.addinivalue_line("markers", "needs_root: can only be run by root")


def pytest_collection_modifyitems(items):
    for item in items:
        if os.geteuid() != 0 and item.get_closest_marker("needs_root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session")
def ground():
    """A directory that every user can reach; what lies in it goes with the test run."""
    path = tempfile.mkdtemp(prefix="virtbackupfs-", dir="/var/tmp")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def binary(ground):
    path = os.environ.get("VIRTBACKUPFS")
    if not path:
        pytest.exit("VIRTBACKUPFS must be the path of the program: contrib/run-tests sets it", 4)
    return Program(path, ground)


@pytest.fixture(scope="session")
def person(ground):
    """Who runs the tests, with a home of its own for them."""
    return Person(os.getuid(), os.getgid(), f"{ground}/person", os.getgroups())


@pytest.fixture(scope="session")
def program(binary, person):
    """The program, run by that person."""
    return binary.by(person)


@pytest.fixture(scope="session")
def session(person):
    """qemu:///session of an ordinary user."""
    if person.is_root:
        pytest.skip("needs an ordinary user: libvirt has no session for root")
    with hypervisors.session(person) as hypervisor:
        yield hypervisor


@pytest.fixture(scope="session")
def system(person, ground):
    """qemu:///system, used by root."""
    with hypervisors.system(person, ground) as hypervisor:
        yield hypervisor


@pytest.fixture(scope="session")
def guest():
    """The directory of the small guest's kernel and initrd, kept between runs."""
    path = f"{CACHE}/guest"
    os.makedirs(CACHE, mode=0o755, exist_ok=True)
    subprocess.run([os.path.join(HERE, "../../contrib/guest/build"), path], check=True, timeout=300)
    return path


def _place(ground, person, name):
    path = tempfile.mkdtemp(prefix=f"{name}-", dir=ground)
    os.chmod(path, 0o755)
    person.give(path)
    return path


@pytest.fixture
def place(ground, person, request):
    """A directory for one test."""
    path = _place(ground, person, request.node.name[:40].replace("[", "-").replace("]", "").replace("/", "-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def module_place(ground, person):
    """The same, for the tests of one file."""
    path = _place(ground, person, "module")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def repository(program, place):
    """An empty repository."""
    return Repository(program, f"{place}/repository").init()


@pytest.fixture(autouse=True)
def sanitizers_are_silent():
    """What a sanitizer has written into its log, in whatever process, fails the test."""
    yield
    if not SANITIZER_LOGS:
        return
    told = []
    for name in sorted(os.listdir(SANITIZER_LOGS)):
        path = os.path.join(SANITIZER_LOGS, name)
        try:  # tests run side by side: another one may take it, and fails then
            with open(path, encoding="utf-8", errors="replace") as file:
                told.append(f"{name}:\n{file.read()}")
            os.unlink(path)
        except FileNotFoundError:
            pass
    if told:
        pytest.fail("\n".join(told)[:20000])
