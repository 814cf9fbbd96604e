"""A VM on another host: its disks are read by TCP, encrypted where both sides can. The other host is this one, reached as if
it were not."""

import os
import shutil
import signal
import socket
import subprocess

import hypervisor as hypervisors
import pytest
from person import Person
from repository import Repository
from slow import Progress, slowed
from truth import Truth
from vm import MIB, VM, Disk, random_image
from wait import until


def elsewhere(hypervisor, *parameters):
    """The URI by which nothing tells that the hypervisor is here."""
    daemon = f"{hypervisor.person.runtime}/libvirt/libvirt-sock"
    return f"qemu+unix:///session?socket={daemon}&" + "&".join(parameters or ["nbd-address=127.0.0.1"])


class Case:
    def __init__(self, hypervisor, repository, place, *parameters):
        self.vm = VM(hypervisor, "far", [Disk("vda", 8 * MIB), Disk("vdb", 3 * MIB, "raw")])
        self.vm.start()
        self.repository = repository
        repository.add(self.vm, uri=elsewhere(hypervisor, *parameters))
        self.truth = Truth(repository, self.vm, place)

    def change(self, number):
        self.vm.io("vda", f"write -P {number} {number * 100}k 300k", "write -z -u 5M 64k")
        self.vm.io("vdb", f"write -P {number} {number}k 20k")


@pytest.fixture
def case(session, repository, place):
    case = Case(session, repository, place)
    yield case
    case.vm.remove()


def scratch_files(vm):
    return [name for name in os.listdir("/var/tmp") if name.endswith(".scratch") and vm.uuid[:8] in name]


def test_a_chain_of_points_of_a_vm_on_another_host(case):
    for number in range(1, 5):
        case.change(number)
        point = case.truth.capture()
        assert case.repository.kinds(case.vm, point)["vda"] == ("full" if number == 1 else "incremental")
        assert not case.vm.has_job() and not scratch_files(case.vm)
    case.truth.check()


def test_reading_without_encryption_is_told(case):
    result = case.repository.try_capture(case.vm, check=True)
    assert "without encryption" in result.stderr


def test_captures_side_by_side_find_ports_of_their_own(case, session, repository):
    with VM(session, "near", [Disk("vda", 4 * MIB)]) as other:
        other.start()
        repository.add(other, uri=elsewhere(session))
        process = repository.start_capture(case.vm)
        try:
            with slowed(process.pid):
                until(lambda: case.vm.has_job() or process.poll() is not None, "the job began")
                repository.capture(other)
        finally:
            out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err


def test_a_port_that_is_taken_is_a_failure_where_it_was_named(session, repository, place):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        case = Case(session, repository, place, f"nbd-address=127.0.0.1:{taken.getsockname()[1]}")
        try:
            result = repository.try_capture(case.vm)
            assert result.returncode == 1 and "in use" in result.stderr, result.stderr
            assert not case.vm.has_job() and case.vm.checkpoints() == []
        finally:
            case.vm.remove()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_capture_that_ends_early_leaves_nothing_there(session, repository, place, person, how):
    with VM(session, "large", []) as vm:
        image = random_image(person, f"{vm.directory}/vda.qcow2", 96 * MIB, 64 * MIB)
        vm.disks.append(Disk("vda", 96 * MIB, path=image))
        vm.start()
        repository.add(vm, uri=elsewhere(session))
        progress = Progress(repository, vm)
        process = repository.start_capture(vm)
        with slowed(process.pid):
            progress.wait(MIB, process)
            assert scratch_files(vm)
            process.send_signal(how)
            process.communicate(timeout=60)
        assert process.returncode != 0
        until(lambda: not vm.has_job() and not scratch_files(vm), "nothing is left on the host")
        truth = Truth(repository, vm, place)
        until(lambda: repository.try_capture(vm, "--full").returncode == 0, "the guardian has gone")
        truth.keep(repository.points(vm)[-1]["name"], truth.look())
        truth.check()


@pytest.mark.needs_root
def test_a_vm_that_a_full_scratch_file_stopped_goes_on(system, program, place, guest):
    """Nobody watches the space over there. The guest's write fails, libvirt stops the VM, and the capture ends its job."""
    scratch = f"{place}/scratch"
    os.mkdir(scratch)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0777", "none", scratch], check=True)
    repository = Repository(program, f"{place}/repository").init()
    try:
        with VM(system, "vbfs-far", [], guest=guest) as vm:
            image = random_image(vm.person, f"{vm.directory}/vda.qcow2", 128 * MIB, 96 * MIB)
            vm.disks.append(Disk("vda", 128 * MIB, path=image))
            vm.start()
            repository.add(vm, uri="qemu+unix:///system?socket=/run/libvirt/libvirt-sock&nbd-address=127.0.0.1")
            progress = Progress(repository, vm)
            process = repository.start_capture(vm, "--scratch-dir", scratch)
            with slowed(process.pid):
                progress.wait("begun", process)
                # From the end: what has not been copied yet.
                vm.sh("dd if=/dev/zero of=/dev/vda bs=1M seek=96 count=32 conv=fsync; true")
                out, err = process.communicate(timeout=120)
            assert process.returncode == 1 and "scratch" in err, out + err
            assert vm.state() == "running" and not vm.has_job()
            vm.sh("dd if=/dev/zero of=/dev/vda bs=1M seek=96 count=32 conv=fsync")
    finally:
        subprocess.run(["umount", "-l", scratch], check=True)


@pytest.fixture
def ssh(place):
    """An SSH server of the test's own, that lets root in by a key; the parameters of a URI that uses it."""
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/bin")
    if not sshd:  # not among the packages: installing it would start one for everybody
        pytest.skip("needs sshd")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{place}/{name}"], check=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    os.makedirs("/run/sshd", exist_ok=True)
    os.chmod(place, 0o700)
    server = subprocess.Popen([sshd, "-D", "-e", "-f", "/dev/null",
                               "-p", str(port), "-h", f"{place}/host", "-o", "ListenAddress=127.0.0.1", "-o",
                               "StrictModes=no",
                               "-o", "PermitRootLogin=prohibit-password", "-o", "PidFile=none",
                               "-o", f"AuthorizedKeysFile={place}/user.pub"], stderr=subprocess.DEVNULL)
    try:
        until(lambda: can_connect(port), "the SSH server listens")
        yield f"qemu+ssh://root@127.0.0.1:{port}/system?keyfile={place}/user&no_verify=1&sshauth=privkey"
    finally:
        server.terminate()
        server.wait()


def can_connect(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False


@pytest.mark.needs_root
def test_a_vm_that_is_reached_by_ssh(system, program, place, ssh):
    repository = Repository(program, f"{place}/repository").init()
    with VM(system, "vbfs-ssh", [Disk("vda", 4 * MIB)]) as vm:
        vm.start()
        repository.add(vm, uri=ssh)
        truth = Truth(repository, vm, place)
        for number in (1, 2):
            vm.io("vda", f"write -P {number} {number}M 64k")
            truth.capture()
        assert repository.kinds(vm, repository.points(vm)[-1]["name"]) == {"vda": "incremental"}
        vm.shut_down()
        result = repository.try_capture(vm)
        assert result.returncode == 1 and "shut off, on another machine" in result.stderr, result.stderr
        truth.check()


# Encryption


def test_encryption_that_the_host_does_not_offer_is_a_failure_where_it_is_a_must(session, repository, place):
    case = Case(session, repository, place, "nbd-address=127.0.0.1", "nbd-tls=yes", f"nbd-certificates={place}")
    try:
        result = repository.try_capture(case.vm)
        assert result.returncode == 1 and "ca-cert.pem" in result.stderr, result.stderr
        assert not case.vm.has_job()
    finally:
        case.vm.remove()


def certificate(directory, name, host=None):
    """NAME-cert.pem and NAME-key.pem: an authority's own, or signed by the one in authority-cert.pem for the host."""
    template = f"{directory}/{name}.cnf"
    with open(template, "w", encoding="utf-8") as file:
        file.write("[req]\ndistinguished_name=dn\n[dn]\n[authority]\nbasicConstraints=critical,CA:true\n"
                   f"[host]\nbasicConstraints=CA:false\nsubjectAltName={host or 'DNS:none'}\n")
    signed = ["-CA", f"{directory}/authority-cert.pem", "-CAkey", f"{directory}/authority-key.pem"] if host else []
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                    "-config", template, "-extensions", "host" if host else "authority", *signed,
                    "-keyout", f"{directory}/{name}-key.pem", "-out", f"{directory}/{name}-cert.pem"],
                   check=True, capture_output=True)


@pytest.fixture(scope="module")
def authorities(session, module_place):
    """A session whose QEMU serves 127.0.0.1 with a certificate; directories of a client that trusts it, or another."""
    trusted, other, server = (f"{module_place}/{name}" for name in ("trusted", "other", "server"))
    for directory in (trusted, other, server):
        os.mkdir(directory)
    for directory in (trusted, other):
        certificate(directory, "authority")
        os.symlink("authority-cert.pem", f"{directory}/ca-cert.pem")
    certificate(trusted, "server", host="IP:127.0.0.1,DNS:far.example")
    os.link(f"{trusted}/authority-cert.pem", f"{server}/ca-cert.pem")
    for name in ("server-cert.pem", "server-key.pem"):
        os.rename(f"{trusted}/{name}", f"{server}/{name}")
    conf = f"{session.person.directory}/.config/libvirt/qemu.conf"
    session.virsh("list")  # its directories are there then
    with open(conf, "w", encoding="utf-8") as file:
        file.write(f'backup_tls_x509_cert_dir = "{server}"\nbackup_tls_x509_verify = 0\n')
    session.restart_daemon()
    yield trusted, other
    os.unlink(conf)
    session.restart_daemon()


@pytest.mark.parametrize("word", ["yes", "auto"])
def test_an_encrypted_connection_is_used(authorities, session, repository, place, word):
    trusted, _ = authorities
    case = Case(session, repository, place, "nbd-address=127.0.0.1", f"nbd-tls={word}", f"nbd-certificates={trusted}")
    try:
        for number in (1, 2):
            case.change(number)
            references = case.truth.look()
            result = repository.try_capture(case.vm, check=True)
            assert "encryption" not in result.stderr
            case.truth.keep(result.stdout.strip().split("/")[1], references)
        case.truth.check()
    finally:
        case.vm.remove()


@pytest.mark.parametrize("wrong", ["authority", "host", "none"])
def test_a_server_that_cannot_be_verified_is_not_read(authorities, session, repository, place, wrong):
    trusted, other = authorities
    host = "localhost" if wrong == "host" else "127.0.0.1"
    directory = {"authority": other, "host": trusted, "none": place}[wrong]
    case = Case(session, repository, place, f"nbd-address={host}", "nbd-tls=yes", f"nbd-certificates={directory}")
    try:
        result = repository.try_capture(case.vm)
        assert result.returncode == 1 and ("certificate" in result.stderr or "ca-cert.pem" in result.stderr), result.stderr
        assert not case.vm.has_job() and repository.points(case.vm) == []
    finally:
        case.vm.remove()

# The daemon itself by TCP


@pytest.fixture
def far_session(authorities, person, ground, place):
    """A libvirtd of its own that listens by TCP, with TLS and without: the session, and its ports."""
    trusted, _ = authorities
    server = f"{os.path.dirname(trusted)}/server"
    other = Person(person.uid, person.gid, f"{ground}/far", person.groups)
    ports = {}
    for kind in ("tls", "tcp"):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ports[kind] = listener.getsockname()[1]
    configuration = f"{place}/libvirtd.conf"
    with open(configuration, "w", encoding="utf-8") as file:
        file.write(f'listen_tls = 1\nlisten_tcp = 1\nlisten_addr = "127.0.0.1"\ntls_port = "{ports["tls"]}"\n'
                   f'tcp_port = "{ports["tcp"]}"\nauth_tcp = "none"\nauth_tls = "none"\n'
                   f'ca_file = "{server}/ca-cert.pem"\ncert_file = "{server}/server-cert.pem"\n'
                   f'key_file = "{server}/server-key.pem"\ntls_no_verify_certificate = 1\n')
    os.makedirs(f"{other.directory}/.config/libvirt", exist_ok=True)
    with open(f"{other.directory}/.config/libvirt/qemu.conf", "w", encoding="utf-8") as file:
        file.write(f'backup_tls_x509_cert_dir = "{server}"\nbackup_tls_x509_verify = 0\n')
    with open(f"{place}/said", "w+", encoding="utf-8") as said:
        daemon = other.popen([shutil.which("libvirtd", path="/usr/sbin:/usr/bin"), "--listen", "--config", configuration],
                             stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        until(lambda: daemon.poll() is not None or all(can_connect(port) for port in ports.values()), "libvirtd listens")
        with open(f"{place}/said", encoding="utf-8") as said:
            assert daemon.poll() is None, said.read()
        with hypervisors.session(other) as hypervisor:
            yield hypervisor, ports
    finally:
        if daemon.poll() is None:
            daemon.terminate()
        daemon.wait()


@pytest.mark.parametrize("transport", ["tls", "tcp"])
def test_libvirt_by_its_own_protocols(authorities, far_session, repository, place, transport):
    """Both of the daemon's; the disks come encrypted."""
    hypervisor, ports = far_session
    trusted, _ = authorities
    if not os.path.exists(f"{trusted}/cacert.pem"):
        os.symlink("authority-cert.pem", f"{trusted}/cacert.pem")
    host = f"127.0.0.1:{ports[transport]}"
    with VM(hypervisor, "far", [Disk("vda", 8 * MIB)]) as vm:
        vm.start()
        repository.add(vm, uri=f"qemu+{transport}://{host}/session?pkipath={trusted}&nbd-tls=yes&nbd-certificates={trusted}")
        truth = Truth(repository, vm, place)
        for number in (1, 2, 3):
            vm.io("vda", f"write -P {number} {number}M 300k", "write -z -u 5M 64k")
            truth.capture()
            assert not vm.has_job() and not scratch_files(vm)
        assert repository.kinds(vm, repository.points(vm)[-1]["name"]) == {"vda": "incremental"}
        truth.check()
