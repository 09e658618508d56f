"""The backup clients: all that differs between kopia and restic, a file for each."""

from collections.abc import Callable, Mapping, Sequence

from kopiatomic import redact
from kopiatomic.clients.base import Client, Task
from kopiatomic.clients.wrapper import calls, script_of
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


def make_ready(
    job: Job,
    door: Door,
    inherited: Mapping[str, str],
    installed: bool = True,
    further: Sequence[Job] = (),
) -> Task:
    """Return a job with all that its client is run with; raises Refusal if it cannot be run.

    ``further`` are the same job with the env files of its other repositories.
    ``inherited`` is the caller's environment. Where somebody only reads how the client
    would be called, it need not be ``installed``; then its path is not looked for.
    """
    client = client_of(job.program)
    program = client.program(job) if installed else ""
    environment, *others = (client.environment(each, inherited) for each in (job, *further))
    script = script_of(program)
    called = [word for words in calls(script, client.name) for word in words]
    words = [*job.command, *job.options, *called]
    # The report has the text of a hook that fails.
    hooks = (job.before, job.after_snapshot, job.after, job.notify)
    scripts = "\n".join(filter(None, (script, *hooks)))
    hide = redact.redactor(environment, words, scripts, client.secret_options, others)
    trace = door.trace
    if trace is not None:
        tell = trace
        door = door._replace(trace=lambda line: tell(hide(line)))
    task = Task(job, client, door, environment, program, hide, script=script)
    if not further:
        return task
    # Most jobs have one repository.
    from kopiatomic.clients import repositories

    rest = zip(further, others, strict=True)
    more = [task._replace(job=each, environment=held) for each, held in rest]
    return repositories.told_apart([task, *more])
