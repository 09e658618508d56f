"""The proof: what the snapshots hold is compared with what the new backup has.

A client can end well without having made a backup, or with one in which a whole
dataset is missing: --one-file-system, an exclude, a wrapper with paths of its own.
"""

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from kopiatomic.backup import parts
from kopiatomic.backup.client_runs import Called
from kopiatomic.backup.plan import Plan
from kopiatomic.backup.report import Report
from kopiatomic.clients.base import Client, Task
from kopiatomic.clients.reader import ClientFailed, Reader
from kopiatomic.clients.records import Missing, Proof, Streamed
from kopiatomic.errors import EX_DATAERR, EX_UNAVAILABLE, Refusal
from kopiatomic.job import Job
from kopiatomic.record import Record
from kopiatomic.system.command import CommandFailed
from kopiatomic.system.machine import leading_on
from kopiatomic.system.process import Interrupted, Signals

# How long a repository may take to answer, in seconds.
TIME_LIMIT = 3600.0

UNCHECKED = "whether all of it is in the backup could not be checked"

# How many datasets that are missing in a backup are told one by one.
NAMED = 20


class Evidence:
    """What has to be in the backup.

    ``points`` are the captured mount points, or the directories of a dataset that are
    captured alone, each with whether its snapshot has entries that the client keeps;
    ``datasets`` are theirs; of what is ``told``, the report says already that it is missing.
    """

    def __init__(self, points: dict[str, bool], datasets: dict[str, str]) -> None:
        self.points, self.datasets = points, datasets
        self.told: set[str] = set()

    def hear(self, task: Task, called: Called, output: bytes) -> None:
        """Note whether a client proves by what it printed that all is in the backup."""
        if called.request is not None:
            called.proved = task.client.proves_itself(
                task.job, called.request, called.figures, output, self.points, task.script
            )


class Result(Record):
    """What came of the proof: so many of so many mount points and directories were found."""

    found: int
    wanted: int


def is_wanted(job: Job) -> bool:
    """Say whether the repository is to be asked: not about a program that is no client."""
    return job.proof and not job.plain


def expect(plan: Plan, client: Client) -> Evidence:
    """Look into the snapshots for what the backup must have; call it while they are mounted."""
    places = parts.places(plan)
    nested = leading_on(places)
    points = {
        path: _has_entries(client, place, nested.get(path, set()))
        for path, place in places.items()
    }
    return Evidence(points, {path: each.dataset for each in plan.captured for path in each.paths})


def _has_entries(client: Client, directory: str, nested: Collection[str]) -> bool:
    """Say whether a directory has an entry that the client keeps; also if that is not known.

    What is no directory counts as one that has.
    """
    try:
        if not stat.S_ISDIR(os.lstat(directory).st_mode):
            return True
        return client.has_entries(directory, nested)
    except OSError:
        return True


def prove(
    task: Task, evidence: Evidence, called: Called, report: Report, signals: Signals
) -> None:
    """Compare what a client run has made, and enter into the report what is missing."""
    if called.proved or called.request is None:
        wanted = len(evidence.points)
        called.proof = Result(wanted - len(evidence.told & evidence.points.keys()), wanted)
        return
    with _answering(called, report):
        found = task.client.prove(
            reader_of(task, signals), task.job, called.request, called.figures, evidence.points,
            called.began, task.script,
        )  # fmt: skip
        _conclude(task, evidence, called, report, found)


@contextmanager
def _answering(called: Called, report: Report) -> Iterator[None]:
    """Enter it into the report if the repository gives no answer: what follows is not done then."""
    try:
        yield
    except Interrupted as error:
        report.fail(f"{UNCHECKED}: {error}", 128 + error.signum, "incomplete", called)
    except (ClientFailed, CommandFailed, Refusal, OSError) as error:
        # What nobody has looked at is not called a backup of all.
        message = f"{UNCHECKED}: {error}; --no-proof does without"
        report.fail(message, EX_UNAVAILABLE, "incomplete", called)


def _conclude(
    task: Task, evidence: Evidence, called: Called, report: Report, found: Proof
) -> None:
    there = [point for point in found.found if point not in evidence.told]
    called.proof = Result(len(there), len(evidence.points))
    removed = {each.removed: each for each in found.missing if each.removed}
    for each in removed.values():
        _removed(task, each, called, report)
    if removed:
        called.figures = called.figures._replace(snapshots=found.backups)
    if not found.backups and not removed:
        _no_backup(task, called, report)
        return
    called.backups = found.backups
    if found.stands_in:
        which = f"{called.name}: " if len(report.runs) > 1 else ""
        report.notes.append(
            f"{which}nothing has changed, so {task.client.name} made no new backup: "
            f"{found.stands_in[:16]} stands for it"
        )
    missing = [each for each in found.missing if not each.removed]
    untold = [each for each in missing if each.point not in evidence.told]
    for each in untold[:NAMED]:
        report.fail(_told(task, evidence, each), EX_DATAERR, "incomplete", called)
    if len(untold) > NAMED:
        more = len(untold) - NAMED
        what = "directories and datasets" if report.plan and report.plan.parts else "datasets"
        message = f"{more} more {what} are not in the backup"
        report.fail(message, EX_DATAERR, "incomplete", called)


def prove_volume(task: Task, called: Called, report: Report, signals: Signals) -> None:
    """Compare the size of a volume in the backup with what there was to read of it."""
    with _answering(called, report):
        _conclude_volume(task, called, report, _found_of_stream(task, called, signals))


def _found_of_stream(task: Task, called: Called, signals: Signals) -> Streamed | None:
    """Return what the repository has of a stream; raises what Reader raises, and Refusal."""
    if called.streamed is not None or called.request is None:
        return called.streamed
    return task.client.prove_stream(
        reader_of(task, signals), task.job, called.request, called.figures, called.began,
        task.script,
    )  # fmt: skip


def lacks_stream(task: Task, called: Called, signals: Signals) -> str:
    """Say why what a client run was given of ``size`` bytes is not known to be in the repository.

    Empty is: it is, or nobody wants to know. Raises Interrupted.
    """
    if not is_wanted(task.job):
        return ""
    try:
        found = _found_of_stream(task, called, signals)
    except (ClientFailed, CommandFailed, Refusal, OSError) as error:
        return f"whether it is in the repository could not be checked: {error}"
    if found is None or not found.backups:
        return "there is no new backup in the repository"
    called.streamed = found
    return "" if found.size == called.size else "it is not in the repository in full size"


def _conclude_volume(task: Task, called: Called, report: Report, found: Streamed | None) -> None:
    if found is None or not found.backups:
        _no_backup(task, called, report)
        return
    called.proof = Result(int(found.size == called.size), 1)
    if found.size != called.size:
        message = _wrong_size(task, called, found.size)
        report.fail(message, EX_DATAERR, "incomplete", called)


def _wrong_size(task: Task, called: Called, size: int | None) -> str:
    reason = task.client.wrapper_keeps_words(task.job, task.script)
    if size is None:
        stream = called.run.stream or ""
        reason = reason or task.client.excluded_by(task.job, task.script, stream)
        return f"{stream} is not in the backup: {reason or 'look at the options'}"
    what = f"{called.run.stream} is in the backup with {size} of its {called.size} bytes"
    return f"{what}: {reason or 'the client did not read all of it'}"


def reader_of(task: Task, signals: Signals, time_limit: float = TIME_LIMIT) -> Reader:
    """Return what asks the repository; raises Refusal where a wrapper would make a backup.

    ``time_limit`` is for one question, in seconds.
    """
    unasked = task.client.wrapper_keeps_words(task.job, task.script)
    if unasked:
        raise Refusal(unasked)
    base = task.client.base_command(task.job)
    return Reader(task.door, base, task.environment, signals, time_limit)


def _no_backup(task: Task, called: Called, report: Report) -> None:
    called.saved = False
    report.fail(
        f"{task.client.name} ended well, but there is no new backup in the repository; "
        "look at the options of the job, and at its wrapper if it has one",
        EX_DATAERR,
        run=called,
    )


def _removed(task: Task, missing: Missing, called: Called, report: Report) -> None:
    reason = task.client.likely_reason(task.job, task.script, missing)
    message = f"the new backup of {missing.removed} is not in the repository any more: {reason}"
    report.fail(message, EX_DATAERR, "incomplete", called)


def _told(task: Task, evidence: Evidence, missing: Missing) -> str:
    dataset = evidence.datasets[missing.point]
    how = "without its files" if missing.empty else "not"
    reason = task.client.likely_reason(task.job, task.script, missing)
    return f"{dataset} ({missing.point}) is {how} in the backup: {reason}"
