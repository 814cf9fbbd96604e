"""An imageio server of our own, as oVirt documents it: raw files behind tickets, over TLS and a Unix socket. It misbehaves
on demand."""

import contextlib
import http.server
import json
import os
import re
import secrets
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading

# What it can do instead of answering well; see Handler.misbehave().
STATUSES = {302: "Found", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 409: "Conflict",
            416: "Range Not Satisfiable", 500: "Internal Server Error", 503: "Service Unavailable"}
# After those of the first line another connection may do better.
BROKEN = ("close", "garbage", "half a head", "half a body", "half a chunk", "stall", "stall in the body")
TROUBLES = (*BROKEN, *(f"status {number}" for number in STATUSES), "short body", "long body", "wrong range", "other total",
            "no range", "two ranges", "whole disk", "no content", "encoded", "endless headers")

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """A CA of its own. path: its certificate."""

    def __init__(self, directory, name):
        self.directory, self.name = directory, name
        self.path, self.key = f"{directory}/{name}.pem", f"{directory}/{name}.key"
        self._openssl("req", "-x509", "-days", "2", *NEW_KEY, "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.path)

    @staticmethod
    def _openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)

    def certificate(self, *names):
        """The file of a certificate for these names ("DNS:localhost"), and that of its key."""
        path = f"{self.directory}/{self.name}-{secrets.token_hex(4)}"
        self._openssl("req", *NEW_KEY, "-subj", "/CN=imageio", "-keyout", f"{path}.key", "-out", f"{path}.csr")
        with open(f"{path}.ext", "w", encoding="utf-8") as file:
            file.write(f"subjectAltName={','.join(names)}\n")
        self._openssl("x509", "-req", "-in", f"{path}.csr", "-CA", self.path, "-CAkey", self.key, "-CAcreateserial",
                      "-days", "2", "-extfile", f"{path}.ext", "-out", f"{path}.pem")
        return f"{path}.pem", f"{path}.key"


class Ticket:
    """A transfer of a raw file. dirty: ranges (start, length), where it is that of an incremental backup. size: of the disk,
    which may lie in a larger file."""

    def __init__(self, path, dirty=None, size=None):
        self.path, self.dirty = path, dirty
        self.written, self.zeroed, self.flushes = [], [], 0  # ranges (start, length) of requests
        self.file_size = os.stat(path).st_size
        self.size = self.file_size if size is None else size

    def zero_ranges(self):
        """(start, end, zero) of the file, by its holes."""
        at = 0
        with open(self.path, "rb") as file:
            while at < self.file_size:
                try:
                    data = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError:  # nothing but a hole
                    data = self.file_size
                if data > at:
                    yield at, data, True
                if data < self.file_size:
                    at = os.lseek(file.fileno(), data, os.SEEK_HOLE)
                    yield data, at, False
                else:
                    at = data

    def extents(self, context):
        found = []
        for start, end, zero in self.zero_ranges():
            if context == "zero":
                found.append({"start": start, "length": end - start, "zero": zero, "hole": zero})
                continue
            edges = {start, end}
            for first, length in self.dirty:
                edges.update(edge for edge in (first, first + length) if start < edge < end)
            edges = sorted(edges)
            for left, right in zip(edges, edges[1:]):
                dirty = any(first <= left < first + length for first, length in self.dirty)
                found.append({"start": left, "length": right - left, "dirty": dirty, "zero": zero})
        return found

    def read(self, start, length):
        with open(self.path, "rb") as file:
            return os.pread(file.fileno(), length, start)


    def write(self, start, content):
        with open(self.path, "r+b") as file:
            os.pwrite(file.fileno(), content, start)
        self.written.append((start, len(content)))

    def zero(self, start, length):
        subprocess.run(["fallocate", "--punch-hole", "-o", str(start), "-l", str(length), self.path], check=True)
        self.zeroed.append((start, length))


class Request:
    """One that was received. number: counted from 1 since the server's trouble was set."""

    def __init__(self, number, method, target, headers, local, body):
        self.number, self.method, self.target, self.headers, self.local = number, method, target, headers, local
        self.body = body
        path, _, self.query = target.partition("?")
        self.ticket, _, self.below = path.removeprefix("/images/").partition("/")
        ranged = (re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("Range", ""))
                  or re.fullmatch(r"bytes (\d+)-(\d+)/\*", headers.get("Content-Range", "")))
        self.range = (int(ranged[1]), int(ranged[2])) if ranged else None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 20  # a head and its body go together

    def setup(self):
        if self.server.address_family != socket.AF_UNIX:
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.server.context:
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()
        self.imageio.connected(+1)

    def finish(self):
        self.imageio.connected(-1)
        with contextlib.suppress(OSError):
            super().finish()

    @property
    def imageio(self):
        return self.server.imageio

    def log_message(self, format, *arguments):  # the name is the base class's
        pass

    def answer(self, status, body=b"", **headers):
        chunked, closes = self.imageio.manner == "chunked", self.imageio.manner == "close"
        length = {"Transfer-Encoding": "chunked"} if chunked else {} if closes else {"Content-Length": len(body)}
        self.send_response(status)
        for name, value in {**length, **headers, **({"Connection": "close"} if closes else {})}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if chunked:
            middle = len(body) // 2
            for piece in filter(None, (body[:middle], body[middle:])):
                self.raw(f"{len(piece):x}\n", piece + b"\r\n")
            self.raw("0\n\n")
        else:
            self.wfile.write(body)

    def raw(self, text, body=b""):
        self.wfile.write(text.replace("\n", "\r\n").encode() + body)
        self.wfile.flush()

    def do_OPTIONS(self):
        self.serve()

    def do_GET(self):
        self.serve()

    def do_PUT(self):
        self.serve()

    def do_PATCH(self):
        self.serve()

    def serve(self):
        request = self.imageio.received(self)
        trouble = self.imageio.trouble(request)
        if trouble:
            self.misbehave(trouble, request)
        else:
            self.behave(request)

    def behave(self, request):
        ticket = self.imageio.tickets.get(request.ticket)
        if not ticket:
            self.close_connection = True
            self.answer(403, f"You are not allowed to access this resource: No such ticket {request.ticket}\n".encode())
        elif request.method == "OPTIONS":
            options = {"features": ["checksum", "extents", "zero", "flush"], "max_readers": self.imageio.max_readers,
                       "max_writers": self.imageio.max_readers}
            if self.imageio.socket_name:
                options["unix_socket"] = self.imageio.socket_name
            self.answer(200, json.dumps({**options, **self.imageio.options}).encode(), Allow="OPTIONS,GET")
        elif request.method in ("PUT", "PATCH"):
            self.change(request, ticket)
        elif request.below == "extents":
            context = "dirty" if "context=dirty" in request.query else "zero"
            if context == "dirty" and ticket.dirty is None:
                self.answer(404, b"Ticket does not support dirty extents\n")
            else:
                self.answer(200, json.dumps(ticket.extents(context)).encode(), Content_Type="application/json")
        elif not request.range:
            self.answer(200, ticket.read(0, ticket.size))
        elif request.range[0] > request.range[1] or request.range[1] >= ticket.size:
            self.answer(416, b"not available\n", Content_Range=f"bytes */{ticket.size}")
        else:
            start, end = request.range
            total = "*" if self.imageio.hides_total else ticket.size
            self.answer(206, ticket.read(start, end - start + 1), Content_Range=f"bytes {start}-{end}/{total}")

    def change(self, request, ticket):
        what = json.loads(request.body) if request.method == "PATCH" else {}
        start, length = ((what.get("offset", 0), what.get("size", 0)) if what else
                         (request.range[0], request.range[1] + 1 - request.range[0]))
        if start + length > ticket.size or (not what and length != len(request.body)):
            self.answer(416, b"not available\n")
            return
        if not what:
            ticket.write(start, request.body)
            ticket.flushes += "flush=n" not in request.query
        elif what["op"] == "zero":
            ticket.zero(start, length)
            ticket.flushes += bool(what.get("flush", True))
        else:
            assert what["op"] == "flush"
            ticket.flushes += 1
        self.answer(200)

    def misbehave(self, trouble, request):
        ticket = self.imageio.tickets[request.ticket]
        start, end = request.range or (0, 7)
        body = ticket.read(start, end - start + 1) if request.range else b"[{}]    "
        status = "206 Partial Content" if request.range else "200 OK"
        ranged = f"Content-Range: bytes {start}-{end}/{ticket.size}\n" if request.range else ""
        head = f"HTTP/1.1 {status}\n{ranged}"
        self.close_connection = True
        if trouble.startswith("status "):
            number = int(trouble.split()[1])
            self.answer(number, f"it is so with {request.ticket}\n".encode(), Location=f"/images/{request.ticket}/elsewhere")
            self.close_connection = False
        elif trouble == "garbage":
            self.raw("220 this is no HTTP\n")
        elif trouble == "half a head":
            self.raw("HTTP/1.1 200 OK\nContent-Le")
        elif trouble == "half a body":
            self.raw(f"{head}Content-Length: {len(body)}\n\n", body[:len(body) // 2])
        elif trouble == "short body":
            self.raw(f"{head}Content-Length: {len(body) // 2}\n\n", body[:len(body) // 2])
        elif trouble == "long body":
            self.raw(f"{head}Content-Length: {len(body) + 70000}\n\n", body + b"x" * 70000)
        elif trouble == "half a chunk":
            self.raw(f"{head}Transfer-Encoding: chunked\n\n{len(body):x}\n", body[:len(body) // 2])
        elif trouble == "wrong range":
            self.raw(f"HTTP/1.1 206 Partial Content\nContent-Range: bytes {start + 1}-{end + 1}/{ticket.size}\n"
                     f"Content-Length: {len(body)}\n\n", body[1:] + b"x")
        elif trouble == "other total":
            self.raw(f"HTTP/1.1 206 Partial Content\nContent-Range: bytes {start}-{end}/{end}\n"
                     f"Content-Length: {len(body)}\n\n", body)
        elif trouble == "no range":
            self.raw(f"HTTP/1.1 206 Partial Content\nContent-Length: {len(body)}\n\n", body[::-1])
        elif trouble == "two ranges":
            self.raw(f"HTTP/1.1 206 Partial Content\nContent-Range: bytes 0-{end - start}/{ticket.size}\n"
                     f"Content-Range: bytes {start}-{end}/{ticket.size}\nContent-Length: {len(body)}\n\n", body[::-1])
        elif trouble == "whole disk":
            self.raw(f"HTTP/1.1 200 OK\nContent-Length: {ticket.size}\n\n", ticket.read(0, ticket.size))
        elif trouble == "no content":
            self.raw("HTTP/1.1 206 Partial Content\nContent-Length: 0\n\n")
        elif trouble == "encoded":
            self.raw(f"{head}Content-Encoding: gzip\nContent-Length: {len(body)}\n\n", body[::-1])
        elif trouble == "endless headers":
            self.raw(head)
            while True:
                self.raw(f"X-Header: {'x' * 100}\n" * 100)
        elif trouble == "stall":
            self.imageio.over.wait()
        elif trouble == "stall in the body":
            self.raw(f"{head}Content-Length: {len(body)}\n\n", body[:1])
            self.imageio.over.wait()
        # "close" says nothing


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, imageio, address, context):
        self.imageio, self.context = imageio, context
        super().__init__(address, Handler)

    def handle_error(self, request, client_address):
        pass  # a peer that does not trust us, or goes


class LocalServer(Server):
    address_family = socket.AF_UNIX


class ImageioServer:
    """Serves for the time of a `with` block. certificate: of an Authority; None: no TLS. local: the address of a Unix socket
    to serve too, "\\0name" for an abstract one; local_owner: the number of the user that serves it."""

    def __init__(self, certificate, local=None, local_owner=None):
        self.tickets, self.requests, self.options = {}, [], {}
        self.trouble = lambda request: None  # of TROUBLES
        self.max_readers, self.hides_total, self.socket_name = 8, False, local
        self.manner = None  # of answering: "chunked", "close" (after each answer, whose length that tells)
        self.connections = self.connections_max = 0
        self.over, self.lock = threading.Event(), threading.Lock()
        context = None
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
        self.scheme = "https" if certificate else "http"
        self.servers = [Server(self, ("127.0.0.1", 0), context)]
        if local:
            self.servers.append(self._listen(local, os.geteuid() if local_owner is None else local_owner))
        self.port = self.servers[0].server_address[1]

    def _listen(self, local, owner):
        """Who listens is who serves, as peers see it."""
        before = os.geteuid()
        os.seteuid(owner)
        try:
            return LocalServer(self, local, None)
        finally:
            os.seteuid(before)

    def __enter__(self):
        for server in self.servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    # What handlers tell

    def received(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        with self.lock:
            request = Request(len(self.requests) + 1, handler.command, handler.path, handler.headers,
                              isinstance(handler.server, LocalServer), body)
            self.requests.append(request)
            return request

    def connected(self, change):
        with self.lock:
            self.connections += change
            self.connections_max = max(self.connections_max, self.connections)

    # What tests do

    def transfer(self, path, dirty=None, size=None):
        """Begins a transfer of the file; the ticket."""
        ticket = f"ticket-{secrets.token_hex(8)}"
        self.tickets[ticket] = Ticket(path, dirty, size)
        return ticket

    def url(self, ticket, host="localhost", **parameters):
        query = "&".join(f"{name}={value}" for name, value in parameters.items() if value is not None)
        return f"{self.scheme}://{host}:{self.port}/images/{ticket}{'?' if query else ''}{query}"

    def cause(self, trouble=None, when=lambda request: False):
        """From now on, requests that this is true for go wrong in this way. The requests before are forgotten."""
        with self.lock:
            self.requests = []
            self.trouble = lambda request: trouble if when(request) else None

    def asked(self, method, below="", ticket=None):
        """The requests of this kind so far."""
        with self.lock:
            return [each for each in self.requests if each.method == method and each.below == below
                    and ticket in (None, each.ticket)]


def sparse_file(person, path, size, pieces):
    """A raw file: pieces are (start, length) of bytes by chance, the rest is a hole."""
    with open(path, "wb") as file:
        file.truncate(size)
    for start, length in pieces:
        write(path, start, os.urandom(length))
    person.give(path)
    return path


def write(path, start, content):
    with open(path, "r+b") as file:
        file.seek(start)
        file.write(content)


def copy(source, target):
    """As it is now, holes too."""
    subprocess.run(["cp", "--sparse=always", source, target], check=True)
    shutil.copymode(source, target)
    return target
