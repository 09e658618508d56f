"""What is read out of histories, however damaged."""

import json
import os
import time

import pytest
from support.datasets import plan_for, simple

from kopiatomic import state
from kopiatomic.backup import choice
from kopiatomic.backup.report import Report, as_dict
from kopiatomic.clients.records import Source, Tally
from kopiatomic.job import Job
from kopiatomic.monitoring import history, status
from kopiatomic.monitoring.care import PastCare
from kopiatomic.monitoring.history import JobHistory
from kopiatomic.monitoring.status import Overview
from kopiatomic.repository.account import Account, Done
from kopiatomic.repository.account import as_dict as account_as_dict
from kopiatomic.repository.drill import Drill
from kopiatomic.state import Place
from unit.monitoring.runs import DAY, HOUR, NOW, PLACE, ago, entry, run

pytestmark = pytest.mark.usefixtures("utc")


class TestReading:
    def test_what_a_run_writes_is_read_back(self):
        done = Report("restomic", "default", "r", NOW - 60)
        done.ended = NOW
        done.captured_at = {"t": NOW - 50}
        done.fail("out of luck", 1)
        read = history.run_of(json.loads(json.dumps(as_dict(done))))
        assert (read.began, read.moment, read.seconds) == (NOW - 60, NOW - 50, 60)
        assert (read.outcome, read.problems) == ("failed", ("out of luck",))

    def test_every_member(self):
        read = run(
            HOUR, problems=["p"], env_file="/e", command=["/w", "backup"],
            left_out=[
                {"name": "t/x", "kind": "excluded", "reason": "in other words"},
                {"name": "t/y", "kind": "not mounted", "reason": "excluded by its state"},
            ],
        )  # fmt: skip
        assert read.captured == ("t/a", "t/b")
        assert read.excluded == ("t/x",)
        assert (read.added, read.new_or_changed, read.seconds) == (4096, 7, 62)
        assert (read.client, read.env_files) == ("/w", ("/e",))

    def test_figures_are_those_of_all_client_runs(self):
        def of(kind: str, added: int | None, new: int) -> dict[str, object]:
            return {"kind": kind, "client": {"added": added, "new_or_changed": new}}

        rows = [of("files", 5, 2), of("volume", 7, 1), of("files", None, 3), "x", {"client": 5}]
        read = run(HOUR, client_runs=rows)
        assert (read.added, read.new_or_changed) == (12, 5)
        read = run(HOUR, client_runs=[of("volume", 7, 1)])
        assert (read.added, read.new_or_changed) == (7, None)
        read = run(HOUR, client_runs=[of("files", None, 1)])
        assert (read.added, read.new_or_changed) == (None, 1)
        # As entries were before there could be several.
        assert (run(HOUR, client_runs=[]).added, run(HOUR, client_runs=5).added) == (4096, 4096)

    def test_what_was_chosen_and_what_came_of_it_is_read_back(self):
        job = Job("restomic", targets=("zroot/home",), recursive=True, exclude=("*/ben",))
        done = Report("restomic", "default", "r", NOW)
        done.selection = choice.as_dict(job)
        done.plan = plan_for(simple(), "zroot/home", recursive=True, exclude=("*/ben",))
        read = history.run_of(json.loads(json.dumps(as_dict(done))))
        assert read.job == job
        assert (read.captured, read.points) == (("zroot/home",), ("/home",))
        assert read.omitted == (("zroot/home/ben", "excluded by */ben"),)

    def test_an_older_history_does_not_tell_what_was_chosen(self):
        assert run(HOUR).job is None

    def test_what_a_plan_leaves_out_by_x_is_read_back(self):
        done = Report("restomic", "default", "r", NOW)
        done.plan = plan_for(simple(), "zroot/home", recursive=True, exclude=("*/ben",))
        read = history.run_of(json.loads(json.dumps(as_dict(done))))
        assert read.excluded == ("zroot/home/ben",)

    def test_an_older_history_tells_what_was_excluded_in_words(self):
        left_out = [
            {"name": "t/x", "reason": "excluded by t/*"},
            {"name": "t/y", "reason": "not mounted"},
        ]
        assert run(HOUR, left_out=left_out).excluded == ("t/x",)

    def test_without_c_the_client_is_the_program(self):
        read = run(HOUR, command=[], client={"command": ["restic", "backup"]})
        assert read.client == "restic"

    def test_an_entry_without_an_outcome_is_no_success(self):
        assert history.run_of({}).outcome == "failed"
        assert history.run_of({"outcome": "trouble"}).succeeded
        assert history.run_of({"outcome": ["success"]}).outcome == "failed"


class TestSnapshots:
    def test_those_that_were_taken_are_read_back(self):
        rows = [{"dataset": "t/a", "mountpoint": "/a", "snapshot": "t/a@x", "guid": "1"}]
        told = {"oldest": ago(HOUR), "oldest_snapshot": "t/a@x"}
        left = [{"name": "t/b", "kind": "no snapshot", "reason": "none"}]
        read = run(HOUR, captured=rows, existing=told, left_out=left)
        assert (read.snapshots, read.oldest, read.oldest_name) == (("t/a@x",), NOW - HOUR, "t/a@x")
        assert read.unmatched == ("t/b",)
        assert read.oldest_moment == NOW - HOUR
        assert run(DAY).oldest_moment == NOW - DAY

    def test_a_run_that_found_nothing_new_is_no_backup_and_no_failure(self):
        idle = run(HOUR, "unchanged")
        assert (idle.succeeded, idle.is_well) == (False, True)
        good = run(DAY)
        assert JobHistory(PLACE, (good, idle)).last_success == good
        assert history.last_failure((good, idle), NOW) is None

    def test_in_the_row_of_nights_it_hides_nothing(self):
        runs = (run(2 * DAY), run(2 * DAY - 60, "unchanged"), run(DAY, "failed"),
                run(DAY - 60, "unchanged"), run(HOUR, "unchanged"))  # fmt: skip
        assert history.nights(runs, NOW)[-3:] == ["success", "failed", "unchanged"]


class TestCare:
    def test_what_upkeep_writes_is_read_back(self):
        account = Account("upkeep", "restomic", "default", NOW)
        account.steps = [
            Done("check 5 %", "failed", 1, 2.0, "check"),
            Done("forget and prune", kind="forget", also=("prune",)),
        ]
        account.fail("out of luck", 1)
        read = history.care_of(json.loads(json.dumps(account_as_dict(account))))
        steps = (("check", "failed"), ("forget", "not run"), ("prune", "not run"))
        assert read == PastCare("upkeep", "failed", NOW, steps, ("out of luck",), ended=0.0)

    def test_what_a_drill_writes_is_read_back(self):
        account = Drill("drill", "restomic", "default", NOW)
        source = Source("0123", "/a, /b", NOW, paths=("/a", "/b"))
        tally = Tally(source, ("/a", "/a/x", "/b"))
        tally.absent.append("/b")
        tally.chosen, tally.identical, tally.changed = 4, 2, ["/a/f"]
        account.tallies.append(tally)
        read = history.care_of(json.loads(json.dumps(account_as_dict(account))))
        assert (read.kind, read.files, read.restored) == ("drill", 4, 3)
        assert read.points == ("/a", "/a/x")

    @pytest.mark.parametrize("value", [None, True, -1, "x", [], {}, [1], [{}], {"a": 1}])
    def test_any_value_anywhere(self, value):
        for name in ("outcome", "began", "steps", "problems", "files", "restored", "mountpoints"):
            past = JobHistory(PLACE, care=(history.care_of({"kind": "drill", name: value}),))
            status.as_text(Overview("restomic", None, "box", NOW, (past,), full=True))

    def test_of_a_job_it_is_read_with_the_rest(self, places):
        state.remember(PLACE, entry(HOUR))
        state.remember_upkeep(PLACE, {"kind": "drill", "outcome": "success"})
        state.remember_upkeep(PLACE, {"kind": "something else"})
        (past,) = history.read_histories()
        assert [each.kind for each in past.care] == ["drill"]

    def test_what_was_done_in_one_of_several_repositories_has_its_name(self, places):
        rows = [
            {"kind": "files", "name": name, "repository": name, "env_file": f"/etc/{name}",
             "outcome": "success"}
            for name in ("a.env", "b.env")
        ]  # fmt: skip
        state.remember(PLACE, entry(HOUR, client_runs=rows))
        account = Account("upkeep", "restomic", "default", NOW, env_file="/etc/b.env")
        state.remember_upkeep(PLACE, account_as_dict(account))
        (past,) = history.read_histories()
        assert past.repositories == {"a.env": "/etc/a.env", "b.env": "/etc/b.env"}
        assert [each.repository for each in past.care] == ["b.env"]
        state.remember(PLACE, entry(HOUR, client_runs=rows[:1]))
        (past,) = history.read_histories()
        assert past.repositories == {}
        assert [each.repository for each in past.care] == [""]

    def test_a_job_with_nothing_else_is_one(self, places):
        state.remember_upkeep(PLACE, {"kind": "upkeep", "outcome": "success"})
        assert [past.place for past in history.read_histories()] == [PLACE]


class TestJobs:
    def test_are_found_by_their_files(self, places):
        state.remember(PLACE, entry(HOUR))
        state.remember(Place("kopiatomic", "off.site"), entry(HOUR))
        state.begin(Place("restomic", "killed"), "restomic:killed:1")
        for name in ("restomic.-x.history", "other.default.history", "restomic.default.upkeep",
                     "restomic.history", "restomic.a b.history"):  # fmt: skip
            (places / "db" / name).write_text("{}")
        labels = [past.place.label for past in history.read_histories()]
        assert labels == ["kopiatomic/off.site", "restomic/default", "restomic/killed"]

    def test_none(self, places):
        assert history.read_histories() == []

    def test_a_first_run_under_way_is_one(self, places):
        earlier = time.time()
        with state.lock(PLACE):
            (past,) = history.read_histories()
            later = time.time()
        assert past.running
        # A file system's times may be those of the last tick of the clock.
        assert earlier - 1 < past.since <= later
        assert history.read_histories() == []

    def test_a_lock_file_of_a_process_that_died_is_no_run(self, places):
        state.private_directory(PLACE.root)
        with open(PLACE.lock, "w") as file:
            file.write("1 1\n")
        assert history.read_histories() == []

    def test_an_unreadable_history_is_told(self, places):
        state.private_directory(state.STATE_DIRECTORY)
        os.mkdir(PLACE.history)
        (past,) = history.read_histories()
        assert "cannot be read" in past.runs[0].problems[0]


class TestNights:
    def test_the_oldest_first_and_the_last_run_of_a_date_counts(self):
        runs = [
            run(9 * DAY), run(6 * DAY), run(4 * DAY, "incomplete"), run(3 * DAY, "interrupted"),
            run(2 * DAY, "failed"), run(2 * DAY - HOUR), run(DAY), run(DAY - HOUR, "failed"),
            run(5 * HOUR),
        ]  # fmt: skip
        marks = "".join(status.MARKS[night] for night in history.nights(runs, NOW))
        assert marks == "+.~x+x+"

    def test_a_date_in_the_future_is_no_night(self):
        assert history.nights([run(-3 * DAY)], NOW) == ["none"] * 7


class TestLastFailure:
    def test_of_late(self):
        failed = run(2 * DAY, "failed")
        assert history.last_failure([failed, run(HOUR)], NOW) == failed

    def test_long_mended(self):
        assert history.last_failure([run(9 * DAY, "failed"), run(HOUR)], NOW) is None

    def test_long_ago_and_nothing_since(self):
        failed = run(99 * DAY, "failed")
        assert history.last_failure([run(100 * DAY), failed], NOW) == failed
