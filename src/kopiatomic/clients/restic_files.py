"""Choosing files of a restic snapshot for a drill, as ``restic ls`` lists them."""

from collections.abc import Mapping

from kopiatomic.clients.parsing import UNKNOWN_BYTE, as_marked, as_stored, nanoseconds, permissions
from kopiatomic.clients.records import File, Tally
from kopiatomic.record import TYPE_CHECKING
from kopiatomic.system.machine import ancestors, nearest

if TYPE_CHECKING:
    import random


class Choice:
    """A choice of the files of a snapshot as they pass by, and what there is of mount points.

    Of each mount point so many files are held as is its share, and besides so many
    of all as are wanted, each with the same chance.
    """

    def __init__(self, tally: Tally, wanted: int, rng: "random.Random") -> None:
        self.tally, self.wanted, self.rng = tally, wanted, rng
        # Of several that differ in bytes that are no text the backup tells one name.
        self.points: dict[str, list[str]] = {}
        for point in tally.points:
            self.points.setdefault(as_marked(point), []).append(point)
        self.seen = dict.fromkeys(self.points, 0)
        share = max(1, wanted // max(1, len(self.points)))
        self.of_points = {point: _Sample(share, rng) for point in self.points}
        self.of_all = _Sample(wanted, rng)
        self.there: set[str] = set()
        self.filled: set[str] = set()
        targets = tally.source.paths
        # Directories that are there for what lies below them, and say nothing of themselves.
        self.above = {each for path in targets for each in ancestors(path)}
        self.targets = set(targets)

    def watches(self, line: bytes) -> bool:
        """Say whether a line may tell of a file, or of a mount point and what is in it."""
        return b'"file"' in line or (bool(self.points) and line.startswith(b"{"))

    def take(self, node: Mapping[str, object], size_limit: int) -> None:
        """Look at an entry of the snapshot."""
        path = str(node["path"])
        if path in self.points and (node["type"] == "dir" or as_stored(path) in self.targets):
            self.there.add(path)
            self.seen[path] += 1
            if node["type"] != "dir":
                self.filled.add(path)
        parent = path.rpartition("/")[0] or "/"
        if parent in self.points and as_stored(path) not in self.above:
            self.filled.add(parent)
        file = _eligible(node, path, self.tally, size_limit)
        if file is None:
            return
        self.of_all.take(file)
        point = nearest(path, self.points) if self.points else None
        if point is not None:
            self.of_points[point].take(file)

    def settle(self) -> None:
        """Tell the tally which mount points are missing or empty."""
        for form, points in self.points.items():
            covered = nearest(as_stored(form), self.targets) is not None
            if not covered or not (form in self.there or form == "/"):
                self.tally.absent += points
            elif form not in self.filled:
                self.tally.empty += points
            elif self.seen[form] < len(points) > 1:
                self.tally.problems.append(
                    f"{self.seen[form]} of the {len(points)} that are called {as_stored(form)} in "
                    "the backup, since their names are not UTF-8, are in it"
                )

    def files(self) -> list[File]:
        """Return the files that were chosen, in a fixed order."""
        chosen = {file.path: file for sample in self.of_points.values() for file in sample.held}
        for file in self.of_all.held:
            if len(chosen) >= self.wanted:
                break
            chosen.setdefault(file.path, file)
        return list(chosen.values())


class _Sample:
    """So many of the things that pass by, each with the same chance."""

    def __init__(self, size: int, rng: "random.Random") -> None:
        self.size, self.rng = size, rng
        self.held: list[File] = []
        self.seen = 0

    def take(self, file: File) -> None:
        """Look at one more."""
        self.seen += 1
        slot = len(self.held) if len(self.held) < self.size else self.rng.randrange(self.seen)
        if slot < self.size:
            self.held[slot : slot + 1] = [file]


def _eligible(node: Mapping[str, object], path: str, tally: Tally, size_limit: int) -> File | None:
    """Return the file that an entry of ``restic ls --json`` is about, if it can be restored."""
    if node.get("type") != "file":
        return None
    size = int(str(node.get("size") or 0))
    if size > size_limit:
        tally.too_large += 1
        return None
    if UNKNOWN_BYTE in path:
        tally.unnamed += 1
        return None

    def number(name: str) -> int | None:
        value = node.get(name)
        return value if isinstance(value, int) else None

    mode = number("mode")
    return File(
        path, size, nanoseconds(node.get("mtime")), ("dump", tally.source.backup, path),
        ctime=nanoseconds(node.get("ctime")), inode=number("inode"), owner=number("uid"),
        group=number("gid"), mode=None if mode is None else permissions(mode),
    )  # fmt: skip
