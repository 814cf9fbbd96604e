"""The program under test, run by a person."""

import json
import os
import shutil
import stat
import subprocess

from wait import until


class Program:
    """A copy of the binary where every user can run it."""

    def __init__(self, binary, directory):
        self.path = os.path.join(directory, "virtbackupfs")
        shutil.copy(binary, self.path)
        os.chmod(self.path, 0o755)

    def by(self, person):
        return ProgramOfPerson(self, person)


class ProgramOfPerson:
    def __init__(self, program, person):
        self.program, self.person = program, person

    def run(self, *arguments, **options):
        return self.person.run(self.program.path, *arguments, **options)

    def start(self, *arguments, **options):
        """Starts and does not wait. stdout and stderr are pipes, text."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "text": True,
                   **options}
        return self.person.popen([self.program.path, *arguments], **options)

    def json(self, *arguments):
        return json.loads(self.run(*arguments, "--json").stdout)


def processes_of(path, *words):
    """The numbers of the living processes that run the binary with all these words among their arguments."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            if os.readlink(f"/proc/{entry}/exe") != os.path.realpath(path):
                continue
            with open(f"/proc/{entry}/stat", encoding="utf-8") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    continue
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                arguments = file.read().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if all(word in arguments for word in words):
            found.append(int(entry))
    return found


def children_of(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="utf-8") as file:
                found += [int(word) for word in file.read().split()]
    except FileNotFoundError:
        pass
    return found


def wait_gone(pid, timeout=60):
    def gone():
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                return file.read().rsplit(")", 1)[1].split()[0] in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return True
    until(gone, f"process {pid} is gone", timeout)


def is_socket(path):
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except FileNotFoundError:
        return False
