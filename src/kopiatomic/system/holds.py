"""Holds of zfs-hold(8): what keeps somebody else's snapshot from being destroyed for a while."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from kopiatomic.record import Record
from kopiatomic.system import zfs
from kopiatomic.system.command import CommandFailed, Door, GivenUp, chunks, failure

NONE: Mapping[str, str] = MappingProxyType({})


class Hold(Record):
    """A hold on a snapshot: its tag says whose it is."""

    tag: str
    snapshot: str


class Held(Record):
    """What came of holding snapshots: those that have gone, and why others are not held.

    ``unsure`` says that the program was given up, and may still hold one of them.
    """

    gone: frozenset[str] = frozenset()
    refused: Mapping[str, str] = NONE
    unsure: bool = False


class Released(Record):
    """What came of releasing holds: why one stays, by snapshot, and the snapshots that have gone.

    One that has gone may be there under another name, and is held still then.
    """

    left: Mapping[str, str] = NONE
    gone: frozenset[str] = frozenset()


def hold_command(tag: str, snapshots: Sequence[str]) -> list[str]:
    """Return the command that holds snapshots, each for itself."""
    return ["zfs", "hold", tag, *snapshots]


def release_command(tag: str, snapshots: Sequence[str]) -> list[str]:
    """Return the command that takes the holds back."""
    return ["zfs", "release", tag, *snapshots]


def hold(door: Door, tag: str, snapshots: Sequence[str]) -> Held:
    """Hold snapshots of one pool; what could not be held is in the answer, and why.

    zfs-hold(8) goes on after one that it cannot hold, so that is found out by asking.
    """
    gone: set[str] = set()
    refused: dict[str, str] = {}
    for part in chunks(snapshots):
        try:
            result = door.run(hold_command(tag, part), check=False)
            if result.status == 0:
                continue
            kept = {each.snapshot for each in held(door, part) if each.tag == tag}
            known = zfs.there(door, part)
        except CommandFailed as error:
            if isinstance(error, GivenUp):
                rest = dict.fromkeys(snapshots[snapshots.index(part[0]) :], error.reason)
                return Held(frozenset(gone), {**refused, **rest}, unsure=True)
            refused |= dict.fromkeys(part, error.reason)
            continue
        gone |= set(part) - known
        refused |= {name: failure(result) for name in part if name in known and name not in kept}
    return Held(frozenset(gone), refused)


def release(door: Door, tag: str, snapshots: Sequence[str]) -> Released:
    """Take back the holds of one tag on snapshots of one pool, as far as there are any."""
    left: dict[str, str] = {}
    gone: set[str] = set()
    for part in chunks(snapshots):
        try:
            result = door.run(release_command(tag, part), check=False)
            if result.status == 0:
                continue
            kept = {each.snapshot for each in held(door, part) if each.tag == tag}
            known = zfs.there(door, part)
        except CommandFailed as error:
            left |= dict.fromkeys(part, error.reason)
            if isinstance(error, GivenUp):
                left |= dict.fromkeys(snapshots[snapshots.index(part[0]) :], error.reason)
                break
            continue
        left |= {name: failure(result) for name in part if name in kept}
        gone |= set(part) - known
    return Released(left, frozenset(gone))


def held(door: Door, snapshots: Sequence[str]) -> list[Hold]:
    """Return all holds on these snapshots, of whomever; raises CommandFailed.

    A tag may hold anything that is no NUL: a line that is not understood is not ours.
    """
    wanted, found = set(snapshots), []
    for part in chunks(snapshots):
        argv = ["zfs", "holds", "-H", *part]
        result = door.run(argv, check=False)
        known = ("dataset does not exist", "no datasets available")
        reasons = zfs.lines_of(result.stderr)
        if result.status != 0 and not (
            reasons and all(any(word in each for word in known) for each in reasons)
        ):
            raise CommandFailed(argv, failure(result))
        for line in zfs.lines_of(result.stdout):
            fields = line.split("\t")
            if len(fields) == 3 and fields[0] in wanted:
                found.append(Hold(fields[1], fields[0]))
    return found


def with_tags(door: Door, beginning: str) -> list[Hold]:
    """Return the holds on this machine whose tags begin so; raises CommandFailed.

    It is as thorough as it is slow: zfs(8) reads all properties of every snapshot.
    """
    argv = ["zfs", "list", "-Hp", "-t", "snapshot", "-s", "name", "-o", "name,userrefs"]
    rows = (line.split("\t") for line in zfs.lines_of(door.run(argv).stdout))
    names = [row[0] for row in rows if len(row) == 2 and row[1].isdigit() and int(row[1])]
    return [each for each in held(door, names) if each.tag.startswith(beginning)]
