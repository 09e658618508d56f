"""What there is in a repository: its newest backups, and files of them chosen at random."""

import json
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from kopiatomic.clients.reader import ClientFailed, Reader

# JSON of Go has this for bytes that are not UTF-8, and U+FFFD itself unescaped.
_NOT_UTF8 = re.compile(rb"(?<!\\)(?:\\\\)*\\ufffd")


@dataclass(frozen=True)
class Source:
    """The newest backup of one source: its id, its paths, the moment it shows."""

    backup: str
    title: str
    moment: float
    # kopia's: the path of the source and the entry of its root.
    path: str = ""
    root: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class File:
    """A file in a backup: as it was recorded, and the words that make the client print it.

    Times are in nanoseconds, None where the backup does not know.
    """

    path: str
    size: int
    mtime: int | None
    fetch: tuple[str, ...]
    ctime: int | None = None
    inode: int | None = None


@dataclass
class Tally:
    """What came of one source; ``too_large`` and ``unnamed`` files were not chosen."""

    source: Source
    chosen: int = 0
    restored: int = 0
    identical: int = 0
    changed: list[str] = field(default_factory=list)
    too_large: int = 0
    unnamed: int = 0
    problems: list[str] = field(default_factory=list)


@contextmanager
def _understood() -> Iterator[None]:
    """Raise ClientFailed where the client's answer has another form than it should."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ClientFailed(1, "the client printed something that is not understood") from error


# restic


@_understood()
def restic_sources(reader: Reader, host: str) -> list[Source]:
    """Return the newest snapshot of ``host`` for each of its groups of paths."""
    answer = reader.whole("snapshots", "--json", "--latest", "1", "--host", host)
    return [
        Source(
            backup=str(each["id"]),
            title=", ".join(map(str, each["paths"])),
            moment=(nanoseconds(each["time"]) or 0) / 1e9,
        )
        for each in _json(answer, list)
    ]


@_understood()
def restic_files(
    reader: Reader, tally: Tally, wanted: int, size_limit: int, rng: random.Random
) -> list[File]:
    """Return files of a snapshot, each with the same chance; memory is for those only.

    ``restic dump`` is asked for a file by its path, which takes no pattern; a
    path that is not UTF-8 it does not tell us in a form to ask with.
    """
    chosen: list[File] = []
    seen = 0
    backup = tally.source.backup
    for line in reader.lines("ls", "--json", backup):
        if b'"file"' not in line:
            continue
        node = _json(line, dict)
        if node.get("type") != "file":
            continue
        size = int(node.get("size") or 0)
        if size > size_limit:
            tally.too_large += 1
            continue
        if _NOT_UTF8.search(line):
            tally.unnamed += 1
            continue
        seen += 1
        slot = len(chosen) if len(chosen) < wanted else rng.randrange(seen)
        if slot < wanted:
            chosen[slot : slot + 1] = [_restic_file(backup, node, size)]
    return chosen


def _restic_file(backup: str, node: Mapping[str, object], size: int) -> File:
    path = str(node["path"])
    inode = node.get("inode")
    return File(
        path, size, nanoseconds(node.get("mtime")), ("dump", backup, path),
        ctime=nanoseconds(node.get("ctime")), inode=inode if isinstance(inode, int) else None,
    )  # fmt: skip


# kopia


@_understood()
def kopia_sources(reader: Reader) -> list[Source]:
    """Return the newest complete backup of each source of this user and host."""
    newest: dict[str, Source] = {}
    for each in _json(reader.whole("snapshot", "list", "--json"), list):
        if each.get("incomplete"):
            continue
        path = str(each["source"]["path"])
        moment = (nanoseconds(each["startTime"]) or 0) / 1e9
        if path not in newest or newest[path].moment < moment:
            root = each["rootEntry"]
            newest[path] = Source(str(each["id"]), path, moment, path=path, root=root)
    return [newest[path] for path in sorted(newest)]


@_understood()
def kopia_files(
    reader: Reader, tally: Tally, wanted: int, size_limit: int, rng: random.Random
) -> list[File]:
    """Return files of a backup, each with the same chance.

    Every directory entry says how many files there are below it, so the number
    of a file leads to it; only the directories on the way are read. A file is
    asked for by its object, so its name does not matter.
    """

    @lru_cache(maxsize=32)
    def entries(name: str) -> list[dict[str, object]]:
        listing = _json(reader.whole("show", name), dict)["entries"]
        return [each for each in listing or () if isinstance(each, dict)]

    root, path = tally.source.root, tally.source.path
    total = _files_below(root)
    chosen: list[File] = []
    # Some of them may be too large.
    for number in rng.sample(range(total), min(total, 4 * wanted + 20)):
        if len(chosen) == wanted:
            break
        here, at, left = root, path, number
        while here.get("type") == "d":
            for entry in entries(str(here["obj"])):
                count = _files_below(entry)
                if left < count:
                    here, at = entry, f"{at.rstrip('/')}/{entry['name']}"
                    break
                left -= count
            else:
                raise ClientFailed(1, f"the directory {at} holds fewer files than was noted")
        size = here.get("size")
        size = size if isinstance(size, int) else 0
        if size > size_limit:
            tally.too_large += 1
        else:
            fetch = ("show", str(here["obj"]))
            chosen.append(File(at, size, nanoseconds(here.get("mtime")), fetch))
    return chosen


def _files_below(entry: Mapping[str, object]) -> int:
    if entry.get("type") == "f":
        return 1
    summary = entry.get("summ")
    count = summary.get("files") if isinstance(summary, dict) else 0
    return count if isinstance(count, int) else 0


def _json(text: bytes, kind: type) -> Any:
    """Return the JSON value that the client printed; raises ValueError if it is none."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("too deep to be an answer") from error
    if not isinstance(value, kind):
        raise ValueError(f"no {kind.__name__}")
    return value


def nanoseconds(text: object) -> int | None:
    """Return a time as the clients print it, to the nanosecond; None if it is no time."""
    match = re.fullmatch(r"([^.]+?)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", str(text))
    if not match:
        return None
    zone = "+00:00" if match[3] == "Z" else match[3]
    try:
        whole = datetime.fromisoformat(match[1] + zone)
    except ValueError:
        return None
    if whole.tzinfo is None:  # a date, to which no zone belongs
        return None
    seconds = (whole - _EPOCH) // timedelta(seconds=1)
    return seconds * 10**9 + int((match[2] or "0").ljust(9, "0"))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
