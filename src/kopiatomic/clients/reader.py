"""Running the client to read what it prints: all of it, line by line, or into a file."""

import os
import select
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from kopiatomic import state
from kopiatomic.system.command import Door, decode, describe_status, printable
from kopiatomic.system.process import Signals, has_ended

_BLOCK = 1 << 18


class ClientFailed(Exception):
    """The client could not do what it was asked; the message says what it said."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Reader:
    """Runs the client to read from it; signals that reach us are passed to it."""

    door: Door
    base: Sequence[str]
    environment: Mapping[str, str]
    signals: Signals

    def lines(self, *words: str) -> Iterator[bytes]:
        """Return what the client prints, line by line; raises ClientFailed, Interrupted."""
        rest = b""
        for block in self._blocks(words):
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
        if rest:
            yield rest

    def whole(self, *words: str) -> bytes:
        """Return all that the client prints; raises ClientFailed, Interrupted."""
        return b"".join(self._blocks(words))

    def into(self, descriptor: int, *words: str) -> None:
        """Have the client write to a file; raises ClientFailed, Interrupted."""
        with tempfile.TemporaryFile(dir=state.STATE_DIRECTORY) as messages:
            child = self._start(words, descriptor, messages)
            try:
                while not has_ended(child, 0.5):
                    self.signals.enforce()
            finally:
                self._finish(child)
            self._check(child, words, messages)

    def _blocks(self, words: Sequence[str]) -> Iterator[bytes]:
        with tempfile.TemporaryFile(dir=state.STATE_DIRECTORY) as messages:
            child = self._start(words, subprocess.PIPE, messages)
            assert child.stdout is not None
            descriptor = child.stdout.fileno()
            try:
                while True:
                    self.signals.enforce()
                    if not select.select([descriptor], [], [], 0.5)[0]:
                        continue
                    block = os.read(descriptor, _BLOCK)
                    if not block:
                        break
                    yield block
                while not has_ended(child, 0.5):
                    self.signals.enforce()
            finally:
                self._finish(child)
                child.stdout.close()
            self._check(child, words, messages)

    def _start(
        self, words: Sequence[str], output: int, messages: IO[bytes]
    ) -> "subprocess.Popen[bytes]":
        self.signals.check()
        child = self.door.start(
            [*self.base, *words],
            environment=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=messages,
            process_group=0,
        )
        self.signals.watch(child, shares_terminal=False)
        return child

    def _finish(self, child: "subprocess.Popen[bytes]") -> None:
        if child.poll() is None:
            child.kill()
            child.wait()
        self.signals.unwatch()

    def _check(
        self, child: "subprocess.Popen[bytes]", words: Sequence[str], messages: IO[bytes]
    ) -> None:
        self.signals.check()
        status = child.returncode
        if status != 0:
            messages.seek(max(0, messages.seek(0, os.SEEK_END) - 4096))
            lines = [line.strip() for line in decode(messages.read()).splitlines()]
            said = "; ".join([line for line in lines if line][-2:])
            name = f"{os.path.basename(self.base[0])} {words[0]}"
            how = describe_status(status)
            raise ClientFailed(status, printable(f"{name}: {said} ({how})" if said else
                                                 f"{name}: {how}"))  # fmt: skip
