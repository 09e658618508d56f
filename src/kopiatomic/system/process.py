"""Running what the user named: the backup client and the hooks.

Their output goes on to ours as it comes; signals that reach us are passed to
them, and they get a grace period before they are ended by force.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import FrameType

from kopiatomic.record import TYPE_CHECKING, Record
from kopiatomic.system.command import ENVIRONMENT, CommandFailed, Door, decode, encode, reason_of

if TYPE_CHECKING:
    from typing import IO

# Between passing a signal on and ending the program by force, in seconds.
GRACE = 20.0

# How much of a program's last output is kept for the report, in bytes.
TAIL = 256 * 1024

# More than a pipe holds: what is read at most once its writer has ended, in bytes.
PIPE = 1024 * 1024

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Reads its standard input to the end, in the background, and drops it. sh(1) gives what
# it starts there /dev/null to read from, unless that is said before.
DRAIN = ("/bin/sh", "-c", "exec 3<&0; /bin/cat <&3 3<&- > /dev/null &")


class Interrupted(Exception):
    """A signal asked the run to end; ``signum`` is which."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.signum = signum


class Signals:
    """Catches signals for the time of a run, so that it ends in order.

    The first one is remembered and passed to the program that runs at that
    moment; a second one ends that program by force. The run itself looks with
    check() between its steps, and not at all while it takes things down.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._shares_terminal = False
        self._deadline = float("inf")
        self._limit = float("inf")
        self.overdue = False  # whether the watched program was ended at its time limit
        self._before: dict[int, object] = {}

    def __enter__(self) -> Signals:
        for signum in CAUGHT:
            # nohup(1) sets SIGHUP to be ignored, and means it.
            if signal.getsignal(signum) is not signal.SIG_IGN:
                self._before[signum] = signal.signal(signum, self._catch)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]

    def check(self) -> None:
        """Raise Interrupted if a signal came since the run began."""
        if self.signum:
            raise Interrupted(self.signum)

    def pause(self, seconds: float) -> None:
        """Do nothing for so long; raises Interrupted as soon as there was a signal."""
        end = time.monotonic() + seconds
        while (rest := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(rest, 0.2))
        self.check()

    def watch(
        self,
        child: subprocess.Popen[bytes],
        shares_terminal: bool,
        limit: float = float("inf"),
    ) -> None:
        """Pass signals to ``child`` from now on, and SIGTERM after ``limit`` seconds."""
        self._child, self._shares_terminal = child, shares_terminal
        self._deadline, self._limit = float("inf"), time.monotonic() + limit
        if self.signum:
            self._pass_on(self.signum)

    def unwatch(self) -> None:
        """Pass signals to nobody."""
        self._child = None

    def enforce(self) -> None:
        """End the watched program at its time limit, by force once its grace period is over."""
        now = time.monotonic()
        if now >= self._limit:
            self._limit, self.overdue = float("inf"), True
            self._pass_on(signal.SIGTERM)
        if now >= self._deadline:
            self._send(signal.SIGKILL)

    def _catch(self, signum: int, _frame: FrameType | None) -> None:
        again = bool(self.signum)
        self.signum = self.signum or signum
        if self._child is not None:
            if again:
                self._send(signal.SIGKILL)
            else:
                self._pass_on(signum)

    def _pass_on(self, signum: int) -> None:
        self._deadline = time.monotonic() + GRACE
        # An interrupt typed at the terminal has reached the client already, and
        # to restic and kopia a second one means: stop without tidying up.
        if not (signum == signal.SIGINT and self._shares_terminal):
            self._send(signum)

    def _send(self, signum: int) -> None:
        child = self._child
        if child is None or child.returncode is not None:
            return
        try:
            if self._shares_terminal:
                os.kill(child.pid, signum)
            else:
                os.killpg(child.pid, signum)
        except (ProcessLookupError, PermissionError):
            pass


class Ended(Record):
    """How a client or hook ended: status (negative: a signal) and seconds.

    ``output`` and ``messages`` are the ends of what it wrote to standard output
    and standard error, ``said`` of both as they came; empty where the program
    wrote to the terminal.
    """

    status: int
    seconds: float
    output: bytes = b""
    messages: bytes = b""
    said: bytes = b""

    @property
    def text(self) -> str:
        """Both ends as one text, in which to look for what the client says."""
        return (self.messages + b"\n" + self.output).decode("utf-8", "replace")


def as_it_is(text: str) -> str:
    """Return a text unchanged."""
    return text


class Streams(Record):
    """Where output goes: ``output`` and ``messages`` are descriptors of ours, or None.

    ``capture`` says whether the program's output passes through us, line by
    line, to be read for the report, and to have secrets taken out by ``hide``.
    On a terminal it does not, and the program sees the terminal.
    """

    output: int | None = 1
    messages: int | None = 2
    capture: bool = True
    hide: Callable[[str], str] = as_it_is


def tell(streams: Streams, line: str) -> None:
    """Write a line of ours to where a program's messages go."""
    _write(streams.messages, encode(streams.hide(line)) + b"\n")


def on_terminal() -> bool:
    """Say whether a person watches: both output streams are a terminal."""
    return os.isatty(1) and os.isatty(2)


def run(
    door: Door,
    argv: Sequence[str],
    environment: Mapping[str, str],
    signals: Signals,
    streams: Streams,
    root: str | None = None,
    source: str | None = None,
) -> Ended:
    """Run the client to its end and return how that was.

    With ``root`` it runs in there, by chroot(2), and begins in its ``/``. Its standard input
    is the file or device ``source``, which is opened here. It keeps our
    umask: its cache, its logs and a repository on this machine hold what is in
    everybody's files. Raises CommandFailed if it cannot be started.
    """
    if source is None:
        return _run(door, argv, environment, signals, streams, root=root)
    try:
        given = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CommandFailed(argv, f"{source}: {reason_of(error)}") from error
    try:
        return _run(door, argv, environment, signals, streams, root=root, given=given)
    finally:
        os.close(given)


def run_hook(
    door: Door,
    argv: Sequence[str],
    environment: Mapping[str, str],
    signals: Signals,
    streams: Streams,
) -> Ended:
    """Run a hook to its end, as the caller would have, and return how that was.

    A hook restarts services, which go on for months with what they get from us:
    so it has the caller's umask, signals as they were inherited (subprocess puts
    SIGPIPE and SIGXFSZ, which python ignores, back to their default), and an
    output that can be written to after we have gone. Raises CommandFailed if it
    cannot be started.
    """
    return _run(door, argv, environment, signals, streams, is_hook=True)


def run_told(
    door: Door,
    argv: Sequence[str],
    environment: Mapping[str, str],
    signals: Signals,
    streams: Streams,
    told: bytes,
    limit: float,
) -> Ended:
    """Run a hook that is ``told`` something on its standard input, and return how it ended.

    It need not read that. After ``limit`` seconds it gets SIGTERM, its grace period later
    SIGKILL; ``signals.overdue`` says so then. Its output has to be captured. Raises
    CommandFailed if it cannot be started.
    """
    return _run(door, argv, environment, signals, streams, is_hook=True, told=told, limit=limit)


def _run(
    door: Door,
    argv: Sequence[str],
    environment: Mapping[str, str],
    signals: Signals,
    streams: Streams,
    is_hook: bool = False,
    root: str | None = None,
    told: bytes | None = None,
    limit: float = float("inf"),
    given: int | None = None,
) -> Ended:
    began = time.monotonic()
    shares_terminal = not streams.capture
    options: dict[str, object] = {"stdin": None if shares_terminal else subprocess.DEVNULL}
    if given is not None:
        options["stdin"] = given
    if told is not None:
        options["stdin"] = subprocess.PIPE
    if is_hook:
        options["umask"] = door.umask
    if streams.capture:
        options |= {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "process_group": 0,
        }
    sys.stdout.flush()
    sys.stderr.flush()
    child = door.start(argv, environment=environment, root=root, **options)
    signals.watch(child, shares_terminal, limit)
    if told is not None and child.stdin is not None:
        # Its reader may be slower than the pipe is large, or not read at all.
        threading.Thread(target=_tell, args=(child.stdin, told), daemon=True).start()
    said = bytearray()
    output = _Lines(streams.output, streams.hide, said)
    messages = _Lines(streams.messages, streams.hide, said)
    try:
        if child.stdout is not None and child.stderr is not None:
            held = _pump(child, {child.stdout: output, child.stderr: messages}, signals)
            for stream in held if is_hook else ():
                _drain(door, stream)
            child.stdout.close()
            child.stderr.close()
        while not has_ended(child, 0.2):
            signals.enforce()
    finally:
        signals.unwatch()
    seconds = time.monotonic() - began
    return Ended(child.returncode, seconds, bytes(output.tail), bytes(messages.tail), bytes(said))


def has_ended(child: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait so long at most for a program to end, and say whether it did."""
    try:
        child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


class _Lines:
    """Carries one stream on, line by line, and keeps the end of it.

    Of a line that was written over with carriage returns only the last state counts.
    """

    def __init__(self, target: int | None, hide: Callable[[str], str], said: bytearray) -> None:
        self.tail = bytearray()
        self._target = target
        self._hide = hide
        self._said = said
        self._partial = b""

    def feed(self, data: bytes) -> None:
        """Take what came; nothing at the end of the stream."""
        _append(self.tail, data)
        lines = (self._partial + data).split(b"\n")
        self._partial = b"" if not data else lines.pop()[-TAIL:]
        # Written all at once: a program may print very many short lines.
        shown = b"".join(self._shown(line) for line in lines if data or line)
        _append(self._said, shown)
        _write(self._target, shown)

    def _shown(self, line: bytes) -> bytes:
        last = line.rstrip(b"\r").rpartition(b"\r")[2].rstrip(b" ")
        return encode(self._hide(decode(last))) + b"\n"


def _append(tail: bytearray, data: bytes) -> None:
    tail += data
    del tail[:-TAIL]


def _pump(
    child: subprocess.Popen[bytes], streams: Mapping[IO[bytes], _Lines], signals: Signals
) -> list[IO[bytes]]:
    """Carry output on until the program has ended; return the streams that others still hold.

    It does not wait for the end of the streams: a process that the program left
    behind may keep them open for ever, and write to them too.
    """
    reading, rest = dict(streams), PIPE
    while reading and rest > 0:
        ended = child.poll() is not None
        ready = select.select(list(reading), [], [], 0 if ended else 0.2)[0]
        if ended and not ready:
            break
        for stream in ready:
            data = os.read(stream.fileno(), 65536)
            if data:
                reading[stream].feed(data)
            else:
                del reading[stream]
            rest -= len(data) if ended else 0
        signals.enforce()
    for lines in streams.values():
        lines.feed(b"")
    return list(reading)


def _tell(stream: IO[bytes], told: bytes) -> None:
    """Write all of what a program is told, as far as it reads that, and end its input."""
    # Not by the stream's own buffer: this may still wait when we exit.
    _write(stream.fileno(), told)
    with suppress(OSError):
        stream.close()


def _drain(door: Door, stream: IO[bytes]) -> None:
    """Have what is still written to a pipe of ours read and dropped, for as long as that is.

    A process that a hook left behind would be ended by SIGPIPE at its first word
    after our end is closed. No other way lets it go on: what is open in it cannot
    be turned to /dev/null from outside; a file would grow for as long as the
    process lives, out of sight, without a name; a pipe that it holds both ends of
    is full one day, and stops it. So a cat(1) stays for as long as it does, and
    only where something was left. It is nobody's child and has nothing of ours:
    no lock, no terminal, no directory but /.
    """
    # Where no process can be made, the hook has done its work all the same.
    with suppress(CommandFailed):
        door.start(
            DRAIN,
            environment=ENVIRONMENT,
            stdin=stream,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        ).wait()


def _write(descriptor: int | None, data: bytes) -> None:
    """Write all of ``data``; if the reader has gone, the backup goes on without it."""
    while descriptor is not None and data:
        try:
            data = data[os.write(descriptor, data) :]
        except OSError:
            return
