"""Whether the repositories still have the backup that a history names.

The history knows what a run has saved, and not what became of it: a repository may have been
made anew in the same place, or the backup have been removed from it.
"""

from collections.abc import Collection, Mapping

from kopiatomic import client_rows
from kopiatomic.backup import proof
from kopiatomic.backup.work import Work
from kopiatomic.clients.base import Task
from kopiatomic.clients.reader import ClientFailed
from kopiatomic.errors import Refusal
from kopiatomic.system.command import CommandFailed
from kopiatomic.system.process import Interrupted

# How long a repository may take to list its backups, in seconds.
TIME_LIMIT = 600.0

# What has() raises where there is no answer.
UNANSWERED = (ClientFailed, CommandFailed, Refusal, OSError)

_AGAIN = "so these snapshots are backed up again"


def is_kept(work: Work, entry: Mapping[str, object]) -> bool:
    """Ask each repository for the backup of files that an entry of the history names.

    If it is not there, or not known to be, there is a note, and another backup is to be
    made. That tells as well why a repository does not answer. A job whose repositories are
    not to be asked, or cannot be, is believed what its history says.
    """
    if not proof.is_wanted(work.task.job):
        return True
    backups = {row.key: row.backups for row in client_rows.rows_of(entry)}
    for task in (work.task, *work.task.more):
        named = backups.get((client_rows.FILES, "", task.env_file), ())
        try:
            note = _why_again(work, task, named)
        except Interrupted:
            return False  # the run ends as soon as it begins, and tells why
        if note:
            if note not in work.report.notes:
                work.report.notes.append(note)
            return False
    return True


def _why_again(work: Work, task: Task, named: tuple[str, ...]) -> str:
    """Say why another backup is to be made; nothing if the ``named`` are in the repository.

    Raises Interrupted.
    """
    where = told(task)
    if not named:
        return f"the history does not say which backup is theirs in {where}, {_AGAIN}"
    try:
        if has(work, task, named):
            return ""
    except UNANSWERED as error:
        return f"whether {where} still has the backup of them could not be asked: {error}; {_AGAIN}"
    return f"{where} does not have the backup {named[0][:16]} any more, {_AGAIN}"


def has(work: Work, task: Task, named: Collection[str]) -> bool:
    """Ask a task's repository whether it has the backups of these names.

    Raises Interrupted, and where there is no answer, one of UNANSWERED.
    """
    reader = proof.reader_of(task, work.signals, TIME_LIMIT)
    return task.client.has_backups(reader, named)


def told(task: Task) -> str:
    """Return what people call a task's repository."""
    return f"the repository of {task.repository}" if task.repository else "the repository"
