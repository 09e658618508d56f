"""Choosing files of a kopia backup for a drill, by their numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from kopiatomic.clients.kopia_objects import Listings, walked
from kopiatomic.clients.kopia_proof import has_entries
from kopiatomic.clients.parsing import (
    as_marked,
    as_stored,
    count,
    member,
    nanoseconds,
    permissions,
    understood,
)
from kopiatomic.clients.reader import ClientFailed, Reader
from kopiatomic.clients.records import File, Source, Tally
from kopiatomic.clients.room import Room
from kopiatomic.record import TYPE_CHECKING, Record
from kopiatomic.system.machine import ancestors, join, lies_in, nearest

if TYPE_CHECKING:
    import random

    from kopiatomic.clients.kopia_objects import Entry, Walk


def choose(
    reader: Reader,
    room: Room,
    tally: Tally,
    wanted: int,
    size_limit: int,
    rng: random.Random,
) -> list[File]:
    """Do what Client.files() says."""
    with understood():
        tree = _Tree(Listings(reader, room), tally.source)
        parts = tree.parts(tally)
        choice = _Choice(tree, size_limit)
        share = max(1, wanted // max(1, len(parts)))
        choice.take([_Draw(part, share, wanted, rng) for part in parts])
        # What one mount point lacks another may have.
        missing = wanted - len(choice.files)
        if missing > 0:
            whole = _Part(tree.root, tree.path, {}, _files_below(tree.root))
            choice.take([_Draw(whole, missing, wanted, rng)])
    tally.too_large += len(choice.large)
    return list(choice.files.values())


class _Part(Record):
    """A mount point in a backup: its entry, its path, and what of it belongs to others.

    ``others`` says of directories how many of the files in them belong to other mount
    points; ``total`` is the number of files without those.
    """

    entry: Mapping[str, object]
    path: str
    others: Mapping[str, int]
    total: int


class _Tree:
    """The files of a backup by their number, in the order in which kopia lists them."""

    def __init__(self, listings: Listings, source: Source) -> None:
        self.listings = listings
        self.root: Mapping[str, object] = source.root or {}
        self.path = source.path

    def parts(self, tally: Tally) -> list[_Part]:
        """Return the tally's mount points that are in the backup; tell it of the others."""
        found: dict[str, Mapping[str, object]] = {}
        entries = walked(self.listings, [self._way_to(as_marked(each)) for each in tally.points])
        for point, entry in zip(tally.points, entries, strict=True):
            if entry is None:
                tally.absent.append(point)
                continue
            found[as_marked(point)] = entry
            if not has_entries(entry):
                tally.empty.append(point)
        others: dict[str, dict[str, int]] = {path: {} for path in found}
        for path, entry in found.items():
            above = nearest(path.rpartition("/")[0] or "/", found)
            if above is None or above == path:
                continue
            for directory in ancestors(path):
                others[above][directory] = others[above].get(directory, 0) + _files_below(entry)
                if directory == above:
                    break
        parts = []
        for path, entry in found.items():
            total = _files_below(entry) - others[path].get(path, 0)
            if total > 0:
                parts.append(_Part(entry, path, others[path], total))
        return parts

    def _way_to(self, path: str) -> Walk[Entry | None]:
        """Return the entry of a directory, None where there is none."""
        if not lies_in(as_stored(path), as_stored(self.path)):
            return None
        here = self.root
        for name in filter(None, path[len(self.path) :].split("/")):
            listing = yield here
            inside = (each for each in listing if each["name"] == name and each["type"] == "d")
            below = next(inside, None)
            if below is None:
                return None
            here = below
        return here

    def file(self, part: _Part, number: int) -> Walk[tuple[Entry, str]]:
        """Return the entry of a file and its path; raises ClientFailed if it is not there."""
        here, at, left = part.entry, part.path, number
        while here.get("type") == "d":
            for entry in (yield here):
                path = join(at, f"/{entry['name']}")
                files = _files_below(entry) - part.others.get(path, 0)
                if left < files:
                    here, at = entry, path
                    break
                left -= files
            else:
                raise ClientFailed(1, f"the directory {at} holds fewer files than was noted")
        return here, at


class _Draw:
    """The numbers of a part's files in a random order, of which so many are ``missing`` yet."""

    def __init__(self, part: _Part, missing: int, wanted: int, rng: random.Random) -> None:
        self.part, self.missing = part, missing
        # Some of them may be too large.
        self.numbers = rng.sample(range(part.total), min(part.total, 4 * wanted + 20))

    def next(self) -> list[int]:
        """Return as many numbers as are missing, and there."""
        now, self.numbers = self.numbers[: self.missing], self.numbers[self.missing :]
        return now


class _Choice:
    """The files that were chosen, by their paths, and those that are too large."""

    def __init__(self, tree: _Tree, size_limit: int) -> None:
        self.tree, self.size_limit = tree, size_limit
        self.files: dict[str, File] = {}
        self.large: set[str] = set()

    def take(self, draws: Sequence[_Draw]) -> None:
        """Choose what is missing of each part; every file in it has the same chance."""
        while drawn := [(draw, number) for draw in draws for number in draw.next()]:
            walks = [self.tree.file(draw.part, number) for draw, number in drawn]
            found = walked(self.tree.listings, walks)
            for (draw, _), (entry, path) in zip(drawn, found, strict=True):
                if count(entry.get("size")) > self.size_limit:
                    self.large.add(path)
                elif path not in self.files:
                    self.files[path] = _file(entry, path)
                    draw.missing -= 1


def _file(entry: Entry, path: str) -> File:
    mode = str(entry.get("mode", ""))
    return File(
        path, count(entry.get("size")), nanoseconds(entry.get("mtime")),
        ("show", str(entry["obj"])),
        owner=count(entry.get("uid")), group=count(entry.get("gid")),
        mode=permissions(int(mode, 8)) if re.fullmatch("[0-7]{1,11}", mode) else None,
    )  # fmt: skip


def _files_below(entry: Mapping[str, object]) -> int:
    if entry.get("type") == "f":
        return 1
    files = member(entry, "summ", "files")
    return files if isinstance(files, int) else 0
