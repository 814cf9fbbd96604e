"""Fixtures of the system tests. They need VIRTBACKUPFS, the path of the binary; see contrib/run-tests."""

import os
import shutil
import subprocess
import sys
import tempfile

import pytest

HERE = os.path.dirname(__file__)
sys.path.insert(0, os.path.join(HERE, "../lib"))

# Not before the path is known.
import hypervisor as hypervisors  # noqa: E402
from person import Person, ordinary_user  # noqa: E402
from program import Program  # noqa: E402
from repository import Repository  # noqa: E402

CACHE = os.environ.get("VIRTBACKUPFS_TEST_CACHE", "/var/tmp/virtbackupfs-tests")
SANITIZER_LOGS = os.environ.get("VIRTBACKUPFS_SANITIZER_LOGS")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def pytest_configure(config):
    config.addinivalue_line("markers", "needs_root: can only be run by root")
    config.addinivalue_line("markers", "threads: worth running under the thread sanitizer")


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
def root(ground):
    """Root itself; only for tests that are marked needs_root."""
    return Person(0, 0, f"{ground}/root") if os.geteuid() == 0 else None


@pytest.fixture(scope="session")
def person(ground):
    """An ordinary user: who runs the tests, or, where that is root, a user made for them."""
    if os.geteuid() != 0:
        return Person(os.getuid(), os.getgid(), f"{ground}/me")
    if os.stat("/dev/fuse").st_mode & 0o666 != 0o666:
        os.chmod("/dev/fuse", 0o666)  # as udev does where it runs
    return ordinary_user("vbfs-test", f"{ground}/person")


@pytest.fixture(scope="session")
def program(binary, person):
    """The program, run by the ordinary user."""
    return binary.by(person)


@pytest.fixture(scope="session")
def session(person):
    """qemu:///session of the ordinary user."""
    with hypervisors.session(person) as hypervisor:
        yield hypervisor


@pytest.fixture(scope="session")
def system(root, ground):
    """qemu:///system, used by root."""
    with hypervisors.system(root, ground) as hypervisor:
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
    """A directory of the ordinary user, for one test."""
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
    """An empty repository of the ordinary user."""
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
        with open(path, encoding="utf-8", errors="replace") as file:
            told.append(f"{name}:\n{file.read()}")
        os.unlink(path)
    if told:
        pytest.fail("\n".join(told)[:20000])


@pytest.fixture(scope="session")
def me(root, person):
    """Who runs the tests: they look into this person's mounts themselves."""
    return root or person


@pytest.fixture(scope="session")
def my_program(binary, me):
    return binary.by(me)


@pytest.fixture
def my_place(ground, me, request):
    """A directory of whoever runs the tests, for one test."""
    path = _place(ground, me, request.node.name[:40].replace("[", "-").replace("]", "").replace("/", "-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def my_module_place(ground, me):
    """The same, for the tests of one file."""
    path = _place(ground, me, "my-module")
    yield path
    shutil.rmtree(path, ignore_errors=True)
