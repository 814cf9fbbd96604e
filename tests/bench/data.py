"""What is read: one disk of real files and its chains, native and qcow2, kept from run to run."""

import copy
import glob
import os
import random
import shutil
import subprocess

import servers

BLOCK = 64 << 10
SMALL_BLOCK = 16 << 10
SHORT, LONG = "short", "long"
LAYERS = {SHORT: 101, LONG: 1001}
SAMPLE = 5000  # blocks
FORGOTTEN_SIZE, FORGOTTEN_SHARE = 128 << 10, 0.1  # of the files, those that are deleted again: bytes at least, and how many


class Size:
    """Of the disk, of the files in it, and what an incremental changes: 1 % of the blocks of the disk, or a tenth of that
    in the long chain, which would not fit on most machines otherwise."""

    def __init__(self, name, disk, files):
        self.name, self.disk, self.files = name, disk, files

    def changes(self, history):
        return self.disk // BLOCK // (100 if history == SHORT else 1000)


FULL = Size("full", 8 << 30, 3 << 30)
QUICK = Size("quick", 1 << 30, 400 << 20)


def history_of(layers):
    return SHORT if layers <= LAYERS[SHORT] else LONG


class Data:
    def __init__(self, work, size, tools, say):
        self.place, self.size, self.tools, self.say = os.path.join(work, size.name), size, tools, say
        self.raw = f"{self.place}/disk.raw"
        self.packed = f"{self.place}/disk.lz4"
        self.repository = f"{self.place}/repository"
        self.overlays = f"{self.place}/qcow2"
        self.suffix = ""  # of the VM whose points are meant

    def in_small_blocks(self):
        """The same, but with the points whose layers compress SMALL_BLOCK together. Of the short chains alone."""
        small = copy.copy(self)
        small.suffix = f"-{SMALL_BLOCK >> 10}k"
        return small

    def point(self, layers):
        """The point at the end of a chain of so many layers, as VM/POINT."""
        vm = history_of(layers) + self.suffix
        with open(f"{self.place}/{vm}.points", encoding="utf-8") as file:
            return f"{vm}/{file.read().split()[layers - 1]}"

    def overlay(self, layers, compressed=False):
        return f"{self.overlays}/{history_of(layers)}-{layers - 1:04}{'-zstd' if compressed else ''}.qcow2"

    def native_files(self, layers):
        return sorted(glob.glob(f"{self.repository}/vms/{history_of(layers)}{self.suffix}/data/*/vda.layer"))[:layers]

    def overlay_files(self, layers, compressed=False):
        suffix = "-zstd" if compressed else ""
        return [f"{self.overlays}/{history_of(layers)}-{number:04}{suffix}.qcow2" for number in range(layers)]

    def overlay_directory(self, layers, compressed=False):
        """A directory that has this chain alone, as links, below one that has nothing else; and its disk's name."""
        files = self.overlay_files(layers, compressed)
        directory = f"{self.place}/in-place/{layers}{'-zstd' if compressed else ''}/chain"
        if not os.path.exists(directory):
            os.makedirs(f"{directory}.new")
            for path in files:
                os.link(path, f"{directory}.new/{os.path.basename(path)}")
            os.rename(f"{directory}.new", directory)
        return directory, os.path.basename(files[0]).removesuffix(".qcow2")

    def data_blocks(self):
        """Offsets of blocks of the disk that have data, in every point."""
        with open(self.raw, "rb") as file:
            found, offset = [], 0
            while offset < self.size.disk:
                try:
                    start = os.lseek(file.fileno(), offset, os.SEEK_DATA)
                except OSError:
                    break
                offset = os.lseek(file.fileno(), start, os.SEEK_HOLE)
                found += range(-(-start // BLOCK) * BLOCK, offset - BLOCK + 1, BLOCK)
        return found

    def make(self, chains, compressed, packed=False, small=False):
        os.makedirs(self.overlays, exist_ok=True)
        self.once("disk", self.make_disk)
        if packed:
            self.once("packed", lambda: subprocess.run([self.tools.bare_fuse, "--pack", self.raw, self.packed], check=True))
        for history in (SHORT, LONG):
            if any(history_of(layers) == history for layers in chains):
                self.once(history, lambda history=history: self.make_history(history))
        if small and any(history_of(layers) == SHORT for layers in chains):
            self.once(f"{SHORT}{self.in_small_blocks().suffix}", self.in_small_blocks().make_small)
        for layers in chains:
            self.once(f"compared-{layers}", lambda layers=layers: self.compare(layers, False))
            if layers in compressed:
                self.make_compressed(layers)
                self.once(f"compared-{layers}-zstd", lambda layers=layers: self.compare(layers, True))

    def once(self, name, make):
        """What has been made is marked, and made again where it was interrupted."""
        mark = f"{self.place}/{name}.made"
        if not os.path.exists(mark):
            make()
            with open(mark, "w", encoding="utf-8"):
                pass

    def make_disk(self):
        self.say(f"making a disk of {self.size.disk >> 20} MiB with files of /usr")
        stage = f"{self.place}/stage"
        shutil.rmtree(stage, ignore_errors=True)
        copied, forgotten, chance = 0, [], random.Random(1)
        for directory, names, files in os.walk("/usr"):
            names.sort()
            target = stage + directory
            os.makedirs(target)
            for name in sorted(files):
                path = os.path.join(directory, name)
                if os.path.isfile(path) and not os.path.islink(path) and copied < self.size.files:
                    shutil.copyfile(path, os.path.join(target, name))
                    size = os.path.getsize(path)
                    if size >= FORGOTTEN_SIZE and '"' not in path and chance.random() < FORGOTTEN_SHARE:
                        forgotten.append(path)
                        size = 0
                    copied += size
            if copied >= self.size.files:
                break
        new = f"{self.raw}.new"
        for path in (self.raw, new):
            if os.path.exists(path):
                os.unlink(path)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", stage, new, f"{self.size.disk >> 10}k"], check=True)
        shutil.rmtree(stage)
        # As a file system that has been used for a while, and trimmed: what was deleted has left holes between the rest.
        subprocess.run(["debugfs", "-w", "-f", "/dev/stdin", new], input="".join(f'rm "{path}"\n' for path in forgotten),
                       text=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        subprocess.run(["e2image", "-ra", new, self.raw], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        os.unlink(new)

    def make_history(self, history):
        self.say(f"making {LAYERS[history]} layers, native and qcow2")
        base = f"{self.overlays}/{history}-0000.qcow2"
        if os.path.exists(f"{self.overlays}/{SHORT}-0000.qcow2") and history == LONG:
            if not os.path.exists(base):
                os.link(f"{self.overlays}/{SHORT}-0000.qcow2", base)
        else:
            subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", self.raw, base], check=True)
        self.make_points(history, BLOCK, [self.overlays])

    def make_small(self):
        self.say(f"making {LAYERS[SHORT]} layers with blocks of {SMALL_BLOCK >> 10} KiB")
        self.make_points(SHORT, SMALL_BLOCK, [])
        layers = LAYERS[SHORT]
        with servers.native(self.tools, self, layers) as native:
            subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", native.image, self.overlay(layers)],
                           check=True, stdout=subprocess.DEVNULL)

    def make_points(self, history, block, overlays):
        vm = history + self.suffix
        shutil.rmtree(f"{self.repository}/vms/{vm}", ignore_errors=True)
        made = subprocess.run([self.tools.make_chain, self.raw, self.repository, vm, str(LAYERS[history]),
                               str(self.size.changes(history)), str(block), *overlays],
                              check=True, stdout=subprocess.PIPE, text=True)
        with open(f"{self.place}/{vm}.points", "w", encoding="utf-8") as file:
            file.write(made.stdout)

    def make_compressed(self, layers):
        for number in range(1, layers + 1):
            target = self.overlay(number, True)
            if os.path.exists(target):
                continue
            if number == 1:
                self.say("compressing the qcow2 chain with zstd")
            backing = []
            if number > 1:
                backing = ["-F", "qcow2", "-B", self.overlay(number - 1, True)]
            subprocess.run(["qemu-img", "convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", *backing,
                            self.overlay(number), target + ".new"], check=True)
            os.rename(target + ".new", target)

    def compare(self, layers, compressed):
        """Both forms of a chain have the same content, or there is nothing to compare. All of the long chain would
        take QEMU too long: of that one many blocks are compared."""
        self.say(f"comparing the chain of {layers} layers with {'zstd' if compressed else 'qcow2'}")
        with servers.native(self.tools, self, layers) as native:
            if history_of(layers) == SHORT:
                subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", native.image,
                                self.overlay(layers, compressed)], check=True, stdout=subprocess.DEVNULL)
                return
            with servers.storage_daemon(self, layers) as other, \
                 open(native.image, "rb") as ours, open(other.image, "rb") as theirs:
                for offset in random.Random(layers).choices(self.data_blocks(), k=SAMPLE):
                    if os.pread(ours.fileno(), BLOCK, offset) != os.pread(theirs.fileno(), BLOCK, offset):
                        raise RuntimeError(f"the chains of {layers} layers differ at {offset}")
