"""Disks that oVirt's imageio serves: full, incremental and compared, whatever the server does."""

import os
import signal

import pytest
from imageio_server import BROKEN, TROUBLES, Authority, ImageioServer, copy, sparse_file, write
from mount import mounted
from repository import same_image
from vm import MIB
from wait import until

SIZE = 9 * MIB + 512 + 7
PIECES = [(0, 64 << 10), (2 * MIB, MIB), (5 * MIB + 4096, 3 * MIB), (9 * MIB, 519)]


@pytest.fixture(scope="module")
def authority(module_place):
    return Authority(module_place, "authority")


@pytest.fixture(scope="module")
def certificate(authority):
    return authority.certificate("DNS:localhost")


@pytest.fixture
def server(certificate):
    with ImageioServer(certificate) as server:
        yield server


class Case:
    """A VM with one disk, whose backups oVirt would make: each capture has a transfer of its own."""

    def __init__(self, server, authority, repository, place):
        self.server, self.authority, self.repository, self.place = server, authority, repository, place
        self.program = repository.program
        self.image = sparse_file(self.program.person, f"{place}/disk.raw", SIZE, PIECES)
        self.truth = {}  # point: what it must show

    def url(self, dirty=None, host="localhost", **parameters):
        ticket = self.server.transfer(self.image, dirty)
        parameters.setdefault("cafile", self.authority.path if self.server.scheme == "https" else None)
        return self.server.url(ticket, host=host, **parameters)

    def add(self):
        self.program.run("add", self.repository.path, "vm", f"vda={self.url()}")
        return self

    def try_capture(self, url, *options, **more):
        return self.repository.try_capture("vm", "--source", f"vda={url}", *options, **more)

    def capture(self, url, *options):
        """Takes a point of the image as it is; its name and what was said."""
        result = self.try_capture(url, *options, check=True)
        return self.keep(result.stdout.strip().split("/")[1]), result.stderr

    def keep(self, point):
        self.truth[point] = copy(self.image, f"{self.place}/{point}.raw")
        return point

    def check(self):
        assert [point["name"] for point in self.repository.points("vm")] == sorted(self.truth)
        with mounted(self.program, self.repository.path, self.place) as mount:
            for point, reference in self.truth.items():
                assert same_image(f"{mount.path}/vm/{point}/vda.raw", reference), f"{point} is another"

    def bytes_read(self):
        return sum(request.range[1] + 1 - request.range[0] for request in self.server.asked("GET") if request.range)


@pytest.fixture
def case(server, authority, repository, place):
    return Case(server, authority, repository, place).add()


def change(image):
    """Writes, zeroes, and makes holes; the ranges that a bitmap would call dirty."""
    write(image, 3 * MIB - 100, os.urandom(5000))
    write(image, 6 * MIB, bytes(128 << 10))
    os.system(f"fallocate -p -o {7 * MIB} -l {256 << 10} {image}")
    write(image, SIZE - 3, b"end")
    return [(3 * MIB - (64 << 10), 128 << 10), (6 * MIB, 128 << 10), (7 * MIB, 256 << 10), (9 * MIB, 519)]


def test_points_show_the_disk_full_and_incremental(case):
    case.capture(case.url(checkpoint="A"))
    dirty = change(case.image)
    case.server.cause()
    point, said = case.capture(case.url(dirty, bitmap="A", checkpoint="B"), "--incremental")
    assert case.repository.kinds("vm", point) == {"vda": "incremental"} and said == ""
    assert case.bytes_read() < 6 * MIB  # what is dirty, the first MiB and some of the rest
    assert case.repository.point("vm", point)["stored"] < MIB
    dirty = change(case.image)
    case.capture(case.url(dirty, bitmap="B", checkpoint="C"), "--incremental")
    point, _ = case.capture(case.url([], bitmap="C", checkpoint="D"), "--incremental")
    assert case.repository.point("vm", point)["stored"] < 64 << 10
    case.check()


def test_each_disk_has_its_own_checkpoint(case, person, place):
    images = {"vda": case.image, "vdb": sparse_file(person, f"{place}/second.raw", 2 * MIB, [(0, MIB)])}

    def capture(*options, **parameters):
        sources = []
        for disk, image in images.items():
            more = {name: values[disk] for name, values in parameters.items()}
            ticket = case.server.transfer(image, change(image) if "bitmap" in more and disk == "vda" else [])
            sources += ["--source", f"{disk}={case.server.url(ticket, cafile=case.authority.path, **more)}"]
        point = case.repository.capture("vm", *sources, *options)
        for disk, image in images.items():
            copy(image, f"{place}/{point}-{disk}.raw")
        return point

    points = [capture(checkpoint={"vda": "A", "vdb": "A%20a"}),
              capture("--incremental", bitmap={"vda": "A", "vdb": "A%20a"}, checkpoint={"vda": "B", "vdb": "B"}),
              capture("--incremental", bitmap={"vda": "B", "vdb": "B"}, checkpoint={"vda": "C", "vdb": "D"})]
    assert [point["checkpoint"] for point in case.repository.points("vm")] == ["vda=A vdb=A%20a", "B", "vda=C vdb=D"]
    with mounted(case.program, case.repository.path, place) as mount:
        for point in points:
            for disk in images:
                assert same_image(f"{mount.path}/vm/{point}/{disk}.raw", f"{place}/{point}-{disk}.raw")
    sources = []
    for disk, bitmap in (("vda", "D"), ("vdb", "C")):
        ticket = case.server.transfer(images[disk], [])
        url = case.server.url(ticket, cafile=case.authority.path, bitmap=bitmap, checkpoint="E")
        sources += ["--source", f"{disk}={url}"]
    swapped = case.repository.try_capture("vm", "--incremental", *sources)
    assert swapped.returncode == 1 and "vda: the bitmap D" in swapped.stderr and "has C" in swapped.stderr, swapped.stderr


@pytest.mark.parametrize("bitmap", ["other", None])
def test_dirty_extents_since_another_checkpoint_are_not_trusted(case, bitmap):
    case.capture(case.url(checkpoint="A"))
    change(case.image)
    refused = case.try_capture(case.url([], bitmap=bitmap, checkpoint="B"), "--incremental")
    assert refused.returncode == 1, refused.stderr
    point, said = case.capture(case.url([], bitmap=bitmap, checkpoint="B"))
    assert case.repository.kinds("vm", point) == {"vda": "incremental"}
    assert case.repository.point("vm", point)["stored"] < MIB, "what is the same is stored again"
    assert "vda" in said
    case.check()


def test_a_transfer_that_is_not_incremental_is_compared(case):
    case.capture(case.url(checkpoint="A"))
    change(case.image)
    point, said = case.capture(case.url(None, bitmap="A", checkpoint="B"))
    assert "not that of an incremental backup" in said
    assert case.repository.point("vm", point)["stored"] < MIB
    case.capture(case.url(change(case.image), bitmap="B", checkpoint="C"), "--incremental")
    case.check()


def test_another_disk_is_captured_in_full(case):
    case.capture(case.url(checkpoint="A", image="one"))
    point, said = case.capture(case.url([], bitmap="A", checkpoint="B", image="two"))
    assert "image" in said
    assert case.repository.kinds("vm", point) == {"vda": "full"}
    case.check()


def test_several_connections_are_kept(case):
    case.server.connections_max = 0
    case.server.cause()
    case.capture(case.url())
    asked = case.server.asked("GET")
    assert case.server.connections_max > 1 and len(asked) > case.server.connections_max


@pytest.mark.parametrize("number", [1, 2, 3])
def test_no_more_connections_than_the_server_allows(case, number):
    case.server.max_readers, case.server.connections_max = number, 0
    case.capture(case.url())
    until(lambda: case.server.connections == 0, "all are closed")
    assert case.server.connections_max <= number
    case.check()


def test_sizes_are_those_of_the_disk_whatever_it_lies_on(case, person, place):
    case.server.hides_total = True
    case.capture(case.url())
    case.server.hides_total = False
    case.capture(case.url())
    case.check()
    ticket = case.server.transfer(case.image, size=SIZE - 700)
    result = case.try_capture(case.server.url(ticket, cafile=case.authority.path), "--full", check=True)
    point = result.stdout.strip().split("/")[1]
    case.truth[point] = copy(case.image, f"{place}/shorter.raw")
    os.truncate(case.truth[point], SIZE - 700)
    case.check()
    empty = sparse_file(person, f"{place}/empty.raw", 0, [])
    result = case.try_capture(case.server.url(case.server.transfer(empty), cafile=case.authority.path), "--full", check=True)
    case.truth[result.stdout.strip().split("/")[1]] = empty
    case.check()


@pytest.mark.parametrize("manner", ["chunked", "close"])
def test_answers_of_no_told_length_are_understood(case, manner):
    case.server.manner = manner
    case.capture(case.url(checkpoint="A"))
    case.capture(case.url(change(case.image), bitmap="A"), "--incremental")
    case.check()


def test_a_server_that_knows_no_extents_is_read_in_full(case):
    case.server.options = {"features": []}
    case.capture(case.url())
    case.check()
    case.server.cause("status 405", lambda request: request.method == "OPTIONS")
    case.capture(case.url(), "--full")
    case.check()


def test_extents_that_end_before_the_disk_are_refused(case):
    ticket = case.server.transfer(case.image, size=SIZE + 512)
    result = case.try_capture(case.server.url(ticket, cafile=case.authority.path))
    assert result.returncode == 1 and f"end at byte {SIZE} of {SIZE + 512}" in result.stderr, result.stderr


# Whom to trust

def test_tls_is_verified(case, place, person):
    other = Authority(place, "other")
    person.give(other.path)
    for url, words in ((case.url(cafile=None), "cannot be trusted"),
                       (case.url(cafile=other.path), "cannot be trusted"),
                       (case.url(host="127.0.0.1"), "cannot be trusted"),
                       (case.url(cafile=f"{place}/nothing.pem"), "nothing.pem")):
        result = case.try_capture(url)
        assert result.returncode == 1 and words in result.stderr and "cafile" in result.stderr, result.stderr
    assert case.repository.points("vm") == []


def test_a_relative_cafile_is_one_of_whoever_adds_it(case, authority):
    directory, name = os.path.split(authority.path)
    case.program.run("add", case.repository.path, "other", f"vda={case.url(cafile=name)}", cwd=directory)
    source = next(vm["source"] for vm in case.repository.list() if vm["name"] == "other")
    assert f"cafile={authority.path}" in source
    case.repository.capture("other")


def test_plain_http_is_said_to_be_open(authority, repository, place):
    with ImageioServer(None) as server:
        case = Case(server, authority, repository, place).add()
        _, said = case.capture(case.url())
        assert "http:// protects neither" in said
        case.check()


def test_a_proxy_is_used_where_the_environment_names_one(case):
    environment = {**case.program.person.environment, "https_proxy": "http://127.0.0.1:1"}
    result = case.try_capture(case.url(), env=environment)
    assert result.returncode == 1 and "127.0.0.1 port 1" in result.stderr, result.stderr
    case.try_capture(case.url(), env={**environment, "no_proxy": "localhost"}, check=True)


@pytest.mark.parametrize("kind", ["abstract", "path"])
def test_the_local_socket_is_used_where_there_is_one(certificate, authority, repository, place, kind):
    address = f"\0{place}/imageio" if kind == "abstract" else f"{place}/imageio.sock"
    with ImageioServer(certificate, local=address) as server:
        case = Case(server, authority, repository, place).add()
        server.cause()
        case.capture(case.url(checkpoint="A"))
        assert not any(request.range for request in server.requests if not request.local)
        assert any(request.range for request in server.requests if request.local)
        # One of another server does not know the ticket.
        server.cause("status 403", lambda request: request.local)
        case.capture(case.url(change(case.image), bitmap="A", checkpoint="B"), "--incremental")
        assert not any(request.range for request in server.requests if request.local)
        case.check()


@pytest.mark.needs_root
def test_a_local_socket_of_an_ordinary_user_gets_no_ticket(certificate, authority, repository, place):
    with ImageioServer(certificate, local=f"\0{place}/imageio", local_owner=12345) as server:
        case = Case(server, authority, repository, place).add()
        server.cause()
        case.capture(case.url())
        assert server.requests and not any(request.local for request in server.requests)
        case.check()


# What is said, and what is not

def test_tickets_are_told_to_no_one(case):
    tickets = []

    def capture(trouble=None, number=0):
        url = case.url(checkpoint="A")
        tickets.append(url.split("/images/")[1].split("?")[0])
        case.server.cause(trouble, lambda request: request.number == number)
        return case.try_capture(url)

    said = [str(capture()), str(capture("status 403", 1)), str(capture("status 404", 3)), str(capture("status 500", 6))]
    case.server.tickets.clear()
    forgotten = case.repository.try_capture("vm")
    assert "status 403: the ticket is unknown, has expired" in forgotten.stderr, forgotten.stderr
    said += [forgotten.stderr, forgotten.stdout, str(case.repository.list())]
    for arguments in (["--source", f"vda={case.url(bitmp=1)}"], ["--source", f"{case.url()}"]):
        result = case.repository.try_capture("vm", *arguments)
        assert result.returncode == 1
        said.append(result.stderr)
    with mounted(case.program, case.repository.path, case.place) as mount:
        with open(f"{mount.path}/vm/capture", encoding="utf-8") as file:
            said.append(file.read())
    for root, _, names in os.walk(case.repository.path):
        for name in names:
            path = os.path.join(root, name)
            if name == "vm.json":
                assert os.stat(path).st_mode & 0o777 == 0o600
                continue
            with open(path, "rb") as file:
                said.append(file.read().decode(errors="replace"))
    said = [text.replace("--source", "") for text in said]
    words = [text for text in said if "ticket-" in text and "args=" not in text]
    assert words == []


def test_tickets_leave_the_process_list(case):
    url = case.url()
    case.server.cause("stall", lambda request: request.number == 3)
    for arguments, text in ((["--source", f"vda={url}"], None), (["--source", "-"], f"vda={url}\n")):
        process = case.repository.program.start("capture", case.repository.path, "vm", *arguments, stdin=-1)
        process.stdin.write(text or "")
        process.stdin.close()
        until(lambda: len(case.server.requests) >= 3, "the capture asks the server")
        lines, ticket = [], url.split("/images/")[1].split("?")[0]
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{entry}/cmdline", encoding="utf-8", errors="replace") as file:
                    lines.append(file.read())
            except OSError:
                pass
        assert any(case.repository.path in line for line in lines)
        assert not any(ticket in line for line in lines)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 1
        case.server.cause("stall", lambda request: request.number == 3)


@pytest.mark.parametrize("option, words", [("--top", "does not tell what lies below"), ("--freeze", "that could freeze"),
                                           ("--pause", "that could pause")])
def test_what_a_transfer_does_not_offer_is_refused(case, option, words):
    result = case.try_capture(case.url(), option)
    assert result.returncode == 1 and words in result.stderr, result.stderr
    assert case.repository.points("vm") == []


@pytest.mark.parametrize("arguments, text", [(["--source", "-"], ""), (["--source", "-"], " \n \n"),
                                             (["--source", ""], None)])
def test_an_empty_source_is_refused(case, arguments, text):
    result = case.repository.try_capture("vm", *arguments, input=text)
    assert result.returncode == 1 and "is empty" in result.stderr, result.stderr
    result = case.program.run("add", case.repository.path, "other", arguments[1], input=text, check=False)
    assert result.returncode == 1 and "is empty" in result.stderr, result.stderr


@pytest.mark.parametrize("source, words", [
    ("https://localhost/images/t?cafil=x", "\"cafil\" is no parameter"),
    ("https://localhost/t", "/images/TICKET"),
    ("https://me:secret@localhost/images/t", "no host"),
    ("https://localhost:1/images/t?timeout=x", "timeout is from 1"),
])
def test_add_refuses_what_cannot_be(repository, source, words):
    result = repository.program.run("add", repository.path, "vm", f"vda={source}", check=False)
    assert result.returncode == 1 and words in result.stderr and "secret" not in result.stderr, result.stderr
    assert repository.list() == []


# What goes wrong

@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_server_that_misbehaves_at_any_request(case, trouble):
    """The capture fails, in words, and leaves nothing; or it has made up for it, and shows the disk."""
    failed, number = 0, 1
    while number <= (4 if "stall" in trouble else 100):
        case.server.cause(trouble, lambda request: request.number == number)
        result = case.try_capture(case.url(timeout=1), "--full")
        assert result.returncode in (0, 1), result
        if result.returncode == 0:
            case.keep(result.stdout.strip().split("/")[1])
        else:
            failed += 1
            assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("virtbackupfs: "), result.stderr
            assert "ticket-" not in result.stderr
        if len(case.server.requests) < number:
            break  # it was over before
        if case.server.requests[number - 1].range and trouble not in BROKEN:
            assert result.returncode == 1, f"{trouble} in answer {number} is not noticed"
        number += 1
    assert failed > 0 and number > 4
    case.server.cause()
    case.capture(case.url())
    case.check()
    assert len(case.repository.stored_files("vm", "data/*")) == len(case.truth)


def test_an_interrupted_capture_does_not_wait_for_a_silent_server(case):
    for number in (1, 2, 5, 7):
        case.server.cause("stall", lambda request: request.number >= number)
        process = case.repository.start_capture("vm", "--source", f"vda={case.url(timeout=600)}")
        until(lambda: len(case.server.requests) >= number, "the server is asked")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 1
        assert "interrupted" in process.stderr.read()
    case.server.cause()
    case.capture(case.url())
    case.check()


class Waiting:
    """A second disk, whose transfer waits while the first disk's bytes are held back."""

    def __init__(self, case, person, place):
        self.server = case.server
        self.ticket = case.server.transfer(sparse_file(person, f"{place}/second.raw", MIB, [(0, 4096)]))
        self.sources = ["--source", f"vda={case.url(timeout=600)}",
                        "--source", f"vdb={case.server.url(self.ticket, cafile=case.authority.path, timeout=600)}"]
        self.before = None  # requests for the second, when the first was held back

    def asked(self):
        return len(self.server.asked("OPTIONS", ticket=self.ticket))

    def holds(self, request):
        """Whether it is one to be held back."""
        if not request.range or request.range[0] == 0 or request.ticket == self.ticket:
            return False
        if self.before is None:
            self.before = self.asked()
        return True

    def kept_alive(self):
        return self.before is not None and self.asked() > self.before


def test_a_transfer_that_waits_for_its_turn_is_kept_alive(case, person, place):
    waiting = Waiting(case, person, place)

    def hold(request):
        if waiting.holds(request):
            until(waiting.kept_alive, "the second transfer is kept alive")

    case.server.trouble = hold
    case.repository.capture("vm", *waiting.sources)
    assert waiting.kept_alive()


def test_keeping_a_transfer_alive_keeps_no_one_waiting(case, person, place):
    waiting = Waiting(case, person, place)
    case.server.trouble = lambda request: "stall" if waiting.holds(request) or waiting.kept_alive() else None
    process = case.repository.start_capture("vm", *waiting.sources)
    until(waiting.kept_alive, "the second transfer is kept alive")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 1
    assert "interrupted" in process.stderr.read()


def test_a_killed_capture_leaves_nothing(case):
    case.server.cause("stall", lambda request: request.number == 6)
    process = case.repository.start_capture("vm", "--source", f"vda={case.url()}")
    until(lambda: len(case.server.requests) >= 6, "the server is asked for bytes")
    process.kill()
    process.wait()
    case.server.cause()
    until(lambda: case.try_capture(case.url()).returncode == 0, "the next capture works")
    assert len(case.repository.stored_files("vm", "data/*")) == len(case.repository.points("vm")) == 1
    case.keep(case.repository.points("vm")[0]["name"])
    case.check()
