"""Our own snapshots and clones, found without a question about each of everybody else's."""

from collections.abc import Iterable, Sequence

from kopiatomic import state
from kopiatomic.backup.names import beginning_of, marks_of
from kopiatomic.clients import programs
from kopiatomic.record import Record
from kopiatomic.state import Place
from kopiatomic.system import zfs
from kopiatomic.system.command import Door, quote


def marked(door: Door, pools: Iterable[str]) -> dict[str, str]:
    """Return the snapshots and clones of all runs of all programs, with the run of each.

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
    """Return copies of what all programs made, which were received; raises CommandFailed."""
    return zfs.copies_among(door, tuple(beginning_of(program) for program in programs()))


def of_job(door: Door, place: Place) -> list[str]:
    """Return those of the runs of one job, likewise; raises CommandFailed."""
    found = marked(door, zfs.pools(door))
    mark = marks_of(place, door.jailed)
    return sorted(name for name, run in found.items() if run.startswith(mark))


class Swept(Record):
    """What came of removing snapshots and clones: those that stay, and why.

    ``strangers`` are snapshots that other programs had made of clones, and that went with them.
    """

    left: tuple[zfs.NotDestroyed, ...] = ()
    strangers: tuple[str, ...] = ()


def remove(door: Door, names: Sequence[str]) -> Swept:
    """Destroy snapshots and clones of ours: a snapshot cannot go before the clone of it."""
    clones = [name for name in names if "@" not in name]
    left, strangers = _remove_clones(door, clones) if clones else ((), ())
    done = zfs.destroy(door, [name for name in names if "@" in name])
    return Swept((*left, *done.left), strangers)


def _remove_clones(
    door: Door, names: Sequence[str]
) -> tuple[tuple[zfs.NotDestroyed, ...], tuple[str, ...]]:
    from kopiatomic.system import volumes  # which most runs do without

    removed = volumes.destroy(door, names)
    return tuple(removed.done.left), removed.strangers


def about_stranger(snapshot: str) -> str:
    """Say that a snapshot of a clone of ours went with it, which another program had made."""
    return f"another program had made the snapshot {snapshot} of a clone of ours; it went with it"


def by_hand(place: Place, left: Iterable[zfs.NotDestroyed], name: str) -> str:
    """Return the command that removes one of what is left, once nothing holds it any more.

    A clone may have snapshots of others by then, and a snapshot stays as long as its clone
    does: what knows of both removes these.
    """
    if any("@" not in each.name for each in left):
        return place.sweep_command
    return quote(["zfs", "destroy", name])


def kind_of(name: str) -> str:
    """Return what a thing of ours is by its name."""
    return "snapshot" if "@" in name else "clone"
