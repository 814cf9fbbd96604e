"""A repository, as its owner uses it through the program."""

import glob
import os
import subprocess
import threading

from wait import until


class Repository:
    def __init__(self, program, path):
        self.program, self.person, self.path = program, program.person, path

    def init(self):
        self.program.run("init", self.path)
        return self

    def add(self, vm, name=None, uri=None):
        name = name or vm.name
        uri = uri or vm.hypervisor.uri + (f"?domain={vm.name}" if name != vm.name else "")
        return self.program.run("add", self.path, name, uri)

    def capture(self, vm, *options, **more):
        """Takes a point; its name."""
        return self.try_capture(vm, *options, check=True, **more).stdout.strip().split("/")[-1]

    def try_capture(self, vm, *options, check=False, **more):
        return self.program.run("capture", self.path, getattr(vm, "name", vm), *options, check=check, **more)

    def start_capture(self, vm, *options):
        return self.program.start("capture", self.path, getattr(vm, "name", vm), *options)

    def list(self, path=None):
        return self.program.json("list", self.path, *([path] if path else []))["vms"]

    def points(self, vm):
        name = getattr(vm, "name", vm)
        return next(each for each in self.list() if each["name"] == name)["points"]

    def point(self, vm, name):
        return next(point for point in self.points(vm) if point["name"] == name)

    def kinds(self, vm, name):
        """What each disk of a point is: {"vda": "incremental"}."""
        return {disk["name"]: disk["kind"] for disk in self.point(vm, name)["disks"]}

    def directory(self, vm):
        return f"{self.path}/vms/{getattr(vm, 'name', vm)}"

    def stored_files(self, vm, pattern):
        return sorted(glob.glob(f"{self.directory(vm)}/{pattern}"))


def state_of(trigger):
    """The trigger's text as a dictionary, disks as {"vda": (done, total)}."""
    with open(trigger, encoding="utf-8") as file:
        text = file.read()
    state = {"disks": {}}
    for line in text.splitlines():
        key, _, value = line.partition(": ")
        if key == "disk":
            name, done, total = value.rsplit(" ", 2)
            state["disks"][name] = (int(done), int(total))
        else:
            state[key] = value
    return state


def pull(trigger, word):
    """Writes the word as a shell's echo does. The errno of a refusal is in the OSError."""
    descriptor = os.open(trigger, os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(descriptor, word.encode() + b"\n")
    finally:
        os.close(descriptor)


def pull_at_once(trigger, word, times):
    """So many write it at the same time. What each gets: 0 or an errno, sorted."""
    results = []

    def write():
        try:
            pull(trigger, word)
            results.append(0)
        except OSError as refusal:
            results.append(refusal.errno)

    writers = [threading.Thread(target=write) for _ in range(times)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    return sorted(results)


def wait_captured(trigger, timeout=120):
    """Waits until no capture runs; the state."""
    state = until(lambda: (lambda now: now["state"] != "running" and now)(state_of(trigger)), "the capture ends", timeout)
    return state


def without_partitions(said):
    """The object of info.json with no more than what `list` says of a point."""
    for disk in said["disks"]:
        assert disk.pop("partitions") == []
    return said


def same_image(left, right):
    """Whether two raw images are byte for byte the same, as qemu-img and cmp say."""
    compared = subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "raw", left, right],
                              capture_output=True, text=True, check=False)
    return compared.returncode == 0 and subprocess.run(["cmp", "-s", left, right], check=False).returncode == 0
