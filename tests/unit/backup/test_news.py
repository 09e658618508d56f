"""What is new since the last good backup, and what is not."""

import pytest
from support.datasets import dataset, plan_for, simple, unmounted, zfs

from kopiatomic.backup.news import Before, News, before_of, news
from kopiatomic.backup.plan import Plan
from kopiatomic.backup.selection import LeftOut
from kopiatomic.system.machine import Mount


def plan(*left_out: LeftOut, **changes) -> Plan:
    """Return a plan that captures zroot/home and zroot/home/ben."""
    made = plan_for(simple(), "zroot/home", recursive=True)
    return made._replace(left_out=left_out, **changes)


SAME = Before("2026-11-22 03:01", {"zroot/home": "/home", "zroot/home/ben": "/home/ben"}, {})
LOCKED = LeftOut("zroot/x", "not mounted: its encryption key is not loaded", "locked")


def test_the_same_again_is_no_news():
    assert news(plan(), SAME) == News("2026-11-22 03:01")
    assert not news(plan(), SAME).is_any


@pytest.mark.parametrize("kind", ["canmount", "mountpoint", "excluded", "property", "shown twice"])
class TestQuiet:
    def test_never_news_by_itself(self, kind):
        left_out = LOCKED._replace(kind=kind)
        assert not news(plan(left_out), None).is_any
        assert not news(plan(left_out), SAME).is_any

    def test_but_where_it_was_in_the_last_good_backup(self, kind):
        left_out = LOCKED._replace(kind=kind)
        captured = {**SAME.captured, "zroot/x": "/x"}
        made = news(plan(left_out), SAME._replace(captured=captured))
        assert (made.missing, made.left_out, made.gone) == ((left_out,), (), ())

    def test_nor_does_it_make_known_what_cannot_be_captured_later(self, kind):
        made = news(plan(LOCKED), SAME._replace(left_out={"zroot/x": kind}))
        assert made.left_out == (LOCKED,)


@pytest.mark.parametrize(
    "kind",
    ["volume", "jailed", "hidden", "locked", "not mounted", "too long", "not selected", "not zfs",
     "inactive"],
)  # fmt: skip
class TestTold:
    def test_once(self, kind):
        left_out = LOCKED._replace(kind=kind)
        assert news(plan(left_out), None).left_out == (left_out,)
        assert news(plan(left_out), SAME).left_out == (left_out,)
        assert not news(plan(left_out), SAME._replace(left_out={"zroot/x": kind})).is_any

    def test_whatever_the_reason_was(self, kind):
        """An old entry has no kinds."""
        for before in ("", "hidden"):
            known = SAME._replace(left_out={"zroot/x": before})
            assert not news(plan(LOCKED._replace(kind=kind)), known).left_out


def test_what_is_lost_on_the_way_is_news_each_time():
    lost = LeftOut("zroot/x", "out of space")
    assert news(plan(lost), SAME._replace(left_out={"zroot/x": "lost"})).left_out == (lost,)


def test_new_ones_moved_ones_and_those_that_are_gone():
    made = news(plan(), SAME._replace(captured={"zroot/home": "/old", "tank": "/data"}))
    assert made.captured == (
        ("zroot/home", "/home (before: /old)"), ("zroot/home/ben", "/home/ben"),
    )  # fmt: skip
    assert made.gone == ("tank",)


class TestDirectories:
    """Of a dataset of which only directories are chosen each of these is one for itself."""

    def news(self, *targets: str, old: tuple[str, ...] = (), left_out=()):
        before = Before("2026", {"tank": "/data"}, {}, parts={"tank": old} if old else {})
        return news(plan_for(simple(), *targets)._replace(left_out=left_out), before)

    def test_the_same_again(self):
        assert not self.news("/data/a", "/data/b", old=("/data/a", "/data/b")).is_any

    def test_one_more_and_one_less(self):
        made = self.news("/data/a", "/data/c", old=("/data/a", "/data/b"))
        assert made.captured == (("tank", "/data/c"),)
        assert made.gone == ("/data/b",)

    def test_one_that_is_in_another_now_is_not_gone(self):
        made = self.news("/data/a", old=("/data/a/b", "/data/a/c"))
        assert (made.captured, made.gone) == ((("tank", "/data/a"),), ())

    def test_all_instead_of_a_part_and_a_part_instead_of_all(self):
        made = self.news("/data", old=("/data/a",))
        assert made.captured == (("tank", "/data (before: /data, only /data/a)"),)
        assert made.gone == ()
        made = self.news("/data/a")
        assert made.captured == (("tank", "/data, only /data/a (before: /data)"),)

    def test_one_that_was_not_there(self):
        lost = LeftOut("/data/b", "not there", "lost")
        made = self.news("/data/a", old=("/data/a", "/data/b"), left_out=(lost,))
        assert (made.missing, made.gone) == ((lost,), ())


def test_one_that_is_not_chosen_any_more_is_named_once():
    captured = {**SAME.captured, "zroot/home/carl": "/home/carl"}
    unchosen = LeftOut("/home/carl", "not selected (dataset zroot/home/carl)", "not selected")
    made = news(plan(unchosen), SAME._replace(captured=captured))
    assert (made.missing, made.left_out, made.gone) == ((unchosen,), (), ())


def test_live_places_and_notes():
    made = plan(live=("/dev", "/root/.cache"), notes=("old", "new"))
    known = SAME._replace(live=frozenset({"/dev"}), notes=frozenset({"old"}))
    assert news(made, known)[5:] == (("/root/.cache",), ("new",))
    assert news(made, None)[5:] == (made.live, made.notes)


@pytest.mark.parametrize(("old", "is_new"), [
    ("/root/.cache/restic", False), ("/root", False), ("/root/.config", True), ("/root/.c", True),
])  # fmt: skip
def test_a_live_place_that_is_in_another_or_holds_it_is_not_new(old, is_new):
    made = news(plan(live=("/root/.cache",)), SAME._replace(live=frozenset({old})))
    assert bool(made.live) is is_new


def test_without_a_plan():
    assert news(None, None) == News()
    assert news(None, SAME) == News("2026-11-22 03:01")


class TestBefore:
    def test_an_entry_is_read(self):
        entry = {
            "moment": "2026-11-22T03:01:12+0100", "not_frozen": ["/dev"], "notes": ["n"],
            "captured": [{"dataset": "t", "mountpoint": "/t"}],
            "left_out": [{"name": "v", "kind": "volume", "reason": "r"}, {"name": "w"}],
        }  # fmt: skip
        assert before_of(entry) == Before(
            "2026-11-22 03:01", {"t": "/t"}, {"v": "volume", "w": ""}, frozenset({"/dev"}),
            frozenset({"n"}),
        )  # fmt: skip

    def test_directories_are_sorted_and_there_where_they_make_sense(self):
        rows = [{"dataset": "t", "mountpoint": "/t", "directories": ["/t/b", 7, "/t/a"]},
                {"dataset": "u", "directories": []}, {"directories": ["/x"]},
                {"dataset": "v", "directories": "/v"}]  # fmt: skip
        made = before_of({"captured": rows})
        assert made is not None
        assert made.parts == {"t": ("/t/a", "/t/b")}

    @pytest.mark.parametrize("entry", [None, {}, {"captured": 7}, {"captured": {}}])
    def test_one_that_does_not_say_what_was_captured(self, entry):
        assert before_of(entry) is None

    def test_damage_is_passed_over(self):
        entry = {"captured": [3, {}, {"dataset": "t"}], "left_out": "x", "notes": 7, "moment": 5}
        assert before_of(entry) == Before("5", {"t": ""}, {})


def test_a_thin_jail():
    """The nullfs of its template is in the backup once; that of a file system left out is not."""
    datasets, mounts = simple()
    datasets.append(dataset("tank/jails"))
    mounts += [
        zfs("tank/jails", "/data/jails"),
        Mount("/data/template", "/data/jails/thin", "nullfs"),
        Mount("/usr/ports", "/data/jails/thin/usr/ports", "nullfs"),
        Mount("devfs", "/data/jails/thin/dev", "devfs"),
    ]
    made = plan_for((datasets, mounts), "tank", recursive=True)
    assert made.left_out == (
        LeftOut(
            "/data/jails/thin", "a nullfs of /data/template, which is in the backup", "shown twice"
        ),
        LeftOut("/data/jails/thin/usr/ports", "a nullfs of /usr/ports", "not zfs"),
    )
    assert len(news(made, None).left_out) == 1


def test_a_container_without_a_mount_point():
    machine = ([*simple()[0], unmounted("zroot/home/none", mountpoint="none")], simple()[1])
    (left_out,) = plan_for(machine, "zroot/home", recursive=True).left_out
    assert left_out.kind == "mountpoint"
    assert left_out.reason == "not mounted: its property mountpoint is none"
