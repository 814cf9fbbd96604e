"""A mounted repository, which is always unmounted."""

import contextlib
import os
import subprocess

from wait import until


def is_mounted(path):
    path = os.path.realpath(path)
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return any(line.split()[4].replace("\\040", " ") == path for line in file)


class Mount:
    """The tree at path, and the daemon's number."""

    def __init__(self, path, process, log):
        self.path, self.process, self.log = path, process, log

    @property
    def pid(self):
        return self.process.pid

    def __truediv__(self, name):
        return os.path.join(self.path, name)

    def messages(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()


def unmount(path, lazy=False):
    command = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
    if lazy:
        command += ["-l"] if os.geteuid() == 0 else ["-z"]
    return subprocess.run([*command, path], capture_output=True, text=True, check=False)


@contextlib.contextmanager
def mounted(program, repository, place, options=None, arguments=()):
    """Mounts the repository (program: Program.by(person)) below place for the time of the block."""
    number = sum(name.startswith("mnt") for name in os.listdir(place))
    path, log = f"{place}/mnt{number}", f"{place}/mount{number}.log"
    os.mkdir(path, 0o755)
    program.person.give(path)
    with open(log, "w", encoding="utf-8") as messages:
        process = program.start("mount", "-f", *(["-o", options] if options else []), *arguments, repository, path,
                                stdout=messages, stderr=messages)
    mount = Mount(path, process, log)
    try:
        until(lambda: is_mounted(path) or process.poll() is not None, f"{path} is mounted", 60)
        assert is_mounted(path), f"mount ended with {process.returncode}: {mount.messages()}"
        yield mount
        if process.poll() is None:
            # Whoever looks at all mounts (df) makes it busy for a moment.
            until(lambda: unmount(path).returncode == 0, f"{path} is unmounted", 5)
            assert process.wait(60) == 0, mount.messages()
    finally:
        if is_mounted(path):
            unmount(path, lazy=True)
        if process.poll() is None:
            process.kill()
            process.wait()
