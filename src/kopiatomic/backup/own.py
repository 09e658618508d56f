"""Our own snapshots, found without a question about each of everybody else's."""

from collections.abc import Iterable

from kopiatomic import state
from kopiatomic.backup.names import beginning_of, marks_of
from kopiatomic.clients import programs
from kopiatomic.state import Place
from kopiatomic.system import zfs
from kopiatomic.system.command import Door


def marked(door: Door, pools: Iterable[str]) -> dict[str, str]:
    """Return the snapshots of all runs of all programs, with the run that each one names.

    Those that somebody has given another name are not among them: ``--sweep`` finds
    these too. That there are none in the imported ``pools``, asked for before this, is
    noted, and holds until the next boot, since a run leaves none without a note of its
    own. What was noted before does not hold where there are some: a run that was killed
    may have left more in a pool that is not imported now. Raises CommandFailed.
    """
    found = zfs.marked_among(door, tuple(beginning_of(program) for program in programs()))
    if found:
        state.forget_search()
    else:
        state.note_search(pools)
    return found


def copies(door: Door) -> list[str]:
    """Return copies of snapshots of all programs, which were received; raises CommandFailed."""
    return zfs.copies_among(door, tuple(beginning_of(program) for program in programs()))


def of_job(door: Door, place: Place) -> list[str]:
    """Return those of the runs of one job, likewise; raises CommandFailed."""
    found = marked(door, zfs.pools(door))
    return sorted(name for name, run in found.items() if run.startswith(marks_of(place)))
