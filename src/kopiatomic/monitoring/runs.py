"""The client runs of a job that has several: when each was last good, as the history tells."""

from collections.abc import Callable
from dataclasses import dataclass

from kopiatomic.client_rows import FILES, LAYOUT, Row
from kopiatomic.formatting import TOLERANCE
from kopiatomic.monitoring.history import JobHistory, PastRun


@dataclass(frozen=True)
class LastGood:
    """A client run that the job makes: its last try, and the last backup in which it was good."""

    row: Row
    tried: PastRun
    run: PastRun | None = None
    good: Row | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return self.row.name

    @property
    def what(self) -> str:
        """The same as an end of "the last good backup"."""
        return f"to {self.row.repository}" if self._is_plain else f"of {self.name}"

    @property
    def _is_plain(self) -> bool:
        return self.row.key[0] == FILES and bool(self.row.repository)

    @property
    def when(self) -> float | None:
        """The moment that the last good one shows."""
        return None if self.run is None else self.run.when


def several(history: JobHistory) -> list[LastGood]:
    """Return the client runs of a job as its newest run has them; nothing where it is one.

    What the job has been told since to leave out, such as an env file, is not among them, nor
    what is saved only when it has changed, as long as that was good.
    """
    return _last_good(history, lambda run: True)


def several_until(history: JobHistory, now: float) -> list[LastGood]:
    """Return the same, without backups that are dated in the future."""
    return _last_good(history, lambda run: run.when is not None and run.when <= now + TOLERANCE)


def _last_good(history: JobHistory, counts: Callable[[PastRun], bool]) -> list[LastGood]:
    tried = next((run for run in reversed(history.runs) if run.rows), None)
    if tried is None or len(tried.rows) < 2:
        return []
    # One that came to no client run tells by its env files what it would have done.
    now = history.runs[-1].env_files
    rows = [row for row in tried.rows if row.key[2] is None or row.key[2] in now]
    rows = [row for row in rows if row.key[0] != LAYOUT or not row.is_good]
    if len(rows) < 2:
        return []
    found = {row.key: LastGood(row, tried) for row in rows}
    missing = set(found)
    for run in reversed(history.runs):
        if not missing:
            break
        if not counts(run):
            continue
        for good in run.rows:
            if good.key in missing and good.is_good:
                missing.discard(good.key)
                last = found[good.key]
                found[good.key] = LastGood(last.row, tried, run, good)
    return list(found.values())
