"""What the histories of a program's jobs tell of their backups, for upkeep."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from kopiatomic import state
from kopiatomic.client_rows import FILES, rows_of
from kopiatomic.clients.base import Task
from kopiatomic.clients.records import Made, Past
from kopiatomic.state import Place
from kopiatomic.system.machine import ancestors

# Datasets that were left out because the user said so, in the history's words.
_NOT_WANTED = ("excluded", "property")


def read(place: Place, task: Task) -> Past:
    """Return the runs of a job and of the program's other jobs, as far as they can be read.

    Where the task is that of one of several repositories, the job's runs are those into it.
    """
    others: list[Made] = []
    for other in state.places(place.program):
        if other != place:
            others += runs_of(other)
    return Past(tuple(runs_of(place, task)), tuple(others))


def runs_of(place: Place, task: Task | None = None) -> list[Made]:
    """Return the runs of a job that came to calling the client, oldest first.

    With the task of one of several repositories, they are those into it.
    """
    try:
        entries = state.read_history(place)
    except OSError:
        return []
    datasets: dict[str, str] = {}  # of all mount points that were captured so far
    earlier: dict[str, None] = {}
    runs = []
    for entry in entries:
        paths = _texts(entry.get("paths"))
        streams = _streams(entry)
        datasets |= {
            str(row["mountpoint"]): str(row["dataset"])
            for row in _rows(entry.get("captured"))
            if "mountpoint" in row and "dataset" in row
        }
        backups, command, is_there = _made(entry, task)
        if not is_there:
            continue
        began = _seconds(entry.get("began"))
        if began is None:
            continue
        ended = _seconds(entry.get("ended"))
        runs.append(Made(
            place.job, began, began if ended is None else ended, paths,
            backups, command,
            _meant(entry, datasets, earlier), streams, _whole(entry, task),
        ))  # fmt: skip
        earlier |= dict.fromkeys((*paths, *streams))
    return runs


def _streams(entry: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names under which a run has stored what is no path of its view."""
    names = (row.get("stream") for row in _rows(entry.get("client_runs")))
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))


def _made(
    entry: Mapping[str, object], task: Task | None
) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Return the backups that a run made, the words of the client, and whether there were any.

    With the task of one of several repositories, of the client runs into that alone.
    """
    rows: list[Mapping[str, object]] = [*_rows(entry.get("client_runs"))] or [entry]
    if task is not None and task.repository:
        rows = [row for row in rows if row.get("env_file") == task.env_file]
    clients = [each for row in rows if isinstance(each := row.get("client"), dict)]
    backups = tuple(name for each in clients for name in _texts(each.get("snapshots")))
    command = tuple(word for each in clients for word in _texts(each.get("command")))
    return backups, command, bool(rows)


def _whole(entry: Mapping[str, object], task: Task | None) -> tuple[str, ...]:
    """Return the backups of files that lack nothing, in the task's repository if it is given."""
    good = [row for row in rows_of(entry) if row.key[0] == FILES and row.is_good]
    if task is not None and task.repository:
        good = [row for row in good if row.key[2] == task.env_file]
    return tuple(name for row in good for name in row.backups)


def _meant(
    entry: Mapping[str, object], datasets: Mapping[str, str], earlier: Iterable[str]
) -> tuple[str, ...]:
    """Return paths of earlier runs whose datasets this run has left out of itself."""
    missed = {
        str(row.get("name"))
        for row in _rows(entry.get("left_out"))
        if row.get("kind") not in _NOT_WANTED
    }
    return tuple(
        path
        for path in (earlier if missed else ())
        if path in missed or _dataset(path, datasets) in missed
    )


def _dataset(path: str, datasets: Mapping[str, str]) -> str | None:
    """Return the dataset that a path is in, as far as it was captured."""
    return next((datasets[up] for up in ancestors(path) if up in datasets), None)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _rows(value: object) -> list[dict[str, object]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _seconds(value: object) -> float | None:
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
