"""virtnbdbackup and virtnbdrestore, as a person runs them; and streams made from the description of the format alone."""

import json
import os
import secrets
import shutil
import subprocess

from wait import until


def needs(*programs):
    """Whether these are installed: Debian has them, a sanitizer's or a minimal installation may not."""
    return all(shutil.which(program) for program in programs)


def stream(number, content, start=0, date=None):
    """A stream of vda, of 1 MiB, with one frame of data: full where number is 0, else an increment onto the one before."""
    meta = json.dumps({
        "virtualSize": 1 << 20, "dataSize": len(content), "date": f"{date or f'2026-01-0{number + 1}'}T00:00:00",
        "diskName": "vda", "diskFormat": "qcow2", "checkpointName": f"virtnbdbackup.{number}", "compressed": False,
        "compressionMethod": "lz4", "parentCheckpoint": f"virtnbdbackup.{number - 1}" if number else "",
        "incremental": number > 0, "streamVersion": 2})
    frames = [(b"meta", 0, meta.encode() + b"\r\n", len(meta)), (b"data", start, content + b"\r\n", len(content)),
              (b"stop", 0, b"", 0)]
    return b"".join(b"%s %016x %016x\r\n%s" % (kind, start, length, payload) for kind, start, payload, length in frames)


class Tool:
    """The tool for one VM and one target directory."""

    def __init__(self, vm, directory):
        self.vm, self.directory, self.person = vm, directory, vm.person

    def _call(self, program, *arguments, **options):
        # A socket of its own: the server of the call before may still be ending.
        socket = f"{self.person.runtime}/{secrets.token_hex(4)}.nbd"
        return self.person.run(program, "-U", self.vm.hypervisor.uri, "-f", socket, *arguments, timeout=300,
                               cwd=self.person.directory, **options)

    def backup(self, level, *options, output=None):
        return self._call("virtnbdbackup", "-n", "-d", self.vm.name, "-l", level, "-o", output or self.directory,
                          "-S", self.person.directory, *options)

    def zip(self, level, path, *options):
        """A backup to standard output."""
        with open(path, "wb") as file:
            process = self.person.popen(
                ["virtnbdbackup", "-n", "-U", self.vm.hypervisor.uri, "-f", f"{self.person.runtime}/zip.nbd",
                 "-d", self.vm.name, "-l", level, "-o", "-", "-S", self.person.directory, *options],
                stdout=file, stderr=subprocess.PIPE, cwd=os.path.dirname(path), text=True)
            _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        return path

    def restore(self, disk, target, *options):
        """One disk into the directory, by virtnbdrestore: the image, named as it was."""
        self._call("virtnbdrestore", "-n", "-i", self.directory, "-o", target, "-d", disk, "--logfile",
                   f"{self.person.directory}/restore.log", *options)
        image = f"{target}/{os.path.basename(self.vm.disk(disk).path)}"
        until(lambda: subprocess.run(["qemu-img", "info", image], capture_output=True, check=False).returncode == 0,
              f"the server that wrote {image} has let go of it")
        return image
