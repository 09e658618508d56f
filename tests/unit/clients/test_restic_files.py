"""Choosing files of a restic snapshot; see also the tests of drills."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from kopiatomic.clients.reader import ClientFailed
from kopiatomic.clients.records import File, Source, Tally
from kopiatomic.clients.restic import Restic
from unit.clients.answers import Answers, listing
from unit.drills import NoRoom, node

SNAPSHOT = {"message_type": "snapshot", "id": "abc", "paths": ["/h"]}


class TestFiles:
    SOURCE = Source("abc", "/h", 0.0)

    def choose(self, listed, wanted=2, limit=100, seed=1):
        tally = Tally(self.SOURCE)
        client = Answers({("ls", "--json", "abc"): listing(SNAPSHOT) + b"\n" + listed})
        return Restic().files(client, NoRoom(), tally, wanted, limit, random.Random(seed)), tally

    def test_only_plain_files(self):
        listed = listing(node("/h", kind="dir"), node('/h/"file"'), node("/h/l", kind="symlink"))
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

    @pytest.mark.parametrize("there", [0, 1, 2])
    def test_paths_of_one_name_are_counted(self, there):
        """The backup tells names that differ only in bytes that are no text as one."""
        source = Source("abc", "/h", 0.0, paths=("/h/a\ufffd", "/h/a\ufffd", "/h/b"))
        tally = Tally(source, ("/h/a\udcff", "/h/a\udcfe"))
        nodes = [listing(node("/h/aX")).replace(b"X", b"\\ufffd")] * there
        listed = b"\n".join([listing(SNAPSHOT), *nodes, listing(node("/h/b"))])
        client = Answers({("ls", "--json", "abc"): listed})
        Restic().files(client, NoRoom(), tally, 2, 100, random.Random(1))
        assert tally.absent == ([] if there else list(tally.points))
        assert tally.empty == []
        assert tally.problems == ([] if there != 1 else [
            "1 of the 2 that are called /h/a\ufffd in the backup, since their names are not UTF-8, "
            "are in it"
        ])  # fmt: skip

    @pytest.mark.parametrize("line", [b'"file"', b'{"type": "file", "size": "x"}', b'{"file"'])
    def test_what_is_no_listing(self, line):
        with pytest.raises(ClientFailed, match="not understood"):
            self.choose(line)

    @pytest.mark.parametrize("listed", [b"", b"hello", listing(node("/h/file"))])
    def test_a_listing_without_its_beginning(self, listed):
        client = Answers({("ls", "--json", "abc"): listed})
        with pytest.raises(ClientFailed, match="not understood"):
            Restic().files(client, NoRoom(), Tally(self.SOURCE), 2, 100, random.Random(1))

    def test_what_a_wrapper_prints_first_is_none_of_it(self):
        listed = b'backing up "file"\n{"half\n' + listing(SNAPSHOT, node("/h/a"))
        client = Answers({("ls", "--json", "abc"): listed})
        (file,) = Restic().files(client, NoRoom(), Tally(self.SOURCE), 2, 100, random.Random(1))
        assert file.path == "/h/a"
