"""What a reader does with the file, the same command for every server, and what it costs."""

import json
import os
import random
import signal
import subprocess
import sys
import time

MIB = 1 << 20
ADDRESSES = 60000  # random reads a second, of each job: more than are done


class Result:
    """value: seconds (first), MiB/s of the disk's size (dd, cp), or operations a second (rand)."""

    def __init__(self, value, client, server, memory):
        self.value, self.client, self.server, self.memory = value, client, server, memory


class Client:
    """A command, timed, with the CPU seconds that it took and the peak of its memory in bytes (of its largest process)."""

    def __init__(self, *command, log=subprocess.DEVNULL):
        start = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            self.output = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            process.stdout.close()
        self.seconds = time.monotonic() - start
        self.cpu = usage.ru_utime + usage.ru_stime
        self.memory = usage.ru_maxrss << 10
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="utf-8") as file:
        file.write("3\n")


def interrupted(number, frame):
    """Once: what is cleaned up then is not to be interrupted."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def run_program(main):
    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, interrupted)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)


def dd(image, context):
    client = Client("dd", f"if={image}", "of=/dev/null", "bs=1M", "status=none")
    return os.path.getsize(image) / MIB / client.seconds, client.cpu


def dd_first(image, context):
    """The first GiB: of what takes minutes for all of a disk, and the longer the farther it comes."""
    client = Client("dd", f"if={image}", "of=/dev/null", "bs=1M", "count=1024", "status=none")
    return min(os.path.getsize(image), 1 << 30) / MIB / client.seconds, client.cpu


def copy(*options):
    def run(image, context):
        target = f"{context.place}/copy.raw"
        try:
            client = Client("cp", *options, image, target)
            return os.path.getsize(image) / MIB / client.seconds, client.cpu
        finally:
            if os.path.exists(target):
                os.unlink(target)
                os.sync()
    return run


def write_addresses(path, blocks, block_size, seconds, seed):
    """Where the random reads go, as fio replays it: only what has data, as holes cost next to nothing."""
    chance = random.Random(seed)
    with open(path, "w", encoding="utf-8") as file:
        file.write("fio version 2 iolog\nx add\nx open\n")
        for _ in range(ADDRESSES * seconds):
            file.write(f"x read {chance.choice(blocks) + 4096 * chance.randrange(block_size // 4096)} 4096\n")
        file.write("x close\n")


def random_reads(jobs):
    def run(image, context):
        logs = context.addresses[:jobs]
        command = ["fio", "--output-format=json", "--ioengine=psync", "--direct=1", "--thread", "--group_reporting",
                   "--readonly", f"--runtime={context.seconds}"]
        for number, log in enumerate(logs):
            command += [f"--name=job{number}", f"--read_iolog={log}", f"--replay_redirect={image}", "--replay_no_stall=1"]
        client = Client(*command)
        done = json.loads(client.output)["jobs"][0]
        return done["read"]["iops"], (done["usr_cpu"] + done["sys_cpu"]) * done["job_runtime"] / 1e5
    return run


MEASURES = {
    "first": None,
    "dd": dd,
    "dd-first": dd_first,
    "cp": copy(),
    "cp-sparse": copy("--sparse=always"),
    "rand1": random_reads(1),
    "rand4": random_reads(4),
}
UNITS = {"first": "ms to first byte", "write": "MiB/s", "dd": "MiB/s", "dd-first": "MiB/s", "cp": "MiB/s",
         "cp-sparse": "MiB/s", "rand1": "IOPS", "rand4": "IOPS"}
TITLES = {"first": "mount to first byte", "write": "to a file, synced", "dd": "dd bs=1M", "dd-first": "dd bs=1M count=1024",
          "cp": "cp", "cp-sparse": "cp --sparse=always", "rand1": "4 KiB random, 1 job", "rand4": "4 KiB random, 4 jobs"}


def first_byte(image):
    descriptor = os.open(image, os.O_RDONLY)
    try:
        if len(os.pread(descriptor, 4096, 0)) != 4096:
            raise RuntimeError(f"{image} is too short")
    finally:
        os.close(descriptor)


def measure(name, start, context):
    """Starts a server for this measure alone, so that nothing is left of others in its caches or the kernel's."""
    begun = time.monotonic()
    with start() as server:
        first_byte(server.image)
        first = time.monotonic() - begun
        if name == "first":
            return Result(first * 1000, 0, server.cpu_seconds(), server.peak_memory())
        before = server.cpu_seconds()
        value, cpu = MEASURES[name](server.image, context)
        return Result(value, cpu, server.cpu_seconds() - before, server.peak_memory())
