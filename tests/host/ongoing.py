"""Runs that a test holds on to: while their client waits, and in the middle of their steps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from support import tree
from support.machine import CHECKOUT, PATH, Machine, wait_for

from host.conftest import Repository
from host.test_restic import LINK_TIMES
from host.test_routine import script

# On / and never backed up, so that both sides of the view see it.
PLACE = "/kt"

RUN = "/var/run/restomic"

# What a backup begins with; anything else that is asked of the client it does at once.
SLOW = """\
case {word} in
backup | snapshot)
    {first}
    echo $$ > {place}/there
    while [ ! -e {place}/go ]; do sleep 0.1; done
    rm {place}/there
    ;;
esac
{then}
"""


class Run:
    """A run whose client waits for the test."""

    def __init__(self, machine: Machine, process: subprocess.Popen[str], place: str) -> None:
        self.machine, self.process = machine, process
        self.there, self.go = machine.path(f"{place}/there"), machine.path(f"{place}/go")
        self.said = ""
        self.client = ""  # its number, once it waits

    def wait_for_client(self) -> None:
        """Return once the client waits; the view is there then."""
        wait_for(lambda: _text(self.there).endswith("\n") or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.process.communicate()[0]
        self.client = _text(self.there).strip()

    def let_go(self) -> None:
        """Let the client do its work and wait for the end of the run."""
        self.go.touch()
        self.said = self.process.communicate(timeout=120)[0]

    def kill(self, client: bool) -> None:
        """Kill the program as nothing can be caught, and its client as well or not."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        if client:
            self.machine.run(["/bin/sh", "-c", f"kill -9 {self.client}"], check=True)

    def end(self, signum: int) -> int:
        """Send the program a signal, wait for its end, and return its exit status."""
        os.kill(self.process.pid, signum)
        self.said = self.process.communicate(timeout=120)[0]
        return self.process.returncode


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@contextmanager
def started(
    machine: Machine, *words: str, program: str = "restomic", client: str = "true",
    first: str = ":", env: Mapping[str, str] | None = None, place: str = PLACE,
) -> Iterator[Run]:  # fmt: skip
    """Start a run of a client that waits; it is killed if it has not ended in the end.

    ``client`` is restic or kopia, or what a plain job's client does last; ``first`` is what
    it does before it waits.
    """
    real = client in ("restic", "kopia")
    for name in ("there", "go"):
        machine.path(f"{place}/{name}").unlink(missing_ok=True)
    then = f'exec {client} "$@"' if real else client
    word = "$1" if real else "backup"
    text = SLOW.format(first=first, then=then, place=place, word=word)
    slow = script(machine, text, f"{place}/slow")
    subcommand = {"restic": " backup", "kopia": " snapshot create"}.get(client, "")
    plain = [] if real else ["--plain"]
    process = machine.popen(
        [f"/usr/local/sbin/{program}", *plain, "-c", f"{slow}{subcommand}", *words],
        env=dict(env or {}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, new_group=True,
    )  # fmt: skip
    run = Run(machine, process, place)
    try:
        yield run
    finally:
        run.go.touch()
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate(timeout=30)


@contextmanager
def ongoing(machine: Machine, *words: str, status: int = 0, **options: str) -> Iterator[Run]:
    """Do something while a client waits, then let it go and expect a status of the run."""
    with started(machine, *words, **options) as run:  # type: ignore[arg-type]
        run.wait_for_client()
        yield run
        run.let_go()
        assert run.process.returncode == status, run.said


@contextmanager
def backup_goes_on(repository: Repository, *words: str, status: int = 0) -> Iterator[Run]:
    """Do something while a real client waits before its backup."""
    program = {"restic": "restomic", "kopia": "kopiatomic"}[repository.client]
    options = {"program": program, "client": repository.client, "env": repository.environment}
    with ongoing(repository.machine, *words, status=status, **options) as run:  # type: ignore[arg-type]
        yield run


# In the middle of a run's steps: before a command of its own is started, once, something happens.

MEANWHILE = """\
import subprocess
from kopiatomic.system import command
waiting = [{script!r}]
before = command.Door.{method}
def instead(self, argv, *words, **options):
    if waiting and list(argv)[:{count}] == {beginning!r}:
        subprocess.run(["/bin/sh", "-ec", waiting.pop()], check=True, env={{"PATH": {path!r}}})
    return before(self, argv, *words, **options)
command.Door.{method} = instead
"""


def meanwhile(machine: Machine, beginning: Sequence[str], does: str, name: str = "between") -> str:
    """Return a restomic to which something happens right before one of its commands.

    ``beginning`` is how that command begins: ``zfs program`` takes and destroys snapshots,
    ``mount -t zfs`` mounts them. ``does`` is for sh.
    """
    method = "mount" if beginning[0].startswith("mount") else "run"
    patch = MEANWHILE.format(
        script=does, method=method, count=len(beginning), beginning=list(beginning), path=PATH
    )
    return patched(machine, patch, name)


def patched(machine: Machine, patch: str, name: str = "between") -> str:
    """Return a restomic that is the installed one but for what a patch in Python does first."""
    if machine.is_sandbox:
        source = machine.path("/usr/local/sbin/restomic").read_text()
    else:
        source = (machine.programs / "restomic").read_text()
    assert str(CHECKOUT) in source or machine.is_sandbox
    path = machine.path(f"{PLACE}/{name}")
    path.write_text(source.replace("from kopiatomic.cli", f"{patch}from kopiatomic.cli", 1))
    path.chmod(0o755)
    return f"{PLACE}/{name}"


# What is in a backup


def pictures(machine: Machine, *points: str, **differences: bool) -> dict[str, object]:
    """Return what is in directories, to be compared with what is restored of them."""
    return {point: tree.picture(machine.path(point), **differences) for point in points}


def kept_by(repository: Repository) -> dict[str, bool]:
    """Return how pictures of what this client restores differ from the original."""
    if repository.client == "kopia":
        return tree.KEPT_BY_KOPIA
    return {"symlink_times": LINK_TIMES}


def restored(repository: Repository, *points: str) -> dict[str, object]:
    """Restore the newest restic backup and return what is in it of directories."""
    out = f"{repository.directory}/out"
    repository.machine.run(["rm", "-rf", out], check=True)
    repository("restore", "latest", "--target", out)
    return pictures(
        repository.machine, *(f"{out}{point}" for point in points), **kept_by(repository)
    )


def is_whole(repository: Repository, expected: Mapping[str, object]) -> None:
    """Assert that the newest restic backup holds directories as they were."""
    out = f"{repository.directory}/out"
    found = restored(repository, *expected)
    assert found == {f"{out}{point}": picture for point, picture in expected.items()}


def outcome(machine: Machine, job: str = "default") -> dict[str, object]:
    """Return the last entry of a job's history."""
    path = machine.path(f"/var/db/kopiatomic/restomic.{job}.history")
    return json.loads(path.read_text().splitlines()[-1])
