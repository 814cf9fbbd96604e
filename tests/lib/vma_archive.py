"""Proxmox VMA archives, made and checked from the description of the format alone: nothing of it is shared with the
program."""
import hashlib
import random
import struct
import time
import uuid

CLUSTER, BLOCK, HEADER, EXTENT, ENTRIES = 65536, 4096, 12288, 512, 59


def _seal(data, at):
    blank = bytes(data[:at]) + bytes(16) + bytes(data[at + 16:])
    data[at:at + 16] = hashlib.md5(blank).digest()


def write(path, devices, configs=(), entries=58, order="sequential", ctime=None, seed=1, lost=(), doubled=()):
    """devices: {name: bytes}. order: sequential, interleaved, random. lost, doubled: (name, cluster) that are left out or
    are there twice. Blocks of zeroes are not stored."""
    identity = uuid.UUID(int=random.Random(seed).getrandbits(128)).bytes
    blobs, names, datas, infos = bytearray(1), [], [], []

    def blob(data):
        at = len(blobs)
        blobs.extend(struct.pack("<H", len(data)) + data)
        return at

    for name, data in dict(configs).items():
        names.append(blob(name.encode() + b"\0"))
        datas.append(blob(data))
    for name in devices:
        infos.append((blob(name.encode() + b"\0"), len(devices[name])))
    header = bytearray(HEADER) + blobs + bytes(-len(blobs) % 512)
    header[:4] = b"VMA\0"
    struct.pack_into(">I16sQ", header, 4, 1, identity, int(time.time() if ctime is None else ctime))
    struct.pack_into(">III", header, 48, HEADER, len(blobs), len(header))
    for i, at in enumerate(names):
        struct.pack_into(">I", header, 2044 + 4 * i, at)
        struct.pack_into(">I", header, 3068 + 4 * i, datas[i])
    for i, (at, size) in enumerate(infos, 1):
        struct.pack_into(">IIQ", header, 4096 + 32 * i, at, 0, size)
    _seal(header, 32)

    lists = [[(number, n) for n in range(-(-len(data) // CLUSTER)) if (name, n) not in lost]
             for number, (name, data) in enumerate(devices.items(), 1)]
    clusters = [c for one in lists for c in one]
    if order == "interleaved":
        clusters.sort(key=lambda c: (c[1], c[0]))
    elif order == "random":
        random.Random(seed).shuffle(clusters)
        ram = [number for number, name in enumerate(devices, 1) if name == "vmstate"]
        in_order = iter(sorted(c for c in clusters if c[0] in ram))
        clusters = [next(in_order) if c[0] in ram else c for c in clusters]
    numbers = {name: number for number, name in enumerate(devices, 1)}
    clusters += [(numbers[name], n) for name, n in doubled]
    contents = [None, *devices.values()]
    with open(path, "wb") as out:
        out.write(header)
        for first in range(0, len(clusters), entries):
            extent, blocks = bytearray(EXTENT), []
            for i, (device, n) in enumerate(clusters[first:first + entries]):
                data = contents[device][n * CLUSTER:(n + 1) * CLUSTER].ljust(CLUSTER, b"\0")
                mask = 0
                for bit in range(16):
                    piece = data[bit * BLOCK:(bit + 1) * BLOCK]
                    if piece.count(0) != BLOCK:
                        mask |= 1 << bit
                        blocks.append(piece)
                struct.pack_into(">Q", extent, 40 + 8 * i, mask << 48 | device << 32 | n)
            extent[:4] = b"VMAE"
            struct.pack_into(">HH16s", extent, 4, 0, len(blocks), identity)
            _seal(extent, 24)
            out.write(extent + b"".join(blocks))


class Bad(Exception):
    """The archive is not as the format has it."""


def _must(condition, what):
    if not condition:
        raise Bad(what)


def read(path):
    """As strict as can be: {"devices": {name: bytes}, "configs": {name: bytes}, "ctime": seconds}."""
    with open(path, "rb") as archive:
        return _read(archive)


def _read(archive):
    header = bytearray(archive.read(HEADER))
    _must(len(header) == HEADER and header[:4] == b"VMA\0", "magic")
    version, identity, ctime, md5, blob_at, blob_length, size = struct.unpack_from(">I16sQ16sIII", header, 4)
    _must(version == 1 and size > HEADER and size % 512 == 0 and size <= HEADER + 512 * 1024, "header size")
    header += archive.read(size - HEADER)
    _must(len(header) == size, "short header")
    sealed = bytes(header)
    _seal(header, 32)
    _must(sealed == bytes(header), "header MD5")
    _must(blob_at == HEADER and blob_at + blob_length <= size and blob_length > 1, "blobs")
    _must(not any(header[60:2044]) and not any(header[4092:4096]) and header[blob_at] == 0, "reserved bytes of the header")
    _must(not any(header[blob_at + blob_length:]), "padding of the blobs")
    blobs, at = {}, 1
    while at < blob_length:
        length = struct.unpack_from("<H", header, blob_at + at)[0]
        _must(at + 2 + length <= blob_length, "a blob passes the end")
        blobs[at] = bytes(header[blob_at + at + 2:blob_at + at + 2 + length])
        at += 2 + length

    def name(pointer):
        _must(pointer in blobs and blobs[pointer].endswith(b"\0") and blobs[pointer].count(0) == 1, "a name")
        return blobs[pointer][:-1].decode()

    configs, devices = {}, {}
    for i in range(256):
        names, datas = (struct.unpack_from(">I", header, base + 4 * i)[0] for base in (2044, 3068))
        _must(bool(names) == bool(datas), "half a configuration")
        if names:
            _must(name(names) not in configs, "a configuration twice")
            configs[name(names)] = blobs[datas]
    for i in range(256):
        pointer, reserved, length = struct.unpack_from(">IIQ", header, 4096 + 32 * i)
        _must(reserved == 0 and not any(header[4096 + 32 * i + 16:4096 + 32 * i + 32]), "reserved bytes of a device")
        if pointer or length:
            _must(1 <= i <= 254 and pointer and length, "a device")
            devices[i] = (name(pointer), bytearray(length))
    _must(devices and len({d[0] for d in devices.values()}) == len(devices), "devices")
    _read_extents(archive, identity, devices)
    return {"devices": {n: bytes(data) for n, data in devices.values()}, "configs": configs, "ctime": ctime}


def _read_extents(archive, identity, devices):
    seen, ram_next = set(), 0
    while extent := bytearray(archive.read(EXTENT)):
        _must(len(extent) == EXTENT and extent[:4] == b"VMAE", "extent magic")
        reserved, count, its = struct.unpack_from(">HH16s", extent, 4)
        _must(reserved == 0 and its == identity, "extent of another archive")
        sealed = bytes(extent)
        _seal(extent, 24)
        _must(sealed == bytes(extent), "extent MD5")
        blocks = archive.read(count * BLOCK)
        _must(len(blocks) == count * BLOCK, "short extent")
        at = used = 0
        for i in range(ENTRIES):
            entry = struct.unpack_from(">Q", extent, 40 + 8 * i)[0]
            mask, reserved, device, cluster = entry >> 48, entry >> 40 & 255, entry >> 32 & 255, entry & 0xffffffff
            if not device:
                _must(entry == 0, "an empty entry that is not")
                continue
            used += 1
            _must(reserved == 0 and device in devices, "a device that is not there")
            name, data = devices[device]
            _must((device, cluster) not in seen, f"cluster {cluster} of {name} twice")
            _must(cluster * CLUSTER < len(data), f"cluster {cluster} of {name} past the end")
            seen.add((device, cluster))
            if name == "vmstate":
                _must(cluster == ram_next, "RAM out of order")
                ram_next += 1
            for bit in range(16):
                if mask >> bit & 1:
                    start = cluster * CLUSTER + bit * BLOCK
                    _must(start < len(data), "a block past the end")
                    piece = blocks[at:at + BLOCK]
                    _must(not any(piece[max(0, len(data) - start):]), "the last block is not filled up with zeroes")
                    data[start:start + BLOCK] = piece[:len(data) - start]
                    at += BLOCK
        _must(at == len(blocks), "an extent with blocks of nothing")
        _must(used > 0, "an extent of nothing")
    for number, (name, data) in devices.items():
        for cluster in range(-(-len(data) // CLUSTER)):
            _must((number, cluster) in seen, f"cluster {cluster} of {name} is missing")
