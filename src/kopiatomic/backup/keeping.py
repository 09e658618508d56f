"""The layout of the pools comes along: in a backup of its own, when it has changed.

It is not of the moment of the snapshots but of some seconds later, it says nothing about the
files, and no failure of it makes their backup a worse one: it is a note then.
"""

import os
import time
from collections.abc import Iterable, Mapping

from kopiatomic import state
from kopiatomic.backup import proof
from kopiatomic.backup.calling import environment_of, request_for
from kopiatomic.backup.client_runs import LAYOUT, Called, ClientRun
from kopiatomic.backup.taking import mark_of
from kopiatomic.backup.work import Work
from kopiatomic.clients.base import Task
from kopiatomic.clients.records import LAYOUTS
from kopiatomic.errors import Refusal
from kopiatomic.record import Record
from kopiatomic.state import Place
from kopiatomic.system import process
from kopiatomic.system.command import CommandFailed, describe_status, printable
from kopiatomic.system.process import Interrupted

# How often the machine is asked for it, in seconds: a job that runs every hour does so once a
# day, one that runs every night each time.
INTERVAL = 20 * 3600.0

# After this time it is saved anew although nothing has changed, in seconds: not every repository
# is asked whether it still has it.
LONGEST = 30 * 24 * 3600.0

# What is told of it when it is saved: ordinarily, and for a reason.
_IS_SAVED, _CHANGED = "is saved", "has changed and is saved"
_GONE = "was not in the repository any more and is saved"


class Saved(Record):
    """What the history knows of a layout in one repository: what it was of, when, and its name.

    ``where`` tells the repository from any other: a job may be led to another one.
    """

    digest: str
    when: float
    backup: str = ""
    where: str = ""


class Kept(Record):
    """What the history knows of the layouts of a job: when it was looked at, and what is saved.

    Saved is what the repository has shown.
    ``saved`` has the name of each repository, which is empty where there is one only.
    """

    looked: float
    saved: Mapping[str, Saved]


def is_wanted(task: Task) -> bool:
    """Say whether a job saves it: not by what stores no stream, or heeds no words.

    Nor in a jail, whose pools and disks are its host's.
    """
    job, client = task.job, task.client
    able = client.takes_streams and not client.wrapper_keeps_words(job, task.script)
    return job.layout and not job.plain and able and not task.door.jailed


def stream_of(place: Place) -> str:
    """Return the name that the layouts of a job have in their backups."""
    return f"{LAYOUTS}/{place.job}.json"


def keep_layout(work: Work) -> None:
    """Save the layout where it is not saved as it is; what goes wrong is a note."""
    try:
        _keep(work)
    except Interrupted:
        raise
    except (CommandFailed, OSError, Refusal) as error:
        work.report.notes.append(f"the layout of the pools was not saved: {error}")
    except Exception as error:
        # The files are in the backup, whatever a property or a disk is called.
        work.report.notes.append(
            f"the layout of the pools was not saved: internal error, please report it: {error!r}"
        )


def _keep(work: Work) -> None:
    report, now = work.report, time.time()
    if not is_wanted(work.task):
        return
    known = last_kept(work.place)
    tasks = [task for task in (work.task, *work.task.more) if _is_backed_up(work, task)]
    marks = {task.repository: mark_of(task) for task in tasks}
    saved = _saved_in(marks, known)
    is_due = known is None or len(saved) < len(marks) or not 0 <= now - known.looked < INTERVAL
    if not (tasks and is_due and report.captured_at):
        report.layout = as_dict(known) if known else None
        return
    found, lacking = _write(work)
    report.notes += [f"not in the layout of the pools: {each}" for each in lacking]
    kept = dict(known.saved) if known else {}
    for task in tasks:
        how = _why_saved(work, task, saved.get(task.repository), found, now)
        if how:
            backup = _save(work, task, how)
            if backup is None:
                kept.pop(task.repository, None)
            else:
                kept[task.repository] = Saved(found, now, backup, marks[task.repository])
    report.layout = as_dict(Kept(now, kept))


def _why_saved(work: Work, task: Task, old: Saved | None, found: str, now: float) -> str:
    """Say in what words a layout of this digest is saved to a repository; empty: it is there.

    The history does not know what became of a backup, so the repository is asked: it may have
    been made anew in the same place. Raises Interrupted.
    """
    if old is None or not 0 <= now - old.when < LONGEST:
        return _IS_SAVED
    if old.digest != found:
        return _CHANGED
    if not (old.backup and proof.is_wanted(task.job)):
        return ""
    # Only where it is asked: most runs do not come to that.
    from kopiatomic.backup import recall

    # There are several where a wrapper writes to several repositories; it is asked about one.
    names = old.backup.split(", ")
    try:
        return "" if any(recall.has(work, task, (name,)) for name in names) else _GONE
    except recall.UNANSWERED as error:
        work.report.notes.append(
            f"whether {recall.told(task)} still has the layout of the pools could not be asked: "
            f"{error}; so it is saved again"
        )
        return _IS_SAVED


def _saved_in(marks: Mapping[str, str], known: Kept | None) -> dict[str, Saved]:
    """Return what is known to be saved in these repositories; a name may mean another one now."""
    held = known.saved if known else {}
    return {name: held[name] for name, mark in marks.items()
            if name in held and held[name].where == mark}  # fmt: skip


def _is_backed_up(work: Work, task: Task) -> bool:
    """Say whether all of this run's other backups are in a task's repository.

    Where that is not so, the layout would be the newest backup there.
    """
    runs = [run for run in work.report.runs if work.task_of(run.run) is task]
    return bool(runs) and all(run.saved for run in runs)


def _write(work: Work) -> tuple[str, tuple[str, ...]]:
    """Write the layout to the job's file; return its digest, and what of it is lacking."""
    # Only where it is looked at: a job that runs every hour does that once a day.
    from kopiatomic.digest import digest
    from kopiatomic.layout import commands, form, taking

    task, place = work.task, work.place
    taken = taking.take(task.door, work.report.captured_at, _version(task), task.hide)
    text = form.as_text(taken.layout, commands.script(taken.layout))
    data = text.encode()
    try:
        form.parse(data, place.layout)
    except Refusal as refusal:
        work.report.notes.append(
            "the layout of the pools holds what --layout will not read again, only its commands "
            f"can be used: {refusal}"
        )
    state.write_layout(place, text)
    return digest(data), taken.lacking


def _version(task: Task) -> dict[str, str]:
    """Return the version of the client by its name; nothing if it does not tell it."""
    version = task.client.version(task.door, task.job, task.environment)
    return {} if version is None else {task.client.name: version}


def _save(work: Work, task: Task, how: str) -> str | None:
    """Have the client save the layout, and tell so in the words ``how``.

    Return the backup's name, which is empty if it is not known, and None if there is none.
    """
    called = Called(ClientRun(LAYOUT, stream=stream_of(work.place), source=work.place.layout))
    called.repository = task.repository
    work.signals.check()
    try:
        reason = _call(work, task, called)
    except CommandFailed as error:
        reason = str(error)
    where = f" to {task.repository}" if task.repository else ""
    if reason is not None:
        work.report.notes.append(
            f"the layout of the pools was not saved{where}: {reason}; "
            "--no-layout does without it"
        )
        return None
    names = called.figures.snapshots or (called.streamed.backups if called.streamed else ())
    backup = ", ".join(each[:16] for each in names)
    work.report.layouts.append(f"{how}{where}{f' as {backup}' if backup else ''}")
    return backup


def _call(work: Work, task: Task, called: Called) -> str | None:
    """Run the client with the layout on its standard input; return what went wrong, or None."""
    client, environment = task.client, environment_of(work, task)
    request = request_for(work, task, called.run, environment)._replace(captured=False)
    called.request, called.words = request, client.backup_command(task.job, request)
    streams = work.streams._replace(output=None, messages=None, capture=True)
    called.size, called.began = os.path.getsize(work.place.layout), time.time()
    ended = process.run(
        task.door, called.words, environment, work.signals, streams,
        root=work.names.view, source=called.run.source,
    )  # fmt: skip
    work.signals.check()
    called.figures = client.figures(ended.output, ended.messages)
    if ended.status != 0:
        said = client.complaints(ended.messages).split("\n")[0]
        return f"{describe_status(ended.status)}{f', {printable(said)}' if said else ''}"
    # Only what the repository shows is saved, or it would not be tried again for a month.
    called.streamed = client.said_of_stream(
        task.job, request, called.figures, ended.output, task.script
    )
    return client.lacking(ended.text) or proof.lacks_stream(task, called, work.signals) or None


# The history


def last_kept(place: Place) -> Kept | None:
    """Return what the history knows of the job's layouts, None if it knows of none."""
    try:
        entries: Iterable[Mapping[str, object]] = state.newest_first(place)
        return next((kept for each in entries if (kept := _read(each.get("layout")))), None)
    except OSError:
        return None


def as_dict(kept: Kept) -> dict[str, object]:
    """Return what is known as plain data, for the history."""
    return {
        "looked": kept.looked,
        "saved": {name: each._asdict() for name, each in sorted(kept.saved.items())},
    }


def _read(held: object) -> Kept | None:
    try:
        if not isinstance(held, dict):
            return None
        saved = {str(name): _saved_of(each) for name, each in held["saved"].items()}
        return Kept(float(held["looked"]), saved)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _saved_of(row: Mapping[str, object]) -> Saved:
    when = float(str(row["when"]))
    return Saved(str(row["digest"]), when, str(row["backup"]), str(row.get("where", "")))
