"""What the routine does where it takes existing snapshots: hold them, look for others, let go.

What most jobs do without is imported where it is needed, so that their runs begin soon.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence

from kopiatomic import client_rows, state
from kopiatomic.backup import choice
from kopiatomic.backup.client_runs import FILES
from kopiatomic.backup.missed import tell_missed
from kopiatomic.backup.plan import Plan
from kopiatomic.backup.report import Report
from kopiatomic.backup.view import Lost
from kopiatomic.backup.work import Failed, Work
from kopiatomic.clients.base import Task
from kopiatomic.errors import EX_CANTCREAT, EX_OSERR, Refusal
from kopiatomic.record import TYPE_CHECKING
from kopiatomic.redact import is_secret
from kopiatomic.state import Place
from kopiatomic.system import zfs
from kopiatomic.system.command import CommandFailed, Door, encode

if TYPE_CHECKING:
    from kopiatomic.backup import holding

# How often the next newest snapshots are looked for where others destroy them meanwhile.
TRIES = 3

_UNKNOWN = "whether an earlier run still holds snapshots could not be found out, and will be again"

CHANGING = "its snapshots go as fast as they are looked for"


def selection_of(task: Task) -> dict[str, object]:
    """Return what a job was told to back up, as its history keeps it.

    It has as well what says where to: a backup of the same snapshots into another
    repository is a new one.
    """
    job, tasks = task.job, (task, *task.more)
    files = [file for each in tasks for file in each.job.env_files]
    # The client starts in /.
    patterns = task.client.files_of_patterns(job, task.script)
    versions = [told for each in patterns for told in _version_of(os.path.join("/", each))]
    return {
        **choice.as_dict(job),
        "command": [task.hide(word) for word in job.command],
        "options": [task.hide(word) for word in job.options],
        "env_file": [told for file in files for told in _version_of(file)],
        "repositories": [mark_of(each) for each in tasks],
        **({"excluding": versions} if versions else {}),
    }


def mark_of(task: Task) -> str:
    """Return what tells a task's repository from any other, as a digest, without its secrets.

    Where the client's words and variables do not say it, the text of a wrapper may.
    """
    from kopiatomic.digest import digest

    client, environment = task.client, task.environment
    family = client.repository_variable.partition("_")[0] + "_"
    said = [client.leads_to(task.job, environment, task.script) or "", task.script]
    said += [
        f"{name}={value}"
        for name, value in sorted(environment.items())
        if len(family) > 1 and name.startswith(family) and not is_secret(name)
    ]
    text = "\0".join(map(task.hide, said))
    return digest(encode(text))


def _version_of(path: str) -> list[object]:
    """Return what tells one state of a file from another."""
    try:
        return [path, os.stat(path).st_mtime_ns]
    except OSError:
        return [path]


def is_backed_up(work: Work) -> bool:
    """Say whether a good backup that is still there has all existing snapshots of the plan."""
    entry = last_with_all(work.task, work.plan, work.place)
    if entry is None:
        return False
    from kopiatomic.backup import recall

    return recall.is_kept(work, entry)


def last_with_all(task: Task, plan: Plan, place: Place) -> dict[str, object] | None:
    """Return the history's last good backup that has all existing snapshots of the plan, or None.

    It need not be the last one of all: where the newest snapshot was destroyed since, one
    that was backed up before is the newest. Where the user named a dataset that has none, a
    run is to tell it each time.
    """
    from kopiatomic.backup import existing

    if any(each.missed for each in plan.left_out):
        return None
    selection = selection_of(task)
    try:
        return next(
            (
                each
                for each in state.successes(place)
                if _all_have(task, each)
                and existing.is_backed_up(plan.captured, selection, each)
            ),
            None,
        )
    except OSError:
        return None  # which is told when this run cannot be added either


def _all_have(task: Task, entry: Mapping[str, object]) -> bool:
    """Say whether all repositories of a job got the files by a run."""
    good = {row.key for row in client_rows.rows_of(entry) if row.is_good}
    return not task.more or all(
        (FILES, "", each.env_file) in good for each in (task, *task.more)
    )


def take(work: Work, lose: Callable[[Work, Mapping[str, Lost], str], None]) -> None:
    """Hold the existing snapshots of the plan; where one has gone, take the next newest.

    ``lose`` goes on without datasets of which there is none. Raises Failed, also where
    that is the last one.
    """
    from kopiatomic.backup import existing

    tell_missed(work)
    work.holds = True
    gone: frozenset[str] = frozenset()
    try:
        for _ in range(TRIES):
            work.signals.check()
            if gone:
                lose(work, _take_others(work, gone), "no snapshot of")
            gone = _hold(work, gone)
            if not gone:
                break
    except (CommandFailed, OSError, Refusal) as error:
        raise Failed(f"the existing snapshots cannot be taken: {error}", EX_CANTCREAT) from error
    lose(work, dict.fromkeys(gone, Lost(CHANGING, gone=False)), "no snapshot of")
    work.report.captured_at |= existing.moments(work.plan.captured)


def _take_others(work: Work, gone: Collection[str]) -> dict[str, Lost]:
    """Take the next newest snapshots of datasets; return those that have none any more."""
    from kopiatomic.backup import existing

    found = existing.find(work.task.door, work.task.job.snapshot or "", sorted(gone))
    for each in work.plan.captured:
        if each.dataset in found and each.existing is not None:
            work.report.notes.append(
                f"{each.existing.name} went meanwhile; "
                f"{found[each.dataset].name} is backed up in its place"
            )
    if work.drawing is not None and found:
        work.follow(work.drawing.taking(found))
    return {name: Lost("its snapshot has gone", gone=True) for name in gone if name not in found}


def _hold(work: Work, only: Collection[str]) -> frozenset[str]:
    """Hold the existing snapshots of the plan, or those of ``only`` some datasets.

    Returns the datasets whose snapshots have gone.
    """
    from kopiatomic.backup import holding

    holds = [each for each in work.plan.holds if each.existing is not None]
    wanted = [each for each in holds if not only or each.dataset in only]
    kept = holding.hold(work.task.door, work.place, work.names.run, wanted)
    work.report.notes += kept.notes
    return kept.gone


def release(work: Work) -> None:
    """Take back the holds of a run, as far as that is possible now; tell_held() does the rest."""
    if work.holds:
        _let_go(work)


def tell_held(work: Work) -> None:
    """Take back what release() could not; what stays is told, and noted for the next run.

    Where somebody has said ``zfs destroy -d`` meanwhile, that is what is mounted: the
    snapshot goes with the last hold.
    """
    report = work.report
    left = _let_go(work) if work.holds else []
    if isinstance(left, str):
        report.fail(
            f"snapshots may still be held: {left}; "
            f"the next run tries again, or: {work.place.sweep_command}",
            EX_OSERR,
        )
        return
    for each in left:
        report.fail(
            f"{each.hold.snapshot} is still held: {each.reason}; "
            f"the next run tries again, or: {each.by_hand}",
            EX_OSERR,
        )


def _let_go(work: Work) -> "Sequence[holding.Stays] | str":
    """Take back the holds of a run; return those that stay, or why it is not known."""
    from kopiatomic.backup import holding

    run = work.names.run
    try:
        return holding.let_go(work.task.door, work.place, lambda each: each.tag == run)
    except (CommandFailed, OSError, Refusal) as error:
        return str(error)


def look_after_boot(work: Work, pools: Collection[str] = ()) -> None:
    """Take back holds that a run before the last boot has left, of which no note need be there.

    As with the snapshots of other runs, the note may be in another boot environment. Others
    cannot destroy what is held, so nobody else would find it. It is done once after a boot, and
    again where some of the ``pools`` were not imported then.
    """
    place, door, mark = work.place, work.task.door, state.holds_mark(work.place)
    if state.was_searched(pools, mark):
        return
    try:
        known = zfs.pools(door)
    except CommandFailed as error:
        work.report.notes.append(f"{_UNKNOWN}: {error}")
        return
    if sweep(place, door, work.report, thoroughly=True):
        state.note_search(known, mark)


def sweep(place: Place, door: Door, report: Report, thoroughly: bool = False) -> bool:
    """Take back the holds that earlier runs of the job have left on snapshots of others.

    Returns whether it is known that none is left that is not noted.
    """
    if not (thoroughly or os.path.lexists(place.holds)):
        return True
    from kopiatomic.backup import holding

    try:
        swept = holding.sweep(door, place, thoroughly)
    except (CommandFailed, OSError, Refusal) as error:
        report.notes.append(f"{_UNKNOWN}: {error}")
        return False
    report.swept += [f"hold on {name}" for name in swept.released]
    report.notes += [
        f"the hold of an earlier run on {each.hold.snapshot} stays: {each.reason}; "
        f"the next run tries again, or: {each.by_hand}"
        for each in swept.left
    ]
    return True
