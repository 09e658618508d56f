"""What earlier runs have left behind."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kopiatomic import state
from kopiatomic.backup import holding, own
from kopiatomic.backup.names import job_of, marks_beginning
from kopiatomic.clients import programs
from kopiatomic.errors import EX_OSERR, Refusal
from kopiatomic.monitoring.history import find_holding, find_unfinished, place_of
from kopiatomic.state import Place
from kopiatomic.system import holds, mounts, zfs
from kopiatomic.system.command import Door, printable
from kopiatomic.system.machine import Mount, lies_in


@dataclass(frozen=True)
class Leftover:
    """Something that a killed run of a job has left behind."""

    place: Place
    kind: str  # snapshot, clone, mount, hold (on another's snapshot) or note (of an unfinished run)
    name: str


def find_leftovers(door: Door, thoroughly: bool = False) -> list[Leftover]:
    """Return what earlier runs of all programs have left behind.

    What snapshots other tools keep costs nothing, as a rule: see _snapshots_to_see().
    Raises CommandFailed or Refusal if it cannot be found out.
    """
    found = _left_now(door, thoroughly)
    if not found:
        return []
    # A run that ended in the meantime was not killed: what it had made is gone by now.
    still = set(_left_now(door, thoroughly))
    return [each for each in found if each in still]


def _left_now(door: Door, thoroughly: bool) -> list[Leftover]:
    noted = [
        *(Leftover(place, "note", place.unfinished) for place in find_unfinished()),
        *_left_mounts(mounts.table(door)),
    ]
    killed = bool(_of_killed_runs(noted))
    marked = _snapshots_to_see(door, killed, thoroughly)
    holds = _left_holds(door, thoroughly)
    return _of_killed_runs([*noted, *_left_snapshots(marked, door.jailed), *holds])


def _of_killed_runs(found: Sequence[Leftover]) -> list[Leftover]:
    running = {place for place in {each.place for each in found} if state.is_locked(place)}
    return [each for each in found if each.place not in running]


def _snapshots_to_see(door: Door, killed: bool, thoroughly: bool) -> Mapping[str, str]:
    """Return the snapshots with our mark, as far as there can be any that nobody will remove.

    Every run that makes some has a note first, or at least leaves mounts. Without either
    of a killed one there is none that a search since the boot would not have found.
    """
    if thoroughly:
        return zfs.marked_snapshots(door)
    pools = zfs.pools(door)
    if killed or not state.was_searched(pools):
        return own.marked(door, pools)
    return {}


def _left_mounts(table: Sequence[Mount]) -> list[Leftover]:
    found = []
    for mount in table:
        for program in programs():
            root = Place(program, "").root
            if mount.point != root and lies_in(mount.point, root):
                place = place_of(program, mount.point[len(root) + 1 :].split("/")[0])
                found += [Leftover(place, "mount", mount.point)] if place else []
    return found


def _left_holds(door: Door, thoroughly: bool) -> list[Leftover]:
    """Return the holds of killed runs, as far as they are noted, or are looked for thoroughly."""
    found = []
    for place in find_holding():
        if not state.is_locked(place):
            try:
                noted = holding.held_of(door, state.read_holds(place))
            except OSError as error:
                raise Refusal(f"cannot read {place.holds}: {error.strerror}", EX_OSERR) from error
            found += [Leftover(place, "hold", each.snapshot) for each in noted]
    for program in programs() if thoroughly else ():
        for hold in holds.with_tags(door, marks_beginning(program, door.jailed)):
            owner = job_of(hold.tag, door.jailed)
            left = place_of(*owner) if owner else None
            found += [Leftover(left, "hold", hold.snapshot)] if left else []
    return list(dict.fromkeys(found))


def _left_snapshots(marked: Mapping[str, str], jailed: bool) -> list[Leftover]:
    found = []
    for name, run in marked.items():
        owner = job_of(run, jailed)
        place = place_of(*owner) if owner else None
        if place is not None:
            found.append(Leftover(place, own.kind_of(name), name))
    return found


def described_by_job(leftovers: Sequence[Leftover]) -> Iterator[tuple[Place, list[str]]]:
    """Yield each job that has left something behind, with what that is in a few words."""
    for place in dict.fromkeys(each.place for each in leftovers):
        yield place, described([each for each in leftovers if each.place == place])


def described(leftovers: Sequence[Leftover]) -> list[str]:
    """Say in a few words what one job has left behind: its snapshots, its clones, its mounts."""
    # The marker says nothing that the rest does not.
    present = {each.kind for each in leftovers}
    known = ("snapshot", "clone", "mount", "hold")
    kinds: list[str] = [kind for kind in known if kind in present]
    lines = []
    for kind in kinds or ["note"]:
        names = [printable(each.name) for each in leftovers if each.kind == kind]
        what = "hold on" if kind == "hold" else kind
        if len(names) == 1:
            lines.append(f"{what} {names[0]}")
        elif names:
            lines.append(f"{len(names)} {kind}s, such as {names[0]}")
    return lines
