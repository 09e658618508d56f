"""Asking a restic repository what is in the backup of a run."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set

from kopiatomic.clients.parsing import (
    UNKNOWN_BYTE,
    as_marked,
    as_stored,
    ask,
    marked,
    member,
    nanoseconds,
    understood,
)
from kopiatomic.clients.reader import ClientFailed, Reader
from kopiatomic.clients.records import CLOCK_SLACK, Proof, Streamed, compared, missing_in
from kopiatomic.record import Record
from kopiatomic.system.command import ARGUMENT_BYTES, argument_bytes, chunks
from kopiatomic.system.machine import ancestors, nearest

# A moment that was told to the second, and not in words or by a command.
_TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"

# The options that name a file of excludes.
PATTERN_FILES = ("--exclude-file", "--iexclude-file")

_NOT_UNDERSTOOD = "restic ls: the client printed something that is not understood"


class Asked(Record):
    """The backup that restic was asked for: under which host, of what, and when.

    ``time`` is what --time was given; ``since`` is when restic was started, ``before``
    the moment that no parent is newer than, None if not known, both as time(3) has them.
    """

    host: str
    paths: tuple[str, ...]
    time: str
    since: float
    before: float | None


class _Held(Record):
    """What a snapshot has: its id, its moment, and which of the points, with entries or not."""

    backup: str
    moment: float | None
    points: dict[str, bool]


def prove(
    reader: Reader,
    asked: Asked,
    points: Mapping[str, bool],
    made: Sequence[str],
    parent: str | None,
) -> Proof:
    """Look for the mount points in the snapshots ``made``, or in what is found to be new.

    ``parent`` is given where restic may have made none because nothing has changed:
    the snapshot that stands in, or "" if it is to be found. Raises ClientFailed.
    """
    backups, stands_in = tuple(made), False
    if not backups:
        listed = _listed(reader, asked.host)
        backups = _new(listed, asked)
        if not backups and parent is not None:
            old = parent or _newest(listed, asked)
            backups, stands_in = ((old,), True) if old else ((), False)
    held: dict[str, bool] = {}
    looked_at: list[_Held] = []
    failure: ClientFailed | None = None
    for backup in backups:
        missing = missing_in(held, points)
        try:
            wanted = [each.point for each in missing]
            found = _look(reader, backup, wanted, points, frozenset(asked.paths))
        except ClientFailed as error:
            failure = error  # one of several repositories, perhaps
            continue
        looked_at.append(found)
        for point, has_entries in found.points.items():
            held[point] = held.get(point, False) or has_entries
    if failure is not None and (missing_in(held, points) or not looked_at):
        raise failure
    names = [each.backup for each in looked_at]
    moments = [each.moment for each in looked_at]
    return compared(points, held, names, moments, names[-1] if stands_in else None)


def prove_stream(reader: Reader, asked: Asked, made: Sequence[str]) -> Streamed:
    """Look for the only path in the snapshots ``made``, or in the new one; raises ClientFailed."""
    (stream,) = asked.paths
    backups = tuple(made) or _new(_listed(reader, asked.host), asked)
    sizes = [size_in(reader, backup, stream) for backup in backups]
    known = [size for size in sizes if size is not None]
    return Streamed(backups, min(known) if known and len(known) == len(sizes) else None)


def size_in(reader: Reader, backup: str, path: str) -> int | None:
    """Return the size of a file in a snapshot, None where it is not; raises ClientFailed."""
    size = None
    begun = False
    with understood():
        for node in _nodes(reader, backup, [path.rpartition("/")[0] or "/"]):
            begun = True
            if node.get("path") == as_marked(path) and node.get("type") == "file":
                size = int(str(node.get("size") or 0))
    if not begun:
        raise ClientFailed(1, _NOT_UNDERSTOOD)
    return size


# Which snapshot it is


def _listed(reader: Reader, host: str) -> list[dict[str, object]]:
    return [
        each
        for each in ask(reader, list, ("snapshots", "--no-lock", "--json", "--host", host))
        if isinstance(each, dict) and each.get("hostname") == host
    ]


def _new(listed: Sequence[Mapping[str, object]], asked: Asked) -> tuple[str, ...]:
    """Return the id of the snapshot that this run has made, if it is there.

    A snapshot knows when it was begun, whatever time it was told to bear, from restic
    0.17 on; before, the time has to do.
    """
    paths = {as_stored(path) for path in asked.paths}
    best: tuple[bool, bool, int, str] | None = None
    for each in listed:
        with understood():
            begun = nanoseconds(member(each, "summary", "backup_start"))
            theirs = each["paths"]
            same_paths = isinstance(theirs, list) and set(theirs) == paths
            same_time = str(each["time"])[:19].replace("T", " ") == asked.time
            ours = begun >= (asked.since - CLOCK_SLACK) * 1e9 if begun is not None else same_time
            # A wrapper may have given it other paths; but a backup of the same paths that
            # another job has made meanwhile bears another time.
            if ours and (same_time or (same_paths and not re.fullmatch(_TIME, asked.time))):
                candidate = (same_paths, same_time, begun or 0, str(each["id"]))
                best = candidate if best is None else max(best, candidate)
    return () if best is None else (best[3],)


def _newest(listed: Sequence[Mapping[str, object]], asked: Asked) -> str | None:
    """Return the snapshot that restic takes for its parent: the newest of all the paths."""
    paths = {as_stored(path) for path in asked.paths}
    best: tuple[int, str] | None = None
    for each in listed:
        with understood():
            theirs, moment = each["paths"], nanoseconds(each["time"])
            if not isinstance(theirs, list) or moment is None or not paths <= set(theirs):
                continue
            if asked.before is None or moment <= asked.before * 1e9:
                candidate = (moment, str(each["id"]))
                best = candidate if best is None else max(best, candidate)
    return None if best is None else best[1]


# What is in it


# So many points that lie in one directory are looked for in the list of that directory: restic
# compares each file it passes by with each path that it is asked for. With fewer, another
# start of restic costs more than that.
MANY = 1000


class _Question(Record):
    """What ``restic ls`` is asked for at a time, and the points that its answer is about."""

    paths: list[str]
    points: list[str]


def _look(
    reader: Reader,
    backup: str,
    points: Sequence[str],
    captured: Mapping[str, bool],
    own: Set[str],
) -> _Held:
    """Ask which of the points a snapshot has, by ``restic ls``, which takes paths as they are.

    Of directories that were only listed where they lie, what is in them is asked for as well.
    ``own`` are the paths that restic was given.
    """
    there: dict[str, bool] = {}
    leads = {each for point in captured for each in ancestors(as_marked(point))}
    first, listed = _questions(reader, points, own)
    answers = [_answer(reader, backup, each, there, leads) for each in first]
    unsure = [each for each in listed if captured[each] and there.get(each) is False]
    second = [*_each(reader, unsure)]
    answers += [_answer(reader, backup, each, there, leads) for each in second]
    name, moment = backup, None
    for snapshot in answers:
        with understood():
            name, moment = str(snapshot["id"]), nanoseconds(snapshot.get("time"))
    return _Held(name, None if moment is None else moment / 1e9, there)


def _answer(
    reader: Reader, backup: str, question: _Question, there: dict[str, bool], leads: Set[str]
) -> Mapping[str, object]:
    """Enter what the answer to a question tells; return the snapshot, or raise ClientFailed.

    There are the directories above what is backed up as well: they say nothing of
    themselves, and what leads to another path, or to another captured mount point (in
    ``leads``), says nothing of the directory it is in. A file is held where it was backed
    up by itself.
    """
    forms = {as_marked(point): point for point in question.points}
    above: set[str] = set()
    targets: set[str] = set()
    snapshot: Mapping[str, object] | None = None
    with understood():
        for node in _nodes(reader, backup, question.paths):
            if snapshot is None:
                snapshot = node
                targets = _paths(snapshot)
                above = {each for path in targets for each in ancestors(path)}
                forms = {
                    form: point for form, point in forms.items()
                    if nearest(as_stored(form), targets)
                }  # fmt: skip
                there.update({"/": False} if "/" in forms else {})
                continue
            path, parent = str(node["path"]), str(node["path"]).rpartition("/")[0] or "/"
            if path in forms and node["type"] == "dir":
                there.setdefault(forms[path], False)
            elif path in forms and as_stored(path) in targets:
                there[forms[path]] = True
            if parent in forms and path not in leads and as_stored(path) not in above:
                there[forms[parent]] = True
    if snapshot is None:
        raise ClientFailed(1, _NOT_UNDERSTOOD)
    return snapshot


def _paths(snapshot: Mapping[str, object]) -> set[str]:
    """Return the paths of a snapshot; as_stored() says in which form."""
    paths = snapshot["paths"]
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ValueError("no paths")
    return set(paths)


def _questions(
    reader: Reader, points: Sequence[str], own: Set[str]
) -> tuple[list[_Question], list[str]]:
    """Return what to ask to know of all points, and those that are looked for where they lie.

    That is for long lists of files, and not for mount points within another path.
    """
    within: dict[str, list[str]] = {}
    for point in points if len(own) >= MANY else ():
        if point in own:
            within.setdefault(point.rpartition("/")[0] or "/", []).append(point)
    crowded = {
        place: each for place, each in within.items()
        if len(each) >= MANY and not any(UNKNOWN_BYTE in as_marked(point) for point in each)
    }  # fmt: skip
    listed = [point for each in crowded.values() for point in each]
    known = set(listed)
    asked = [*_each(reader, [point for point in points if point not in known])]
    return [*asked, *(_Question([place], each) for place, each in crowded.items())], listed


def _each(reader: Reader, points: Sequence[str]) -> Iterator[_Question]:
    """Split points so that each list fits on a command line, and its answer is clear.

    Of a name that is not UTF-8 the answer does not tell which it is, so each of them is
    asked for alone: restic takes it as it is.
    """
    plain: list[str] = []
    odd: list[str] = []
    for point in points:
        (odd if UNKNOWN_BYTE in as_marked(point) else plain).append(point)
    room = ARGUMENT_BYTES - argument_bytes([*reader.base, *"ls --no-lock --json ID".split()]) - 99
    for words in (*chunks(plain, room), *([point] for point in odd)):
        yield _Question(words, words)


def _nodes(reader: Reader, backup: str, points: Sequence[str]) -> Iterator[Mapping[str, object]]:
    """Yield what ``restic ls`` tells: the snapshot first, then what is in it."""
    begun = False
    for line in reader.lines("ls", "--no-lock", "--json", backup, *points):
        if not line.startswith(b"{"):
            continue  # a wrapper's
        try:
            node = json.loads(marked(line))
        except (ValueError, RecursionError):
            if begun:
                raise ValueError("no JSON") from None
            continue
        kind = node.get("struct_type") or node.get("message_type")
        if not begun and kind == "snapshot" and str(node["id"]).startswith(backup):
            begun = True
            yield node
        elif begun and kind == "node":
            yield node


# Why something is not


def patterns(options: Sequence[tuple[str, str | None]]) -> Iterator[str]:
    """Yield the patterns of excludes, those in files as well, as far as they can be read."""
    for name, value in options:
        if name in ("--exclude", "-e", "--iexclude"):
            yield value or ""
        elif name in PATTERN_FILES:
            try:
                with open(value or "", encoding="utf-8", errors="surrogateescape") as file:
                    lines = file.read(1 << 20).splitlines()
            except (OSError, ValueError):
                continue
            yield from (line.strip() for line in lines if line.strip()[:1] not in ("", "#", "!"))


def excludes(pattern: str, path: str) -> bool:
    """Say whether a pattern of restic's keeps a path out, by itself or something above it.

    Beside ``*``, ``?`` and ``[...]`` within a name there is ``**`` for any names
    (filter.Match() in its internal/filter).
    """
    absolute = pattern.startswith("/")
    names = [_of_name(name) for name in pattern.strip("/").split("/") if name]
    if not names:
        return False
    start = "/" if absolute else "(?:/.*)?/"
    whole = start + "/".join(names).replace("(?:.*)/", "(?:.*/)?")
    return re.fullmatch(whole + "(?:/.*)?", path, re.S) is not None


def _of_name(name: str) -> str:
    if name == "**":
        return "(?:.*)"
    parts = re.findall(r"\\(.)|(\*)|(\?)|(\[\^?[^\]]+\])|(.)", name, re.S)
    return "".join(
        re.escape(escaped or plain) if escaped or plain
        else "[^/]*" if star else "[^/]" if any_one else group
        for escaped, star, any_one, group, plain in parts
    )  # fmt: skip
