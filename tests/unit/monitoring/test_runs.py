"""Client runs of jobs that have several: --check, --status and --metrics know them by name."""

from __future__ import annotations

import json

import pytest

from kopiatomic.monitoring import check, history, metrics, runs, status
from kopiatomic.monitoring.check import Expected, Observations
from kopiatomic.monitoring.history import JobHistory
from unit.monitoring.runs import DAY, HOUR, NOW, PLACE, ago, entry
from unit.monitoring.test_metrics import lint, parse

FILES = ["/here.env", "/away.env"]


def row(name: str, outcome: str = "success", kind: str = "files", of: str | None = None):
    return {
        "name": f"{of or kind} to {name}.env", "kind": kind, "of": of, "repository": f"{name}.env",
        "env_file": f"/{name}.env", "outcome": outcome, "client": {"seconds": 5, "added": 9},
    }  # fmt: skip


def night(seconds: float, *rows: dict[str, object], files: list[str] = FILES, **more: object):
    outcome = "success" if all(each["outcome"] == "success" for each in rows) else "incomplete"
    problems = [f"{each['name']}: gone" for each in rows if each["outcome"] != "success"]
    more = {"problems": problems, "env_file": files[0], "env_files": files, **more}
    return entry(seconds, outcome, client_runs=list(rows), **more)


def job(*entries: dict[str, object], upkeeps: tuple[dict[str, object], ...] = ()) -> JobHistory:
    care = tuple(part for each in upkeeps for part in history.cares_of(each))
    return JobHistory(PLACE, tuple(map(history.run_of, entries)), care=care)


def stale(found: JobHistory, max_age: float = 48.0) -> list[str]:
    observed = Observations(jobs=(found,), expected=(Expected(PLACE, max_age),))
    return [e.text for e in check.findings(observed, NOW) if e.kind in ("stale", "never")]


BOTH = night(3 * DAY, row("here"), row("away"))
ONE = night(2 * HOUR, row("here"), row("away", "failed"))


class TestCheck:
    def test_one_is_stale_although_the_other_is_good(self, utc):
        (found,) = stale(job(BOTH, ONE))
        assert found == (
            "restomic/default: the last good backup to away.env was made 2026-11-20 08:00, 3 d "
            "ago; at most 48 h are allowed; the last run (2026-11-23 05:59) is INCOMPLETE: files "
            "to away.env: gone"
        )

    def test_each_may_be_good_in_another_night(self):
        other = night(DAY, row("here", "failed"), row("away"))
        assert stale(job(other, ONE)) == []

    def test_one_that_never_was_good(self):
        (found,) = stale(job(ONE))
        assert found.startswith("restomic/default: no good backup to away.env yet; the last run")

    def test_where_all_are_as_old_it_is_one_finding(self):
        (found,) = stale(job(BOTH))
        assert "the last successful backup was made" in found

    def test_one_that_was_removed_from_the_job_counts_no_longer(self):
        alone = night(HOUR, row("here"), files=["/here.env"])
        assert stale(job(BOTH, ONE, alone)) == []

    def test_nor_where_the_next_run_came_to_nothing(self):
        early = entry(HOUR, "failed", env_file="/here.env", env_files=["/here.env"], client_runs=[])
        (found,) = stale(job(BOTH, ONE, early))
        assert "away.env" not in found.partition(";")[0]

    def test_what_was_the_only_one_before_goes_on(self):
        """An entry without client runs is of its env file."""
        alone = entry(HOUR, env_file="/here.env")
        both = night(0, row("here", "failed"), row("away"))
        assert stale(job(alone, both)) == []

    def test_a_date_in_the_future_is_none(self, utc):
        future = night(-DAY, row("here"), row("away"))
        (found,) = stale(job(BOTH, future))
        assert "the last successful backup was made 2026-11-20" in found

    def test_a_volume_is_told_by_its_name(self):
        volume = row("here", kind="volume", of="t/vm")
        late = night(3 * DAY, row("here"), volume)
        now = night(HOUR, row("here"), {**volume, "outcome": "failed"})
        (found,) = stale(job(late, now))
        assert "the last good backup of t/vm to here.env was made" in found

    def test_a_layout_that_is_saved_when_it_changes_is_not_stale(self):
        layout = row("here", kind="layout")
        assert runs.several(job(night(DAY, row("here"), layout))) == []
        assert len(runs.several(job(night(DAY, row("here"), {**layout, "outcome": "failed"})))) == 2

    def test_what_is_covered_where_one_is_away(self):
        assert job(ONE).last_kept is not None
        assert job(ONE).last_success is None


class TestCare:
    def upkeep(self, seconds: float, here: str, away: str, kind: str = "upkeep", **more: object):
        when = {"began": ago(seconds), "ended": ago(seconds)}
        parts = [
            {"name": f"{name}.env", "outcome": outcome, **when,
             "problems": [] if outcome == "success" else ["gone"], **more}
            for name, outcome in (("here", here), ("away", away))
        ]  # fmt: skip
        steps = [
            {"kind": "check", "repository": each["name"],
             "outcome": "ok" if each["outcome"] == "success" else "failed"}
            for each in parts
        ]  # fmt: skip
        bad = any(each["outcome"] != "success" for each in parts)
        return {
            "kind": kind, "outcome": "failed" if bad else "success", "began": ago(seconds),
            "ended": ago(seconds), "steps": steps if kind == "upkeep" else [],
            "repositories": parts,
        }  # fmt: skip

    def findings(
        self, *upkeeps: dict[str, object], what: str = "upkeep", into: tuple[str, ...] = ()
    ) -> list[str]:
        rows = [row(name) for name in into or ("here", "away")]
        found = job(night(9 * DAY, *rows), upkeeps=upkeeps)
        observed = Observations(jobs=(found,), expected=(Expected(PLACE, 48.0, what),))
        kinds = ("stale", "never", "failed")
        return [each.text for each in check.findings(observed, NOW) if each.kind in kinds]

    def test_all_of_them_must_be_fresh(self):
        good = self.upkeep(HOUR, "success", "success")
        assert self.findings(good) == []
        (found,) = self.findings(good, self.upkeep(0, "success", "failed"))
        assert found.startswith("restomic/default: the repository check of away.env FAILED")
        late = self.findings(self.upkeep(3 * DAY, "success", "success"))
        assert ["of here.env" in late[0], "of away.env" in late[1]] == [True, True]

    def test_a_drill(self):
        good = self.upkeep(HOUR, "success", "success", "drill", files=1, restored=1)
        assert self.findings(good, what="drill") == []
        (found,) = self.findings(good, self.upkeep(0, "failed", "success", "drill"), what="drill")
        assert "the restore drill of here.env FAILED" in found

    def test_one_that_is_no_longer_looked_after_is_told_no_more(self):
        bad = self.upkeep(2 * HOUR, "success", "failed")
        alone = {"kind": "upkeep", "outcome": "success", "began": ago(HOUR), "ended": ago(HOUR),
                 "steps": [{"kind": "check", "outcome": "ok"}]}  # fmt: skip
        assert self.findings(bad, alone, into=("here",)) == []
        (found,) = self.findings(bad, alone)
        assert "the repository check of away.env FAILED" in found

    def test_the_numbers_are_those_of_the_worst(self):
        found = job(ONE, upkeeps=(
            self.upkeep(DAY, "success", "success"), self.upkeep(HOUR, "success", "failed"),
        ))  # fmt: skip
        told = parse(metrics.as_text("restomic", [found]))
        (good,) = told["kopiatomic_check_last_success_timestamp_seconds"]
        (last,) = told["kopiatomic_check_last_run_success"]
        assert (good.value, last.value) == (NOW - DAY, 0)


class TestStatus:
    def overview(self, found: JobHistory) -> status.Overview:
        return status.Overview("restomic", None, "host", NOW, (found,))

    def test_each_is_shown_with_its_last_good_backup(self, utc):
        text = status.as_text(self.overview(job(BOTH, ONE)))
        assert text.partition("Client runs, and their last good backups:\n")[2].startswith(
            "  default  files to here.env  2026-11-23 06:00, 2 h ago\n"
            "           files to away.env  2026-11-20 08:00, 3 d ago\n"
            "                                failed 2026-11-23 05:59\n"
        )

    def test_as_data(self):
        (told,) = status.as_dict(self.overview(job(ONE)))["jobs"]
        assert [each["age_seconds"] for each in told["client_runs"]] == [2 * HOUR, None]
        assert json.dumps(told)

    def test_of_one_nothing_is_shown(self):
        alone = job(entry(HOUR, client_runs=[row("here")], env_files=["/here.env"]))
        assert "Client runs" not in status.as_text(self.overview(alone))


class TestMetrics:
    def test_there_is_a_series_for_each(self):
        told = parse(metrics.as_text("restomic", [job(BOTH, ONE)]))
        for name in told:
            lint(name)
        series = told["kopiatomic_client_run_last_success_timestamp_seconds"]
        assert [(each.labels["repository"], each.value) for each in series] == [
            ("here.env", NOW - 2 * HOUR), ("away.env", NOW - 3 * DAY),
        ]  # fmt: skip
        good = told["kopiatomic_client_run_last_success"]
        assert [each.value for each in good] == [1, 0]
        assert [each.value for each in told["kopiatomic_client_run_added_bytes"]] == [9, 9]

    @pytest.mark.parametrize("odd", [3, [3], [{}, {}], [{"kind": []}, {"env_file": 3}]])
    def test_a_damaged_history_gives_valid_numbers(self, odd):
        parse(metrics.as_text("restomic", [job({"client_runs": odd, "env_files": 3})]))
