"""The one door to other programs.

Everything kopiatomic starts goes through here as an argument list, so that
tracing, time limits, the environment and the tests have one place to be.
"""

import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from kopiatomic.record import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from kopiatomic.system.kernel import Kernel

# Root's programs are looked up here, whatever PATH the caller came with.
PATH = "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"

# The system's own programs get nothing of the caller's environment.
ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8"}

# zfs(8) can take minutes on a busy pool; past this it is taken for hung.
TIME_LIMIT = 900.0

# What a program killed at its time limit gets to leave, before it is given up.
KILL_GRACE = 5.0

# execve(2) counts arguments and environment together; FreeBSD's kern.argmax is
# 512 kB. A command line is kept below this, which leaves room for the rest.
ARGUMENT_BYTES = 400_000

# How much of what a failing command said is looked at, and told of each line, in characters.
MESSAGE, MESSAGE_LINE = 4000, 600


class Result(Record):
    """How a command ended; a negative status is the signal that killed it."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str


class CommandFailed(Exception):
    """A command could not be started, failed, or ran past its time limit.

    The message names the command and the reason in one line.
    """

    def __init__(self, argv: Sequence[str], reason: str) -> None:
        super().__init__(f"{quote(argv, limit=8)}: {reason}")
        self.argv = tuple(argv)
        self.reason = reason


class GivenUp(CommandFailed):
    """A command ran past its time limit: stuck in the kernel, it may yet do what it was told."""


class MountRefused(CommandFailed):
    """nmount(2) refused; ``number`` is its errno(2)."""

    def __init__(self, argv: Sequence[str], reason: str, number: int) -> None:
        super().__init__(argv, reason)
        self.number = number


class Door(Record):
    """Starts programs; with ``trace``, tells it each command line first.

    ``kernel`` makes system calls that spare a program of their own. ``umask`` is the
    caller's, which hooks get back (see process.run_hook); -1 is ours, which everything
    else is started with. ``jailed`` says that all this happens in a jail.
    """

    trace: Callable[[str], None] | None = None
    kernel: "Kernel | None" = None
    umask: int = -1
    jailed: bool = False

    def run(
        self,
        argv: Sequence[str],
        *,
        text: str | None = None,
        environment: Mapping[str, str] = ENVIRONMENT,
        time_limit: float = TIME_LIMIT,
        check: bool = True,
    ) -> Result:
        """Run one of the system's programs to its end and return what it said.

        ``text`` is given to it as standard input (otherwise it reads nothing);
        ``time_limit`` is in seconds. It runs in a session of its own, so that an
        interrupt typed at the terminal cannot stop it half way.

        Raises GivenUp if it runs past its limit, CommandFailed if it cannot be
        started, and with ``check`` also if it exits with anything but 0.
        """
        with self.start(
            argv,
            environment=environment,
            stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            data = None if text is None else encode(text)
            try:
                out, err = process.communicate(data, timeout=time_limit)
            except subprocess.TimeoutExpired:
                _give_up(process)
                raise GivenUp(argv, f"did not end within {time_limit:g} s") from None
        result = Result(tuple(argv), process.returncode, decode(out), decode(err))
        if check and result.status != 0:
            raise CommandFailed(argv, failure(result))
        return result

    def mount(
        self,
        argv: Sequence[str],
        options: Mapping[str, str],
        flags: int = 0,
        *,
        time_limit: float,
    ) -> None:
        """Make a mount by nmount(2) with ``options``, or by ``argv``, which is traced.

        The program is started only where there is no such call; not where the call
        refuses, for to the program the mount point is a path, which may lead
        elsewhere by then. ``time_limit`` is the program's, in seconds; the call has
        none. Raises MountRefused, with the call's error number, or CommandFailed.
        """
        if self.kernel is None:
            self.run(argv, time_limit=time_limit)
            return
        self.show(argv)
        try:
            self.kernel.mount(options, flags)
        except OSError as error:
            raise MountRefused(argv, reason_of(error), error.errno or 0) from error

    def unmount(self, point: str, fsid: tuple[int, int] | None, force: bool = False) -> None:
        """Take a mount away: the one with this ``fsid``, or where that is unknown, at ``point``.

        Raises CommandFailed.
        """
        argv = ["umount", *(["-f"] if force else []), point]
        if self.kernel is None or fsid is None:
            self.run(argv)
            return
        self.show(argv)
        try:
            self.kernel.unmount(fsid, force)
        except OSError as error:
            raise CommandFailed(argv, reason_of(error)) from error

    def start(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        root: str | None = None,
        **options: object,
    ) -> "subprocess.Popen[bytes]":
        """Start a program and return it; ``options`` are those of subprocess.Popen.

        With ``root`` it is looked up and runs in there, by chroot(2). Raises
        CommandFailed if it cannot be started.
        """
        self.show(argv if root is None else ("chroot", root, *argv))
        if root is not None:
            options |= {"preexec_fn": partial(_enter_root, root)}
        try:
            return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
                list(argv), env=dict(environment), **options
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise CommandFailed(argv, f"cannot be started: {reason_of(error)}") from error

    def show(self, argv: Sequence[str]) -> None:
        """Write a command line to the trace, if there is one."""
        if self.trace is not None:
            self.trace(f"+ {quote(argv, limit=40)}")


def _enter_root(root: str) -> None:
    os.chroot(root)
    os.chdir("/")


def _give_up(process: "subprocess.Popen[bytes]") -> None:
    """Kill a program that hangs; leave it alone if even that does not end it."""
    process.kill()
    try:
        process.communicate(timeout=KILL_GRACE)
    except subprocess.TimeoutExpired:
        # Stuck in the kernel. Closing our ends keeps __exit__ from waiting for it.
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        process.returncode = -signal.SIGKILL


def find(program: str) -> str | None:
    """Return the path of an executable program, looked up as the door would, or None."""
    # Not shutil.which(): its module brings three compressors, 0.6 MB, into every run.
    paths = [program] if "/" in program else [f"{place}/{program}" for place in PATH.split(":")]
    return next((path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), None)


def failure(result: Result) -> str:
    """Say in one line why a command failed: its own first words, or how it ended."""
    # No message is this long; what is longer is garbage, of which the beginning will do.
    text = result.stderr[:MESSAGE].strip() or result.stdout[:MESSAGE].strip()
    said = "; ".join(line.strip()[:MESSAGE_LINE] for line in text.splitlines()[:3])
    how = describe_status(result.status)
    return f"{printable(said)} ({how})" if said else how


def describe_status(status: int) -> str:
    """Say in words how a program ended."""
    if status < 0:
        try:
            return f"killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"killed by signal {-status}"
    return f"exit status {status}"


def exit_status(status: int) -> int:
    """Return the exit status that passes on a program's, which may be a signal."""
    return status if status >= 0 else 128 - status


def reason_of(error: Exception) -> str:
    """Return the reason of an OSError without its number, else the error's text."""
    return getattr(error, "strerror", None) or str(error)


def quote(argv: Sequence[str], limit: int | None = None) -> str:
    """Return ``argv`` as one line for a shell; past ``limit`` words only their number."""
    words = [shlex.quote(printable(word)) for word in argv]
    if limit is not None and len(words) > limit + 1:
        words = [*words[:limit], f"... ({len(words) - limit} more)"]
    return " ".join(words)


def printable(text: str) -> str:
    """Return ``text`` with control characters and undecodable bytes made visible."""
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(char: str) -> str:
    if char.isprintable():
        return char
    # Other surrogates than those of decode() come out of JSON, which can spell them.
    handler = "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", handler))


def encode(text: str) -> bytes:
    """Return the bytes of a text or path, undecodable ones as they came."""
    return text.encode("utf-8", "surrogateescape")


def decode(data: bytes) -> str:
    """Return bytes as text; undecodable ones survive a later encode()."""
    return data.decode("utf-8", "surrogateescape")


def fits(argv: Sequence[str]) -> bool:
    """Say whether a command line is short enough for execve(2)."""
    return argument_bytes(argv) <= ARGUMENT_BYTES


def chunks(words: Sequence[str], limit: int = ARGUMENT_BYTES) -> list[list[str]]:
    """Split ``words`` into lists that each fit on one command line, in order."""
    result: list[list[str]] = []
    room = 0
    for word in words:
        cost = argument_bytes([word])
        if cost > room or not result:
            result.append([])
            room = limit
        result[-1].append(word)
        room -= cost
    return result


def argument_bytes(words: Sequence[str]) -> int:
    """Return what ``words`` take of execve(2)'s space: text, its NUL, and a pointer."""
    return sum(len(encode(word)) + 9 for word in words)
