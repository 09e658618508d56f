"""Choosing files of a kopia backup for a drill, by their numbers."""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from kopiatomic.clients.base import File, Source, Tally, permissions
from kopiatomic.clients.kopia_proof import Directories, has_entries
from kopiatomic.clients.parsing import as_marked, count, member, nanoseconds, understood
from kopiatomic.clients.reader import ClientFailed, Reader
from kopiatomic.record import TYPE_CHECKING, Record
from kopiatomic.system.machine import ancestors, join, lies_in, nearest

if TYPE_CHECKING:
    import random


def choose(
    reader: Reader, tally: Tally, wanted: int, size_limit: int, rng: "random.Random"
) -> list[File]:
    """Do what Client.files() says."""
    chosen: dict[str, File] = {}
    large: set[str] = set()
    with understood():
        tree = _Tree(reader, tally.source)
        parts = tree.parts(tally)
        share = max(1, wanted // max(1, len(parts)))
        for part in parts:
            for file in _some(tree, part, large, share, size_limit, rng):
                chosen.setdefault(file.path, file)
        # What one mount point lacks another may have.
        if len(chosen) < wanted:
            whole = _Part(tree.root, tree.path, {}, _files_below(tree.root))
            for file in _some(tree, whole, large, wanted, size_limit, rng):
                if len(chosen) == wanted:
                    break
                chosen.setdefault(file.path, file)
    tally.too_large += len(large)
    return list(chosen.values())


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

    def __init__(self, reader: Reader, source: Source) -> None:
        self.root: Mapping[str, object] = source.root or {}
        self.path = source.path
        self.entries = lru_cache(maxsize=32)(Directories(reader))
        self._directories = lru_cache(maxsize=32)(self._directories_in)

    def parts(self, tally: Tally) -> list[_Part]:
        """Return the tally's mount points that are in the backup; tell it of the others."""
        found: dict[str, Mapping[str, object]] = {}
        for point in tally.points:
            entry = self._find(as_marked(point))
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

    def _directories_in(self, name: str) -> dict[str, Mapping[str, object]]:
        """Return the directories in a directory by their names; of two of a name, the first."""
        listing = self.entries(name)
        return {str(each["name"]): each for each in reversed(listing) if each["type"] == "d"}

    def _find(self, path: str) -> Mapping[str, object] | None:
        """Return the entry of a directory, None where there is none."""
        if not lies_in(path, self.path):
            return None
        here = self.root
        for name in filter(None, path[len(self.path) :].split("/")):
            inside = self._directories(str(here["obj"])).get(name)
            if inside is None:
                return None
            here = inside
        return here

    def file(self, part: _Part, number: int) -> tuple[Mapping[str, object], str]:
        """Return the entry of a file and its path; raises ClientFailed if it is not there."""
        here, at, left = part.entry, part.path, number
        while here.get("type") == "d":
            for entry in self.entries(str(here["obj"])):
                path = join(at, f"/{entry['name']}")
                files = _files_below(entry) - part.others.get(path, 0)
                if left < files:
                    here, at = entry, path
                    break
                left -= files
            else:
                raise ClientFailed(1, f"the directory {at} holds fewer files than was noted")
        return here, at


def _some(
    tree: _Tree, part: _Part, large: set[str], wanted: int, size_limit: int, rng: "random.Random"
) -> Iterator[File]:
    """Yield so many files of a part, each with the same chance, and note the large ones."""
    # Some of them may be too large.
    found = 0
    for number in rng.sample(range(part.total), min(part.total, 4 * wanted + 20)):
        if found == wanted:
            return
        entry, path = tree.file(part, number)
        size = count(entry.get("size"))
        if size > size_limit:
            large.add(path)
            continue
        found += 1
        mode = str(entry.get("mode", ""))
        yield File(
            path, size, nanoseconds(entry.get("mtime")), ("show", str(entry["obj"])),
            owner=count(entry.get("uid")), group=count(entry.get("gid")),
            mode=permissions(int(mode, 8)) if re.fullmatch("[0-7]{1,11}", mode) else None,
        )  # fmt: skip


def _files_below(entry: Mapping[str, object]) -> int:
    if entry.get("type") == "f":
        return 1
    files = member(entry, "summ", "files")
    return files if isinstance(files, int) else 0
