"""A small SFTP server on the loopback address, that goes away and comes back.

It speaks version 3 of the protocol (draft-ietf-secsh-filexfer-02), as much as restic needs,
without the ssh around it. What would be ssh is relay(), a program that joins its standard
streams to the server, and says what ssh says where nothing listens.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import threading
from contextlib import suppress
from pathlib import Path

INIT, VERSION, OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT = range(1, 11)
OPENDIR, READDIR, REMOVE, MKDIR, RMDIR, REALPATH, STAT, RENAME = range(11, 19)
STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED = 101, 102, 103, 104, 105, 200
OK, EOF, NO_SUCH_FILE, FAILURE, UNSUPPORTED = 0, 1, 2, 4, 8

RELAY = """#!{python}
import os, socket, sys, threading
try:
    there = socket.create_connection(("127.0.0.1", {port}))
except OSError as error:
    print("ssh: connect to host 127.0.0.1 port {port}:", error.strerror, file=sys.stderr)
    sys.exit(255)
def up():
    while data := os.read(0, 65536):
        there.sendall(data)
    there.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while data := there.recv(65536):
    while data:
        data = data[os.write(1, data):]
"""


def text(data: bytes) -> bytes:
    """Return a string as the protocol has it: its length first."""
    return struct.pack(">I", len(data)) + data


def attributes(found: os.stat_result) -> bytes:
    """Return size, owner, mode and times."""
    return struct.pack(
        ">IQIIIII", 0x0F, found.st_size, found.st_uid, found.st_gid, found.st_mode,
        int(found.st_atime), int(found.st_mtime),
    )  # fmt: skip


class Session:
    """What one client asks, and what it is answered."""

    def __init__(self, root: Path, connection: socket.socket) -> None:
        self.root, self.connection = root, connection
        self.files: dict[bytes, int] = {}
        self.lists: dict[bytes, list[os.DirEntry[str]]] = {}
        self.count = 0

    def serve(self) -> None:
        """Answer until the client is gone."""
        with self.connection, self.connection.makefile("rb") as stream:
            while len(head := stream.read(4)) == 4:
                packet = stream.read(struct.unpack(">I", head)[0])
                kind, rest = packet[0], packet[1:]
                if kind == INIT:
                    self.send(VERSION, struct.pack(">I", 3))
                    continue
                number, rest = rest[:4], rest[4:]
                try:
                    answer, data = self.answer(kind, rest)
                except FileNotFoundError:
                    answer, data = self.status(NO_SUCH_FILE)
                except OSError:
                    answer, data = self.status(FAILURE)
                self.send(answer, number + data)

    def send(self, kind: int, data: bytes) -> None:
        self.connection.sendall(struct.pack(">IB", len(data) + 1, kind) + data)

    def status(self, code: int) -> tuple[int, bytes]:
        return STATUS, struct.pack(">I", code) + text(b"") + text(b"")

    def path(self, name: bytes) -> Path:
        return self.root / name.decode().lstrip("/")

    def handle(self) -> bytes:
        self.count += 1
        return str(self.count).encode()

    def answer(self, kind: int, rest: bytes) -> tuple[int, bytes]:
        """Do what is asked; raises OSError."""
        length = struct.unpack(">I", rest[:4])[0]
        first, rest = rest[4 : 4 + length], rest[4 + length :]
        if kind in (CLOSE, READ, WRITE, FSTAT, READDIR):
            return self.of_handle(kind, first, rest)
        path = self.path(first)
        if kind in (LSTAT, STAT):
            return ATTRS, attributes(path.lstat() if kind == LSTAT else path.stat())
        if kind == REALPATH:
            resolved = b"/" + os.path.normpath(first.decode()).strip("/.").encode()
            return NAME, struct.pack(">I", 1) + text(resolved) * 2 + struct.pack(">I", 0)
        if kind == OPEN:
            wanted = struct.unpack(">I", rest[:4])[0]
            flags = (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY, os.O_RDWR)[wanted & 3]
            pairs = ((8, os.O_CREAT), (16, os.O_TRUNC), (32, os.O_EXCL))
            flags |= sum(flag for bit, flag in pairs if wanted & bit)
            name = self.handle()
            self.files[name] = os.open(path, flags, 0o600)
            return HANDLE, text(name)
        if kind == OPENDIR:
            name = self.handle()
            self.lists[name] = list(os.scandir(path))
            return HANDLE, text(name)
        if kind == RENAME:
            length = struct.unpack(">I", rest[:4])[0]
            path.rename(self.path(rest[4 : 4 + length]))
        elif kind in (MKDIR, REMOVE, RMDIR):
            {MKDIR: path.mkdir, REMOVE: path.unlink, RMDIR: path.rmdir}[kind]()
        elif kind not in (SETSTAT, FSETSTAT):
            return self.status(UNSUPPORTED)
        return self.status(OK)

    def of_handle(self, kind: int, name: bytes, rest: bytes) -> tuple[int, bytes]:
        """Do what is asked of what is open; raises OSError."""
        if kind == CLOSE:
            if name in self.files:
                os.close(self.files.pop(name))
            self.lists.pop(name, None)
        elif kind == FSTAT:
            return ATTRS, attributes(os.fstat(self.files[name]))
        elif kind == READ:
            offset, length = struct.unpack(">QI", rest[:12])
            data = os.pread(self.files[name], length, offset)
            return (DATA, text(data)) if data else self.status(EOF)
        elif kind == WRITE:
            offset, length = struct.unpack(">QI", rest[:12])
            os.pwrite(self.files[name], rest[12 : 12 + length], offset)
        else:
            entries, self.lists[name] = self.lists[name], []
            if not entries:
                return self.status(EOF)
            rows = [
                text(os.fsencode(each.name)) + text(stat.filemode(0).encode())
                + attributes(each.stat(follow_symlinks=False))
                for each in entries
            ]  # fmt: skip
            return NAME, struct.pack(">I", len(rows)) + b"".join(rows)
        return self.status(OK)


class Server:
    """The server; it keeps its port while it is away."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = 0
        self.listener: socket.socket | None = None

    def start(self) -> None:
        """Listen, on the same port as before."""
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        self.listener.listen()
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            serve = Session(self.root, connection).serve
            threading.Thread(target=serve, daemon=True).start()

    def stop(self) -> None:
        """Listen no more, so that who comes is refused."""
        if self.listener is not None:
            # It ends the accept() that waits, on FreeBSD as well, which says ENOTCONN all the same.
            with suppress(OSError):
                self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.listener = None

    def relay(self, python: str) -> str:
        """Return the text of a program that stands for ssh."""
        return RELAY.format(python=python, port=self.port)
