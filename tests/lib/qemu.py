"""A VM of a QEMU that the tests start themselves, without libvirt: paused, so that nothing but QEMU writes to its disks."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess

from vm import Writable
from wait import until


class Monitor:
    """A QMP connection."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.file = self.socket.makefile("r", encoding="utf-8")
        self.greeting = json.loads(self.file.readline())
        self.execute("qmp_capabilities")

    def execute(self, command, **arguments):
        """What it returns; a refusal fails the test."""
        if command != "block_set_io_throttle":  # the last of QEMU's old commands
            arguments = {key.replace("_", "-"): value for key, value in arguments.items()}
        request = {"execute": command, "arguments": arguments}
        self.socket.sendall(json.dumps(request).encode())
        while True:
            line = self.file.readline()
            if not line:
                raise ConnectionError("QEMU is gone")
            answer = json.loads(line)
            assert "error" not in answer, f"{command}: {answer['error']}"
            if "return" in answer:
                return answer["return"]

    def close(self):
        self.file.close()
        self.socket.close()


class Qemu(Writable):
    """disks: of vm.Disk. drives: by -drive in place of -blockdev. running: the processor runs, without a guest."""

    def __init__(self, person, directory, name, disks, uuid=None, drives=False, running=False, extra=()):
        self.person, self.name, self.disks, self.uuid = person, name, list(disks), uuid
        self.drives, self.running, self.extra = drives, running, list(extra)
        self.directory = f"{directory}/{name}"
        os.makedirs(self.directory, mode=0o755)
        person.give(self.directory)
        self.process = self.control = None

    @property
    def socket(self):
        return f"{self.directory}/qmp.sock"

    @property
    def uri(self):
        return f"qmp://{self.socket}"

    def _arguments(self):
        words = ["qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-m", "16", "-nodefaults", "-display", "none",
                 "-name", self.name]
        words += [] if self.running else ["-S"]
        words += ["-uuid", self.uuid] if self.uuid else []
        for disk in self.disks:
            disk.make(self)
            if self.drives:
                words += ["-drive", f"if=none,id=drive-{disk.target},format={disk.format},file={disk.path},discard=unmap"]
            else:
                file, name = f"file-{disk.target}", f"drive-{disk.target}"
                words += ["-blockdev", f"driver=file,node-name={file},filename={disk.path},discard=unmap",
                          "-blockdev", f"driver={disk.format},node-name={name},file={file},discard=unmap"]
            words += ["-device", f"virtio-blk-pci,drive=drive-{disk.target},id={disk.target}"]
        for path in (self.socket, f"{self.directory}/control.sock"):
            words += ["-qmp", f"unix:{path},server=on,wait=off"]
        return words + self.extra

    def start(self):
        for name in ("qmp.sock", "control.sock"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.directory}/{name}")
        self.process = self.person.popen(self._arguments(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

        def connected():
            assert self.process.poll() is None, "QEMU has ended"
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                return Monitor(f"{self.directory}/control.sock")
        self.control = until(connected, "QEMU's monitor answers")
        return self

    def _ended(self):
        self.process.wait(60)
        self.control.close()

    def kill(self):
        """kill -9: its bitmaps stay marked as in use."""
        self.process.send_signal(signal.SIGKILL)
        self._ended()

    def shut_down(self):
        """Has it end in good order, which writes the bitmaps to the images."""
        with contextlib.suppress(ConnectionError):
            self.control.execute("quit")
        self._ended()

    def is_on(self):
        return self.process is not None and self.process.poll() is None

    def remove(self):
        if self.is_on():
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.remove()

    # Looking

    def execute(self, command, **arguments):
        return self.control.execute(command, **arguments)

    def nodes(self):
        return self.execute("query-named-block-nodes", flat=True)

    def bitmaps(self):
        """The names of each disk's bitmaps: {"vda": […]}."""
        found = {}
        for block in self.execute("query-block"):
            path, medium = block.get("qdev", "").split("/"), block.get("inserted")
            if medium and len(path) > 3:
                found[path[3]] = sorted(each["name"] for each in medium.get("dirty-bitmaps", []) if "name" in each)
        return found

    def job_parts(self):
        """All that a job of a capture has in QEMU."""
        parts = [job["id"] for job in self.execute("query-jobs")]
        parts += [export["id"] for export in self.execute("query-block-exports")]
        parts += [node["node-name"] for node in self.nodes() if node["node-name"].startswith("vbfs-")]
        parts += [each["name"] for each in self.execute("qom-list", path="/objects") if each["name"].startswith("vbfs-")]
        if self.running:  # of a paused VM QEMU lets go of descriptors later
            parts += [fd["opaque"] for group in self.execute("query-fdsets") for fd in group["fds"]]
        return parts

    # Writing without a guest

    def io(self, target, *commands):
        for command in commands:
            self.execute("human-monitor-command", command_line=f"qemu-io -d {self.device(target)} \"{command}\"")

    def device(self, target):
        return f"/machine/peripheral/{target}/virtio-backend"
