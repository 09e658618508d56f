"""Running the client to read what it prints: all of it, line by line, or into a file."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from kopiatomic import state
from kopiatomic.record import TYPE_CHECKING
from kopiatomic.system.command import Door, decode, describe_status, printable
from kopiatomic.system.process import Signals, has_ended

if TYPE_CHECKING:
    from typing import IO

_BLOCK = 1 << 18

# What a client that is ended at its time limit gets to tidy up, in seconds.
GRACE = 10.0


def _scratch() -> IO[bytes]:
    """Return a file without a name for what the client says on standard error."""
    # Not for every run: it brings shutil, and with that three compressors.
    import tempfile

    return tempfile.TemporaryFile(dir=state.STATE_DIRECTORY)


def _in_words(line: str) -> str:
    """Return what a client says in a line, which may be JSON: of the message its first line."""
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return line
    message = told.get("message") if isinstance(told, dict) else None
    return message.strip().split("\n")[0] if isinstance(message, str) and message else line


class ClientFailed(Exception):
    """The client could not do what it was asked; the message says what it said."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Reader:
    """Runs the client to read from it; signals that reach us are passed to it.

    A call that takes longer than ``time_limit``, in seconds, is ended. ``preface`` is
    what a wrapper printed before the last answer in which that could be told.
    """

    def __init__(
        self,
        door: Door,
        base: Sequence[str],
        environment: Mapping[str, str],
        signals: Signals,
        time_limit: float | None = None,
    ) -> None:
        self.door, self.base, self.environment = door, base, environment
        self.signals, self.time_limit = signals, time_limit
        self.preface = b""

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

    def beginning(self, limit: int, *words: str) -> Iterator[bytes]:
        """Yield the first ``limit`` bytes of what the client prints, or all if that is less.

        If there is more, the client is asked to end there. What a wrapper prints before an
        answer is left out. Raises ClientFailed, Interrupted.
        """
        left, preface = limit, self.preface.count(b"\n")
        for block in self._blocks(words):
            while preface and block:
                # A wrapper's lines are short, and there at once.
                _, newline, block = block.partition(b"\n")
                preface -= len(newline)
            if block:
                yield block[:left]
                left -= len(block)
            if left <= 0:
                return

    def into(self, descriptor: int, *words: str) -> None:
        """Have the client write to a file; raises ClientFailed, Interrupted."""
        with _scratch() as messages:
            child = self._start(words, descriptor, messages)
            deadline = self._deadline()
            try:
                while not has_ended(child, 0.5):
                    self._wait(child, words, deadline)
            finally:
                self._finish(child)
            self._check(child, words, messages)

    def begins_at(self, descriptor: int, size: int) -> int:
        """Return where the content of ``size`` bytes begins in what into() has written.

        Before it stand as many lines as a wrapper prints before an answer; what they
        say may change, as a date does.
        """
        start = 0
        if self.preface:
            lines = self.preface.count(b"\n")
            head = os.pread(descriptor, 4 * len(self.preface) + _BLOCK, 0)
            start = len(b"".join(head.splitlines(keepends=True)[:lines]))
            written = os.fstat(descriptor).st_size
            if written != start + size and not head.startswith(self.preface):
                start = 0
        return start

    def _deadline(self) -> float:
        return float("inf") if self.time_limit is None else time.monotonic() + self.time_limit

    def _wait(self, child: subprocess.Popen[bytes], words: Sequence[str], deadline: float) -> None:
        """See that the client ends when it has to; raises ClientFailed at its time limit."""
        self.signals.enforce()
        if time.monotonic() < deadline:
            return
        for signum in (signal.SIGTERM, signal.SIGKILL):
            # A wrapper that waits for the client has it in its process group.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signum)
            if has_ended(child, GRACE):
                break
        name = f"{os.path.basename(self.base[0])} {words[0]}"
        raise ClientFailed(-signal.SIGKILL, f"{name}: did not answer within {self.time_limit:g} s")

    def _blocks(self, words: Sequence[str]) -> Iterator[bytes]:
        with _scratch() as messages:
            child = self._start(words, subprocess.PIPE, messages)
            assert child.stdout is not None
            descriptor = child.stdout.fileno()
            deadline = self._deadline()
            try:
                while True:
                    self._wait(child, words, deadline)
                    if not select.select([descriptor], [], [], 0.5)[0]:
                        continue
                    block = os.read(descriptor, _BLOCK)
                    if not block:
                        break
                    yield block
                while not has_ended(child, 0.5):
                    self._wait(child, words, deadline)
            except GeneratorExit:
                # A client that is killed leaves its lock in the repository.
                child.stdout.close()
                child.terminate()
                has_ended(child, GRACE)
                raise
            finally:
                self._finish(child)
                child.stdout.close()
            self._check(child, words, messages)

    def _start(
        self, words: Sequence[str], output: int, messages: IO[bytes]
    ) -> subprocess.Popen[bytes]:
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

    def _finish(self, child: subprocess.Popen[bytes]) -> None:
        if child.poll() is None:
            child.kill()
            child.wait()
        self.signals.unwatch()

    def _check(
        self, child: subprocess.Popen[bytes], words: Sequence[str], messages: IO[bytes]
    ) -> None:
        self.signals.check()
        status = child.returncode
        if status != 0:
            messages.seek(max(0, messages.seek(0, os.SEEK_END) - 4096))
            lines = [line.strip() for line in decode(messages.read()).splitlines()]
            said = "; ".join([_in_words(line) for line in lines if line][-2:])
            name = f"{os.path.basename(self.base[0])} {words[0]}"
            how = describe_status(status)
            raise ClientFailed(status, printable(f"{name}: {said} ({how})" if said else
                                                 f"{name}: {how}"))  # fmt: skip
