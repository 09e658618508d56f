"""Upkeep of a repository: its check, its maintenance, and removing old snapshots (retention).

It runs in the live system, with the client, environment and repository of the
job's backup, and under the job's lock: a backup and its upkeep never overlap.
"""

import time
from collections.abc import Sequence

from kopiatomic import formatting, state
from kopiatomic.clients.base import Task
from kopiatomic.clients.reader import Reader
from kopiatomic.clients.records import FORGET, TOLD_IN_WORDS, Ready, Step, Wishes
from kopiatomic.errors import EX_DATAERR, EX_UNAVAILABLE, Refusal
from kopiatomic.formatting import duration, headline, section, table
from kopiatomic.repository import past
from kopiatomic.repository.account import Account, Done, in_each, kept
from kopiatomic.state import Place
from kopiatomic.system import process
from kopiatomic.system.command import decode, describe_status, exit_status, printable
from kopiatomic.system.process import Ended, Signals, Streams

# How long a repository may take to answer a question before upkeep begins, in seconds.
TIME_LIMIT = 3600.0


def run(task: Task, streams: Streams, wishes: Wishes, wait: state.Wait = state.NO_WAIT) -> Account:
    """Do the steps that were asked for, one after the other, and return the account.

    The first that fails is the last: what damaged data could make worse comes
    after the check of it. Of several repositories each has its turn. ``wait`` is for
    another run of the job to end. Raises Refusal before anything was started.
    """
    job = task.job
    steps = plan(task, wishes)
    place = Place(job.program, job.name)
    with state.lock(place, wait) as waited, Signals() as signals:
        account = Account("upkeep", job.program, job.name, time.time(), waited=waited)
        account.steps = _to_do(task, steps)
        account.env_file = None if task.more else task.env_file
        if task.more:
            account.steps = []
            account.parts = [_part(each, wishes) for each in (task, *task.more)]
        streams = streams._replace(hide=task.hide)

        def look_after(each: Task, part: Account) -> None:
            _look_after(each, part, streams, signals, wishes)

        with kept(place, account, steps[0].argv[0], task.hide):
            in_each(task, account, look_after)
    return account


def _part(task: Task, wishes: Wishes) -> Account:
    """Return the account of one of several repositories."""
    part = Account("upkeep", task.job.program, task.job.name, time.time())
    part.repository, part.env_file = task.repository, task.env_file
    part.steps = _to_do(task, plan(task, wishes))
    return part


def _look_after(
    task: Task, account: Account, streams: Streams, signals: Signals, wishes: Wishes
) -> None:
    """Do the steps in one repository."""
    ready = _make_ready(task, signals, wishes, plan(task, wishes))
    account.steps = _to_do(task, ready.steps)
    account.notes += ready.notes
    _do_all(task, streams, signals, account, ready)
    for doubt, status in ready.doubts:
        if account.status == 0:
            account.fail(doubt, exit_status(status))


def plan(task: Task, wishes: Wishes) -> list[Step]:
    """Return the steps that were asked for, in their order; raises Refusal."""
    return task.client.steps(task.job, wishes, task.environment, task.script)


def _to_do(task: Task, steps: Sequence[Step]) -> list[Done]:
    return [
        Done(each.title, kind=each.kind, also=each.also, repository=task.repository)
        for each in steps
    ]


def _make_ready(task: Task, signals: Signals, wishes: Wishes, steps: Sequence[Step]) -> Ready:
    """Ask the repository what belongs to these steps."""
    state.private_directory(state.STATE_DIRECTORY)  # where a reader keeps what is complained of
    base = task.client.base_command(task.job)
    reader = Reader(task.door, base, task.environment, signals, TIME_LIMIT)
    history = past.read(Place(task.job.program, task.job.name), task)
    return task.client.ready(reader, task.job, wishes, steps, history, task.script)


def _do_all(
    task: Task, streams: Streams, signals: Signals, account: Account, ready: Ready
) -> None:
    for step, done in zip(ready.steps, account.steps, strict=True):
        signals.check()
        if account.status == 0 and step.kind == FORGET and ready.withheld:
            account.fail(f"{done.name}: {ready.withheld}", EX_DATAERR)
        if account.status:
            break
        # What some say has to be read, also where a person watches.
        how = streams._replace(capture=streams.capture or step.kind in TOLD_IN_WORDS)
        ended = process.run(task.door, step.argv, task.environment, signals, how)
        done.status, done.seconds = ended.status, ended.seconds
        account.said = decode(ended.said)
        done.outcome = "ok" if ended.status == 0 else "failed"
        signals.check()
        _judge(task, account, step, done, ended)


def _judge(task: Task, account: Account, step: Step, done: Done, ended: Ended) -> None:
    text = ended.text
    problem = task.client.step_problem(step.kind, text)
    if problem:
        done.outcome = "failed"
        account.fail(f"{done.name}: {problem}", exit_status(ended.status) or EX_UNAVAILABLE)
    if ended.status == 0 and not problem:
        account.notes += filter(None, [task.client.step_told(step.kind, text)])
    if account.status or ended.status == 0:
        return
    hint = task.client.step_hint(task.job, step.kind, ended.status, text)
    message = f"{done.name}: {describe_status(ended.status)}"
    account.fail(f"{message}; {hint}" if hint else message, exit_status(ended.status))


# The report


def as_text(account: Account) -> str:
    """Return the account of an upkeep run for a person."""
    lines = [
        headline(account.program, account.job, "upkeep", account.outcome, account.seconds),
        *(f"  ! {printable(problem)}" for problem in account.problems),
        *formatting.waited(account.waited),
        "",
        *table([(_called(step), _how(step)) for step in account.steps]),
        *section("Note:", account.notes),
    ]
    return "\n".join(lines) + "\n"


def _called(step: Done) -> str:
    return f"{step.name}, {step.repository}" if step.repository else step.name


def _how(step: Done) -> str:
    if step.status is None:
        return step.outcome
    took = duration(step.seconds)
    status = "" if step.status == 0 else f" ({describe_status(step.status)})"
    return f"{step.outcome}{status}, {took}"


def percent_of(text: str) -> float:
    """Return a percentage that was given as an option's text; raises Refusal."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise Refusal(f"--verify {text}: a number from 0 to 100 is wanted, in percent")
    return value
