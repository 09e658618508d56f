"""periodic(8) as FreeBSD 14.2 has it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator

from sandbox.standin import warn

LOCALBASE = "/usr/local"
PATH = f"/sbin:/bin:/usr/sbin:/usr/bin:{LOCALBASE}/sbin:{LOCALBASE}/bin"
# _localbase is a variable of this shell and not exported: the scripts do not see it.
READ = f"""\
_localbase={LOCALBASE}
if [ -r /etc/defaults/periodic.conf ]; then
    . /etc/defaults/periodic.conf
    source_periodic_confs
fi
for name; do
    eval "value=\\${{$name-}}"
    printf '%s\\0' "$value"
done
"""
SHOWN = {0: ("success", True), 1: ("info", True), 2: ("badconfig", False)}

_Sink = Callable[[bytes], None]


def main(_name: str, arguments: list[str]) -> int:
    """periodic {daily | weekly | monthly | security | /directory} ..."""
    if not arguments:
        warn("usage: /usr/sbin/periodic <directory of files to execute>\n"
             "or     /usr/sbin/periodic { daily | weekly | monthly | security }")
        return 1
    os.environ["PATH"] = PATH
    context = os.environ.get("PERIODIC", "")
    results = [_locked(argument, context) for argument in arguments]
    return max(results)


def _locked(argument: str, context: str) -> int:
    """One run, unless another one like it has not ended yet."""
    short = os.path.basename(argument)
    host = os.uname().nodename
    path = f"/var/run/periodic.{short}.lock"
    config = _Config(short)
    subject = f"{host} {context}{' ' if context else ''}{short} run output"
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
    except OSError:
        config.deliver(subject, [f"can't create {path}\n".encode()])
        return 1
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        config.deliver(subject, [f"{host} {short} prior run still in progress\n".encode()])
        return 1
    try:
        if argument.startswith("/") and not os.path.isdir(argument):
            warn(f"/usr/sbin/periodic: {argument} not found")
            return 1
        config.deliver(subject, _run(argument, context, config))
        return 0
    finally:
        os.unlink(path)
        os.close(lock)


class _Config:
    """What periodic.conf says about one kind of run."""

    def __init__(self, name: str) -> None:
        words = [word for word, _ in SHOWN.values()]
        names = ["local_periodic", f"{name}_output", *(f"{name}_show_{word}" for word in words)]
        answer = subprocess.run(["/bin/sh", "-c", READ, "periodic", *names], check=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        local, self.output, *show = answer.stdout.decode().split("\0")[:-1]
        self.tops = ["/etc/periodic", *local.split()]
        self.shown = {
            status: {"yes": True, "no": False}.get(text.lower(), default)
            for (status, (_, default)), text in zip(SHOWN.items(), show, strict=True)
        }

    def deliver(self, subject: str, text: Iterator[bytes] | list[bytes]) -> None:
        """Send text as a mail, or append it to a file, or print it."""
        if not self.output or self.output.startswith("/"):
            sink = os.open(self.output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666) \
                if self.output else os.dup(1)
            for piece in text:
                os.write(sink, piece)
            os.close(sink)
        else:
            subprocess.run(["mail", "-E", "-s", subject, *self.output.split()],
                           input=b"".join(text), check=False)


def _run(argument: str, context: str, config: _Config) -> Iterator[bytes]:
    """Run the scripts one after another; what they say as they end, as far as it is shown."""
    environment = {**os.environ, "host": os.uname().nodename,
                   "PERIODIC": f"{argument} {context}".rstrip()}
    if os.isatty(0):
        environment["PERIODIC_IS_INTERACTIVE"] = "1"
    empty = True
    for script in _scripts(argument, config.tops):
        with tempfile.TemporaryFile() as file:
            # By sh, since it runs what has no #! line as well.
            status = subprocess.run(["/bin/sh", "-c", '"$0"', script], env=environment, check=False,
                                    stdin=subprocess.DEVNULL, stdout=file, stderr=file).returncode
            file.seek(0)
            text = file.read()
        if text and config.shown.get(status, True):
            empty = False
            yield text
    if not empty:
        yield f"\n-- End of {argument} output --\n".encode()


def _scripts(argument: str, tops: list[str]) -> Iterator[str]:
    directories = [argument] if argument.startswith("/") else [f"{top}/{argument}" for top in tops]
    for directory in directories:
        if not os.path.isdir(directory):
            continue
        for name in sorted(os.listdir(directory)):
            path = f"{directory}/{name}"
            if not name.startswith(".") and os.access(path, os.X_OK) and not os.path.isdir(path):
                yield path
