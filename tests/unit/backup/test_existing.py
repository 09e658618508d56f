"""Which existing snapshots are taken, and what is said of them."""

from __future__ import annotations

import pytest

from kopiatomic.backup import existing
from kopiatomic.backup.selection import NO_SNAPSHOT, Captured, Existing, Selection
from kopiatomic.errors import Refusal
from kopiatomic.formatting import iso
from kopiatomic.job import Job
from kopiatomic.system import zfs
from kopiatomic.system.command import Door
from kopiatomic.system.zfs import Listed

DOOR = Door()
JOB = Job("restomic", snapshot="auto-*")
NOON = 1_795_435_200.0
HOUR = 3600.0


class Machine:
    """Snapshots by name, with when they were created; their order is that of creation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *rows: tuple[str, float]) -> None:
        self.created = dict(rows)
        self.txgs = {name: number for number, (name, _) in enumerate(rows)}
        self.ours: set[str] = set()
        self.gone: set[str] = set()  # between the first look and the second
        self.asked: list[str] = []
        monkeypatch.setattr(zfs, "snapshots_on", self.snapshots_on)
        monkeypatch.setattr(zfs, "created_at", self.created_at)
        monkeypatch.setattr(zfs, "bear_our_mark", lambda _, names: self.ours & set(names))

    def snapshots_on(self, _door: Door, datasets: list[str]) -> list[Listed]:
        names = [name for name in self.created if name.partition("@")[0] in datasets]
        return [Listed(name, f"g{self.txgs[name]}", self.txgs[name]) for name in sorted(names)]

    def created_at(self, _door: Door, names: list[str]) -> dict[str, float]:
        self.asked += names
        return {name: self.created[name] for name in names if name not in self.gone}


def found(pattern: str, *datasets: str) -> list[str]:
    return sorted(each.name for each in existing.find(DOOR, pattern, datasets).values())


def at(dataset: str, name: str, created: float = NOON, txg: int = 5, **more: object) -> Captured:
    taken = Existing(f"{dataset}@{name}", f"guid-{name}", txg, created)
    return Captured(dataset, f"/{dataset}", existing=taken, **more)


class TestFind:
    def test_the_newest_that_matches_of_each(self, monkeypatch):
        machine = Machine(
            monkeypatch, ("t/a@auto-9", NOON), ("t/b@auto-9", NOON), ("t/a@auto-1", NOON + 60),
            ("t/b@auto-1", NOON + 60), ("t/a@other", NOON + 90), ("t/c@other", NOON),
        )  # fmt: skip
        assert found("auto-*", "t/a", "t/b", "t/c") == ["t/a@auto-1", "t/b@auto-1"]
        # Only of these are properties asked.
        assert sorted(machine.asked) == ["t/a@auto-1", "t/b@auto-1"]

    def test_nothing_is_asked_for_nothing(self, monkeypatch):
        Machine(monkeypatch)
        assert found("auto-*") == []
        assert found("auto-*", "t/a") == []

    def test_ours_are_never_taken_whatever_they_are_called(self, monkeypatch):
        machine = Machine(
            monkeypatch, ("t/a@daily", NOON), ("t/a@restomic-1", NOON + 1),
            ("t/a@recv-1-1", NOON + 2), ("t/a@kopiatomic-2", NOON + 3),
            ("t/a@restomic-mine", NOON - 9),
        )  # fmt: skip
        machine.ours = {"t/a@restomic-1", "t/a@recv-1-1", "t/a@kopiatomic-2"}
        assert found("*", "t/a") == ["t/a@restomic-mine"]
        machine.ours |= {"t/a@restomic-mine"}
        assert found("*", "t/a") == ["t/a@daily"]
        machine.ours |= {"t/a@daily"}
        assert found("*", "t/a") == []

    def test_one_that_goes_while_it_is_looked_at_is_not_taken(self, monkeypatch):
        machine = Machine(monkeypatch, ("t/a@auto-1", NOON), ("t/a@auto-2", NOON))
        machine.gone = {"t/a@auto-2"}
        assert found("auto-*", "t/a") == ["t/a@auto-1"]

    @pytest.mark.parametrize(
        ("older", "taken"),
        [(1, ["t/a@1", "t/b@1"]), (2, ["t/a@1", "t/b@1"]), (3, ["t/a@2", "t/b@1"])],
    )
    def test_a_name_that_all_have_is_preferred_if_it_is_not_much_older(
        self, monkeypatch, older, taken
    ):
        then = NOON - older * HOUR
        Machine(monkeypatch, ("t/a@1", then), ("t/b@1", then), ("t/a@2", NOON))
        assert found("*", "t/a", "t/b") == taken

    def test_each_pool_has_a_moment_of_its_own(self, monkeypatch):
        Machine(
            monkeypatch, ("t/a@1", NOON), ("u/a@1", NOON), ("t/b@1", NOON), ("u/a@2", NOON),
        )  # fmt: skip
        assert found("*", "t/a", "t/b", "u/a") == ["t/a@1", "t/b@1", "u/a@2"]

    def test_the_newest_of_the_names_that_all_have(self, monkeypatch):
        rows = [(f"t/{d}@{n}", NOON + n) for n in range(4) for d in "ab" if (d, n) != ("b", 3)]
        Machine(monkeypatch, *rows)
        assert found("*", "t/a", "t/b") == ["t/a@2", "t/b@2"]


class TestTake:
    def test_what_has_none_is_left_out(self, monkeypatch):
        Machine(monkeypatch, ("t/a@auto-1", NOON))
        chosen = Selection((Captured("t/a", "/a"), Captured("t/b", "/b", 1, named=True)), ())
        taken = existing.take(DOOR, JOB, chosen)
        assert [each.existing.name for each in taken.captured] == ["t/a@auto-1"]
        (left,) = taken.left_out
        assert (left.name, left.kind, left.missed) == ("t/b", NO_SNAPSHOT, True)
        assert left.reason == "none of its snapshots matches 'auto-*'"

    def test_where_none_has_one_it_is_refused(self, monkeypatch):
        Machine(monkeypatch, ("t/a@other", NOON))
        with pytest.raises(Refusal, match="no chosen dataset has a snapshot that matches 'auto-"):
            existing.take(DOOR, JOB, Selection((Captured("t/a", "/a"),), ()))


ENTRY = {"selection": {"snapshot": "auto-*"}, "captured": [
    {"dataset": "t/a", "mountpoint": "/t/a", "guid": "guid-1", "created": iso(NOON)},
]}  # fmt: skip


class TestBackedUp:
    def says(self, *captured: Captured, entry: object = ENTRY) -> bool:
        return existing.is_backed_up(captured, {"snapshot": "auto-*"}, entry)

    def test_the_same_one(self):
        assert self.says(at("t/a", "1"))

    @pytest.mark.parametrize("later", [-3600, 0, 1])
    def test_another_one_is_told_by_its_guid_and_not_by_its_time(self, later):
        """In one second there may be two, and after a rollback an older one has other files."""
        assert not self.says(at("t/a", "0", NOON + later))

    def test_a_newer_one_or_another_dataset_or_place(self):
        assert not self.says(at("t/a", "2", NOON + 1))
        assert not self.says(at("t/a", "1"), at("t/b", "1"))
        assert not self.says(at("t/a", "1")._replace(point="/b"))
        assert not self.says(Captured("t/a", "/t/a"))

    def test_another_choice_is_another_backup(self):
        assert not self.says(at("t/a", "1"), entry={**ENTRY, "selection": {}})

    @pytest.mark.parametrize("rows", [None, "x", ["x"], [{"dataset": "t/a", "mountpoint": "/t/a"}]])
    def test_a_history_that_does_not_say_counts_for_nothing(self, rows):
        assert not self.says(at("t/a", "1"), entry={**ENTRY, "captured": rows})


class TestTold:
    def test_one_moment(self, utc):
        one = existing.headline([at("t/a", "x"), at("t/b", "x")])
        assert one == "Captured at one moment, 2026-11-23 12:00:00 UTC, by existing snapshots @x"

    def test_the_same_second_is_not_called_one_moment(self, utc):
        told = existing.headline([at("t/a", "x"), at("t/b", "x", txg=6)])
        assert told == "Captured by existing snapshots @x, created 2026-11-23 12:00:00 UTC"

    def test_how_far_apart(self, utc):
        captured = [at("t/a", "x"), at("t/b", "y", NOON - HOUR, 4)]
        told = existing.headline(captured)
        assert "created 2026-11-23 11:00:00 UTC to 2026-11-23 12:00:00 UTC" in told
        assert told.endswith("t/b@y and t/a@x lie 1 h 0 min apart")
        assert existing.rows(captured) == [
            ("t/a", "/t/a  (@x, 2026-11-23 12:00:00 UTC)"),
            ("t/b", "/t/b  (@y, 2026-11-23 11:00:00 UTC)"),
        ]
        told = existing.as_dict(captured)["existing"]
        assert told["oldest_snapshot"] == "t/b@y"
        assert (told["seconds_apart"], told["one_moment"]) == (3600, False)

    def test_nothing_where_none_is_taken(self):
        assert existing.as_dict([Captured("t/a", "/a")]) == {}
        assert existing.nothing_new([], NOON) == []

    def test_moments_are_those_of_the_newest_in_each_pool(self):
        captured = [at("t/a", "x"), at("t/b", "y", NOON + 5), at("u", "z", NOON - 5)]
        assert existing.moments(captured) == {"t": NOON + 5, "u": NOON - 5}

    def test_how_old(self, utc):
        captured = [at("t/a", "x")]
        (row,) = existing.would_take(captured, NOON + 2 * HOUR)
        assert row == ("t/a@x", "2026-11-23 12:00:00 UTC, 2 h old")
        (aged,) = existing.with_ages(captured, [{"dataset": "t/a"}], NOON + 60)
        assert aged["age_seconds"] == 60
        assert "t/a@x, 2026-11-23 12:00:00 UTC, just now" in existing.nothing_new(captured, NOON)[1]
