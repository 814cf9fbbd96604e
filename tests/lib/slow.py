"""Captures that are slow enough to be met at a chosen moment."""

import contextlib
import os
import signal
import threading
import time

from wait import until


@contextlib.contextmanager
def slowed(pid, rest=0.04, work=0.002):
    """The process sleeps most of the time."""
    over = threading.Event()

    def nag():
        with contextlib.suppress(ProcessLookupError):
            while not over.is_set():
                os.kill(pid, signal.SIGSTOP)
                time.sleep(rest)
                os.kill(pid, signal.SIGCONT)
                time.sleep(work)

    thread = threading.Thread(target=nag)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


class Progress:
    """How far the capture of a VM is, seen from outside: by what lies in the repository."""

    def __init__(self, repository, vm):
        self.repository, self.vm = repository, vm
        self.points = set(repository.stored_files(vm, "points/*.json"))
        self.data = set(repository.stored_files(vm, "data/*"))

    def written(self):
        """Bytes of layers that this capture has written so far."""
        total = 0
        for path in self.repository.stored_files(self.vm, "data/*/*.layer"):
            if os.path.dirname(path) not in self.data:
                with contextlib.suppress(FileNotFoundError):
                    total += os.stat(path).st_size
        return total

    def committed(self):
        return set(self.repository.stored_files(self.vm, "points/*.json")) > self.points

    def wait(self, moment, process):
        """Until "begun" (the directory is there), bytes written, or "committed"; or until the process has ended."""
        reached = {"begun": lambda: set(self.repository.stored_files(self.vm, "data/*")) > self.data,
                   "committed": self.committed}.get(moment) or (lambda: self.written() >= moment)
        until(lambda: reached() or process.poll() is not None, f"the capture is at {moment}", 120, pause=0)
