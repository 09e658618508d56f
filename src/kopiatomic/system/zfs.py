"""zfs(8): what there is, snapshots of one moment, and only our own destroyed."""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from kopiatomic.record import Record
from kopiatomic.system.command import (
    CommandFailed,
    Door,
    GivenUp,
    Result,
    chunks,
    encode,
    failure,
    fits,
)
from kopiatomic.system.machine import Dataset

# Set by the same atomic command that makes a snapshot: this, and no name, says
# that a snapshot is ours.
RUN_PROPERTY = "org.kopiatomic:run"

# Set by the user on a dataset (and inherited) to leave it out of -a and -r.
BACKUP_PROPERTY = "org.kopiatomic:backup"

# A clone of ours lies right in its pool and is called as the snapshot that it is of, with a number
# (backup/names.py). Only one that is called so and marked is ours: who renames it means to keep it.
_OUR_CLONE = re.compile(r"[^/@]+/[a-z]+-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{12}\.[0-9]+")

# What a name is made of: zfs_namecheck.c, with the % of what is being received.
_NAME = re.compile(r"[A-Za-z0-9_.:%/@ -]+")

# ZFS_MAX_DATASET_NAME_LEN, without its NUL.
NAME_LIMIT = 255

# More than a name, a mount point and a user's property can be together (ZAP_MAXVALUELEN is 8192).
_RECORD_LIMIT = 32768

# A path may hold tabs and newlines, so something must come after it that cannot.
_COLUMNS = (
    "name", "type", "mounted", "canmount", "jailed", BACKUP_PROPERTY, "mountpoint", "keystatus",
)  # fmt: skip
_KEY_STATUS = ("-", "available", "unavailable")

# Error numbers that a channel program answers with, as errno(2) has them on FreeBSD.
ENOENT = 2
_ERRNO = {
    1: "not permitted",
    ENOENT: "no such dataset",
    5: "input/output error",
    6: "no such device",
    13: "permission denied",
    16: "dataset is busy",
    17: "it exists already, or a clone depends on it",
    22: "not a file system or volume",
    28: "out of space",
    30: "pool is read-only",
    63: "name is too long",
    69: "out of quota",
}

# The same in zfs-snapshot(8)'s words, of what it says for one name among others.
_REASONS = {
    "dataset does not exist": ENOENT,
    "dataset already exists": 17,
    "out of space": 28,
    "quota exceeded": 69,
}

# zfs-program(8)'s highest limits: names may take the instructions and the memory they need.
_LIMITS = ("-t", "100000000", "-m", "104857600")


class NotDestroyed(Record):
    """A snapshot of ours that could not be destroyed, and why."""

    name: str
    reason: str


class Listed(Record):
    """A snapshot of anybody's; ``guid`` stays its own whatever it is called, and when received."""

    name: str
    guid: str
    txg: int


class Destroyed(Record):
    """What came of destroying snapshots: those that stay, and those that were not there."""

    left: tuple[NotDestroyed, ...] = ()
    missing: tuple[str, ...] = ()


class Pool(Record):
    """What can be the matter with a pool: it is read-only, or its health is not ONLINE."""

    name: str
    read_only: bool
    health: str


def pools(door: Door) -> dict[str, Pool]:
    """Return the imported pools by name; raises CommandFailed."""
    argv = ["zpool", "list", "-Hp", "-o", "name,readonly,health"]
    lines = lines_of(door.run(argv).stdout)
    rows = [row for row in (line.split("\t") for line in lines) if len(row) == 3]
    if lines and not rows:
        raise CommandFailed(argv, "printed something that is no list of pools")
    return {row[0]: Pool(row[0], row[1] == "on", row[2]) for row in rows}


def list_datasets(door: Door, names: Sequence[str] = (), recursive: bool = False) -> list[Dataset]:
    """Return every file system and volume, as zfs-list(8) orders them; or those with ``names``.

    With ``recursive`` those below them as well. Clones of ours, which are there while a volume
    is read, are not among them. In a jail without datasets the list is empty. Raises
    CommandFailed if zfs(8) fails, as it does where a name is not that of a
    file system or volume, or answers something that is no such list.
    """
    below = ("-r",) if recursive and names else ()
    what = ("-t", "filesystem,volume", "-o", ",".join(_COLUMNS))
    argv = ("zfs", "list", "-Hp", *below, *what, *names)
    found = parse_list(argv, door.run(argv).stdout)
    likely = [each.name for each in found if each.type == "volume" and is_like_our_clone(each.name)]
    ours = _marks_of(door, likely) if likely else {}
    return [each for each in found if each.name not in ours] if ours else found


def is_like_our_clone(name: str) -> bool:
    """Say whether a dataset is called as the clones of ours are, whoever has made it."""
    return _OUR_CLONE.fullmatch(name) is not None


def parse_list(argv: Sequence[str], text: str) -> list[Dataset]:
    """Turn the answer to our ``zfs list`` into datasets; raises CommandFailed."""
    datasets: dict[str, Dataset] = {}
    for fields in _records(argv, text):
        name, kind, mounted, canmount, jailed, backup, mountpoint, keystatus = fields
        if name in datasets:
            raise CommandFailed(argv, f"printed a dataset twice: {name[:80]!r}")
        above = datasets.get(name.rpartition("/")[0])
        datasets[name] = Dataset(
            name,
            sys.intern(kind),
            mounted == "yes",
            sys.intern(canmount),
            # A volume has no such property of its own, and belongs to the jail nevertheless.
            jailed == "on" or (jailed == "-" and above is not None and above.jailed),
            sys.intern(keystatus),
            sys.intern(backup),
            mountpoint,
        )
    return list(datasets.values())


def _records(argv: Sequence[str], text: str) -> Iterator[list[str]]:
    """Yield the fields of each dataset; a mount point may go on over several lines."""
    begun = ""
    for line in lines_of(text):
        whole = f"{begun}\n{line}" if begun else line
        fields = whole.split("\t", len(_COLUMNS) - 2)
        last = fields.pop().rsplit("\t", 1)
        is_whole = len(fields) == len(_COLUMNS) - 2 and len(last) == 2 and last[1] in _KEY_STATUS
        if is_whole and (not begun or last[0].startswith("/")):
            begun = ""
            yield [*fields, *last]
        else:
            begun = whole
        if len(begun) > _RECORD_LIMIT:
            break
    if begun:
        raise CommandFailed(argv, f"printed a line that is not understood: {begun[:80]!r}")


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
    """Return the command that does what snapshot() does, where nothing is in the way."""
    return ["zfs", "snapshot", "-o", f"{RUN_PROPERTY}={run}", *snapshots]


def snapshot(door: Door, snapshots: Sequence[str], run: str) -> dict[str, int]:
    """Make ``snapshots``, all of one pool, in one transaction group, marked as ours.

    It is one channel program (zfs-program(8)), which costs less than ``zfs snapshot``
    where names are many, and makes those that can be made; no jail can run one. Returns the
    others with their error numbers, as errno(2) has them. Raises CommandFailed when none
    was made.
    """
    if door.jailed:
        return _snapshot_by_command(door, snapshots, run)
    return _run_program(door, snapshots, snapshot_program(snapshots, run))


def _snapshot_by_command(door: Door, snapshots: Sequence[str], run: str) -> dict[str, int]:
    """Make snapshots by zfs-snapshot(8), which makes all or none: so again without some."""
    refused: dict[str, int] = {}
    wanted = list(snapshots)
    while wanted:
        argv = snapshot_command(wanted, run)
        if not fits(argv):
            raise CommandFailed(argv[:2], f"{len(wanted)} names are too many for one command")
        result = door.run(argv, check=False)
        if result.status == 0:
            break
        found = _refused_in(result.stderr, wanted)
        if not found:
            raise CommandFailed(argv, failure(result))
        refused |= found
        wanted = [name for name in wanted if name not in refused]
    return refused


def _refused_in(text: str, snapshots: Sequence[str]) -> dict[str, int]:
    """Return which snapshots zfs(8) says that it cannot make, with errno(2)'s numbers.

    It names the snapshot, or the dataset that it cannot open. Other reasons than those
    that concern one dataset are left to be told in its own words.
    """
    found: dict[str, int] = {}
    for line in lines_of(text):
        match = re.fullmatch(r"cannot (?:create snapshot|open) '(.+)': (.+)", line)
        number = _REASONS.get(match[2]) if match else None
        if match and number is not None:
            names = (n for n in snapshots if match[1] in (n, n.partition("@")[0]))
            found |= dict.fromkeys(names, number)
    return found


def reason_for(number: int) -> str:
    """Say what an error number of a channel program means."""
    return _ERRNO.get(number, f"error {number}")


def _run_program(door: Door, snapshots: Sequence[str], text: str) -> dict[str, int]:
    """Run a channel program that returns error numbers by name; raises CommandFailed."""
    import json

    argv = ["zfs", "program", "-j", *_LIMITS, pool_of(snapshots[0]), "-"]
    answer = door.run(argv, text=text).stdout
    try:
        # An empty table of Lua is an object or a list.
        failed = dict(json.loads(answer, strict=False)["return"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CommandFailed(argv, "printed something that is not its result") from error
    known = set(snapshots)
    if not all(name in known and isinstance(number, int) for name, number in failed.items()):
        raise CommandFailed(argv, "printed something that is not its result")
    return failed


def snapshot_program(snapshots: Sequence[str], run: str) -> str:
    """Return the Lua text that makes the snapshots that can be made, and marks each as ours.

    Each is checked before the first is made, because a channel program does not
    undo what it did before a failure.
    """
    return f"""\
{_lua_names(snapshots)}
local property, value = {_lua_string(RUN_PROPERTY)}, {_lua_string(run)}
local failed, good = {{}}, {{}}
for _, name in ipairs(names) do
	local e = zfs.check.snapshot(name)
	if e == 0 then good[#good + 1] = name else failed[name] = e end
end
for _, name in ipairs(good) do
	local e = zfs.sync.snapshot(name)
	if e == 0 then
		e = zfs.sync.set_prop(name, property, value)
		if e ~= 0 then zfs.sync.destroy(name) end
	end
	if e ~= 0 then failed[name] = e end
end
return failed
"""


def destroy_program(snapshots: Sequence[str]) -> str:
    """Return the Lua text that destroys these snapshots, each for itself.

    To ``zfs.sync.destroy`` one that is not there is destroyed already, which is
    success; but it may be there under another name, since its dataset was renamed.
    An early ``zfs.exists`` answers nothing at all, which is not false.
    """
    return f"""\
{_lua_names(snapshots)}
local failed = {{}}
for _, name in ipairs(names) do
	local e = {ENOENT}
	if zfs.exists(name) ~= false then e = zfs.sync.destroy(name) end
	if e ~= 0 then failed[name] = e end
end
return failed
"""


def _lua_names(names: Sequence[str]) -> str:
    lines = "\n".join(f"\t{_lua_string(name)}," for name in names)
    return f"local names = {{\n{lines}\n}}"


def _lua_string(text: str) -> str:
    """Return ``text`` as a Lua string literal, anything unusual by its byte value."""
    safe = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/@-_.: "
    body = "".join(chr(b) if b in safe else f"\\{b:03d}" for b in encode(text))
    return f'"{body}"'


def own_snapshots(door: Door, owner: str) -> list[str]:
    """Return the snapshots on this machine that runs of ``owner`` made, by any name, and clones.

    ``owner`` is the beginning of the run property's value up to the run's own
    number. It asks as marked_snapshots() does. Raises CommandFailed.
    """
    marked = marked_snapshots(door)
    return sorted(name for name, run in marked.items() if run.startswith(owner))


def marked_snapshots(door: Door) -> dict[str, str]:
    """Return the snapshots and clones here that bear our mark, with the run that it names.

    It is as thorough as it is slow: zfs(8) reads all properties of every snapshot.
    Only a property set here counts (source ``local``): a replica that was
    received with the property belongs to whoever replicates. Raises CommandFailed.
    """
    what = ("-t", "snapshot,volume", "-s", "local", "-o", "name", RUN_PROPERTY)
    argv = ("zfs", "get", "-H", *what)
    lines = lines_of(door.run(argv).stdout)
    if lines and not any("@" in name or "/" in name for name in lines):
        raise CommandFailed(argv, "printed something that is not a list of names")
    return _marks_of_all(door, [e for e in lines if "@" in e or is_like_our_clone(e)])


def marked_among(door: Door, beginnings: tuple[str, ...]) -> dict[str, str]:
    """Return those with our mark whose names after the @ begin so, and the clones, likewise.

    A list of nothing but names, in their order, is answered without any property of a
    snapshot: zfs_do_list() in cmd/zfs/zfs_main.c of OpenZFS (2.2: zfs_list_only_by_fast()
    and zfs_sort_only_by_fast()) sets ZFS_ITER_SIMPLE then, and
    zfs_ioc_snapshot_list_next() in zfs_ioctl.c leaves the properties out. It is still
    one ioctl(2) for each snapshot on the machine, so it is for the rare case. The
    property is asked for where the name is like one of ours. ``zfs.list.snapshots`` in
    a channel program is no way out: on a dataset that is damaged, where zfs list just
    fails, the kernel panics there (VERIFY0(dmu_objset_from_ds()) in zcp_iter.c).
    Raises CommandFailed.
    """
    return _marks_of_all(door, _likely(door, beginnings))


def _likely(door: Door, beginnings: tuple[str, ...]) -> list[str]:
    return [each for each in _names(door) if _is_called(each, beginnings)]


def _names(door: Door) -> list[str]:
    """Return the names of all snapshots and volumes; raises CommandFailed."""
    argv = ("zfs", "list", "-H", "-o", "name", "-s", "name", "-t", "snapshot,volume")
    names = lines_of(door.run(argv).stdout)
    if not all(map(_NAME.fullmatch, names)):
        raise CommandFailed(argv, "printed something that is not a list of names")
    return names


def _is_called(name: str, beginnings: tuple[str, ...]) -> bool:
    """Say whether a snapshot's name after the @, or a clone's after its pool's, begins so."""
    if "@" not in name:
        return is_like_our_clone(name) and name.partition("/")[2].startswith(beginnings)
    return name.partition("@")[2].startswith(beginnings)


def _marks_of_all(door: Door, names: Sequence[str]) -> dict[str, str]:
    """Return the marks of these, asked for in as few commands as there can be."""
    marked: dict[str, str] = {}
    for part in chunks(names):
        marked |= _marks_of(door, part)
    return marked


def _marks_of(door: Door, names: Sequence[str]) -> dict[str, str]:
    """Return those of these that bear our mark, by name; one that has gone bears none.

    What bears it will be destroyed, and a property's value may hold newlines: who may set
    one (zfs-allow(8), userprop) can have a line printed for what is somebody else's. But of
    each that was asked for, marked or not, zfs(8) prints a line of its own. So a name with
    two lines is asked for alone, and one that was not asked for counts for nothing.
    """
    argv = ["zfs", "get", "-Hp", "-o", "name,source,value", RUN_PROPERTY, *names]
    text = _answer(door, argv)
    rows: dict[str, list[list[str]]] = {name: [] for name in names}
    for fields in (line.split("\t", 2) for line in lines_of(text)):
        if len(fields) == 3 and fields[0] in rows:
            rows[fields[0]].append(fields)
    if text and not any(rows.values()):
        raise CommandFailed(argv, "printed something that is not a list of properties")
    marks: dict[str, str] = {}
    for name, found in rows.items():
        if len(found) == 1 and found[0][1] == "local":
            marks[name] = found[0][2]
        elif len(found) > 1 and (mark := _mark_of_one(door, name)):
            marks[name] = mark
    return marks


def _mark_of_one(door: Door, name: str) -> str:
    """Return the mark that something bears, empty for none; one of several lines is not ours."""
    text = _answer(door, ["zfs", "get", "-Hp", "-s", "local", "-o", "value", RUN_PROPERTY, name])
    mark = text.removesuffix("\n")
    return "" if "\n" in mark else mark


def _answer(door: Door, argv: Sequence[str]) -> str:
    """Return what zfs(8) answers of those things that there are; raises CommandFailed."""
    result = door.run(argv, check=False)
    reasons = lines_of(result.stderr)
    gone = bool(reasons) and all("dataset does not exist" in each for each in reasons)
    if result.status != 0 and not gone:
        raise CommandFailed(argv, failure(result))
    return result.stdout


def snapshots_on(door: Door, datasets: Sequence[str]) -> list[Listed]:
    """Return the snapshots of these datasets, not of those below them; raises CommandFailed.

    Of a dataset that has gone there are none. Name, guid and createtxg are what OpenZFS 2.2
    answers without reading the properties of each snapshot: zfs_list_only_by_fast() in
    cmd/zfs/zfs_iter.c. Others may keep thousands of them.
    """
    found: list[Listed] = []
    for part in chunks(datasets):
        argv = ["zfs", "list", "-Hp", "-d", "1", "-t", "snapshot", "-s", "name"]
        for row in _rows(door, [*argv, "-o", "name,guid,createtxg", *part], 3):
            if "@" in row[0] and row[2].isdigit():
                found.append(Listed(row[0], row[1], int(row[2])))
    return found


def created_at(door: Door, snapshots: Sequence[str]) -> dict[str, float]:
    """Return when each of these snapshots was made, as time(3) has it; raises CommandFailed.

    That is the moment of the original where a snapshot was received. One that has gone is
    not in the answer.
    """
    argv = ["zfs", "list", "-Hp", "-t", "snapshot", "-s", "name", "-o", "name,creation"]
    rows = _rows_about(door, argv, snapshots, 2)
    return {name: float(when) for name, when in rows if when.isdigit()}


def bear_our_mark(door: Door, snapshots: Sequence[str]) -> set[str]:
    """Return those of these snapshots that a run made, here or on the machine they came from.

    Raises CommandFailed.
    """
    argv = ["zfs", "get", "-H", "-s", "local,received", "-o", "name", RUN_PROPERTY]
    return {row[0] for row in _rows_about(door, argv, snapshots, 1)}


def copies_among(door: Door, beginnings: tuple[str, ...]) -> list[str]:
    """Return what was received with our mark, snapshots and clones that are called as ours are.

    They are copies of a run's, which ``zfs send -R`` or ``-p`` took along; one of a clone is a
    dataset of its own, in any place. The snapshots come first, for they have to go first. It
    asks as marked_among() does. Raises CommandFailed.
    """
    argv = ["zfs", "get", "-H", "-s", "received", "-o", "name", RUN_PROPERTY]
    likely = [name for name in _names(door) if _is_copy(name, beginnings)]
    found = {row[0] for row in _rows_about(door, argv, likely, 1)}
    return sorted(found, key=lambda name: ("@" not in name, name))


def _is_copy(name: str, beginnings: tuple[str, ...]) -> bool:
    """Say whether something is called as a snapshot of ours, or a clone, or one of a clone."""
    last = name.partition("@")[0].rpartition("/")[2]
    of_clone = is_like_our_clone(f"pool/{last}") and last.startswith(beginnings)
    return of_clone or ("@" in name and _is_called(name, beginnings))


def by_guid(door: Door, pool: str, guids: Iterable[str]) -> dict[str, str]:
    """Return what the snapshots of a pool with these guids are called now; raises CommandFailed."""
    argv = ["zfs", "list", "-Hp", "-r", "-t", "snapshot", "-s", "name", "-o", "name,guid", pool]
    wanted = set(guids)
    return {guid: name for name, guid in _rows(door, argv, 2) if guid in wanted}


def there(door: Door, snapshots: Sequence[str]) -> set[str]:
    """Return those of these snapshots that there are; raises CommandFailed."""
    argv = ["zfs", "list", "-H", "-t", "snapshot", "-s", "name", "-o", "name"]
    return {row[0] for row in _rows_about(door, argv, snapshots, 1)}


def _rows_about(
    door: Door, argv: Sequence[str], names: Sequence[str], width: int
) -> list[list[str]]:
    """Return the fields of what zfs(8) answers about ``names``, which each row begins with.

    What is taken for gone is not looked for any more, so an answer that is about something
    else is a failure and not silence.
    """
    known = set(names)
    rows = [row for part in chunks(names) for row in _rows(door, [*argv, *part], width)]
    if any(row[0] not in known for row in rows):
        raise CommandFailed(argv, "printed something that is not its result")
    return rows


def _rows(door: Door, argv: Sequence[str], width: int) -> list[list[str]]:
    """Return the fields of what zfs(8) answers; what is not there is no failure."""
    lines = lines_of(_answer(door, argv))
    rows = [row for row in (line.split("\t") for line in lines) if len(row) == width]
    if lines and not rows:
        raise CommandFailed(argv, "printed something that is not its result")
    return rows


def snapshots_of(door: Door, dataset: str) -> list[tuple[str, float]]:
    """Return the snapshots of one dataset: what stands after the @, and when each was made.

    Times are seconds as time(3) has them. Raises CommandFailed.
    """
    argv = ["zfs", "list", "-Hp", "-d", "1", "-t", "snapshot", "-o", "name,creation", dataset]
    pairs = (line.partition("\t") for line in lines_of(door.run(argv).stdout))
    return [(name.partition("@")[2], float(when)) for name, _, when in pairs if when.isdigit()]


def destroy(door: Door, snapshots: Sequence[str]) -> Destroyed:
    """Destroy exactly these snapshots, by one channel program for each pool.

    They must not be mounted any more. Where there is just one, and where a channel
    program does not work, it is done by zfs-destroy(8). A pool that does not answer is
    asked no more: it would take as long for each snapshot.
    """
    if any("@" not in name for name in snapshots):
        raise ValueError("only snapshots are ever destroyed")
    return _all_of(_destroy_in_pool(door, names) for names in by_pool(snapshots).values())


def _all_of(parts: Iterable[Destroyed]) -> Destroyed:
    done = list(parts)
    return Destroyed(
        tuple(each for part in done for each in part.left),
        tuple(name for part in done for name in part.missing),
    )


def _destroy_in_pool(door: Door, snapshots: Sequence[str]) -> Destroyed:
    if len(snapshots) == 1 or door.jailed:
        return _destroy_singly(door, snapshots)
    try:
        failed = _run_program(door, snapshots, destroy_program(snapshots))
    except GivenUp as error:
        return _all_left(snapshots, error.reason)
    except CommandFailed:
        return _destroy_singly(door, snapshots)
    missing = tuple(sorted(name for name, number in failed.items() if number == ENOENT))
    # zfs-destroy(8) unmounts what a look into .zfs/snapshot has mounted; a program cannot.
    others = sorted(failed.keys() - set(missing))
    return _all_of([_destroy_singly(door, others), Destroyed(missing=missing)])


def _destroy_singly(door: Door, snapshots: Sequence[str]) -> Destroyed:
    """Destroy snapshots one by one, until one of them does not come back."""
    done: list[Destroyed] = []
    for index, name in enumerate(snapshots):
        try:
            done.append(destroy_one(door, name))
        except GivenUp as error:
            done.append(_all_left(snapshots[index:], error.reason))
            break
    return _all_of(done)


def _all_left(snapshots: Sequence[str], reason: str) -> Destroyed:
    return Destroyed(left=tuple(NotDestroyed(name, reason) for name in snapshots))


def destroy_one(door: Door, name: str) -> Destroyed:
    """Destroy a snapshot, or a clone of ours, and return what came of it; raises GivenUp."""
    try:
        result = door.run(["zfs", "destroy", name], check=False)
    except GivenUp:
        raise
    except CommandFailed as error:
        return Destroyed(left=(NotDestroyed(name, error.reason),))
    if result.status == 0:
        return Destroyed()
    if is_gone(result):
        return Destroyed(missing=(name,))
    return Destroyed(left=(NotDestroyed(name, failure(result)),))


def is_gone(result: Result) -> bool:
    """Say whether ``zfs destroy`` failed because there was nothing to destroy."""
    return (
        "could not find any snapshots to destroy" in result.stderr
        or "dataset does not exist" in result.stderr
    )
