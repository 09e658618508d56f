"""What runs that died have left behind."""

from collections.abc import Sequence
from dataclasses import dataclass

from kopiatomic import state
from kopiatomic.monitoring.history import PROGRAMS, find_notes, place_of
from kopiatomic.state import Place
from kopiatomic.system import mounts, zfs
from kopiatomic.system.command import Door, printable
from kopiatomic.system.machine import Mount, lies_in


@dataclass(frozen=True)
class Leftover:
    """Something that a run of a job which is not running now has left behind."""

    place: Place
    kind: str  # snapshot, mount or note
    name: str


def find_leftovers(door: Door) -> list[Leftover]:
    """Return what runs that died have left behind, of both programs.

    Raises CommandFailed or Refusal if that cannot be seen.
    """
    found = _left_now(door)
    if not found:
        return []
    # A run that ended while we looked is no dead run: its things are gone by now.
    still = set(_left_now(door))
    return [each for each in found if each in still]


def _left_now(door: Door) -> list[Leftover]:
    found = [
        *(Leftover(place, "note", place.unfinished) for place in find_notes()),
        *_left_mounts(mounts.table(door)),
        *_left_snapshots(door),
    ]
    running = {place for place in {each.place for each in found} if state.is_locked(place)}
    return [each for each in found if each.place not in running]


def _left_mounts(table: Sequence[Mount]) -> list[Leftover]:
    found = []
    for mount in table:
        for program in PROGRAMS:
            root = Place(program, "").root
            if mount.point != root and lies_in(mount.point, root):
                place = place_of(program, mount.point[len(root) + 1 :].split("/")[0])
                found += [Leftover(place, "mount", mount.point)] if place else []
    return found


def _left_snapshots(door: Door) -> list[Leftover]:
    found = []
    for name, run in zfs.marked_snapshots(door).items():
        owner = run.split(":")
        place = place_of(owner[0], owner[1]) if len(owner) == 3 else None
        if place is not None:
            found.append(Leftover(place, "snapshot", name))
    return found


def described(leftovers: Sequence[Leftover]) -> list[str]:
    """Say what one job has left over, snapshots and mounts each in a few words."""
    lines = []
    for kind in ("snapshot", "mount", "note"):
        names = [printable(each.name) for each in leftovers if each.kind == kind]
        if len(names) == 1:
            lines.append(f"{kind} {names[0]}")
        elif names:
            lines.append(f"{len(names)} {kind}s, such as {names[0]}")
    if len(lines) > 1:
        # The note says nothing that the rest does not.
        lines = [line for line in lines if not line.startswith("note ")]
    return lines
