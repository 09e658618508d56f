"""What earlier runs have left behind, and that nothing else is taken for it."""

import time

from kopiatomic import state
from kopiatomic.monitoring import leftovers
from kopiatomic.monitoring.leftovers import Leftover
from kopiatomic.state import Place
from kopiatomic.system.command import Door
from unit.monitoring.runs import MARKED, MARKS, MOUNT, PLACE, mount_table, see_snapshots

DOOR = Door()
REFERENCES = "zfs list -Hp -t snapshot -s name -o name,userrefs"
POOLS = "zpool list -Hp -o name,readonly,health"


class TestLeftovers:
    def see(self, fp, *points: str, times: int = 1, **marked: str):
        """Answer so often with these mounts and snapshots, which are ours by their names."""
        fp.register(MOUNT, stdout=mount_table("/", *points), occurrences=times)
        named = {f"t/{name}@restomic-1": run for name, run in marked.items()}
        see_snapshots(fp, named, "t@daily", times=times)

    def test_none_with_one_look(self, places, fp):
        self.see(fp)
        assert leftovers.find_leftovers(DOOR) == []
        assert len(fp.calls) == 3

    def test_once_searched_no_snapshot_is_asked_for_until_the_next_boot(
        self, places, fp, monkeypatch
    ):
        self.see(fp)
        assert leftovers.find_leftovers(DOOR) == []
        fp.register(MOUNT, stdout=mount_table("/"), occurrences=2)
        fp.register(POOLS, stdout="t\toff\tONLINE\n")
        assert leftovers.find_leftovers(DOOR) == []
        assert [next(iter(call)) for call in fp.calls][3:] == ["mount", "zpool"]
        monkeypatch.setattr(time, "monotonic", lambda: -1.0)
        self.see(fp, a="restomic:default:1", times=2)
        assert [each.name for each in leftovers.find_leftovers(DOOR)] == ["t/a@restomic-1"]

    def test_a_jail_and_its_host_look_for_their_own(self, places, fp):
        marks = {"a": "restomic:default:1", "b": "jail.restomic:default:2"}
        for door, name in ((DOOR, "t/a"), (Door(jailed=True), "t/b")):
            self.see(fp, times=2, **marks)
            found = [each.name for each in leftovers.find_leftovers(door)]
            assert found == [f"{name}@restomic-1"]

    def test_what_is_there_is_found_each_time(self, places, fp):
        for _ in range(2):
            self.see(fp, a="restomic:default:1", times=2)
            assert [each.name for each in leftovers.find_leftovers(DOOR)] == ["t/a@restomic-1"]

    def test_a_pool_that_was_not_there_is_searched(self, places, fp):
        state.note_search(["u"])
        self.see(fp, a="restomic:default:1", times=2)
        assert [each.name for each in leftovers.find_leftovers(DOOR)] == ["t/a@restomic-1"]

    def test_where_a_run_was_killed_its_snapshots_are_looked_for(self, places, fp):
        state.begin(PLACE, "x")
        state.note_search(["t"])
        self.see(fp, a="restomic:default:1", times=2)
        kinds = [each.kind for each in leftovers.find_leftovers(DOOR)]
        assert kinds == ["note", "snapshot"]

    def test_thoroughly_also_what_has_another_name_by_now(self, places, fp):
        state.note_search(["t"])
        fp.register(MOUNT, stdout=mount_table("/"), occurrences=2)
        fp.register(MARKED, stdout="t@keep\n", occurrences=2)
        fp.register(f"{MARKS} t@keep", stdout="t@keep\tlocal\trestomic:default:1\n", occurrences=2)
        fp.register(REFERENCES, stdout="t@keep\t0\n", occurrences=4)
        found = leftovers.find_leftovers(DOOR, thoroughly=True)
        assert [each.name for each in found] == ["t@keep"]

    def test_holds_by_the_note_of_a_killed_run(self, places, fp):
        noted = [state.NotedHold("restomic:default:1", str(n), f"t/{n}@x") for n in range(3)]
        state.note_holds(PLACE, noted)
        state.note_search(["t"])
        fp.register(MOUNT, stdout=mount_table("/"), occurrences=2)
        fp.register(POOLS, stdout="t\toff\tONLINE\n", occurrences=4)
        # One was never made, and one bears only the tag of somebody else.
        when = "Mon Nov 23 05:04 2026"
        text = f"t/0@x\trestomic:default:1\t{when}\nt/1@x\tkeep\t{when}\n"
        names = [each.snapshot for each in noted]
        fp.register(["zfs", "holds", "-H", *names], stdout=text, occurrences=2)
        assert leftovers.find_leftovers(DOOR) == [Leftover(PLACE, "hold", "t/0@x")]
        with state.lock(PLACE):
            fp.register(MOUNT, stdout=mount_table("/"), occurrences=2)
            fp.register(POOLS, stdout="t\toff\tONLINE\n", occurrences=2)
            assert leftovers.find_leftovers(DOOR) == []

    def test_thoroughly_holds_of_which_there_is_no_note(self, places, fp):
        state.note_search(["t"])
        fp.register(MOUNT, stdout=mount_table("/"), occurrences=2)
        fp.register(MARKED, stdout="", occurrences=2)
        fp.register(REFERENCES, stdout="t@x\t2\n", occurrences=4)
        when = "Mon Nov 23 05:04 2026"
        text = f"t@x\trestomic:home:1\t{when}\nt@x\trestomic:odd\t{when}\n"
        fp.register(["zfs", "holds", "-H", "t@x"], stdout=text, occurrences=4)
        found = leftovers.find_leftovers(DOOR, thoroughly=True)
        assert found == [Leftover(Place("restomic", "home"), "hold", "t@x")]

    def test_of_every_kind(self, places, fp):
        root = f"{places}/run/restomic"
        other = Place("restomic", "other")
        state.begin(other, "x")
        self.see(
            fp, f"{root}/default/view", f"{root}", f"{root}x/y/view", times=2,
            a="restomic:default:1", b="kopiatomic:k:2", c="garbage",
            d="restomic:-x:1", e="other:default:1",
        )  # fmt: skip
        assert leftovers.find_leftovers(DOOR) == [
            Leftover(other, "note", other.unfinished),
            Leftover(PLACE, "mount", f"{root}/default/view"),
            Leftover(PLACE, "snapshot", "t/a@restomic-1"),
            Leftover(Place("kopiatomic", "k"), "snapshot", "t/b@restomic-1"),
        ]

    def test_a_running_job_has_none(self, places, fp):
        self.see(fp, f"{places}/run/restomic/default/view", a="restomic:default:1")
        with state.lock(PLACE):
            state.begin(PLACE, "x")
            assert leftovers.find_leftovers(DOOR) == []

    def test_what_is_gone_at_a_second_look_belonged_to_a_run_that_ended(self, places, fp):
        self.see(fp, a="restomic:default:1", b="restomic:default:1")
        self.see(fp, b="restomic:default:1", c="restomic:default:2")
        assert [each.name for each in leftovers.find_leftovers(DOOR)] == ["t/b@restomic-1"]


class TestDescribed:
    def test_one_of_a_kind_by_its_name_and_more_by_number(self):
        left = [
            Leftover(PLACE, "mount", "/v\n"),
            Leftover(PLACE, "snapshot", "t@a"),
            Leftover(PLACE, "snapshot", "t@b"),
        ]
        assert leftovers.described(left) == ["2 snapshots, such as t@a", "mount /v\\x0a"]

    def test_holds(self):
        holds = [Leftover(PLACE, "hold", f"t@{n}") for n in (1, 2)]
        assert leftovers.described(holds) == ["2 holds, such as t@1"]
        assert leftovers.described(holds[:1]) == ["hold on t@1"]

    def test_the_note_only_where_there_is_nothing_else(self):
        note = Leftover(PLACE, "note", "/n")
        assert leftovers.described([note]) == ["note /n"]
        assert leftovers.described([note, Leftover(PLACE, "mount", "/v")]) == ["mount /v"]

    def test_nothing(self):
        assert leftovers.described([]) == []
