"""The backup clients: all that differs between kopia and restic, a file for each."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from kopiatomic import redact
from kopiatomic.clients.base import Client, Task
from kopiatomic.job import Job
from kopiatomic.system.command import Door


def _kopia() -> Client:
    from kopiatomic.clients.kopia import Kopia

    return Kopia()


def _restic() -> Client:
    from kopiatomic.clients.restic import Restic

    return Restic()


# Which client each of our programs drives. Only the one that is needed is imported.
TABLE: dict[str, Callable[[], Client]] = {"kopiatomic": _kopia, "restomic": _restic}


def programs() -> tuple[str, ...]:
    """Return the names of our programs, one for each client."""
    return tuple(TABLE)


def client_of(program: str) -> Client:
    """Return the client that a program of ours drives; raises KeyError for any other name."""
    return TABLE[program]()


def make_ready(job: Job, door: Door, inherited: Mapping[str, str]) -> Task:
    """Return a job with all that its client is run with; raises Refusal if it cannot be run.

    ``inherited`` is the caller's environment.
    """
    client = client_of(job.program)
    program = client.program(job)
    environment = client.environment(job, inherited)
    hide = redact.redactor(environment, [*job.command, *job.options], program)
    trace = door.trace
    if trace is not None:
        tell = trace
        door = replace(door, trace=lambda line: tell(hide(line)))
    script = redact.script_of(program)
    return Task(job, client, door, environment, program, hide, script=script)
