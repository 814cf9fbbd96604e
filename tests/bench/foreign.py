"""The bench's chain as other tools keep it, made from the native one, and what shows it or takes it back."""

import contextlib
import json
import os
import shutil
import subprocess
import time
import types
import zlib

import measures
import servers

TEMPLATE = "%s %016x %016x\r\n"
AT_ONCE = 32 << 20  # bytes in an LZ4 frame: what QEMU's NBD server takes in a request
DOMAIN = ("<domain type='qemu'><name>bench</name><uuid>6f1c6a5e-0000-4000-8000-000000000003</uuid><memory>65536</memory><os>"
          "<type>hvm</type></os><devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
          "<source file='/nowhere/restored.qcow2'/><target dev='vda'/></disk></devices></domain>")
PLUGIN = "/usr/bin/virtnbd-nbdkit-plugin"
FULL = "vda.full.data"
COW_BLOCK = 64 << 10  # bytes that nbdkit's filter "cow" reads at once

QCOW_INFO = {"format": "qcow2", "cluster-size": 65536, "format-specific": {"type": "qcow2", "data": {
    "compat": "1.1", "compression-type": "zlib", "lazy-refcounts": False, "refcount-bits": 16, "corrupt": False,
    "extended-l2": False}}}
FIRST_RUN = 1767225600  # 2026-01-01: a version that leaves zeroes out, so that its log has to be looked into
HOUR = 3600


def write_text(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def write_beside(directory, number, data_name):
    """What each run of the tool leaves beside its stream."""
    ident, moment = f"virtnbdbackup.{number}", time.localtime(FIRST_RUN + HOUR * number)
    level = "inc" if number else "full"
    with open(f"{directory}/{data_name}", "rb") as file:
        checksum = 1
        while part := file.read(1 << 20):
            checksum = zlib.adler32(part, checksum)
    write_text(f"{directory}/{data_name}.chksum", str(checksum))
    write_text(f"{directory}/vmconfig.{ident}.xml", DOMAIN)
    write_text(f"{directory}/vda.{ident}.qcow.json", json.dumps(QCOW_INFO))
    write_text(f"{directory}/backup.{level}.{time.strftime('%m%d%Y%H%M%S', moment)}.log",
               "[2026-01-01 00:00:00] INFO lib common - printVersion [main]: Version: 2.47 Arguments: virtnbdbackup\n")
    os.makedirs(f"{directory}/checkpoints", exist_ok=True)
    write_text(f"{directory}/checkpoints/{ident}.xml", f"<domaincheckpoint><name>{ident}</name></domaincheckpoint>")


class Stream:
    """A stream of virtnbdbackup, as it writes it."""

    def __init__(self, directory, number, size, extents, compressed):
        self.name = FULL if number == 0 else f"vda.inc.virtnbdbackup.{number}.data"
        self.file = open(f"{directory}/{self.name}", "wb")
        self.compressed, self.sizes = compressed, []
        meta = json.dumps({
            "virtualSize": size, "dataSize": sum(length for _, length, zero in extents if not zero),
            "date": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(FIRST_RUN + HOUR * number + 1)), "diskName": "vda",
            "diskFormat": "qcow2", "checkpointName": f"virtnbdbackup.{number}", "compressed": 2 if compressed else False,
            "compressionMethod": "lz4", "parentCheckpoint": f"virtnbdbackup.{number - 1}" if number else "",
            "incremental": number > 0, "streamVersion": 2}, indent=4).encode()
        self.header("meta", 0, len(meta))
        self.file.write(meta + b"\r\n")

    def header(self, kind, start, length):
        self.file.write((TEMPLATE % (kind, start, length)).encode())

    def data(self, start, length, source):
        self.header("data", start, length)
        if not self.compressed:
            for offset in range(start, start + length, AT_ONCE):
                self.file.write(os.pread(source, min(AT_ONCE, start + length - offset), offset))
        else:
            import lz4.frame  # Debian's python3-lz4, which virtnbdbackup brings
            sizes = [self.file.write(lz4.frame.compress(os.pread(source, min(AT_ONCE, start + length - offset), offset),
                                                        content_checksum=True, block_checksum=True, compression_level=2))
                     for offset in range(start, start + length, AT_ONCE)]
            self.sizes.append(sizes[0] if length < AT_ONCE else {sum(sizes): sizes})
        self.file.write(b"\r\n")

    def write(self, extents, source):
        for start, length, zero in extents:
            if zero:
                self.header("zero", start, length)
            else:
                self.data(start, length, source)
        self.end()

    def end(self):
        self.header("stop", 0, 0)
        if self.compressed:
            sizes = json.dumps(self.sizes).encode()
            self.file.write(sizes + b"\r\n")
            self.header("comp", 0, len(sizes))
        self.file.close()


def merged(extents):
    """[start, length, zero], neighbours of one kind joined, as the tool does."""
    found = []
    for start, length, zero in extents:
        if found and found[-1][2] == zero and found[-1][0] + found[-1][1] == start:
            found[-1][1] += length
        else:
            found.append([start, length, zero])
    return found


class Chains:
    """Of a Data: directories with streams, compressed or not, and an archive of the last point."""

    def __init__(self, data, layers, increments):
        self.data, self.layers, self.increments = data, layers, increments
        self.plain = f"{data.place}/virtnbdbackup/plain-{layers}"
        self.lz4 = f"{data.place}/virtnbdbackup/lz4-{layers}"
        self.many = f"{data.place}/virtnbdbackup/many-{increments}"
        self.many_lz4 = f"{data.place}/virtnbdbackup/many-lz4-{increments}"
        self.vma = f"{data.place}/vma-{layers}"

    def make(self):
        self.data.once(f"streams-{self.layers}", self.make_streams)
        self.data.once(f"increments-{self.increments}", self.make_increments)
        self.data.once(f"vma-{self.layers}", self.make_archive)

    def make_streams(self):
        self.data.say("making streams of virtnbdbackup")
        for directory in (self.plain, self.lz4):
            os.makedirs(directory, exist_ok=True)
        with servers.native(self.data.tools, self.data, self.layers) as server:
            root = os.path.dirname(os.path.dirname(server.image))
            for number in range(self.layers):
                name = self.data.point(number + 1).split("/")[1]
                with open(f"{root}/{name}/vda.map", encoding="utf-8") as file:
                    lines = [line.split() for line in file][1:]
                # An increment of the tool has no zeroes.
                extents = merged([int(start), int(length), state == "zero"] for start, length, state, point in lines
                                 if number == 0 or (point == name and state == "data"))
                source = os.open(f"{root}/{name}/vda.raw", os.O_RDONLY)
                for directory in (self.plain, self.lz4):
                    stream = Stream(directory, number, self.data.size.disk, extents, directory == self.lz4)
                    stream.write(extents, source)
                    write_beside(directory, number, stream.name)
                os.close(source)
            for directory in (self.plain, self.lz4):
                with shown(self.data.tools, directory, "bench") as other:
                    subprocess.run(["cmp", server.image, other.image], check=True)

    def make_increments(self):
        """A full backup of which nothing is left to read, and many increments with a few blocks each."""
        self.data.say(f"making {self.increments} increments of virtnbdbackup, twice")
        source = os.open(self.data.raw, os.O_RDONLY)
        for directory in (self.many, self.many_lz4):
            os.makedirs(directory, exist_ok=True)
            for number in range(self.increments + 1):
                starts = range(number * 4096 % (1 << 20), self.data.size.disk, self.data.size.disk // 4)
                extents = [[start, 4096, False] for start in starts] if number else [[0, self.data.size.disk, True]]
                stream = Stream(directory, number, self.data.size.disk, extents, directory == self.many_lz4)
                stream.write(extents, source)
                write_beside(directory, number, stream.name)
            write_text(f"{directory}/bench.cpt", json.dumps([f"virtnbdbackup.{i}" for i in range(self.increments + 1)]))
        os.close(source)

    def make_archive(self):
        os.makedirs(self.vma, exist_ok=True)
        subprocess.run([self.data.tools.virtbackupfs, "export", self.data.repository, self.data.point(self.layers),
                        f"{self.vma}/bench.vma", "--format", "vma"], check=True)


@contextlib.contextmanager
def shown(tools, directory, vm, disk="vda"):
    """A directory, mounted as it lies: the newest point."""
    with servers.place() as (path, log):
        mount = f"{path}/mnt"
        os.mkdir(mount)
        with servers.running(f"{mount}/{vm}/latest/{disk}.raw", [mount], log) as server:
            server.start(tools.virtbackupfs, "mount", "-f", directory, mount, log=log)
            server.wait_for(lambda: servers.is_mounted(mount))
            yield server


def block_map(path):
    """What virtnbdmap hands to its plugin: all frames of an uncompressed stream."""
    found = []
    with open(path, "rb") as file:
        def header():
            kind, start, length = file.read(40).split()
            return kind, int(start, 16), int(length, 16)
        _, _, length = header()
        file.seek(length + 2, os.SEEK_CUR)
        while True:
            kind, start, length = header()
            if kind == b"stop":
                return found
            found.append({"offset": file.tell(), "originalOffset": start, "nextOriginalOffset": start + length,
                          "length": length, "data": kind == b"data", "file": path, "inc": False, "nextBlockOffset": None})
            if kind == b"data":
                file.seek(length + 2, os.SEEK_CUR)


def readable(chains, offsets):
    """Those at which the plugin does not fail behind the filter "cow": it wants frames to be longer than what is read."""
    short = [block for block in block_map(f"{chains.plain}/{FULL}") if block["length"] <= COW_BLOCK]
    return [offset for offset in offsets
            if not any(block["originalOffset"] <= offset < block["nextOriginalOffset"] for block in short)]


@contextlib.contextmanager
def nbdkit(chains, *filters):
    """The full backup alone, as virtnbdmap has nbdkit serve it: increments it would copy into a temporary file."""
    with servers.place() as (path, log):
        image, socket, blocks = f"{path}/image", f"{path}/socket", f"{path}/blocks"
        full = f"{chains.plain}/{FULL}"
        with open(blocks, "w", encoding="utf-8") as file:
            json.dump(block_map(full), file)
        with open(image, "wb"):
            pass
        with servers.running(image, [image], log) as server:
            server.start("nbdkit", "-f", "-v", "-U", socket, "--filter=blocksize", *filters, "python", PLUGIN, "maxlen=4096",
                         f"blockmap={blocks}", f"disk={full}", "debug=0", "-t", "1", log=log)
            server.wait_for(lambda: os.path.exists(socket))
            server.start("nbdfuse", "-r", image, f"nbd+unix:///?socket={socket}", log=log)
            server.wait_for(lambda: servers.is_mounted(image))
            yield server


def restored(chains):
    """The whole chain, to an image, by virtnbdrestore: MiB/s of the disk's size. libvirt's test driver is enough for it."""
    with servers.place() as (path, log):
        target = f"{chains.data.place}/restored"
        try:
            client = measures.Client("virtnbdrestore", "-n", "-U", "test:///default", "-f", f"{path}/socket",
                                     "-i", chains.lz4, "-o", target, "--logfile", f"{path}/restore.log", log=log)
            subprocess.run(["qemu-img", "info", "-U", f"{target}/restored.qcow2"], check=True, stdout=subprocess.DEVNULL)
        finally:
            shutil.rmtree(target, ignore_errors=True)
    return measures.Result(chains.data.size.disk / measures.MIB / client.seconds, client.cpu, 0, client.memory)


def written(chains, *command):
    """A command that writes the newest point into the file that it is given last, until that is on the disk: MiB/s of the
    disk's size."""
    target = f"{chains.data.place}/written"
    begun = time.monotonic()
    try:
        client = measures.Client(*command, target)
        descriptor = os.open(target, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        seconds = time.monotonic() - begun
    finally:
        if os.path.exists(target):
            os.unlink(target)
    return measures.Result(chains.data.size.disk / measures.MIB / seconds, client.cpu, 0, client.memory)


def exported(chains, form):
    data = chains.data
    path = data.point(chains.layers) + ("/vda" if form == "qcow2" else "")
    return written(chains, data.tools.virtbackupfs, "export", "--format", form, data.repository, path)


def converted(chains):
    return written(chains, "qemu-img", "convert", "-m", "16", "-W", "-f", "qcow2", "-O", "qcow2",
                   chains.data.overlay(chains.layers))


SUBJECTS = types.SimpleNamespace(plain="virtnbd", lz4="virtnbd-lz4", many="virtnbd-many", many_lz4="virtnbd-many-lz4",
                                 vma="vma", native="native", nbdkit="nbdkit", no_cow="nbdkit-no-cow",
                                 bare="bare", restore="virtnbdrestore", qcow2="qcow2",
                                 to_qcow2="export-qcow2", to_vma="export-vma", convert="qemu-img")
WHOLE = (SUBJECTS.restore, SUBJECTS.to_qcow2, SUBJECTS.to_vma, SUBJECTS.convert)  # commands, and not what is read from
