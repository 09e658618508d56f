"""Choosing files of a kopia backup; see also the tests of drills."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from kopiatomic.clients.kopia import Kopia
from kopiatomic.clients.reader import ClientFailed
from kopiatomic.clients.records import Source, Tally
from unit.clients.answers import Answers
from unit.drills import NoRoom


def directory(name, obj, files):
    return {"name": name, "type": "d", "obj": obj, "summ": {"files": files}}


def plain(name, obj, size=3):
    return {"name": name, "type": "f", "obj": obj, "size": size, "mtime": "2026-01-02T03:04:05Z"}


ROOT = directory("h", "k0", 5)
ANSWERS = {
    ("show", "k0"): {"entries": [
        directory("d", "k1", 3), {"name": "l", "type": "s", "obj": "o"}, plain("e\n", "f1"),
        directory("empty", "k3", 0), plain("-f", "f2", 200)]},
    ("show", "k1"): {"entries": [directory("d", "k2", 2), plain("a", "f3")]},
    ("show", "k2"): {"entries": [plain("b", "f4"), plain("c", "f5")]},
}  # fmt: skip


class TestFiles:
    def choose(self, wanted, limit=100, seed=1, root=None):
        root = ROOT if root is None else root
        tally = Tally(Source("id", "/h", 0.0, path="/h", root=root))
        client = Answers({words: json.dumps(each).encode() for words, each in ANSWERS.items()})
        files = Kopia().files(client, NoRoom(), tally, wanted, limit, random.Random(seed))
        return files, tally, client

    def test_all_of_them(self):
        files, tally, client = self.choose(9)
        assert {(file.path, *file.fetch) for file in files} == {
            ("/h/e\n", "show", "f1"), ("/h/d/a", "show", "f3"), ("/h/d/d/b", "show", "f4"),
            ("/h/d/d/c", "show", "f5"),
        }  # fmt: skip
        assert tally.too_large == 1
        assert len(client.asked) == 3

    def test_every_file_has_the_same_chance(self):
        counts = Counter(
            file.path for seed in range(2000) for file in self.choose(1, 300, seed)[0]
        )
        assert len(counts) == 5
        assert all(330 < count < 470 for count in counts.values())

    def test_a_source_that_is_a_file(self):
        files, _, client = self.choose(3, root=plain("h", "f9"))
        assert [(file.path, file.fetch) for file in files] == [("/h", ("show", "f9"))]
        assert client.asked == []

    def test_a_source_without_files(self):
        files, _, client = self.choose(3, root=directory("h", "k3", 0))
        assert (files, client.asked) == ([], [])

    def test_a_directory_that_lacks_files(self):
        with pytest.raises(ClientFailed, match="fewer files"):
            self.choose(9, root=directory("h", "k2", 30))

    def test_what_is_no_json(self):
        client = Answers({("show", "k0"): b"garbage"})
        tally = Tally(Source("id", "/h", 0.0, path="/h", root=ROOT))
        with pytest.raises(ClientFailed, match="not understood"):
            Kopia().files(client, NoRoom(), tally, 1, 100, random.Random(1))

    def test_a_large_file_is_counted_once(self):
        summary = {"files": 2, "symlinks": 0, "dirs": 2}
        below = {**directory("d", "k1", 1), "summ": {**summary, "files": 1, "dirs": 1}}
        root = {**directory("h", "k0", 2), "summ": summary}
        client = Answers({
            ("show", "k0"): json.dumps({"entries": [below, plain("f", "f1")]}).encode(),
            ("show", "k1"): json.dumps({"entries": [plain("large", "f2", 200)]}).encode(),
        })  # fmt: skip
        tally = Tally(Source("id", "/h", 0.0, "/h", root, ("/h",)), ("/h", "/h/d"))
        files = Kopia().files(client, NoRoom(), tally, 5, 100, random.Random(1))
        assert [file.path for file in files] == ["/h/f"]
        assert tally.too_large == 1
