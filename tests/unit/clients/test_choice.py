"""Which files a drill takes of a backup, and what it finds of the mount points."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from kopiatomic.clients.base import File, Source, Tally, permissions
from kopiatomic.clients.kopia import Kopia
from kopiatomic.clients.restic import Restic
from kopiatomic.repository.comparison import IDENTICAL, against
from kopiatomic.repository.drill import shared_out

LIMIT = 1 << 30

# A tree as a nested table: a file is its size.
TREE = {
    "a": {f"f{number}": 3 for number in range(50)},
    "b": {"deep": {"g": 3, "nested": {"h": 3, "i": 3}}, "large": LIMIT + 1},
    "empty": {},
    "only": {"mount": {"j": 3}},
}


class Restics:
    """Answers as ``restic ls`` does."""

    def __init__(self, tree: dict, above: str = "/p") -> None:
        self.told = [json.dumps({"struct_type": "snapshot", "paths": [above]})]
        self.walk(above, tree)

    def walk(self, path: str, tree: dict) -> None:
        self.told.append(json.dumps({"path": path, "type": "dir"}))
        for name, inside in tree.items():
            if isinstance(inside, dict):
                self.walk(f"{path}/{name}", inside)
            else:
                entry = {"path": f"{path}/{name}", "type": "file", "size": inside, "mode": 0o644}
                self.told.append(json.dumps({**entry, "uid": 7, "gid": 8}))

    def lines(self, *words: str) -> list[bytes]:
        return [b"the wrapper says {}", b"{not json", *map(str.encode, self.told)]


class Kopias:
    """Answers as ``kopia show`` does, and counts how often it was asked."""

    preface = b""

    def __init__(self, tree: dict) -> None:
        self.objects: dict[str, dict] = {}
        self.root = self.entry("p", tree)
        self.asked: Counter[str] = Counter()

    def entry(self, name: str, inside: object) -> dict:
        if not isinstance(inside, dict):
            return {"name": name, "type": "f", "size": inside, "obj": f"f{len(self.objects)}",
                    "mode": "04000755", "uid": 7}  # fmt: skip
        entries = [self.entry(*item) for item in inside.items()]
        sums = {"files": 0, "dirs": 1, "symlinks": 0}
        for each in entries:
            for key in sums:
                sums[key] += each["summ"][key] if "summ" in each else key == "files"
        key = f"k{len(self.objects)}"
        self.objects[key] = {"stream": "kopia:directory", "entries": entries or None}
        return {"name": name, "type": "d", "obj": key, "summ": sums}

    def whole(self, *words: str) -> bytes:
        self.asked[words[-1]] += 1
        return b"Connected\n" + json.dumps(self.objects[words[-1]]).encode()


def choose(name: str, wanted: int, *points: str, seed: int = 1, tree: dict = TREE):
    """Return the paths that were chosen, and the tally."""
    rng = random.Random(seed)
    if name == "restic":
        tally = Tally(Source("id", "/p", 9.0, paths=("/p",)), points)
        files = Restic().files(Restics(tree), tally, wanted, LIMIT, rng)
    else:
        reader = Kopias(tree)
        tally = Tally(Source("id", "/p", 9.0, "/p", reader.root, ("/p",)), points)
        files = Kopia().files(reader, tally, wanted, LIMIT, rng)
        assert max(reader.asked.values(), default=0) <= 1
    return [file.path for file in files], tally


@pytest.mark.parametrize("name", ["restic", "kopia"])
class TestChoice:
    def test_each_mount_point_has_its_share(self, name: str):
        points = ("/p", "/p/a", "/p/b/deep/nested", "/p/only/mount")
        for seed in range(20):
            paths, tally = choose(name, 4, *points, seed=seed)
            assert len(set(paths)) == 4
            assert sum(path.startswith("/p/a/") for path in paths) == 1
            assert sum(path.startswith("/p/b/deep/nested/") for path in paths) == 1
            assert "/p/b/deep/g" in paths
            assert "/p/only/mount/j" in paths
            assert (tally.absent, tally.empty) == ([], [])

    def test_more_mount_points_than_files(self, name: str):
        paths, _ = choose(name, 1, "/p/a", "/p/b", "/p/only")
        assert len(paths) == 3

    def test_what_some_lack_others_have(self, name: str):
        paths, _ = choose(name, 10, "/p/only", "/p/a", "/p/empty")
        assert len(paths) == 10
        assert "/p/only/mount/j" in paths

    def test_every_file_has_a_chance(self, name: str):
        chosen = Counter()
        for seed in range(150):
            chosen.update(choose(name, 3, "/p", "/p/a", seed=seed)[0])
        assert {"/p/b/deep/g", "/p/b/deep/nested/h", "/p/b/deep/nested/i"} < set(chosen)
        assert len([path for path in chosen if path.startswith("/p/a/")]) > 40
        assert "/p/b/large" not in chosen

    def test_all_there_are(self, name: str):
        paths, tally = choose(name, 999, "/p", "/p/a")
        assert len(paths) == len(set(paths)) == 54
        assert tally.too_large >= 1
        assert choose(name, 999)[0]

    def test_what_is_not_there(self, name: str):
        _, tally = choose(name, 3, "/p/a", "/p/gone", "/p/empty", "/p/a/f1", "/other", "/p/only")
        assert tally.absent == ["/p/gone", "/p/a/f1", "/other"]
        assert tally.empty == ["/p/empty"]

    def test_a_backup_without_files(self, name: str):
        paths, tally = choose(name, 3, "/p", "/p/x", tree={"x": {}})
        assert paths == []
        assert tally.empty == ["/p/x"]


def test_what_the_backup_notes_of_a_file():
    source = Source("id", "/p", 9.0, paths=("/p",))
    (file,) = Restic().files(Restics({"f": 3}), Tally(source), 3, LIMIT, random.Random(1))
    assert (file.owner, file.group, file.mode) == (7, 8, 0o644)
    reader = Kopias({"f": 3})
    source = Source("id", "/p", 9.0, "/p", reader.root)
    (file,) = Kopia().files(reader, Tally(source), 3, LIMIT, random.Random(1))
    assert (file.owner, file.group, file.mode) == (7, 0, 0o1755)


def test_modes_as_go_counts_them():
    assert permissions(0o644) == 0o644
    assert permissions((1 << 23) | (1 << 22) | (1 << 20) | 0o777) == 0o7777
    assert permissions((1 << 31) | 0o755) == 0o755


class TestSharing:
    def test_the_newest_that_covers_it(self):
        old = Source("1", "", 1.0, paths=("/a", "/b"))
        new = Source("2", "", 2.0, paths=("/a",))
        root = Source("3", "", 0.5, paths=("/",))
        assert shared_out(["/a", "/a/x", "/b", "/c"], [old, new, root]) == (
            [("/b",), ("/a", "/a/x"), ("/c",)], [],
        )  # fmt: skip
        assert shared_out(["/ab", "/a\udcfe"], [new]) == ([()], ["/ab", "/a\udcfe"])
        assert shared_out(["/\udcfe/x"], [Source("1", "", 1.0, paths=("/\udcff",))]) == (
            [("/\udcfe/x",)], [],
        )  # fmt: skip
        assert shared_out(["/a"], []) == ([], ["/a"])


class TestAttributes:
    @pytest.fixture
    def file(self, tmp_path):
        """A file as restic has noted it."""
        path = tmp_path / "file"
        path.write_text("content")
        path.chmod(0o640)
        found = path.stat()
        return File(
            str(path), 7, found.st_mtime_ns, (), found.st_ctime_ns, found.st_ino,
            found.st_uid, found.st_gid, 0o640,
        )  # fmt: skip

    def verdict(self, file: File, moment: float = 0.0, content: bytes = b"content") -> str:
        with open(file.path + ".restored", "w+b") as restored:
            restored.write(b"preface" + content)
            restored.flush()
            return against(restored.fileno(), file, file.path, moment, 7)

    def test_the_same(self, file: File):
        assert self.verdict(file) == IDENTICAL
        assert self.verdict(file._replace(owner=None, group=None, mode=None)) == IDENTICAL

    @pytest.mark.parametrize(("name", "other", "told"), [
        ("owner", 4711, "has the owner 4711 in the backup and "),
        ("group", 4711, "has the group 4711 in the backup and "),
        ("mode", 0o4755, "has the mode 4755 in the backup and 0640 here, although "),
    ])  # fmt: skip
    def test_others_of_a_file_that_is_unchanged(self, file, name, other, told):
        wrong = file._replace(**{name: other})
        assert self.verdict(wrong).startswith(told)
        # kopia does not note the time of the last change.
        assert self.verdict(wrong._replace(ctime=None), moment=4e9).startswith(told)
        assert self.verdict(wrong._replace(ctime=None)) == IDENTICAL
        # Somebody has changed it since.
        assert self.verdict(wrong._replace(ctime=1)) == IDENTICAL

    def test_the_content_comes_first(self, file):
        verdict = self.verdict(file._replace(mode=0o600), content=b"cOntent")
        assert verdict.startswith("differs from byte 1 on, although ")
