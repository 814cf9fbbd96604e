"""What shows a disk as a file: the mount of a repository, and what it is compared with."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time

PATIENCE = 120  # seconds until a server must answer


class Tools:
    def __init__(self, build):
        self.virtbackupfs = f"{build}/fs/virtbackupfs"
        self.make_chain = f"{build}/tests/bench/make-chain"
        self.bare_fuse = f"{build}/tests/bench/bare-fuse"


class ServerFailed(Exception):
    pass


def unmount(path):
    subprocess.run(["umount", path] if os.geteuid() == 0 else ["fusermount3", "-u", path],
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def is_mounted(path):
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return any(line.split()[4] == path for line in file)


def set_read_ahead(path, kib):
    """Of the mount that a file is in. Root alone can."""
    device = os.stat(path).st_dev
    with contextlib.suppress(PermissionError), \
         open(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb", "w", encoding="utf-8") as file:
        file.write(f"{kib}\n")


class Server:
    """One that runs: the file that it shows, and its processes."""

    def __init__(self, image):
        self.image = image
        self.processes = []

    def start(self, *command, log):
        # In a group of its own: Ctrl-C is for the bench, which then ends its servers in order.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.processes.append(process)

    def check(self):
        for process in self.processes:
            if process.poll() is not None:
                raise ServerFailed(f"{process.args[0]} ended with {process.returncode}")

    def wait_for(self, ready):
        end = time.monotonic() + PATIENCE
        while not ready():
            self.check()
            if time.monotonic() > end:
                raise ServerFailed("no answer")
            time.sleep(0.0005)

    def cpu_seconds(self):
        ticks = 0
        for process in self.processes:
            with open(f"/proc/{process.pid}/stat", encoding="utf-8") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def peak_memory(self):
        """Bytes: the sum of what each process had at most."""
        total = 0
        for process in self.processes:
            with contextlib.suppress(FileNotFoundError), open(f"/proc/{process.pid}/status", encoding="utf-8") as file:
                total += sum(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM:"))
        return total

    def stop(self, mounts):
        for path in mounts:
            for _ in range(200):
                if not is_mounted(path):
                    break
                unmount(path)
                time.sleep(0.005)
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for path in mounts:
            if is_mounted(path):
                subprocess.run(["umount", "-l", path], check=False)


@contextlib.contextmanager
def place():
    """A directory for a mount and a log, which goes again."""
    path = os.path.realpath(tempfile.mkdtemp(prefix="read-speed-"))
    try:
        with open(f"{path}/log", "w+", encoding="utf-8") as log:
            yield path, log
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def running(image, mounts, log):
    server = Server(image)
    try:
        yield server
    except ServerFailed as failure:
        log.seek(0)
        raise ServerFailed(f"{failure}: {' '.join(log.read().split())[-300:]}") from failure
    finally:
        server.stop(mounts)


@contextlib.contextmanager
def native(tools, data, layers, cached=False):
    with place() as (path, log):
        mount = f"{path}/mnt"
        os.mkdir(mount)
        with running(f"{mount}/{data.point(layers)}/vda.raw", [mount], log) as server:
            server.start(tools.virtbackupfs, "mount", "-f", *(["-o", "kernel_cache"] if cached else []), data.repository,
                         mount,
                         log=log)
            server.wait_for(lambda: is_mounted(mount))
            yield server


@contextlib.contextmanager
def in_place(tools, data, layers, compressed, cached):
    """The qcow2 chain itself, mounted."""
    directory, disk = data.overlay_directory(layers, compressed)
    with place() as (path, log):
        mount = f"{path}/mnt"
        os.mkdir(mount)
        with running(f"{mount}/{os.path.basename(directory)}/latest/{disk}.raw", [mount], log) as server:
            server.start(tools.virtbackupfs, "mount", "-f", *(["-o", "kernel_cache"] if cached else []),
                         os.path.dirname(directory), mount, log=log)
            server.wait_for(lambda: is_mounted(mount))
            yield server


@contextlib.contextmanager
def storage_daemon(data, layers, compressed=False):
    with place() as (path, log):
        image = f"{path}/image"
        with open(image, "wb"):
            pass
        with running(image, [image], log) as server:
            node = "driver=qcow2,node-name=n,read-only=on,file.driver=file,file.filename=" + data.overlay(layers, compressed)
            server.start("qemu-storage-daemon", "--blockdev", node,
                         "--export", f"fuse,id=e,node-name=n,mountpoint={image},writable=off", log=log)
            server.wait_for(lambda: is_mounted(image))
            yield server


@contextlib.contextmanager
def nbdfuse(data, layers):
    with place() as (path, log):
        image, socket = f"{path}/image", f"{path}/socket"
        with open(image, "wb"):
            pass
        with running(image, [image], log) as server:
            server.start("qemu-nbd", "-r", "-t", "-e", "16", "-k", socket, "-f", "qcow2", data.overlay(layers), log=log)
            server.wait_for(lambda: os.path.exists(socket))
            server.start("nbdfuse", "-r", image, f"nbd+unix:///?socket={socket}", log=log)
            server.wait_for(lambda: is_mounted(image))
            yield server


@contextlib.contextmanager
def bare(tools, file, *mode):
    with place() as (path, log):
        mount = f"{path}/mnt"
        os.mkdir(mount)
        with running(f"{mount}/image", [mount], log) as server:
            server.start(tools.bare_fuse, file, mount, *mode, log=log)
            server.wait_for(lambda: is_mounted(mount))
            set_read_ahead(mount, 1024)  # as the mount of a repository sets it for itself
            yield server


@contextlib.contextmanager
def local(data):
    """No server at all: the raw file where it lies."""
    yield Server(data.raw)
