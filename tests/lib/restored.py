"""What a restore leaves: images, and what an unfinished one says of itself."""

import json
import os
import signal
import subprocess
import tempfile
import time

SLOTS = (0, 64 << 10)
NOTE_MAX = 4096
MIB = 1 << 20


def first_bytes(path, form):
    """Of the disk in an image that is being written; empty where it is none yet."""
    if form == "raw":
        with open(path, "rb") as file:
            return file.read(SLOTS[-1] + NOTE_MAX)
    with tempfile.NamedTemporaryFile() as file:
        subprocess.run(["qemu-img", "dd", "-U", "-f", form, "-O", "raw", "bs=64k", "count=2", f"if={path}",
                        f"of={file.name}"], capture_output=True, check=False)
        return file.read()


def progress(path, form="raw"):
    """How far an unfinished restore to this file or device is, as it says itself, in bytes; None where it says nothing."""
    found = []
    try:
        content = first_bytes(path, form)
    except FileNotFoundError:
        return None
    for slot in SLOTS:
        try:
            found.append(json.loads(content[slot:slot + NOTE_MAX].rstrip(b"\0")))
        except ValueError:
            continue
    notes = [note for note in found if note.get("format") == "virtbackupfs unfinished restore"]
    return max((note["done"] for note in notes), default=None)


def is_under_way(path, form="raw"):
    """Whether more than the beginning of it is noted as done."""
    return (progress(path, form) or 0) > MIB


def stop_when(process, reached):
    """Lets the process run in short steps until it has reached that; it is stopped then, by SIGSTOP."""
    while process.poll() is None:
        os.kill(process.pid, signal.SIGSTOP)
        if reached():
            return
        time.sleep(0.15)
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.001)
    raise AssertionError(f"it ended before, with {process.returncode}: {process.communicate()}")


def allocated(path):
    return os.stat(path).st_blocks * 512


def same_disk(left, right, formats=("raw", "raw")):
    compared = subprocess.run(["qemu-img", "compare", "-q", "-f", formats[0], "-F", formats[1], left, right],
                              capture_output=True, text=True, check=False)
    return compared.returncode == 0


def fill(path, size):
    """A file of this size without a zero in it."""
    with open(path, "wb") as file:
        for _ in range(0, size, MIB):
            file.write(b"\xa5" * MIB)
        file.truncate(size)
