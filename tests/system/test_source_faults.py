"""NBD servers that go wrong: a capture ends well or fails in words, leaves nothing, and the next one is right."""

import os

import pytest
from imageio_server import copy, sparse_file, write
from mount import mounted
from nbd_server import TROUBLES, WrongServer, nbdkit
from repository import same_image

MIB = 1 << 20
SIZE = 3 * MIB + 512 * 3


class Case:
    """A VM with one disk, behind an NBD server's socket."""

    def __init__(self, repository, place, size=SIZE, **parameters):
        self.repository, self.place, self.program = repository, place, repository.program
        self.person = repository.person
        self.image = sparse_file(self.person, f"{place}/disk.raw", size, [(0, MIB), (2 * MIB, min(MIB, size - 2 * MIB))])
        self.socket = f"{place}/s"
        words = "".join(f"&{name}={value}" for name, value in parameters.items())
        self.program.run("add", repository.path, "vm", f"vda=nbd+unix:///?socket={self.socket}{words}")
        self.truth = {}

    def capture(self, *options):
        """A point of what the server has now, which is the image."""
        return self.keep(self.repository.capture("vm", *options))

    def keep(self, point):
        self.truth[point] = copy(self.image, f"{self.place}/{point}.raw")
        return point

    def try_capture(self, *options):
        """Whether it succeeded; either way it must have ended as it should."""
        done = self.repository.try_capture("vm", *options)
        if done.returncode == 0:
            self.keep(done.stdout.strip().split("/")[1])
            return True
        said = [line for line in done.stderr.splitlines() if ": warning: " not in line]
        assert done.returncode == 1 and len(said) == 1 and "vda" in said[0], done.stderr
        assert [point["name"] for point in self.repository.points("vm")] == sorted(self.truth)
        return False

    def check(self):
        assert [point["name"] for point in self.repository.points("vm")] == sorted(self.truth)
        assert len(self.repository.stored_files("vm", "data/*")) == len(self.truth)
        with mounted(self.program, self.repository.path, self.place) as mount:
            for point, reference in self.truth.items():
                assert same_image(f"{mount.path}/vm/{point}/vda.raw", reference), f"{point} is another"


@pytest.fixture
def case(repository, place):
    return Case(repository, place, timeout=1)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_server_that_goes_wrong_once_at_each_request_in_turn(case, trouble):
    with WrongServer(case.image, case.socket) as server:
        case.capture()
        number = 0
        while number <= server.count:  # of the capture before
            number += 1
            write(case.image, 2 * MIB + 512 * number, os.urandom(512))
            server.cause(trouble, lambda request, number=number: request == number)
            case.try_capture("--full")
        server.cause()
        case.capture()
    case.check()


@pytest.mark.parametrize("trouble", [name for name in TROUBLES if name not in ("extents past the end", "no extent")])
def test_a_server_that_stays_wrong_fails_the_capture(case, trouble):
    with WrongServer(case.image, case.socket) as server:
        for first in (1, 3):
            server.cause(trouble, lambda request, first=first: request >= first)
            assert not case.try_capture()
        server.cause()
        case.capture()
    case.check()


@pytest.mark.parametrize("filters", [
    "--filter=noextents", "--filter=nozero", "--filter=exitlast", "--filter=limit limit=1", "--filter=limit limit=2",
    "--filter=blocksize-policy blocksize-minimum=4096 blocksize-preferred=65536 blocksize-maximum=131072 "
    "blocksize-error-policy=error", "--filter=delay rdelay=20ms", "--no-sr", "--filter=multi-conn multi-conn-mode=disable",
])
def test_servers_that_offer_less_cost_time_alone(case, filters):
    words = filters.split()
    options, parameters = [word for word in words if word.startswith("-")], [word for word in words if word[0] != "-"]
    if "blocksize-policy" in filters:
        os.truncate(case.image, 3 * MIB + 4096)
    with nbdkit(case.person, case.socket, *options, "file", case.image, *parameters):
        case.capture()
    write(case.image, 100, b"written")
    with nbdkit(case.person, case.socket, *options, "file", case.image, *parameters):
        point = case.capture()
    assert case.repository.point("vm", point)["kind"] == "incremental"  # compared with the one before
    assert case.repository.point("vm", point)["stored"] < MIB
    case.check()


@pytest.mark.parametrize("size", [2 * MIB + 1, 2 * MIB + 4097])
def test_odd_sizes_are_captured_to_the_last_byte(repository, place, size):
    case = Case(repository, place, size)
    with nbdkit(case.person, case.socket, "file", case.image):
        case.capture()
    case.check()


@pytest.mark.parametrize("filters, said", [
    ("--filter=error error-pread-rate=100%", "cannot read"),
    ("--filter=error error-extents-rate=100%", "cannot get extents"),
    ("--filter=delay delay-read=30", "said nothing for 1 second"),
    ("--filter=delay delay-extents=30", "said nothing for 1 second"),
])
def test_what_a_server_cannot_do_is_said_and_leaves_nothing(case, filters, said):
    option, parameter = filters.split()
    with nbdkit(case.person, case.socket, option, "file", case.image, parameter):
        failed = case.repository.try_capture("vm")
        assert failed.returncode == 1 and said in failed.stderr, failed.stderr
        assert case.repository.points("vm") == [] and case.repository.stored_files("vm", "data/*") == []
    with nbdkit(case.person, case.socket, "file", case.image):
        case.capture()
    case.check()


def test_errors_now_and_then_are_failures_or_do_not_matter(case):
    with nbdkit(case.person, case.socket, "--filter=error", "file", case.image, "error-rate=20%"):
        for _ in range(4):
            case.try_capture("--full")
    with nbdkit(case.person, case.socket, "file", case.image):
        case.capture()
    case.check()
