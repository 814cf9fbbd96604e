"""NBD servers of the tests: nbdkit and qemu-nbd, and one in Python that goes wrong where it is told to."""

import contextlib
import os
import socket
import struct
import subprocess
import threading

from program import is_socket
from wait import until

# What can happen to one request, and whether the connection is of no use afterwards.
TROUBLES = ("hang up", "say nothing", "an error", "half and hang up", "half and say nothing", "half and be done",
            "no extent", "extents of no length", "extents past the end", "another request's answer", "no magic")

OPTION_MAGIC, REPLY_MAGIC = b"IHAVEOPT", 0x3e889045565a9
REQUEST_MAGIC, CHUNK_MAGIC = 0x25609513, 0x668e33ef
READ, DISCONNECT, BLOCK_STATUS = 0, 2, 7
DONE = 1
FLAGS = 1 | 1 << 1 | 1 << 8  # there are some, read-only, several connections


@contextlib.contextmanager
def serving(person, socket_path, *command):
    """Runs the server (its socket is socket_path) for the time of the block."""
    process = person.popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: is_socket(socket_path) or process.poll() is not None, f"{command[0]} listens", 30)
        assert process.poll() is None, f"{command} ended with {process.returncode}"
        yield process
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(socket_path)


def nbdkit(person, socket_path, *arguments):
    return serving(person, socket_path, "nbdkit", "-f", "-r", "-U", socket_path, *arguments)


def writable_nbdkit(person, socket_path, *arguments):
    return serving(person, socket_path, "nbdkit", "-f", "-U", socket_path, *arguments)


def qemu_nbd(person, socket_path, image, *options, form="qcow2"):
    return serving(person, socket_path, "qemu-nbd", "--read-only", "--persistent", f"--socket={socket_path}",
                   f"--format={form}", *options, image)


class WrongServer:
    """Serves a raw file. The requests of all connections since cause() are numbered from 1 on: those for which when(number)
    is true meet with the trouble."""

    def __init__(self, image, path):
        self.image, self.path, self.lock = image, path, threading.Lock()
        self.connections = []
        self.cause()

    def __enter__(self):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            connection.close()
        os.unlink(self.path)

    def cause(self, trouble=None, when=lambda number: False):
        with self.lock:
            self.trouble, self.when, self.count = trouble, when, 0

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError, EOFError), connection, open(self.image, "rb") as image:
            self._negotiate(connection, os.fstat(image.fileno()).st_size)
            while self._answer(connection, image):
                pass

    @staticmethod
    def _take(connection, length):
        taken = b""
        while len(taken) < length:
            more = connection.recv(length - len(taken))
            if not more:
                raise EOFError
            taken += more
        return taken

    def _negotiate(self, connection, size):
        connection.sendall(b"NBDMAGIC" + OPTION_MAGIC + struct.pack(">H", 3))
        self._take(connection, 4)
        while True:
            _, option, length = struct.unpack(">8sII", self._take(connection, 16))
            data = self._take(connection, length)

            def reply(kind, content=b"", option=option):
                connection.sendall(struct.pack(">QIII", REPLY_MAGIC, option, kind, len(content)) + content)
            if option == 8:  # structured replies
                reply(1)
            elif option == 10:  # SET_META_CONTEXT
                if b"base:allocation" in data:
                    reply(4, struct.pack(">I", 1) + b"base:allocation")
                reply(1)
            elif option == 7:  # GO
                reply(3, struct.pack(">HQH", 0, size, FLAGS | 1 << 7))
                reply(1)
                return
            else:
                reply(1 << 31 | 1)

    def _chunk(self, connection, cookie, kind, content=b"", flags=DONE, length=None):
        connection.sendall(struct.pack(">IHHQI", CHUNK_MAGIC, flags, kind, cookie, length or len(content)) + content)

    def _answer(self, connection, image):
        magic, _, kind, cookie, offset, length = struct.unpack(">IHHQQI", self._take(connection, 28))
        assert magic == REQUEST_MAGIC
        if kind == DISCONNECT:
            return False
        with self.lock:
            self.count += 1
            trouble = self.trouble if self.when(self.count) else None
        image.seek(offset)
        content = image.read(length) if kind == READ else struct.pack(">III", 1, length, 0)
        if trouble and not self._go_wrong(connection, trouble, kind, cookie, offset, content):
            return False
        if not trouble and kind == READ:
            self._chunk(connection, cookie, 1, struct.pack(">Q", offset) + content)
        elif not trouble:
            self._chunk(connection, cookie, 5, content)
        return True

    def _go_wrong(self, connection, trouble, kind, cookie, offset, content):
        """Whether the connection goes on."""
        whole = struct.pack(">Q", offset) + content if kind == READ else content
        chunk = 1 if kind == READ else 5
        if trouble == "an error":
            self._chunk(connection, cookie, 1 << 15 | 1, struct.pack(">IH", 5, 6) + b"broken")
            return True
        if trouble == "half and be done":
            self._chunk(connection, cookie, chunk, whole[:8 + len(content) // 2] if kind == READ else whole[:4])
            return True
        if trouble.startswith("half"):
            connection.sendall(struct.pack(">IHHQI", CHUNK_MAGIC, DONE, chunk, cookie, len(whole)) + whole[:len(whole) // 2])
        elif trouble == "another request's answer":
            self._chunk(connection, cookie + 1000, chunk, whole)
            return True
        elif trouble == "no magic":
            connection.sendall(b"\1" * 64)
        elif trouble == "no extent":
            self._chunk(connection, cookie, 5, struct.pack(">I", 1) if kind != READ else whole)
            return True
        elif trouble == "extents of no length":
            self._chunk(connection, cookie, 5, struct.pack(">IIIII", 1, 0, 0, 0, 3))
            return True
        elif trouble == "extents past the end":
            self._chunk(connection, cookie, 5, struct.pack(">IIIII", 1, 0xffffffff, 0, 0xffffffff, 3))
            return True
        if trouble.endswith("hang up"):
            return False
        with contextlib.suppress(OSError):
            connection.recv(1 << 20)  # until the other side has enough of it
            while connection.recv(1 << 20):
                pass
        return False
