"""When upkeep and drills last worked, and which of them failed the last time."""

import pytest

from kopiatomic.monitoring import care
from kopiatomic.monitoring.care import PastCare
from unit.monitoring.runs import DAY, HOUR, NOW

pytestmark = pytest.mark.usefixtures("utc")


def upkeep(age: float, /, outcome: str = "success", **steps: str) -> PastCare:
    """Return an upkeep run; a step is its kind and ``ok``, ``failed`` or ``not_run``."""
    told = tuple((what, how.replace("_", " ")) for what, how in steps.items())
    problems = () if outcome == "success" else ("no\nspace",)
    return PastCare("upkeep", outcome, NOW - age, told, problems)


def upkeep_of(env_file: str, age: float) -> PastCare:
    return PastCare("upkeep", "success", NOW - age, (("check", "ok"),), env_file=env_file)


def drill(age: float, outcome: str = "success", **changes) -> PastCare:
    return PastCare("drill", outcome, NOW - age, **changes)


def summary(*done: PastCare) -> list[tuple[str, float | None, bool]]:
    """Return of each kind of work how many hours ago it worked, and whether it failed since."""
    return [
        (
            work.what,
            None if work.worked is None else (NOW - work.worked.began) / HOUR,
            work.failed is not None,
        )
        for work in care.works(done)
    ]


class TestWorks:
    def test_none(self):
        assert care.works(()) == []

    def test_each_kind_by_itself_in_the_order_of_a_night(self):
        done = [
            drill(30 * HOUR), upkeep(20 * HOUR, check="ok", prune="ok"),
            upkeep(HOUR, "failed", check="ok", prune="failed"),
        ]  # fmt: skip
        assert summary(*done) == [("check", 1, False), ("prune", 20, True), ("drill", 30, False)]

    def test_what_was_not_tried_neither_worked_nor_failed(self):
        done = [
            upkeep(20 * HOUR, prune="ok"),
            upkeep(HOUR, "failed", check="failed", prune="not_run"),
        ]
        assert summary(*done) == [("check", None, True), ("prune", 20, False)]

    def test_one_that_could_not_begin_has_failed(self):
        """As where the client is not installed: no step has come to anything."""
        done = upkeep(HOUR, "failed", check="not_run", prune="not_run")
        assert summary(done) == [("check", None, True), ("prune", None, True)]
        done = upkeep(HOUR, "interrupted", check="ok", prune="not_run")
        assert summary(done) == [("check", 1, False), ("prune", None, True)]

    def test_a_drill_that_has_failed_for_a_month(self):
        done = [drill(60 * DAY), *(drill(day * DAY, "failed") for day in (30, 23, 16, 9, 2))]
        assert summary(*done) == [("drill", 60 * 24, True)]

    def test_one_that_works_again(self):
        assert summary(drill(9 * DAY, "failed"), drill(2 * DAY)) == [("drill", 48, False)]

    def test_an_older_history_knows_a_step_by_its_name(self):
        (work,) = care.works([PastCare("upkeep", "success", NOW, (("check 5 %", "ok"),))])
        assert (work.what, work.name) == ("check 5 %", "check 5 %")


FILES = {"a.env": "/etc/a.env", "b.env": "/etc/b.env"}


class TestSeveralRepositories:
    def named(self, *done: PastCare) -> list[PastCare]:
        return list(care.named(done, FILES))

    def test_what_was_done_in_one_of_them_is_called_by_its_name(self):
        done = [drill(2 * HOUR, env_file="/etc/b.env"), drill(HOUR, env_file="/etc/c.env")]
        one, other = self.named(*done)
        assert (one.repository, one.run) == ("b.env", one.began)
        assert other == done[1]

    def test_by_the_name_that_it_has_in_the_backups(self):
        (part,) = self.named(drill(HOUR, env_file="/etc/b.env", repository="etc/b.env", run=5.0))
        assert (part.repository, part.run) == ("b.env", 5.0)

    def test_the_other_is_one_in_which_it_never_was(self):
        done = self.named(upkeep_of("/etc/b.env", HOUR), drill(HOUR, env_file="/etc/b.env"))
        told = [
            (each.name, each.worked is not None, each.failed)
            for each in care.works(done, FILES)
        ]
        assert told == [
            ("repository check of b.env", True, None), ("repository check of a.env", False, None),
            ("restore drill of b.env", True, None), ("restore drill of a.env", False, None),
        ]  # fmt: skip
        assert care.repositories(done, "drill", FILES) == ["b.env", "a.env"]

    def test_each_by_itself_is_both(self):
        done = self.named(drill(HOUR, "failed", env_file="/etc/a.env"),
                          drill(1, env_file="/etc/b.env"))  # fmt: skip
        told = [(each.repository, each.failed is not None) for each in care.works(done, FILES)]
        assert told == [("a.env", True), ("b.env", False)]

    def test_what_does_not_say_where_it_was_counts_for_none(self):
        """As in histories from before that was noted; it is told all the same."""
        told = [(each.name, each.worked is not None) for each in care.works([drill(1)], FILES)]
        assert told == [
            ("restore drill", True), ("restore drill of a.env", False),
            ("restore drill of b.env", False),
        ]  # fmt: skip

    def test_what_was_never_done_is_not_told(self):
        assert care.works([], FILES) == []
        assert care.repositories([], "drill", FILES) == [""]


class TestLastWorked:
    def test_the_last_in_the_order_of_the_history(self):
        done = [upkeep(30 * HOUR, check="ok"), upkeep(2 * HOUR, "failed", check="failed"), drill(1)]
        assert care.last_worked(done, "upkeep", NOW) == done[0]
        assert care.last_worked(done, "drill", NOW) == done[2]

    def test_one_from_the_future_or_without_a_date_is_not_believed(self):
        done = [upkeep(-DAY, check="ok"), PastCare("upkeep", "success")]
        assert care.last_worked(done, "upkeep", NOW) is None


def test_words():
    failed = upkeep(2 * HOUR, "failed", check="failed")
    assert care.failure(failed) == "FAILED 2026-11-23 06:00: no\\x0aspace"
    assert care.moment(None, NOW) == "never"
    assert care.moment(drill(26 * HOUR), NOW) == "2026-11-22 06:00, 1 d 2 h ago"
    assert care.moment(drill(1), NOW) == "2026-11-23 07:59, just now"
    assert care.moment(PastCare("drill", "success"), NOW) == "unknown"
