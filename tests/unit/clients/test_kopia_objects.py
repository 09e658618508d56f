"""Several objects of a kopia repository by one process."""

from __future__ import annotations

import json
import os

import pytest

from kopiatomic.clients import kopia_objects
from kopiatomic.clients.kopia_objects import Listings, walked, write
from kopiatomic.clients.reader import ClientFailed
from kopiatomic.clients.room import Room
from unit.drills import Kopia

SUMS = {"files": 1, "symlinks": 0, "dirs": 1}


def listing(*entries: dict) -> bytes:
    return json.dumps({"stream": "kopia:directory", "entries": entries}).encode()


def directory(key: str, **more: object) -> dict:
    return {"type": "d", "name": key, "obj": key, "summ": SUMS, **more}


@pytest.fixture
def room(tmp_path):
    made = Room(str(tmp_path))
    yield made
    made.close()


class TestWrite:
    def test_all_by_one_process(self, room, tmp_path):
        client = Kopia({"x1": b"one", "x2": b"two"})
        assert write(client, room, {"0": "x1", "1": "x2"}) == {"0", "1"}
        assert sorted(os.listdir(tmp_path)) == ["0", "1"]
        assert (tmp_path / "1").read_bytes() == b"two"
        (words,) = client.asked
        assert words[0] == "restore"
        assert words[-2:] == (f"{tmp_path}/0.kopia-entry", f"{tmp_path}/1.kopia-entry")

    def test_what_cannot_be_read_keeps_nothing_else_away(self, room, tmp_path):
        client = Kopia({"x1": b"one", "x2": b"two"}, broken=("x1",))
        assert write(client, room, {"0": "x1", "1": "x2"}) == {"1"}
        assert os.listdir(tmp_path) == ["1"]

    def test_a_kopia_that_refuses(self, room, tmp_path):
        assert write(Kopia({}, refuses=True), room, {"0": "x1", "1": "x2"}) == set()
        assert os.listdir(tmp_path) == []

    def test_one_that_says_yes_and_does_nothing(self, room, tmp_path):
        client = Kopia({})
        client.whole = lambda *_: b""
        assert write(client, room, {"0": "x1"}) == set()
        assert os.listdir(tmp_path) == []

    def test_no_name_of_the_backup_is_one_of_a_file(self, room, tmp_path):
        client = Kopia({"../escape": b"x", "k0": b"x"})
        listings = Listings(client, room)
        with pytest.raises(ClientFailed):
            [*listings.several([directory("../escape"), directory("k0")])]
        assert not (tmp_path.parent / "escape").exists()


OBJECTS = {"k1": listing(directory("k3")), "k2": listing(), "k3": listing(directory("k2"))}
WANTED = [directory("k1"), directory("k2")]


class TestListings:
    def test_several_by_one_process(self, room):
        client = Kopia(OBJECTS)
        found = dict(Listings(client, room).several(WANTED))
        assert found == {"k1": [directory("k3")], "k2": []}
        assert [words[0] for words in client.asked] == ["restore"]

    def test_one_is_shown(self, room):
        client = Kopia(OBJECTS)
        assert [*Listings(client, room).several(WANTED[:1])] == [("k1", [directory("k3")])]
        assert client.asked == [("show", "k1")]

    def test_what_was_read_is_not_asked_for_again(self, room):
        client = Kopia(OBJECTS)
        listings = Listings(client, room)
        assert [*listings.several(WANTED)] == [*listings.several(WANTED)]
        assert len(client.asked) == 1

    def test_not_all_are_kept(self, room, monkeypatch):
        monkeypatch.setattr(kopia_objects, "_HELD", 1)
        listings = Listings(Kopia(OBJECTS), room)
        assert len([*listings.several(WANTED)]) == 2
        assert list(listings.held) == ["k2"]

    @pytest.mark.parametrize("how", [{"refuses": True}, {"broken": ("k1", "k2")}])
    def test_a_kopia_that_writes_none_is_asked_once(self, room, how):
        client = Kopia(OBJECTS, **how)
        listings = Listings(client, room)
        for _ in range(2):
            assert len([*listings.several(WANTED)]) == 2
            listings.held.clear()
        assert [words[0] for words in client.asked] == ["restore", *["show"] * 4]

    def test_one_that_may_be_too_large_comes_alone(self, room):
        huge = {"summ": {"files": 1 << 60, "symlinks": 0, "dirs": 1}}
        unknown = {"summ": None}
        for more in (huge, unknown):
            client = Kopia(OBJECTS)
            wanted = [directory("k1"), directory("k3", **more), directory("k2")]
            assert len([*Listings(client, room).several(wanted)]) == 3
            assert {("show", each) for each in ("k1", "k3", "k2")} == set(client.asked)

    @pytest.mark.parametrize("content", [b"", b"[]", b'{"entries": 7}', b"{}"])
    def test_what_is_not_understood(self, room, content):
        listings = Listings(Kopia({"k1": content, "k2": content}), room)
        with pytest.raises(ClientFailed, match="not understood"):
            [*listings.several(WANTED)]


class TestWalks:
    def test_side_by_side(self, room):
        objects = {
            "k0": listing(directory("k1"), directory("k2")),
            "k1": listing(directory("k3")), "k2": listing(directory("k4")),
            "k3": listing(), "k4": listing(directory("k5")), "k5": listing(),
        }  # fmt: skip
        client = Kopia(objects)

        def down(name: str):
            """Return how deep it is below a child of the root."""
            inside = yield directory("k0")
            here = next((each for each in inside if each["obj"] == name), None)
            deep = 0
            while here is not None:
                deep += 1
                here = next(iter((yield here)), None)
            return deep

        walks = [down("k2"), down("k9"), down("k1"), down("k2")]
        assert walked(Listings(client, room), walks) == [3, 0, 2, 3]
        assert [words[0] for words in client.asked] == ["show", "restore", "restore", "show"]

    def test_none(self, room):
        assert walked(Listings(Kopia({}), room), []) == []

    def test_what_a_walk_raises(self, room):
        def lost():
            yield directory("k1")
            raise ClientFailed(1, "lost")

        with pytest.raises(ClientFailed, match="lost"):
            walked(Listings(Kopia({"k1": listing()}), room), [lost()])
