"""Holds are noted before they are made, and found again by the note and by their tag."""

import pytest

from kopiatomic import state
from kopiatomic.backup import holding
from kopiatomic.backup.plan import Hold
from kopiatomic.backup.selection import Existing
from kopiatomic.state import NotedHold
from kopiatomic.system import holds, zfs
from kopiatomic.system.command import CommandFailed, Door
from kopiatomic.system.zfs import Pool

DOOR = Door()
TAG = "restomic:default:0123456789ab"


class Machine:
    """Holds on a machine, and where the snapshots are by now."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: state.Place) -> None:
        self.place = place
        self.pools = {"t": Pool("t", False, "ONLINE"), "r": Pool("r", True, "ONLINE")}
        self.names = {"g1": "t/a@1", "g2": "t/b@1", "g3": "r/a@1"}
        self.kept: set[tuple[str, str]] = set()  # tag and guid
        self.stubborn: set[str] = set()
        self.noted_first = True
        monkeypatch.setattr(zfs, "pools", lambda _: self.pools)
        monkeypatch.setattr(zfs, "by_guid", lambda *_: dict(self.names))
        for name in ("hold", "release", "held", "with_tags"):
            monkeypatch.setattr(holds, name, getattr(self, name))

    def guid(self, name: str) -> str | None:
        return next((guid for guid, each in self.names.items() if each == name), None)

    def hold(self, _, tag, names):
        noted = {each.snapshot for each in state.read_holds(self.place)}
        self.noted_first = self.noted_first and set(names) <= noted
        self.kept |= {(tag, self.guid(name)) for name in names if self.guid(name)}
        return holds.Held(frozenset(name for name in names if not self.guid(name)))

    def release(self, _, tag, names):
        left = {name: "busy" for name in names if name in self.stubborn}
        self.kept -= {(tag, self.guid(name)) for name in names if name not in left}
        return holds.Released(left, frozenset(name for name in names if not self.guid(name)))

    def listed(self):
        return [holds.Hold(tag, self.names[guid]) for tag, guid in sorted(self.kept)]

    def with_tags(self, _, beginning):
        return [each for each in self.listed() if each.tag.startswith(beginning)]

    def held(self, _, names):
        return [each for each in self.listed() if each.snapshot in names]


@pytest.fixture
def machine(monkeypatch, place):
    return Machine(monkeypatch, place)


def taken(name: str, guid: str) -> Hold:
    return Hold(name.partition("@")[0], name, "/h", Existing(name, guid, 5, 0.0))


BOTH = [taken("t/a@1", "g1"), taken("t/b@1", "g2")]
MINE = [NotedHold(TAG, "g1", "t/a@1"), NotedHold(TAG, "g2", "t/b@1")]


def test_each_is_noted_before_it_is_held(machine, place):
    assert holding.hold(DOOR, place, TAG, BOTH) == holding.Kept()
    assert machine.noted_first
    assert len(machine.kept) == 2
    assert state.read_holds(place) == MINE
    assert holding.let_go(DOOR, place, lambda each: each.tag == TAG) == []
    assert not machine.kept
    assert state.read_holds(place) == []


def test_of_a_read_only_pool_nothing_is_held(machine, place):
    holding.hold(DOOR, place, TAG, [taken("r/a@1", "g3")])
    assert not machine.kept
    assert state.read_holds(place) == []


def test_those_that_have_gone_are_told(machine, place):
    del machine.names["g2"]
    assert holding.hold(DOOR, place, TAG, BOTH).gone == {"t/b"}


def test_one_that_could_not_be_held_is_told_and_used(machine, place, monkeypatch):
    refused = holds.Held(refused={"t/a@1": "no", "t/b@1": "no"})
    monkeypatch.setattr(holds, "hold", lambda *_: refused)
    kept = holding.hold(DOOR, place, TAG, BOTH)
    assert kept.gone == frozenset()
    assert kept.notes == ("t/a@1 and 1 more could not be held while it was backed up: no",)


def test_where_the_pools_are_not_known_it_is_tried(machine, place, monkeypatch):
    def fails(_):
        raise CommandFailed(["zpool"], "no")

    monkeypatch.setattr(zfs, "pools", fails)
    holding.hold(DOOR, place, TAG, BOTH)
    assert len(machine.kept) == 2
    assert holding.let_go(DOOR, place, lambda _: True) == []
    assert not machine.kept
    assert state.read_holds(place) == []


def test_one_that_stays_stays_noted(machine, place):
    holding.hold(DOOR, place, TAG, BOTH)
    machine.stubborn = {"t/b@1"}
    (left,) = holding.let_go(DOOR, place, lambda _: True)
    assert (left.hold, left.reason) == (MINE[1], "busy")
    assert left.by_hand == f"zfs release {TAG} t/b@1"
    assert state.read_holds(place) == [MINE[1]]


def test_one_under_another_name_is_found_by_its_guid(machine, place):
    holding.hold(DOOR, place, TAG, BOTH)
    machine.names["g2"] = "t/moved@1"
    assert holding.let_go(DOOR, place, lambda _: True) == []
    assert not machine.kept
    assert state.read_holds(place) == []


def test_one_under_another_name_that_stays_is_noted_by_that(machine, place):
    holding.hold(DOOR, place, TAG, BOTH)
    machine.names["g2"] = "t/moved@1"
    machine.stubborn = {"t/moved@1"}
    holding.let_go(DOOR, place, lambda _: True)
    assert state.read_holds(place) == [MINE[1]._replace(snapshot="t/moved@1")]


def test_those_in_a_pool_that_is_not_imported_stay_noted(machine, place):
    holding.hold(DOOR, place, TAG, BOTH)
    del machine.pools["t"]
    assert holding.sweep(DOOR, place) == holding.Swept()
    assert state.read_holds(place) == MINE


def test_a_sweep_takes_back_what_is_noted_and_really_held(machine, place):
    state.note_holds(place, MINE)
    machine.kept = {(TAG, "g1"), ("keep", "g1")}
    assert holding.sweep(DOOR, place).released == ("t/a@1",)
    assert machine.kept == {("keep", "g1")}
    assert state.read_holds(place) == []
    assert holding.sweep(DOOR, place) == holding.Swept()


def test_a_thorough_one_also_what_nobody_has_noted(machine, place):
    others = {("restomic:other:1", "g1"), ("restomic:default2:1", "g1"), ("keep", "g2")}
    machine.kept = {(TAG, "g2"), *others}
    assert holding.sweep(DOOR, place).released == ()
    assert holding.sweep(DOOR, place, thoroughly=True).released == ("t/b@1",)
    assert machine.kept == others


def test_the_holds_of_another_run_are_kept_in_the_note(machine, place):
    other = NotedHold("restomic:default:ffffffffffff", "g1", "t/a@1")
    state.note_holds(place, [other])
    holding.hold(DOOR, place, TAG, BOTH)
    holding.let_go(DOOR, place, lambda each: each.tag == TAG)
    assert state.read_holds(place) == [other]
