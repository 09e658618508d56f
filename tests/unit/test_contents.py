"""What there is in a repository: the newest backups, and which of their files are chosen."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from kopiatomic.clients import contents
from kopiatomic.clients.contents import File, Source, Tally
from kopiatomic.clients.reader import ClientFailed
from unit.drills import node


class Client:
    """Answers in a client's place: a dictionary of words to output."""

    def __init__(self, answers):
        self.answers = dict(answers)
        self.asked = []

    def whole(self, *words):
        self.asked.append(words)
        return self.answers[words]

    def lines(self, *words):
        return iter(self.whole(*words).split(b"\n"))


def listing(*nodes):
    return "\n".join(json.dumps(each, ensure_ascii=False) for each in nodes).encode()


class TestResticFiles:
    SOURCE = Source("abc", "/h", 0.0)

    def choose(self, listed, wanted=2, limit=100, seed=1):
        tally = Tally(self.SOURCE)
        client = Client({("ls", "--json", "abc"): listed})
        return contents.restic_files(client, tally, wanted, limit, random.Random(seed)), tally

    def test_only_plain_files(self):
        listed = listing({"message_type": "snapshot"}, node("/h", kind="dir"), node('/h/"file"'),
                         node("/h/l", kind="symlink"))  # fmt: skip
        ((file,), _) = self.choose(listed)
        assert file == File(
            '/h/"file"', 3, 1767323045_000000006, ("dump", "abc", '/h/"file"'),
            ctime=1767319445_700000000, inode=7,
        )  # fmt: skip

    def test_every_file_has_the_same_chance(self):
        listed = listing(*(node(f"/h/{number}") for number in range(10)))
        counts = Counter(
            file.path for seed in range(2000) for file in self.choose(listed, 3, seed=seed)[0]
        )
        assert len(counts) == 10
        assert all(500 < count < 700 for count in counts.values())

    def test_the_same_seed_chooses_the_same(self):
        listed = listing(*(node(f"/h/{number}") for number in range(100)))
        assert self.choose(listed, seed=5)[0] == self.choose(listed, seed=5)[0]

    def test_large_files_are_counted_and_passed_over(self):
        files, tally = self.choose(listing(node("/h/large", size=101), node("/h/small", size=100)))
        assert [file.path for file in files] == ["/h/small"]
        assert tally.too_large == 1

    def test_names_that_are_not_utf8_are_counted_and_passed_over(self):
        raw = listing(node("/h/X")).replace(b"X", b"\\ufffd")
        genuine, backslash = listing(node("/h/\ufffd")), listing(node("/h/\\ufffd"))
        files, tally = self.choose(b"\n".join([raw, genuine, backslash]), 9)
        assert [file.path for file in files] == ["/h/\ufffd", "/h/\\ufffd"]
        assert tally.unnamed == 1


def directory(name, obj, files):
    return {"name": name, "type": "d", "obj": obj, "summ": {"files": files}}


def plain(name, obj, size=3):
    return {"name": name, "type": "f", "obj": obj, "size": size, "mtime": "2026-01-02T03:04:05Z"}


KOPIA_ROOT = directory("h", "k0", 5)
KOPIA_ANSWERS = {
    ("show", "k0"): {"entries": [
        directory("d", "k1", 3), {"name": "l", "type": "s", "obj": "o"}, plain("e\n", "f1"),
        directory("empty", "k3", 0), plain("-f", "f2", 200)]},
    ("show", "k1"): {"entries": [directory("d", "k2", 2), plain("a", "f3")]},
    ("show", "k2"): {"entries": [plain("b", "f4"), plain("c", "f5")]},
}  # fmt: skip


class TestKopiaFiles:
    def choose(self, wanted, limit=100, seed=1, root=None):
        root = KOPIA_ROOT if root is None else root
        tally = Tally(Source("id", "/h", 0.0, path="/h", root=root))
        answers = {words: json.dumps(each).encode() for words, each in KOPIA_ANSWERS.items()}
        client = Client(answers)
        files = contents.kopia_files(client, tally, wanted, limit, random.Random(seed))
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

    def test_a_directory_that_lacks_files(self):
        with pytest.raises(ClientFailed, match="fewer files"):
            self.choose(9, root=directory("h", "k2", 30))

    def test_what_is_no_json(self):
        client = Client({("show", "k0"): b"garbage"})
        tally = Tally(Source("id", "/h", 0.0, path="/h", root=KOPIA_ROOT))
        with pytest.raises(ClientFailed, match="not understood"):
            contents.kopia_files(client, tally, 1, 100, random.Random(1))


def test_kopias_newest_complete_backup_of_each_source():
    def manifest(name, path, when, **more):
        return {"id": name, "source": {"path": path}, "startTime": when, "rootEntry": {}, **more}

    listed = [
        manifest("1", "/b", "2026-01-01T00:00:00Z"), manifest("2", "/b", "2026-01-03T00:00:00Z"),
        manifest("3", "/b", "2026-01-02T00:00:00Z"), manifest("4", "/a", "2026-01-01T00:00:00Z"),
        manifest("5", "/a", "2026-01-09T00:00:00Z", incomplete="canceled"),
    ]  # fmt: skip
    client = Client({("snapshot", "list", "--json"): json.dumps(listed).encode()})
    assert [(each.path, each.backup) for each in contents.kopia_sources(client)] == [
        ("/a", "4"), ("/b", "2"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("2001-09-09T01:46:40.123456789Z", 10**18 + 123456789),
        ("2001-09-09T03:46:40.5+02:00", 10**18 + 500000000),
        ("1969-12-31T23:59:59.25Z", -750000000),
        ("0001-01-01T00:00:00Z", -62135596800 * 10**9),
        ("garbage", None),
        ("20260102Z", None),
        (None, None),
        ("12026-01-01T00:00:00Z", None),
    ],
)
def test_times(text, value):
    assert contents.nanoseconds(text) == value
