"""Holding the snapshots that others have made, for as long as a run reads them.

Each hold is noted before it is made, so that the next run finds those of one that was
killed: by the note, and by the tag, which is the mark of the run. Nothing is destroyed here.
"""

from collections.abc import Callable, Mapping, Sequence

from kopiatomic import state
from kopiatomic.backup.names import marks_of
from kopiatomic.backup.plan import Hold
from kopiatomic.record import Record
from kopiatomic.state import NotedHold, Place
from kopiatomic.system import holds, zfs
from kopiatomic.system.command import CommandFailed, Door, quote
from kopiatomic.system.zfs import pool_of


class Kept(Record):
    """What came of holding: datasets whose snapshots have gone, and what to say of others."""

    gone: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


class Stays(Record):
    """A hold of ours that could not be taken back, and why."""

    hold: NotedHold
    reason: str

    @property
    def by_hand(self) -> str:
        """The command that takes it back, as a shell takes it."""
        return quote(holds.release_command(self.hold.tag, [self.hold.snapshot]))


def hold(door: Door, place: Place, tag: str, wanted: Sequence[Hold]) -> Kept:
    """Hold existing snapshots, those of each pool by one command.

    One that cannot be held is used all the same: once it is in the view, it cannot be
    destroyed either. In a read-only pool nobody can destroy anything. Raises OSError or
    Refusal if it cannot be noted.
    """
    known = _pools(door) or {}
    fixed = {name for name, pool in known.items() if pool.read_only}
    wanted = [each for each in wanted if pool_of(each.snapshot) not in fixed]
    if not wanted:
        return Kept()
    state.note_holds(place, _merged(state.read_holds(place), [_noted(tag, e) for e in wanted]))
    gone: set[str] = set()
    notes = []
    for names in zfs.by_pool([each.snapshot for each in wanted]).values():
        outcome = holds.hold(door, tag, names)
        gone |= outcome.gone
        notes += _not_held(outcome.refused)
    return Kept(frozenset(e.dataset for e in wanted if e.snapshot in gone), tuple(notes))


def _pools(door: Door) -> Mapping[str, zfs.Pool] | None:
    """Return the imported pools, or None if they cannot be listed: then all are taken for such."""
    try:
        return zfs.pools(door)
    except CommandFailed:
        return None


def _noted(tag: str, hold: Hold) -> NotedHold:
    return NotedHold(tag, hold.existing.guid if hold.existing else "", hold.snapshot)


def _merged(old: Sequence[NotedHold], new: Sequence[NotedHold]) -> list[NotedHold]:
    return list(dict.fromkeys((*old, *new)))


def _not_held(refused: Mapping[str, str]) -> list[str]:
    """Say which snapshots are not held, in one line for each reason."""
    names: dict[str, list[str]] = {}
    for name, reason in refused.items():
        names.setdefault(reason, []).append(name)
    told = []
    for reason, which in names.items():
        more = f" and {len(which) - 1} more" if len(which) > 1 else ""
        told.append(f"{which[0]}{more} could not be held while it was backed up: {reason}")
    return told


def let_go(door: Door, place: Place, wanted: Callable[[NotedHold], bool]) -> list[Stays]:
    """Take back the noted holds that are ``wanted``; return those that stay, which stay noted.

    Those in pools that are not imported stay noted as well. Raises OSError or Refusal if
    the note cannot be read or written.
    """
    noted = state.read_holds(place)
    mine = [each for each in noted if wanted(each)]
    if not mine:
        return []
    left, kept = release(door, mine)
    still = {*(each.hold for each in left), *kept}
    moved = [each for each in still if each not in noted]
    state.note_holds(place, [*(e for e in noted if e in still or e not in mine), *moved])
    return left


def release(door: Door, mine: Sequence[NotedHold]) -> tuple[list[Stays], list[NotedHold]]:
    """Take back holds; return those that stay, and those in pools that are not imported."""
    imported = _pools(door)
    away = [e for e in mine if imported is not None and pool_of(e.snapshot) not in imported]
    left: list[Stays] = []
    for (tag, pool), each in _grouped([e for e in mine if e not in away]).items():
        outcome = holds.release(door, tag, [hold.snapshot for hold in each])
        left += [Stays(e, outcome.left[e.snapshot]) for e in each if e.snapshot in outcome.left]
        gone = [hold for hold in each if hold.snapshot in outcome.gone]
        left += _release_moved(door, pool, gone) if gone else []
    return left, away


def _grouped(mine: Sequence[NotedHold]) -> dict[tuple[str, str], list[NotedHold]]:
    groups: dict[tuple[str, str], list[NotedHold]] = {}
    for each in mine:
        groups.setdefault((each.tag, pool_of(each.snapshot)), []).append(each)
    return groups


def _release_moved(door: Door, pool: str, gone: Sequence[NotedHold]) -> list[Stays]:
    """Take back holds on snapshots that have another name by now, which a hold goes along with.

    A dataset that is renamed, or promoted from a clone, takes its snapshots along, and
    ``zfs receive -F`` renames them.
    """
    try:
        now = zfs.by_guid(door, pool, (each.guid for each in gone))
    except CommandFailed as error:
        return [Stays(each, f"it has another name by now, perhaps: {error}") for each in gone]
    moved = [each._replace(snapshot=now[each.guid]) for each in gone if each.guid in now]
    left: dict[str, str] = {}
    for tag in dict.fromkeys(each.tag for each in moved):
        names = [each.snapshot for each in moved if each.tag == tag]
        left |= dict(holds.release(door, tag, names).left)
    return [Stays(each, left[each.snapshot]) for each in moved if each.snapshot in left]


class Swept(Record):
    """What came of taking back the holds of earlier runs: the snapshots let go, and the rest."""

    released: tuple[str, ...] = ()
    left: tuple[Stays, ...] = ()


def sweep(door: Door, place: Place, thoroughly: bool = False) -> Swept:
    """Take back what earlier runs of the job held; call it under the job's lock.

    ``thoroughly`` looks at all holds on the machine, for the note may be lost: /var/db is
    that of another boot environment at times. Raises CommandFailed, OSError or Refusal.
    """
    noted = state.read_holds(place)
    if thoroughly:
        found = holds.with_tags(door, marks_of(place, door.jailed))
        known = {(each.tag, each.snapshot) for each in noted}
        pairs = [(each.tag, each.snapshot) for each in found]
        new = [NotedHold(tag, "", name) for tag, name in pairs if (tag, name) not in known]
        noted += new
        if new:
            state.note_holds(place, noted)
    if not noted:
        return Swept()
    really = {each.snapshot for each in held_of(door, noted)}
    left = let_go(door, place, lambda _: True)
    stay = {each.hold.snapshot for each in left}
    return Swept(tuple(sorted(really - stay)), tuple(left))


def held_of(door: Door, noted: Sequence[NotedHold]) -> list[NotedHold]:
    """Return those noted holds that there really are, by the names they have; raises CommandFailed.

    A run that was killed may have noted them and not made them yet.
    """
    imported = _pools(door)
    names = [e.snapshot for e in noted if imported is None or pool_of(e.snapshot) in imported]
    if not names:
        return []
    found = set(holds.held(door, sorted(set(names))))
    return [each for each in noted if holds.Hold(each.tag, each.snapshot) in found]
