"""What is read out of histories, however damaged, and what is told of it."""

import json
import os
import time

import pytest

from kopiatomic import formatting, state
from kopiatomic.backup.report import Report, as_dict
from kopiatomic.monitoring import history, leftovers, status
from kopiatomic.monitoring.history import JobHistory, PastRun
from kopiatomic.monitoring.leftovers import Leftover
from kopiatomic.monitoring.status import Overview
from kopiatomic.state import Place
from kopiatomic.system.command import Door
from unit.machines import plan_for, simple

DOOR = Door()
PLACE = Place("restomic", "default")
MOUNT = ["mount", "-v", "--libxo", "json"]
MARKED = "zfs get -Hp -t snapshot -s local -o name,value org.kopiatomic:run"
NOW = 1_795_420_800.0  # 2026-11-23 08:00:00 UTC
HOUR, DAY = 3600.0, 86400.0


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def places(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(state, "RUN_ROOT", str(tmp_path / "run"))
    monkeypatch.setattr(state, "STATE_DIRECTORY", str(tmp_path / "db"))
    return tmp_path


def ago(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(NOW - seconds))


def entry(seconds: float, outcome: str = "success", /, **changes):
    return {
        "outcome": outcome, "began": ago(seconds + 2), "moment": ago(seconds), "seconds": 62,
        "captured": [{"dataset": f"t/{n}", "mountpoint": f"/{n}"} for n in "ab"],
        "client": {"added": 4096, "new_or_changed": 7}, **changes,
    }  # fmt: skip


def run(seconds: float, outcome: str = "success", /, **changes) -> PastRun:
    return history.run_of(entry(seconds, outcome, **changes))


def overview(*jobs: JobHistory, **changes) -> Overview:
    return Overview("restomic", None, "box", NOW, jobs, **changes)


class TestReading:
    def test_what_a_run_writes_is_read_back(self):
        done = Report("restomic", "default", "r", began=NOW - 60, ended=NOW)
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
                {"name": "t/y", "kind": "not_mounted", "reason": "excluded by its state"},
            ],
        )  # fmt: skip
        assert read.captured == ("t/a", "t/b")
        assert read.excluded == ("t/x",)
        assert (read.added, read.new_or_changed, read.seconds) == (4096, 7, 62)
        assert (read.client, read.env_file) == ("/w", "/e")

    def test_what_a_plan_leaves_out_by_x_is_read_back(self):
        plan = plan_for(simple(), "zroot/home", recursive=True, exclude=("*/ben",))
        done = Report("restomic", "default", "r", began=NOW, plan=plan)
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

    @pytest.mark.parametrize(
        "value", [None, True, -1, 10**400, "x", [], {}, [1], [None], [{}], {"a": 1}, float("inf")]
    )
    def test_any_value_anywhere(self, value):
        names = [*entry(0), "problems", "left_out", "env_file", "command", "hooks"]
        for name in names:
            for odd in (entry(HOUR, **{name: value}), {name: value}):
                past = JobHistory(PLACE, (history.run_of(odd),))
                status.as_text(overview(past))
                json.dumps(status.as_dict(overview(past)))

    @pytest.mark.parametrize(
        "text",
        ["", "yesterday", "2026-13-01", "9999-12-31T23:59:59-1200", "0001-01-01T00:00:00+1400"],
    )
    def test_any_moment(self, text):
        past = JobHistory(PLACE, (run(HOUR, began=text, moment=text),))
        status.as_text(overview(past))
        json.dumps(status.as_dict(overview(past)))

    def test_an_entry_without_an_outcome_is_no_success(self):
        assert history.run_of({}).outcome == "failed"
        assert history.run_of({"outcome": "trouble"}).succeeded
        assert history.run_of({"outcome": ["success"]}).outcome == "failed"


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
        with state.lock(PLACE):
            (past,) = history.read_histories()
        assert past.running
        assert time.time() - past.since < 60
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


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (-DAY, "in the future"), (-5, "just now"), (59, "just now"), (60, "1 min"),
        (3599, "59 min"), (7.5 * HOUR, "7 h"), (24 * HOUR, "1 d"), (51 * HOUR, "2 d 3 h"),
    ],
)  # fmt: skip
def test_age(seconds, says):
    assert formatting.age(seconds) == says


class TestNewestFailure:
    def test_of_late(self):
        failed = run(2 * DAY, "failed")
        assert history.last_failure([failed, run(HOUR)], NOW) == failed

    def test_long_mended(self):
        assert history.last_failure([run(9 * DAY, "failed"), run(HOUR)], NOW) is None

    def test_long_ago_and_nothing_since(self):
        failed = run(99 * DAY, "failed")
        assert history.last_failure([run(100 * DAY), failed], NOW) == failed


class TestText:
    def test_a_good_job(self):
        text = status.as_text(overview(JobHistory(PLACE, (run(DAY), run(7 * HOUR)))))
        assert text.splitlines() == [
            "restomic on box, 2026-11-23 08:00:00 UTC",
            "",
            "job      last successful backup  age  datasets  added       took  nights",
            "default  2026-11-23 01:00        7 h         2  4 KiB  1 min 2 s  .....++",
            "",
            status.LEGEND,
        ]

    def test_kopia_counts_files(self):
        past = JobHistory(PLACE, (run(HOUR, client={"new_or_changed": 12}),))
        assert " 12 files " in status.as_text(overview(past))

    def test_a_failure_does_not_hide_the_good_backup_before_it(self):
        failed = run(7 * HOUR, "failed", problems=["no space\nleft"])
        text = status.as_text(overview(JobHistory(PLACE, (run(31 * HOUR), failed))))
        assert "default  2026-11-22 01:00        1 d 7 h" in text
        assert ".....+x" in text
        assert "Last failures:\n  default, 2026-11-23 01:00: no space\\x0aleft\n" in text

    def test_never(self):
        incomplete = run(HOUR, "incomplete", problems=["p"])
        text = status.as_text(overview(JobHistory(PLACE, (incomplete,))))
        assert "default  never " in text
        assert "......~" in text
        assert "  default, 2026-11-23 07:00, incomplete: p" in text

    def test_a_running_job_says_since_when(self):
        text = status.as_text(overview(JobHistory(PLACE, (), True, NOW - 2 * HOUR)))
        assert "Running now:\n  default, since 2026-11-23 06:00 (2 h 0 min)\n" in text

    def test_leftovers_with_the_command_that_removes_them(self):
        left = tuple(Leftover(PLACE, "snapshot", f"t/{n}@x") for n in "ab")
        left += (Leftover(PLACE, "mount", "/var/run/restomic/default/view"),)
        left += (Leftover(PLACE, "note", "/note"),)
        text = status.as_text(overview(JobHistory(PLACE, (run(HOUR),)), leftovers=left))
        assert text.endswith(
            "Left behind by killed runs:\n"
            "  2 snapshots, such as t/a@x\n"
            "  mount /var/run/restomic/default/view\n"
            "    to remove it: restomic --sweep -j default\n"
        )

    def test_no_history_says_how_to_begin(self):
        assert "    restomic -n -a\n" in status.as_text(overview())

    def test_a_job_that_is_not_there(self):
        text = status.as_text(Overview("restomic", "x", "box", NOW, ()))
        assert "Job x has not run" in text

    def test_is_ascii_within_80_columns(self):
        runs = (run(51 * HOUR, seconds=8000, client={"added": 999 << 20}), run(HOUR, "failed"))
        places = [Place("restomic", name) for name in ("default", "home", "offsite")]
        text = status.as_text(overview(*(JobHistory(place, runs) for place in places)))
        assert text.isascii()
        assert max(map(len, text.splitlines())) <= 80


def test_json():
    data = status.as_dict(overview(JobHistory(PLACE, (run(7 * HOUR),)), trouble="t"))
    (job,) = json.loads(json.dumps(data))["jobs"]
    assert job["newest_success"]["age_seconds"] == 7 * 3600
    assert job["newest_success"]["added"] == 4096
    assert job["nights"] == ["none"] * 6 + ["success"]
    assert job["newest_failure"] is None
    assert data["trouble"] == "t"


def mount_table(*points: str) -> str:
    mounted = [{"special": "/", "node": point, "fstype": "nullfs"} for point in points]
    return json.dumps({"mount": {"mounted": mounted}})


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


class TestLook:
    def test_one_program_or_one_job_of_it(self, places, fp):
        for program, job in (("restomic", "a"), ("restomic", "b"), ("kopiatomic", "a")):
            state.remember(Place(program, job), entry(HOUR))
        marked = "t@a\trestomic:a:1\nt@b\trestomic:b:1\nt@k\tkopiatomic:a:1\n"
        for _ in range(4):
            fp.register(MOUNT, stdout=mount_table("/"))
            fp.register(MARKED, stdout=marked)
        everything = status.observe(DOOR, "restomic", None, NOW)
        assert [past.place.job for past in everything.jobs] == ["a", "b"]
        assert [each.name for each in everything.leftovers] == ["t@a", "t@b"]
        one = status.observe(DOOR, "restomic", "b", NOW)
        assert [past.place.job for past in one.jobs] == ["b"]
        assert [each.name for each in one.leftovers] == ["t@b"]

    def test_without_zfs_the_history_is_told_all_the_same(self, places, fp):
        state.remember(PLACE, entry(HOUR))
        fp.register(MOUNT, returncode=1, stderr="no")
        seen = status.observe(DOOR, "restomic", None, NOW)
        assert len(seen.jobs) == 1
        assert seen.trouble.startswith("cannot find out what killed runs have left behind: mount")
