"""The restore drill: a few files at random come back from the backup, and are compared.

There are some of every mount point that the job's last good backup has captured; one
that is not in the backup at all is a problem. Of a volume blocks are compared: see volumes.py.

Each file's content is written to a scratch file of ours, under a name of ours,
so no name out of a backup ever reaches a file system. There are so many such files
at a time as the client restores by one process, as long as they are small; each is
unlinked by its name. Nothing is deleted that is not ours, and nothing recursively.
"""

import os
import random
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from kopiatomic import client_rows, formatting, state
from kopiatomic.clients.base import Task
from kopiatomic.clients.parsing import as_stored
from kopiatomic.clients.reader import ClientFailed, Reader
from kopiatomic.clients.records import LAYOUTS, File, Source, Tally
from kopiatomic.clients.room import batches
from kopiatomic.errors import EX_CONFIG, EX_NOINPUT, EX_OSERR, Refusal
from kopiatomic.formatting import clock, headline, iso, size
from kopiatomic.job import Job
from kopiatomic.record import Record
from kopiatomic.repository import account as accounts
from kopiatomic.repository import scratch, volumes
from kopiatomic.repository.account import Account, Done
from kopiatomic.repository.comparison import CHANGED, IDENTICAL, Comparer
from kopiatomic.repository.scratch import Scratch
from kopiatomic.state import Place
from kopiatomic.system.command import exit_status, printable
from kopiatomic.system.machine import ancestors, leading_on
from kopiatomic.system.process import Signals

# Larger files are not restored unless the user says otherwise.
SIZE_LIMIT = 1 << 30

# What is restored at a time by one process, in bytes; a larger file comes alone.
TOGETHER = 64 << 20

# The exit status when a file differs or does not come back.
EX_DIFFERENT = 1


class Wishes(Record):
    """How many files of each source, the seed of the choice, the largest file in bytes."""

    files: int
    seed: int
    size_limit: int = SIZE_LIMIT


@dataclass
class Drill(Account):
    """The account of a drill."""

    seed: int = 0
    wanted: int = 0
    size_limit: int = SIZE_LIMIT
    in_part: bool = False  # whether only directories of some datasets are backed up
    tallies: list[Tally] = field(default_factory=list)

    @property
    def results(self) -> dict[str, object]:
        """How many files came back as they were in the backup, of which mount points."""
        return {
            "files": sum(tally.chosen for tally in self.tallies),
            "restored": sum(tally.identical + len(tally.changed) for tally in self.tallies),
            "mountpoints": sorted(
                point
                for tally in self.tallies
                for point in {*tally.points}.difference(tally.absent, tally.empty)
            ),
        }

    def conceal(self, hide: Callable[[str], str]) -> None:
        """Take secrets out of all that is told."""
        super().conceal(hide)
        for tally in self.tallies:
            tally.problems[:] = map(hide, tally.problems)

    def take(self, part: Account) -> None:
        """Enter what came of the drill in one of the repositories."""
        super().take(part)
        if isinstance(part, Drill):
            self.tallies += part.tallies


def run(task: Task, wishes: Wishes, wait: state.Wait = state.NO_WAIT) -> Drill:
    """Restore and compare some files and return the account.

    ``wait`` is for another run of the job to end. Raises Refusal before anything
    was started.
    """
    job = task.job
    base = task.client.base_command(job)
    place = Place(job.program, job.name)
    with state.lock(place, wait) as waited, Signals() as signals:
        account = _begun(job, wishes)
        account.waited = waited
        account.env_file = None if task.more else task.env_file
        if task.more:
            account.parts = [_part(each, wishes) for each in (task, *task.more)]
        with accounts.kept(place, account, base[0], task.hide):
            try:
                state.private_directory(state.STATE_DIRECTORY)
                account.notes += scratch.sweep(place)
                with Scratch(place, account) as room:

                    def drill(each: Task, part: Account) -> None:
                        _drill_in(each, room, part, place, signals)

                    accounts.in_each(task, account, drill)
                    if task.more:
                        _tell_alike(task, account, signals)
            except (ClientFailed, OSError, Refusal) as error:
                account.fail(str(error), EX_OSERR)
    return account


def _begun(job: Job, wishes: Wishes) -> Drill:
    """Return the account of a drill that begins now."""
    return Drill(
        "drill", job.program, job.name, time.time(), seed=wishes.seed, wanted=wishes.files,
        size_limit=wishes.size_limit,
    )  # fmt: skip


def _part(task: Task, wishes: Wishes) -> Drill:
    """Return the account of one of several repositories."""
    part = _begun(task.job, wishes)
    part.repository, part.env_file = task.repository, task.env_file
    return part


def _tell_alike(task: Task, account: Drill, signals: Signals) -> None:
    """Tell of env files that lead to one repository by different ways.

    A run makes a backup of its own in each, so no other can have it. A repository's own id
    does not tell: one that was copied as a directory has the id of the other.
    """
    pairs = list(zip((task, *task.more), _parts(account), strict=True))
    for number, (each, part) in enumerate(pairs):
        for _, first in pairs[:number] if part.tallies else ():
            backups = [tally.source.backup for tally in first.tallies]
            if backups and each.client.has_backups(_reader(each, signals), backups):
                account.fail(
                    f"the last backup in {first.repository} is in {part.repository} as well, "
                    "where no run has made it: they lead to one repository, and there is one "
                    "copy of the backups and not two, or one was copied from the other since; "
                    "look at these env files",
                    EX_CONFIG,
                )
                break


def _reader(task: Task, signals: Signals) -> Reader:
    return Reader(task.door, task.client.base_command(task.job), task.environment, signals)


def _drill_in(
    task: Task, room: Scratch, account: Account, place: Place, signals: Signals
) -> None:
    """Restore and compare files of one repository."""
    assert isinstance(account, Drill)
    reader = _reader(task, signals)
    try:
        _drill(task, reader, room, account, place)
    except ClientFailed as error:
        account.fail(_with_hint(task, error), exit_status(error.status))
    except (OSError, Refusal) as error:
        account.fail(str(error), EX_OSERR)


def _with_hint(task: Task, error: ClientFailed) -> str:
    hint = task.client.hint_between(task.job, error.status)
    return f"{error}; {hint}" if hint else str(error)


class Last(Record):
    """What the history says of the job's last good backup: what it captured, and its ids."""

    rows: tuple[dict[str, object], ...] = ()
    backups: tuple[str, ...] = ()


def last_good(place: Place, task: Task) -> Last:
    """Return what is known of a job's last good backup.

    Of several repositories, it is the last that was good in the task's.
    """
    entries = state.successes(place)
    if task.repository:
        entries = client_rows.good_files(state.newest_first(place), task.env_file)
    for entry in entries:
        captured = entry.get("captured")
        if isinstance(captured, list):
            rows = tuple(row for row in captured if isinstance(row, dict))
            runs = client_rows.rows_of(entry)
            return Last(rows, tuple(name for run in runs for name in run.backups))
    return Last()


def paths_of(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the paths that a backup must hold, which has captured this.

    They are mount points, devices of volumes, or the directories and files of a dataset that
    are in it alone.
    """
    found: list[object] = []
    for row in rows:
        parts = row.get("directories")
        found += parts if isinstance(parts, list) and parts else [row.get("mountpoint")]
    return [path for path in found if isinstance(path, str)]


def shared_out(
    points: Sequence[str], sources: Sequence[Source]
) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return which of the mount points each of the sources must hold, and those that none has.

    Of several sources that have a point's path or one above it the newest counts.
    """
    shares: list[list[str]] = [[] for _ in sources]
    nowhere = []
    newest = _newest(sources)
    for point in points:
        holding = [newest[path] for path in ancestors(as_stored(point)) if path in newest]
        if holding:
            shares[max(holding)[1]].append(point)
        else:
            nowhere.append(point)
    return [tuple(share) for share in shares], nowhere


def _newest(sources: Sequence[Source]) -> dict[str, tuple[float, int]]:
    """Return of each path, as it is stored, the newest source's moment and its number."""
    newest: dict[str, tuple[float, int]] = {}
    for index, source in enumerate(sources):
        for path in map(as_stored, source.paths):
            newest[path] = max(newest.get(path, (source.moment, index)), (source.moment, index))
    return newest


def outdated(
    sources: Sequence[Source], shares: Sequence[tuple[str, ...]], backups: Sequence[str]
) -> set[str]:
    """Return the sources, by their backups, that stand for an earlier selection of the job.

    restic has one source for each set of paths: a path of such a source is in a newer one as
    well. What must hold anything, or is one of the ``backups`` of the last run, is not outdated.
    """
    newest = _newest(sources)
    return {
        source.backup
        for source, share in zip(sources, shares, strict=True)
        if not share
        and not source.backup.startswith(tuple(backups))
        and any(newest[path][0] > source.moment for path in map(as_stored, source.paths))
    }


def _is_layout(source: Source) -> bool:
    """Say whether a source is the layout of a machine, of which there is no live file."""
    return all(path.startswith(f"{LAYOUTS}/") for path in source.paths)


def _drill(task: Task, reader: Reader, room: Scratch, account: Drill, place: Place) -> None:
    listed = task.client.sources(reader, task.job, task.environment, task.script)
    sources = [each for each in listed if not _is_layout(each)]
    if not sources:
        account.fail("there is no backup of this machine in the repository", EX_NOINPUT)
        return
    last = last_good(place, task)
    account.in_part = any("directories" in row for row in last.rows)
    shares, nowhere = shared_out(paths_of(last.rows), sources)
    old = outdated(sources, shares, last.backups)
    for point in nowhere:
        account.fail(f"{point} was captured, but no backup in the repository has it", EX_DIFFERENT)
    comparer = Comparer(reader.door)
    for source, share in zip(sources, shares, strict=True):
        if source.backup in old:
            continue
        began = time.monotonic()
        tally = Tally(source, share)
        account.tallies.append(tally)
        named = f"restore from {source.backup[:8]} ({source.title})"
        done = Done(named, repository=task.repository)
        account.steps.append(done)
        try:
            if volumes.is_of_volume(source):
                volumes.drill(task, reader, place, tally, account.size_limit)
            else:
                _drill_source(task, reader, room, comparer, account, tally)
                tally.problems += _not_held(task, tally)
        except ClientFailed as error:
            tally.problems.append(f"{source.title}: {_with_hint(task, error)}")
        finally:
            done.seconds = time.monotonic() - began
            done.outcome = "failed" if tally.problems else "ok"
            for problem in tally.problems:
                account.fail(problem, EX_DIFFERENT)


def _not_held(task: Task, tally: Tally) -> list[str]:
    """Say which mount points are not in a backup, or empty there though something was in them."""
    problems = [f"{point} was captured, but is not in the backup" for point in tally.absent]
    nested = leading_on(tally.points) if tally.empty else {}
    for point in tally.empty:
        if _had_entries(task, point, nested.get(point, set()), tally.source.moment):
            problems.append(f"{point} was captured, but is empty in the backup")
    return problems


def _had_entries(task: Task, point: str, nested: set[str], moment: float) -> bool:
    """Say whether something in a directory is older than the backup, and to be kept.

    The time of the last change nobody can set, and what is moved gets a new one.
    """
    try:
        with os.scandir(point) as entries:
            for entry in entries:
                if entry.name in nested:
                    continue
                found = entry.stat(follow_symlinks=False)
                if found.st_ctime < moment and task.client.keeps(found.st_mode):
                    return True
    except (OSError, ValueError):
        pass
    return False


def _drill_source(
    task: Task, reader: Reader, room: Scratch, comparer: Comparer, account: Drill, tally: Tally
) -> None:
    # Of each source and backup the choice is the same for the same seed.
    rng = random.Random(f"{account.seed} {tally.source.title}")
    limit = account.size_limit
    files = {
        str(number): file
        for number, file in enumerate(
            task.client.files(reader, room, tally, account.wanted, limit, rng)
        )
    }
    sizes = {name: file.size for name, file in files.items()}
    for batch in batches(sizes, min(TOGETHER, room.free())):
        restored: Collection[str] = ()
        if len(batch) > 1:
            restored = task.client.restore(reader, room, {name: files[name] for name in batch})
        for name in batch:
            reader.signals.check()
            tally.chosen += 1
            try:
                verdict = _verdict(reader, room, comparer, tally, files[name],
                                   name if name in restored else None)  # fmt: skip
            except (ClientFailed, OSError) as error:
                tally.problems.append(f"{files[name].path}: cannot be restored: {error}")
            else:
                _count(tally, files[name], verdict)


def _verdict(
    reader: Reader,
    room: Scratch,
    comparer: Comparer,
    tally: Tally,
    file: File,
    there: str | None,
) -> str:
    """Compare a file that is in the room under the name ``there``, or restore it first."""
    if there is not None:
        with room.taken(there) as descriptor:
            return comparer.compare(descriptor, file, tally.source.moment)
    with room.file(file.size) as descriptor:
        reader.into(descriptor, *file.fetch)
        start = reader.begins_at(descriptor, file.size)
        return comparer.compare(descriptor, file, tally.source.moment, start)


def _count(tally: Tally, file: File, verdict: str) -> None:
    tally.restored += 1
    if verdict == IDENTICAL:
        tally.identical += 1
    elif verdict == CHANGED:
        tally.changed.append(file.path)
    else:
        tally.problems.append(f"{file.path}: {verdict}")


# The report


def as_dict(drill: Drill) -> dict[str, object]:
    """Return the account of a drill as plain data, for --json."""
    return {
        **accounts.as_dict(drill),
        "seed": drill.seed,
        "sources": [
            {
                "backup": tally.source.backup,
                "title": tally.source.title,
                "moment": iso(tally.source.moment),
                "mountpoints": len(tally.points),
                "absent": tally.absent,
                "chosen": tally.chosen,
                "restored": tally.restored,
                "identical": tally.identical,
                "changed_since": tally.changed,
                "too_large": tally.too_large,
                "unnamed": tally.unnamed,
                "read": tally.read,
                "blocks": None if tally.blocks is None else list(tally.blocks),
                "problems": tally.problems,
                **({"repository": part.repository} if part.repository else {}),
            }
            for part in _parts(drill)
            for tally in part.tallies
        ],
    }


def as_text(drill: Drill) -> str:
    """Return the account of a drill for a person."""
    lines = [headline(drill.program, drill.job, "the restore drill", drill.outcome, drill.seconds)]
    lines += [f"  ! {printable(problem)}" for problem in drill.problems]
    lines += formatting.waited(drill.waited)
    for part in _parts(drill):
        of = f" in {printable(part.repository)}" if part.repository else ""
        for tally in part.tallies:
            source, when = tally.source, clock(tally.source.moment)
            lines += ["", f"{printable(source.title)}, backup {source.backup[:8]}{of} of {when}:"]
            lines += [f"  {line}" for line in _told(tally, drill)]
    if drill.notes:
        lines += ["", "Note:", *(f"  {printable(note)}" for note in drill.notes)]
    if not any(tally.chosen and not tally.size for tally in drill.tallies):
        return "\n".join(lines) + "\n"
    again = f"--seed {drill.seed} chooses the same again, until the next backup"
    lines += ["", f"The files were chosen at random; {again}."]
    return "\n".join(lines) + "\n"


def _parts(drill: Drill) -> list[Drill]:
    """Return the accounts of the repositories; of one alone, that of all."""
    return [part for part in drill.parts if isinstance(part, Drill)] or [drill]


def _told(tally: Tally, drill: Drill) -> list[str]:
    if volumes.is_of_volume(tally.source):
        return [printable(line) for line in volumes.told(tally)]
    lines = [f"{tally.identical} of {tally.chosen} files restored identical"]
    if len(tally.points) > 1:
        held = len(tally.points) - len(tally.absent)
        what = "directories and files" if drill.in_part else "mount points"
        lines.append(f"{held} of the {len(tally.points)} {what} captured are in it")
    if tally.changed:
        lines.append(
            f"{len(tally.changed)} restored, live file has changed since or is gone: "
            + _few(tally.changed)
        )
    if tally.too_large:
        lines.append(f"{tally.too_large} over {size(drill.size_limit)} passed over")
    if tally.unnamed:
        lines.append(f"{tally.unnamed} passed over because their names are not UTF-8")
    return [printable(line) for line in lines]


def _few(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(paths[:3]) + more


def size_of(text: str) -> int:
    """Return a size like 500M or 2G in bytes, in binary units; raises Refusal."""
    match = re.fullmatch(r"([0-9]{1,12})([KMGT]?)", text.upper())
    if not match:
        raise Refusal(f"--size-limit {text}: a number of bytes is wanted, as in 500M or 2G")
    return int(match[1]) << 10 * " KMGT".index(match[2] or " ")


def count_of(text: str, option: str, least: int = 0) -> int:
    """Return a whole number that was given as an option's text; raises Refusal."""
    if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) < least:
        raise Refusal(f"{option} {text}: a whole number is wanted, {least} or more")
    return int(text)


def new_seed() -> int:
    """Return a seed that nobody can foresee."""
    return random.SystemRandom().randrange(10**9)
