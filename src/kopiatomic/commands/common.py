"""What the commands share: root, the job made ready, where words go, the exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from kopiatomic import environment
from kopiatomic.clients import make_ready
from kopiatomic.clients.base import Task
from kopiatomic.errors import EX_NOPERM, PERIODIC_TROUBLE, Refusal
from kopiatomic.job import Job, seconds_of
from kopiatomic.record import TYPE_CHECKING
from kopiatomic.state import Wait
from kopiatomic.system.command import Door, printable
from kopiatomic.system.process import Streams, on_terminal

if TYPE_CHECKING:
    from typing import Protocol

    class Outcome(Protocol):
        """What came of something: its exit status, and what went wrong, a line each."""

        @property
        def status(self) -> int:
            """The exit status; 0 if nothing went wrong."""

        @property
        def problems(self) -> Sequence[str]:
            """What went wrong."""


def need_root(job: Job) -> None:
    """Refuse anyone else: snapshots, mounts and repositories are root's."""
    if os.geteuid() != 0:
        raise Refusal(
            f"{job.program} must be run by root (only -n, -h and -v need no rights)", EX_NOPERM
        )


def task_of_root(job: Job, door: Door) -> Task:
    """Return a job made ready, with what its env files hold; raises Refusal."""
    need_root(job)
    held = [environment.read(file) for file in job.env_files]
    return _made_ready(job, held, door)


def _made_ready(
    job: Job, held: Sequence[Mapping[str, str]], door: Door, installed: bool = True
) -> Task:
    """Return a job made ready for each of its env files, of which ``held`` is what they hold."""
    jobs = [
        job._replace(env_files=(file,), environment=variables)
        for file, variables in zip(job.env_files, held, strict=True)
    ]
    first, *further = jobs or [job]
    return make_ready(first, door, os.environ, installed, further)


def task_of_anyone(job: Job, door: Door, installed: bool = True) -> tuple[Task, list[str]]:
    """Return a job made ready for a dry run, which needs no rights, and notes; raises Refusal.

    Where only root can read an env file, the job does without, and there is a note.
    The client must be there unless it need not be ``installed``.
    """
    notes, held = [], []
    for file in job.env_files:
        variables: Mapping[str, str] = {}
        try:
            variables = environment.read(file, os.geteuid())
        except Refusal as refusal:
            if os.geteuid() == 0 or refusal.status == EX_NOPERM:
                raise
            notes.append(f"{file} is not read, which root will do")
        held.append(variables)
    return _made_ready(job, held, door, installed), notes


def wait_of(job: Job, values: Mapping[str, str], periodic: float = 0.0) -> Wait:
    """Return for how long another run of the job is waited for; raises Refusal.

    ``periodic`` is what holds in periodic(8)'s name where nothing else is said, in
    seconds: nobody is there to start it again. A person who watches is told.
    """

    def tell(line: str) -> None:
        print(f"{job.program}: {line}", file=sys.stderr, flush=True)

    is_watched = "--verbose" in values or os.isatty(2)
    return Wait(_seconds(values, periodic), tell if is_watched else None)


def _seconds(values: Mapping[str, str], periodic: float) -> float:
    text = values.get("--wait")
    if text is None:
        return periodic if "--periodic" in values else 0.0
    return seconds_of(text, "--wait")


def streams(values: Mapping[str, str]) -> Streams:
    """Return where the client's output goes."""
    if "--periodic" in values:
        return Streams(output=None, messages=None)
    as_json = "--json" in values
    # Whether a client is to be tried again is found in what it says.
    capture = as_json or "--retries" in values or not on_terminal()
    return Streams(output=2 if as_json else 1, capture=capture)


def tell(job: Job, outcome: Outcome, values: Mapping[str, str], good: int = 0) -> int:
    """Say what went wrong and return the exit status; ``good`` is periodic(8)'s where all is well.

    The mail has the problems in the report.
    """
    if "--periodic" in values:
        return PERIODIC_TROUBLE if outcome.status else good
    for problem in outcome.problems:
        print(f"{job.program}: {printable(problem)}", file=sys.stderr)
    return outcome.status


def show(text: str) -> None:
    """Write to standard output what may hold bytes that are no text; a gone reader is fine."""
    try:
        sys.stdout.flush()
        data = text.encode("utf-8", "backslashreplace")
        while data:
            data = data[os.write(1, data) :]
    except OSError:
        pass
