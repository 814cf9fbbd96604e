"""VMs that are lists of disks: image files, and what NBD servers serve."""

import contextlib
import os
import shutil
import signal
import subprocess

import pytest
from imageio_server import Authority
from mount import mounted
from nbd_server import nbdkit, qemu_nbd
from program import processes_of
from wait import until

MIB = 1 << 20


def image_io(image, *commands, form="qcow2"):
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "-d", "unmap", "-f", form, *words, image], check=True, capture_output=True)


class Case:
    """A VM with one image."""

    def __init__(self, repository, place):
        self.repository, self.place, self.program, self.person = repository, place, repository.program, repository.person
        self.image, self.socket = f"{place}/a disk, of mine.qcow2", f"{place}/s"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", self.image, "20M"], check=True)
        image_io(self.image, "write -P 1 0 9M")
        self.bitmap("--add", "b")
        self.truth = {}

    def bitmap(self, change, name):
        subprocess.run(["qemu-img", "bitmap", change, self.image, name], check=True)

    def change(self):
        image_io(self.image, "write -P 7 3M 64k", "discard 5M 1M", "write -z 6M 64k")

    def add(self, uri):
        return self.program.run("add", self.repository.path, "vm", f"vda={uri}", cwd=self.place)

    def capture(self, *options, image=None, form="qcow2"):
        """Takes a point; what was said."""
        done = self.repository.try_capture("vm", *options, check=True)
        self.point = done.stdout.strip().split("/")[1]
        reference = self.truth[self.point] = f"{self.place}/{self.point}.raw"
        subprocess.run(["qemu-img", "convert", "-f", form, "-O", "raw", image or self.image, reference], check=True)
        return done.stderr

    def refused(self, *options):
        failed = self.repository.try_capture("vm", *options)
        assert failed.returncode == 1, failed.stderr
        return failed.stderr

    @property
    def stored(self):
        return self.repository.point("vm", self.point)["stored"]

    def check(self):
        assert [point["name"] for point in self.repository.points("vm")] == sorted(self.truth)
        with mounted(self.program, self.repository.path, self.place) as mount:
            for point, reference in self.truth.items():
                subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "raw", f"{mount.path}/vm/{point}/vda.raw",
                                reference], check=True)

    def traces(self):
        """Of captures: servers of its images, directories."""
        return [pid for pid in processes_of(shutil.which("qemu-nbd")) if self.place in self.words_of(pid)]

    @staticmethod
    def words_of(pid):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
            return file.read()
        return ""


@pytest.fixture
def case(repository, place):
    return Case(repository, place)


def test_a_vm_that_was_forgotten_goes_on_where_it_was(case):
    case.add(f"file:{case.image}?bitmap=b")
    case.capture()
    case.repository.program.run("forget", case.repository.path, "vm")
    case.change()
    case.add(f"file:{case.image}?bitmap=b")
    assert "compared" not in case.capture("--incremental")
    # Whatever image has the name now: another one is read in full, and said so.
    other = f"{case.place}/other.qcow2"
    shutil.copy(case.image, other)
    case.repository.program.run("forget", case.repository.path, "vm")
    case.add(f"file:{other}?bitmap=b")
    assert "its image is another one" in case.capture()
    assert [point["kind"] for point in case.repository.points("vm")] == ["full", "incremental", "full"]
    case.check()


def test_a_bitmap_of_a_file_makes_incrementals(case):
    case.add("file:a disk, of mine.qcow2?format=qcow2&bitmap=b")
    case.capture()
    case.change()
    assert case.capture("--incremental") == ""
    assert case.stored < 64 << 10
    case.check()
    assert case.traces() == []


@pytest.mark.parametrize("shared", ["--shared=1", "--shared=8"])
def test_a_bitmap_of_an_nbd_server_makes_incrementals(case, shared):
    case.add("nbd+unix:///disk?socket=s&bitmap=b")
    for options in ([], ["--incremental"]):
        with qemu_nbd(case.person, case.socket, case.image, shared, "--export-name=disk", "--bitmap=b"):
            case.capture(*options)
        case.change()
    assert case.stored < 64 << 10
    with qemu_nbd(case.person, case.socket, case.image, "--export-name=disk"):
        assert "its server has no bitmap b" in case.refused("--incremental")
        assert "has no bitmap b" in case.capture()
    case.check()


def test_a_bitmap_that_was_not_there_at_the_point_before_is_not_trusted(case):
    case.add("file:a disk, of mine.qcow2?format=qcow2")
    case.capture()
    case.change()
    case.bitmap("--add", "new")
    case.change()
    source = f"vda=file:{case.image}?format=qcow2&bitmap="
    assert "has no checkpoint" in case.refused("--source", source + "new", "--incremental")
    assert "compared" in case.capture("--source", source + "new")
    image_io(case.image, "write -P 8 0 64k")
    case.capture("--source", source + "new", "--incremental")
    assert "no bitmap none" in case.refused("--source", source + "none", "--incremental")
    assert "does not go back to the parent point, which has new" in case.refused("--source", source + "b", "--incremental")
    case.check()


def test_a_bitmap_that_a_crash_left_inconsistent_is_not_trusted(case):
    case.add("file:a disk, of mine.qcow2?format=qcow2&bitmap=b")
    case.capture()
    with qemu_nbd(case.person, case.socket, case.image):
        pass
    crashed = case.person.popen(["qemu-io", "-f", "qcow2", "-c", "write -P 9 1M 64k", "-c", "abort", case.image],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    crashed.wait()
    assert "inconsistent" in case.refused("--incremental")
    assert "inconsistent" in case.capture()
    case.check()


@pytest.mark.parametrize("form", ["raw", "vmdk", "vdi", "vhdx", "vpc", "qcow"])
def test_images_of_other_formats_are_captured(case, form):
    image = f"{case.place}/other"
    subprocess.run(["qemu-img", "convert", "-O", form, case.image, image], check=True)
    case.add("file:other")
    case.capture(image=image, form=form)
    case.check()


def test_only_what_is_above_the_backing_file(case):
    overlay = f"{case.place}/overlay"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", case.image, overlay], check=True)
    image_io(overlay, "write -P 3 2M 64k")
    refused = case.program.run("add", case.repository.path, "vm", f"vda=file:{overlay}", check=False)
    assert "say format=qcow2" in refused.stderr
    case.add("file:overlay?format=qcow2")
    case.capture(image=overlay)
    assert case.repository.try_capture("vm", "--full", "--top", check=True)
    [point] = case.repository.points("vm")[1:]
    assert point["stored"] < 64 << 10 and point["disks"][0]["backing"] == case.image


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_an_image_that_is_in_use_is_refused(case, form):
    image = f"{case.place}/used"
    subprocess.run(["qemu-img", "convert", "-O", form, case.image, image], check=True)
    case.add(f"file:used?format={form}")
    writer = subprocess.Popen(["qemu-io", "-f", form, image], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        writer.stdin.write("write 0 64k\n")
        writer.stdin.flush()
        until(lambda: "wrote" in writer.stdout.readline(), "it writes")
        assert "is in use by another program" in case.refused()
    finally:
        writer.communicate("quit\n")
    case.capture(image=image, form=form)
    case.check()


def test_a_header_that_a_guest_wrote_opens_nothing(case):
    """A raw disk whose guest made it look like an overlay of somebody's file."""
    raw, secret = f"{case.place}/raw", f"{case.place}/secret"
    with open(secret, "wb") as file:
        file.write(b"secret" * 1000)
    for options in (["-F", "raw", "-b", secret], ["-o", f"data_file={secret}2"]):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, raw, "1M"], check=True)
        refused = case.program.run("add", case.repository.path, "vm", f"vda=file:{raw}", check=False)
        assert refused.returncode == 1 and "say format=qcow2" in refused.stderr and "format=raw" in refused.stderr
    case.add("file:raw?format=raw")
    case.capture(image=raw, form="raw")
    case.check()


def test_what_is_written_past_the_locks_fails_the_capture(case):
    image = f"{case.place}/written"
    subprocess.run(["qemu-img", "convert", "-O", "raw", case.image, image], check=True)
    case.add("file:written?format=raw")
    capture = case.repository.start_capture("vm", "--rate", "1M")
    until(case.traces, "it reads", 30)
    with open(image, "r+b") as file:
        file.write(b"changed")
    _, said = capture.communicate(timeout=60)
    assert capture.returncode == 1 and "was written to while it was captured" in said
    assert case.traces() == [] and case.repository.points("vm") == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_of_a_capture_that_is_killed(case, number):
    case.add("file:a disk, of mine.qcow2?format=qcow2&bitmap=b")
    capture = case.repository.start_capture("vm", "--rate", "1M")
    [server] = until(case.traces, "it reads", 30)
    listening = subprocess.run(["ss", "-xl"], capture_output=True, text=True, check=True).stdout.split()
    socket_place = os.path.dirname(next(word for word in listening if word.endswith("/nbd") and "/virtbackupfs-" in word and
                                        os.stat(os.path.dirname(word)).st_uid == case.person.uid))
    capture.send_signal(number)
    capture.communicate(timeout=60)
    until(lambda: not case.traces() and not os.path.exists(socket_place), f"qemu-nbd {server} and its directory are gone")
    until(lambda: not processes_of(case.program.program.path, "guardian", case.repository.path), "the guardian is done")
    assert case.repository.stored_files("vm", "data/*") == []
    case.capture()
    case.check()


def test_a_server_is_believed_by_its_certificate(case, module_place):
    directories = {}
    for name in ("right", "wrong"):
        authority = Authority(module_place, name)
        directories[name] = f"{case.place}/{name}"
        os.mkdir(directories[name])
        shutil.copy(authority.path, f"{directories[name]}/ca-cert.pem")
        certificate, key = authority.certificate("DNS:localhost")
        shutil.copy(certificate, f"{directories[name]}/server-cert.pem")
        shutil.copy(key, f"{directories[name]}/server-key.pem")
    port = 20000 + os.getpid() % 10000
    server = case.person.popen(["nbdkit", "-f", "-r", "-p", str(port), "-i", "localhost", "--tls=require",
                                f"--tls-certificates={directories['right']}", "file", case.image],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        def listens():
            done = subprocess.run(["ss", "-tln", f"sport = :{port}"], capture_output=True, text=True, check=True)
            return str(port) in done.stdout
        until(listens, "nbdkit listens", 30)
        case.add(f"nbds://localhost:{port}/?tls-certificates={directories['right']}")
        case.capture(form="raw")
        for source, said in ((f"nbds://localhost:{port}/?tls-certificates={directories['wrong']}", "certificate"),
                             (f"nbds://127.0.0.1:{port}/?tls-certificates={directories['right']}", "certificate"),
                             (f"nbds://localhost:{port}/?tls-certificates={case.place}", "there is no ca-cert.pem"),
                             (f"nbd://localhost:{port}/", "TLS")):
            failed = case.refused("--source", f"vda={source}")
            assert said in failed, failed
        unverified = f"nbds://127.0.0.1:{port}/?tls-certificates={directories['right']}&tls-verify-peer=false&image=x"
        assert "is not verified" in case.capture("--source", f"vda={unverified}", form="raw")
    finally:
        server.kill()
        server.wait()
    case.check()


def test_a_key_that_both_know_does_without_certificates(case):
    keys, others = f"{case.place}/keys", f"{case.place}/others"
    for path, key in ((keys, "0123456789abcdef" * 4), (others, "f123456789abcdef" * 4)):
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"me:{key}\n")
    with nbdkit(case.person, case.socket, "--tls=require", f"--tls-psk={keys}", "file", case.image):
        case.add(f"nbds+unix://me@/?socket={case.socket}&tls-psk-file={keys}")
        case.capture(form="raw")
        other = f"nbds+unix://me@/?socket={case.socket}&tls-psk-file={others}"
        assert "cannot connect" in case.refused("--source", f"vda={other}")
    case.check()
