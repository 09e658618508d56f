"""zfs(8): what there is, snapshots of one moment, and only our own destroyed."""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from kopiatomic.system.command import CommandFailed, Door, Result, encode, failure, fits
from kopiatomic.system.machine import Dataset

# Set by the same atomic command that makes a snapshot: this, and no name, says
# that a snapshot is ours.
RUN_PROPERTY = "org.kopiatomic:run"

# Set by the user on a dataset (and inherited) to leave it out of -a and -r.
BACKUP_PROPERTY = "org.kopiatomic:backup"

# ZFS_MAX_DATASET_NAME_LEN, without its NUL.
NAME_LIMIT = 255

_COLUMNS = ("name", "type", "mounted", "canmount", "jailed", "keystatus", BACKUP_PROPERTY)

# Error numbers that a channel program answers with, as errno(2) has them on FreeBSD.
_ERRNO = {
    1: "not permitted",
    2: "no such dataset",
    5: "input/output error",
    6: "no such device",
    13: "permission denied",
    16: "dataset is busy",
    17: "dataset already exists",
    22: "not a file system or volume",
    28: "out of space",
    30: "pool is read-only",
    63: "name is too long",
    69: "out of quota",
}


@dataclass(frozen=True)
class NotDestroyed:
    """A snapshot of ours that could not be destroyed, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Destroyed:
    """What came of destroying snapshots: those that stay, and those that were not there."""

    left: tuple[NotDestroyed, ...] = ()
    missing: tuple[str, ...] = ()


def list_datasets(door: Door) -> list[Dataset]:
    """Return every file system and volume, as zfs-list(8) orders them.

    In a jail without datasets the list is empty. Raises CommandFailed if zfs(8)
    fails or answers something that is no such list.
    """
    argv = ("zfs", "list", "-Hp", "-t", "filesystem,volume", "-o", ",".join(_COLUMNS))
    return parse_list(argv, door.run(argv).stdout)


def parse_list(argv: Sequence[str], text: str) -> list[Dataset]:
    """Turn the answer to our ``zfs list`` into datasets; raises CommandFailed."""
    datasets: dict[str, Dataset] = {}
    for line in lines_of(text):
        fields = line.split("\t")
        if len(fields) != len(_COLUMNS) or fields[0] in datasets:
            raise CommandFailed(argv, f"printed a line that is not understood: {line[:80]!r}")
        name, kind, mounted, canmount, jailed, keystatus, backup = fields
        datasets[name] = Dataset(
            name,
            sys.intern(kind),
            mounted == "yes",
            sys.intern(canmount),
            jailed == "on",
            sys.intern(keystatus),
            sys.intern(backup),
        )
    return list(datasets.values())


def lines_of(text: str) -> list[str]:
    """Return the lines of ``text``, which nothing but a newline ends."""
    return [line for line in text.split("\n") if line]


def by_pool(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the names sorted, grouped by the pool that each begins with."""
    # Sorted by pool first: "tank/a@1", "tank2@1" and "tank@1" is how plain sorting has them.
    ordered = sorted(names, key=lambda name: (pool_of(name), name))
    return {pool: list(group) for pool, group in groupby(ordered, pool_of)}


def pool_of(name: str) -> str:
    """Return the pool that a dataset or snapshot is in."""
    return name.split("/", 1)[0].split("@", 1)[0]


def snapshot_command(snapshots: Sequence[str], run: str) -> list[str]:
    """Return the command that makes ``snapshots`` of one pool, marked as ours."""
    return ["zfs", "snapshot", "-o", f"{RUN_PROPERTY}={run}", *snapshots]


def snapshot(door: Door, snapshots: Sequence[str], run: str) -> None:
    """Make ``snapshots``, all of one pool, in one transaction group, or none of them.

    Names that do not fit on one command line go through a channel program
    (zfs-program(8)), which is one transaction group as well. Raises
    CommandFailed when no snapshot was made.
    """
    argv = snapshot_command(snapshots, run)
    if fits(argv):
        door.run(argv)
    else:
        _snapshot_by_program(door, snapshots, run)


def _snapshot_by_program(door: Door, snapshots: Sequence[str], run: str) -> None:
    import json

    # The limits are zfs-program(8)'s highest: names may take the space they need.
    limits = ["-t", "100000000", "-m", "104857600"]
    argv = ["zfs", "program", "-j", *limits, pool_of(snapshots[0]), "-"]
    answer = door.run(argv, text=channel_program(snapshots, run)).stdout
    try:
        returned = json.loads(answer, strict=False)["return"]
    except (ValueError, KeyError, TypeError) as error:
        raise CommandFailed(argv, "printed something that is not its result") from error
    if isinstance(returned, dict):
        name, number = next(iter(sorted(returned.items())))
        reason = _ERRNO.get(number, f"error {number}")
        raise CommandFailed(
            argv, f"cannot create {len(returned)} snapshots, among them '{name}': {reason}"
        )
    if returned != len(snapshots):
        raise CommandFailed(argv, f"made {returned!r} of {len(snapshots)} snapshots")


def channel_program(snapshots: Sequence[str], run: str) -> str:
    """Return the Lua text that snapshots all or nothing and marks each as ours.

    Every name is checked before the first is made, because a channel program
    does not undo what it did before a failure.
    """
    names = "\n".join(f"\t{_lua_string(name)}," for name in snapshots)
    return f"""\
local names = {{
{names}
}}
local property, value = {_lua_string(RUN_PROPERTY)}, {_lua_string(run)}
local failed = {{}}
for _, name in ipairs(names) do
	local e = zfs.check.snapshot(name)
	if e ~= 0 then failed[name] = e end
end
if next(failed) ~= nil then return failed end
for _, name in ipairs(names) do
	local e = zfs.sync.snapshot(name)
	if e ~= 0 then failed[name] = e end
	if e == 0 then zfs.sync.set_prop(name, property, value) end
end
if next(failed) ~= nil then return failed end
return #names
"""


def _lua_string(text: str) -> str:
    """Return ``text`` as a Lua string literal, anything unusual by its byte value."""
    safe = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/@-_.: "
    body = "".join(chr(b) if b in safe else f"\\{b:03d}" for b in encode(text))
    return f'"{body}"'


def own_snapshots(door: Door, owner: str) -> list[str]:
    """Return the snapshots on this machine that runs of ``owner`` made.

    ``owner`` is the beginning of the run property's value up to the run's own
    number. Raises CommandFailed.
    """
    marked = marked_snapshots(door)
    return sorted(name for name, run in marked.items() if run.startswith(owner))


def marked_snapshots(door: Door) -> dict[str, str]:
    """Return the snapshots on this machine that bear our mark, with the run that it names.

    Only a property set here counts (source ``local``): a replica that was
    received with the property belongs to whoever replicates. Raises CommandFailed.
    """
    argv = ("zfs", "get", "-Hp", "-t", "snapshot", "-s", "local", "-o", "name,value", RUN_PROPERTY)
    lines = [line.partition("\t") for line in lines_of(door.run(argv).stdout)]
    known = {name: value for name, tab, value in lines if tab and "@" in name}
    if lines and not known:
        raise CommandFailed(argv, "printed something that is not a list of properties")
    return known


def snapshots_of(door: Door, dataset: str) -> list[tuple[str, float]]:
    """Return the snapshots of one dataset: what stands after the @, and when each was made.

    Times are seconds as time(3) has them. Raises CommandFailed.
    """
    argv = ["zfs", "list", "-Hp", "-d", "1", "-t", "snapshot", "-o", "name,creation", dataset]
    pairs = (line.partition("\t") for line in lines_of(door.run(argv).stdout))
    return [(_name_of(name), float(when)) for name, _, when in pairs if when.isdigit()]


def destroy_command(snapshots: Sequence[str]) -> list[str]:
    """Return the one command that destroys ``snapshots``: of one pool, with one name."""
    if len(snapshots) == 1:
        return ["zfs", "destroy", snapshots[0]]
    datasets = [name.partition("@")[0] for name in snapshots]
    common = os.path.commonpath(datasets)
    return ["zfs", "destroy", "-r", f"{common}@{snapshots[0].partition('@')[2]}"]


def destroy(door: Door, snapshots: Sequence[str]) -> Destroyed:
    """Destroy ``snapshots``, one command for each pool.

    ``zfs destroy -r`` takes every snapshot of that name below a dataset, ours or
    not; so it is asked first what it would take, and if that is more than ours,
    or if it refuses (it destroys all or none), they go one by one.
    """
    if any("@" not in name for name in snapshots):
        raise ValueError("only snapshots are ever destroyed")
    return _all_of(
        _destroy_together(door, list(same))
        for names in by_pool(snapshots).values()
        for _, same in groupby(sorted(names, key=_name_of), _name_of)
    )


def _all_of(parts: Iterable[Destroyed]) -> Destroyed:
    done = list(parts)
    return Destroyed(
        tuple(each for part in done for each in part.left),
        tuple(name for part in done for name in part.missing),
    )


def _name_of(snapshot: str) -> str:
    return snapshot.partition("@")[2]


def _destroy_together(door: Door, snapshots: Sequence[str]) -> Destroyed:
    if len(snapshots) == 1:
        return _destroy_one(door, snapshots[0])
    argv = destroy_command(snapshots)
    there = _would_destroy(door, argv)
    ours = [name for name in snapshots if there is None or name in there]
    missing = Destroyed(missing=tuple(sorted(set(snapshots) - set(ours))))
    if there is not None and there == set(ours):
        result = _attempt(door, argv) if ours else None
        if not ours or (result is not None and result.status == 0):
            return missing
    return _all_of([missing, *(_destroy_one(door, name) for name in ours)])


def _would_destroy(door: Door, argv: Sequence[str]) -> set[str] | None:
    """Return the snapshots that ``zfs destroy -r`` would take, or None if it will not say."""
    result = _attempt(door, [*argv[:2], "-nvp", *argv[2:]])
    if result is None:
        return None
    if result.status != 0:
        return set() if is_gone(result) else None
    lines = [line.partition("\t") for line in lines_of(result.stdout)]
    if any(word not in ("destroy", "reclaim") for word, _, _ in lines):
        return None
    return {name for word, _, name in lines if word == "destroy"} or None


def _destroy_one(door: Door, name: str) -> Destroyed:
    try:
        result = door.run(["zfs", "destroy", name], check=False)
    except CommandFailed as error:
        return Destroyed(left=(NotDestroyed(name, error.reason),))
    if result.status == 0:
        return Destroyed()
    if is_gone(result):
        return Destroyed(missing=(name,))
    return Destroyed(left=(NotDestroyed(name, failure(result)),))


def _attempt(door: Door, argv: Sequence[str]) -> Result | None:
    try:
        return door.run(argv, check=False)
    except CommandFailed:
        return None


def is_gone(result: Result) -> bool:
    """Say whether ``zfs destroy`` failed because there was nothing to destroy."""
    return (
        "could not find any snapshots to destroy" in result.stderr
        or "dataset does not exist" in result.stderr
    )
