"""Asking a kopia repository what is in the backups of a run."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence

from kopiatomic.clients.parsing import (
    as_marked,
    ask,
    json_objects,
    json_value,
    marked,
    member,
    nanoseconds,
    understood,
)
from kopiatomic.clients.reader import ClientFailed, Reader
from kopiatomic.clients.records import CLOCK_SLACK, Missing, Proof, Streamed, compared
from kopiatomic.record import Record
from kopiatomic.system.command import chunks, decode
from kopiatomic.system.machine import join, nearest


class Asked(Record):
    """The backups that kopia was asked for.

    ``moment`` is what --start-time was given, None if the user did; ``since`` is when
    kopia was started, both as time(3) has them; ``made`` are the ids it told;
    ``unchanged`` says whether it may have made none because nothing has changed.
    """

    paths: tuple[str, ...]
    moment: float | None
    since: float
    made: tuple[str, ...]
    unchanged: bool


class Directories:
    """Reads directories of a repository, each by a call of kopia; raises ClientFailed."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __call__(self, name: str) -> list[dict[str, object]]:
        """Return the entries of the directory object of that name."""
        return _dicts(ask(self.reader, dict, ("show", name), "entries")["entries"])


def entries_in(content: bytes) -> list[dict[str, object]]:
    """Return the entries of a directory object that was written to a file; raises ClientFailed."""
    with understood():
        return _dicts(json_value(content, dict)["entries"])


def _dicts(entries: object) -> list[dict[str, object]]:
    if entries is not None and not isinstance(entries, list):
        raise ClientFailed(1, "kopia show: the client printed something that is not understood")
    return [each for each in entries or () if isinstance(each, dict)]


def prove(reader: Reader, asked: Asked, points: Mapping[str, bool]) -> Proof:
    """Look for the mount points in the backups of the run; raises ClientFailed."""
    with understood():
        made, removed = _made(reader, asked)
        made = {name: each for name, each in made.items() if not each.get("incomplete")}
        stands_in = None
        # Where one was removed, an earlier one of that path would hide it.
        if asked.unchanged and not removed:
            for path in _without(made, asked.paths):
                old = _unchanged(reader, path)
                if old is not None:
                    stands_in = stands_in or str(old["id"])
                    made[str(old["id"])] = old
        held: dict[str, bool] = {}
        roots = {path_of(each): root_of(each) for each in made.values() if is_of_its_path(each)}
        read = Directories(reader)
        wanted: dict[str, set[str]] = {}
        for point in points:
            source = nearest(as_marked(point), roots)
            if source is not None:
                wanted.setdefault(source, set()).add(as_marked(point))
        for source, within in wanted.items():
            for point, full in _walk(read, roots[source], source, within):
                # Names that differ only in bytes that are not UTF-8 cannot be told apart.
                held[point] = held.get(point, True) and full
        moments = [nanoseconds(each["startTime"]) for each in made.values()]
    theirs = {point: held[as_marked(point)] for point in points if as_marked(point) in held}
    seconds = [None if each is None else each / 1e9 for each in moments]
    proof = compared(points, theirs, made, seconds, stands_in)
    if not removed:
        return proof
    return proof._replace(missing=tuple(_told(each, asked, roots) for each in proof.missing))


def _told(missing: Missing, asked: Asked, roots: Mapping[str, object]) -> Missing:
    """Say of a missing point that its backup was removed, if there is no backup of its path."""
    path = nearest(missing.point, asked.paths)
    if path is None or as_marked(path) in roots:
        return missing
    return missing._replace(removed=path)


def prove_stream(reader: Reader, asked: Asked) -> Streamed:
    """Look for the stream in the backups of the run; raises ClientFailed."""
    with understood():
        made = _manifests(reader, asked.made) if asked.made else _new(reader, asked)
        whole = {name: each for name, each in made.items() if not each.get("incomplete")}
        return streamed(whole, asked.paths[0])


def streamed(manifests: Mapping[str, Mapping[str, object]], stream: str) -> Streamed:
    """Return what manifests, by their ids, say of a stream, which is the only file of its source.

    Raises what comes of manifests that have another form.
    """
    sizes = []
    for each in manifests.values():
        files, size = (member(root_of(each), "summ", name) for name in ("files", "size"))
        ours = path_of(each) == as_marked(stream) and files == 1
        sizes.append(size if ours and isinstance(size, int) else None)
    known = [size for size in sizes if size is not None]
    whole = min(known) if known and len(known) == len(sizes) else None
    return Streamed(tuple(manifests), whole)


# Which backups they are


def listed(reader: Reader) -> list[dict[str, object]]:
    """Return what kopia lists of the manifests of all backups; raises ClientFailed."""
    found: list[dict[str, object]] = ask(
        reader, list, ("manifest", "list", "--json", "--filter", "type:snapshot")
    )
    return found


def _made(reader: Reader, asked: Asked) -> tuple[dict[str, dict[str, object]], bool]:
    """Return the manifests of the run, and whether some that kopia told are not there any more.

    kopia applies the retention of a source when it has made a backup of it, to that one too:
    https://kopia.io/docs/reference/command-line/common/snapshot-expire/
    """
    if not asked.made:
        return _new(reader, asked), False
    try:
        return _manifests(reader, asked.made), False
    except ClientFailed as error:
        # It fails where one of them is not there; a call that was ended tells nothing of that.
        if error.status < 0:
            raise
        known = {str(each["id"]) for each in listed(reader)}
        there = [name for name in asked.made if name in known]
        if len(there) == len(asked.made):
            raise
    return _manifests(reader, there), True


def _manifests(reader: Reader, names: Sequence[str]) -> dict[str, dict[str, object]]:
    """Return manifests by their ids, as ``kopia manifest show`` prints them: // id: ..., JSON."""
    found: dict[str, dict[str, object]] = {}
    for words in chunks(names):
        text = decode(marked(reader.whole("manifest", "show", *words)))
        shown = re.split(r"^(?:\})?// id: ([0-9a-f]+)$", text, flags=re.M)[1:]
        for name, rest in zip(shown[::2], shown[1::2], strict=True):
            # Of one that is not the last the closing brace stands before the next.
            objects = json_objects(rest) or json_objects(rest + "}")
            manifests = [each for each in objects if "rootEntry" in each]
            found[name] = manifests[0]
    if not set(names) <= set(found):
        raise ValueError("not every manifest was shown")
    return found


def _new(reader: Reader, asked: Asked) -> dict[str, dict[str, object]]:
    """Return the manifests that have been written since kopia was started, for these paths.

    Of one that is for another path the time has to be the one that was asked for.
    """
    names = [
        str(each["id"])
        for each in listed(reader)
        if (nanoseconds(each["mtime"]) or 0) >= (asked.since - CLOCK_SLACK) * 1e9
    ]
    paths = {as_marked(path) for path in asked.paths}
    return {
        name: each
        for name, each in (_manifests(reader, names) if names else {}).items()
        if _bears(each, asked.moment) and (path_of(each) in paths or asked.moment is not None)
    }


def _bears(manifest: Mapping[str, object], moment: float | None) -> bool:
    at = nanoseconds(manifest["startTime"])
    return moment is None or (at is not None and at // 10**9 == int(moment))


def _without(made: Mapping[str, Mapping[str, object]], paths: Sequence[str]) -> list[str]:
    have = {path_of(each) for each in made.values()}
    return [path for path in paths if as_marked(path) not in have]


def _unchanged(reader: Reader, path: str) -> dict[str, object] | None:
    """Return the last backup of a path if kopia's policy for it is to make no other like it."""
    policy = ask(reader, dict, ("policy", "show", "--json", path))
    if member(policy, "retention", "ignoreIdenticalSnapshots") is not True:
        return None
    last = [
        each
        for each in ask(reader, list, ("snapshot", "list", "--json", path))
        if path_of(each) == as_marked(path) and not each.get("incomplete")
    ]
    return max(last, key=lambda each: nanoseconds(each["startTime"]) or 0, default=None)


# What is in them


def path_of(manifest: Mapping[str, object]) -> str:
    """Return the path of which a manifest is; raises KeyError or TypeError if it has none."""
    path = member(manifest, "source", "path")
    if not isinstance(path, str):
        raise TypeError("no path")
    return path


def is_of_its_path(manifest: Mapping[str, object]) -> bool:
    """Say whether a manifest is of the directory that it names, as far as can be told.

    An action before the snapshot can put another one in its place, whose name the entry has:
    KOPIA_SNAPSHOT_PATH in https://kopia.io/docs/advanced/actions/
    """
    known = os.path.basename(path_of(manifest))
    return known in ("", root_of(manifest).get("name") or known)


def root_of(manifest: Mapping[str, object]) -> Mapping[str, object]:
    """Return the entry of the directory of which a manifest is; raises TypeError."""
    root = manifest.get("rootEntry")
    if not isinstance(root, dict):
        raise TypeError("no entry")
    return root


def has_entries(entry: Mapping[str, object]) -> bool:
    """Say whether a directory holds anything; raises LookupError or TypeError if it is unknown.

    It counts itself among its directories. What is no directory holds what it is.
    """
    if entry.get("type", "d") != "d":
        return True
    numbers = [member(entry, "summ", name) for name in ("files", "symlinks", "dirs")]
    whole = [number for number in numbers if isinstance(number, int)]
    if len(whole) != len(numbers):
        raise TypeError("no numbers")
    return sum(whole) > 1


def _walk(
    read: Directories, entry: Mapping[str, object], path: str, wanted: set[str]
) -> Iterator[tuple[str, bool]]:
    """Yield those of the ``wanted`` directories that are there, and whether they have entries."""
    if path in wanted:
        yield path, has_entries(entry)
    below: dict[str, set[str]] = {}
    for each in wanted - {path}:
        name = each[len(path.rstrip("/")) + 1 :].split("/")[0]
        below.setdefault(name, set()).add(each)
    if not below:
        return
    for child in read(str(entry["obj"])):
        inside = below.get(str(child["name"]))
        if inside and child["type"] == "d":
            yield from _walk(read, child, join(path, f"/{child['name']}"), inside)
