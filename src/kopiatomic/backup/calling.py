"""Calling the client in the view, once for each client run, and judging how it ended."""

import os
import time
from collections.abc import Mapping

from kopiatomic import client_rows, state
from kopiatomic.backup import retries
from kopiatomic.backup.client_runs import FILES, VOLUME, Called, ClientRun
from kopiatomic.backup.plan import Plan, mentions
from kopiatomic.backup.work import Failed, Work
from kopiatomic.clients.base import Task
from kopiatomic.clients.records import Request
from kopiatomic.errors import EX_CONFIG, EX_DATAERR, EX_UNAVAILABLE
from kopiatomic.state import Place
from kopiatomic.system import process
from kopiatomic.system.command import (
    CommandFailed,
    decode,
    describe_status,
    exit_status,
    printable,
    quote,
)
from kopiatomic.system.machine import lies_in
from kopiatomic.system.process import Ended


def back_up(work: Work) -> None:
    """Make all client runs of the plan; one that fails does not keep the next from its work."""
    tasks = [work.task_of(run) for run in work.plan.runs]
    work.report.begin_runs(
        Called(run, task.repository) for run, task in zip(work.plan.runs, tasks, strict=True)
    )
    for called, task in zip(work.report.runs, tasks, strict=True):
        work.signals.check()
        try:
            run_client(work, task, called)
        except Failed as error:
            work.report.fail(str(error), error.status, run=called)


def run_client(work: Work, task: Task, called: Called) -> None:
    """Run the client in the view, again as far as that is wanted, and judge how it ended."""
    if called.run.obstacle is not None:
        raise Failed(called.run.obstacle, EX_CONFIG)
    if called.run.kind != VOLUME:
        call_as_often(work, task, called)
        return
    from kopiatomic.backup import cloning

    try:
        cloning.open_source(work, called)
        call_as_often(work, task, called)
    finally:
        cloning.close_source(work, called)


def call_as_often(work: Work, task: Task, called: Called) -> None:
    """Run the client, again where that is wanted, and judge how it ended; raises Failed."""
    ended = call_client(work, task, called)
    while retries.once_more(task, called, work.signals, work.streams, ended):
        ended = call_client(work, task, called)
    judge(work, task, called, ended)


def call_client(work: Work, task: Task, called: Called) -> Ended:
    """Run the client in the view, read what it did, and return how it ended."""
    client, streams = task.client, work.streams
    environment = environment_of(work, task)
    called.request = request_for(work, task, called.run, environment)
    called.words = words = client.backup_command(task.job, called.request)
    work.signals.check()
    for_us_alone = client.speaks_to_us_alone(words)
    if for_us_alone:
        streams = streams._replace(output=None)
    called.began = time.time()
    try:
        ended = process.run(
            task.door, words, environment, work.signals, streams,
            root=work.names.view, source=called.run.source,
        )  # fmt: skip
    except CommandFailed as error:
        raise Failed(str(error), EX_UNAVAILABLE) from error
    called.status, called.seconds = ended.status, ended.seconds
    said = decode(ended.messages if for_us_alone else ended.said)
    work.report.said += said
    called.printed += said
    called.complaints = client.complaints(ended.messages)
    called.figures = client.figures(ended.output, ended.messages)
    if work.evidence is not None and called.run.kind == FILES:
        work.evidence.hear(task, called, ended.output)
    if called.run.kind == VOLUME:
        called.streamed = client.said_of_stream(
            task.job, called.request, called.figures, ended.output, task.script
        )
    work.signals.check()
    return ended


def environment_of(work: Work, task: Task) -> dict[str, str]:
    """Return what the client finds in its environment, within the view."""
    temporary = work.plan.temporary
    return {**task.environment, **({} if temporary is None else {"TMPDIR": temporary})}


def request_for(
    work: Work, task: Task, run: ClientRun, environment: Mapping[str, str]
) -> Request:
    """Return what the client is asked for in one client run."""
    client, plan, parent = task.client, work.plan, None
    if run.kind == FILES:
        last = last_paths(work.place, task)
        parent = client.parent(task.door, task.job, run.paths, last, environment, task.script)
    zone = client.zone(environment, task.script)
    request = Request(
        run.paths, plan.skipped, work.report.moment, parent, work.streams.capture, zone, run.stream
    )
    if run.kind == FILES:
        return request
    # A second before the files, so that of the last backups these are the latest.
    before = None if request.moment is None else request.moment - 1
    return request._replace(skipped=(), moment=before, aside=run.aside)


def judge(work: Work, task: Task, called: Called, ended: Ended) -> None:
    """Turn the client's exit status into that of its run."""
    report, client, job = work.report, task.client, task.job
    text = ended.text
    if ended.status == 0:
        lacking = None if job.plain else client.lacking(text)
        if lacking:
            message = f"{client.name} says that the backup lacks something: {printable(lacking)}"
            report.fail(message, EX_DATAERR, "incomplete", called)
        called.saved = True
        return
    message = f"{os.path.basename(called.words[0])}: {describe_status(ended.status)}"
    outcome = "failed"
    hint = unseen_hint(work.plan, text)
    if not job.plain:
        hint = hint or client.hint(ended.status, text, client.by_hand(job))
        outcome = "incomplete" if client.is_incomplete(ended.status) else "failed"
    message = f"{message}; {hint}" if hint else message
    report.fail(message, exit_status(ended.status), outcome, called)
    called.saved = outcome == "incomplete"


def unseen_hint(plan: Plan, text: str) -> str | None:
    """Say so if the client names a path on a live file system that is not in the view.

    Where it names what was captured below, that is in the view.
    """
    for point in plan.unseen:
        below = (each.point for each in plan.captured if lies_in(each.point, point))
        if mentions(text, point) and not any(mentions(text, each) for each in below):
            return (
                f"{point}, which it names, is not in the view, where only what the client is "
                f"known to need is live; if it needs that: --live {quote([point])}"
            )
    return None


def last_paths(place: Place, task: Task | None = None) -> list[str] | None:
    """Return the paths of the last good backup, or None if they are not known.

    With one of several tasks, they are those of the last one in the repository of that.
    """
    entry = last_entry(place, task)
    paths = entry.get("paths") if entry else None
    return [str(path) for path in paths] if isinstance(paths, list) else None


def last_entry(place: Place, task: Task | None = None) -> dict[str, object] | None:
    """Return what the history says of the job's last good backup of files, or None.

    With one of several tasks it is the last that was good in the repository of that.
    """
    entries = state.newest_first(place)
    try:
        if task is not None and task.repository:
            return next(client_rows.good_files(entries, task.env_file), None)
        return next(client_rows.any_good_files(entries), None)
    except OSError:
        return None  # which is told when this run cannot be added either
