"""What killed runs have left behind, and that nothing else is taken for it."""

from kopiatomic import state
from kopiatomic.monitoring import leftovers
from kopiatomic.monitoring.leftovers import Leftover
from kopiatomic.state import Place
from kopiatomic.system.command import Door
from unit.monitoring.runs import MARKED, MOUNT, PLACE, mount_table

DOOR = Door()


class TestLeftovers:
    def see(self, fp, *points: str, marked: str = "", times: int = 1):
        for _ in range(times):
            fp.register(MOUNT, stdout=mount_table("/", *points))
            fp.register(MARKED, stdout=marked)

    def test_none_with_one_look(self, places, fp):
        self.see(fp)
        assert leftovers.find_leftovers(DOOR) == []
        assert len(fp.calls) == 2

    def test_of_every_kind(self, places, fp):
        root = f"{places}/run/restomic"
        other = Place("restomic", "other")
        state.begin(other, "x")
        self.see(
            fp, f"{root}/default/view", f"{root}", f"{root}x/y/view", times=2,
            marked="t@a\trestomic:default:1\nt@b\tkopiatomic:k:2\nt@c\tgarbage\n"
            "t@d\trestomic:-x:1\nt@e\tother:default:1\nt\trestomic:default:1\n",
        )  # fmt: skip
        assert leftovers.find_leftovers(DOOR) == [
            Leftover(other, "note", other.unfinished),
            Leftover(PLACE, "mount", f"{root}/default/view"),
            Leftover(PLACE, "snapshot", "t@a"),
            Leftover(Place("kopiatomic", "k"), "snapshot", "t@b"),
        ]

    def test_a_running_job_has_none(self, places, fp):
        self.see(fp, f"{places}/run/restomic/default/view", marked="t@a\trestomic:default:1\n")
        with state.lock(PLACE):
            state.begin(PLACE, "x")
            assert leftovers.find_leftovers(DOOR) == []

    def test_what_is_gone_at_a_second_look_belonged_to_a_run_that_ended(self, places, fp):
        self.see(fp, marked="t@a\trestomic:default:1\nt@b\trestomic:default:1\n")
        self.see(fp, marked="t@b\trestomic:default:1\nt@c\trestomic:default:2\n")
        assert [each.name for each in leftovers.find_leftovers(DOOR)] == ["t@b"]


class TestDescribed:
    def test_one_of_a_kind_by_its_name_and_more_by_number(self):
        left = [
            Leftover(PLACE, "mount", "/v\n"),
            Leftover(PLACE, "snapshot", "t@a"),
            Leftover(PLACE, "snapshot", "t@b"),
        ]
        assert leftovers.described(left) == ["2 snapshots, such as t@a", "mount /v\\x0a"]

    def test_the_note_only_where_there_is_nothing_else(self):
        note = Leftover(PLACE, "note", "/n")
        assert leftovers.described([note]) == ["note /n"]
        assert leftovers.described([note, Leftover(PLACE, "mount", "/v")]) == ["mount /v"]

    def test_nothing(self):
        assert leftovers.described([]) == []
