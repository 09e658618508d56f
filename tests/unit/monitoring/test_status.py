"""What is told of the jobs, whatever their histories hold."""

import json

import pytest

from kopiatomic import state
from kopiatomic.backup import keeping
from kopiatomic.backup.keeping import Kept, Saved
from kopiatomic.monitoring import history, status
from kopiatomic.monitoring.history import JobHistory
from kopiatomic.monitoring.leftovers import Leftover
from kopiatomic.monitoring.status import Overview
from kopiatomic.state import Place
from kopiatomic.system.command import Door
from unit.monitoring.runs import (
    DAY,
    HOUR,
    MOUNT,
    NOW,
    PLACE,
    entry,
    mount_table,
    run,
    see_snapshots,
)  # fmt: skip
from unit.monitoring.test_care import drill, upkeep

DOOR = Door()


pytestmark = pytest.mark.usefixtures("utc")


def overview(*jobs: JobHistory, **changes) -> Overview:
    return Overview("restomic", None, "box", NOW, jobs, **changes)


def test_what_was_captured_unmounted_is_listed_with_the_reason():
    rows = [{"dataset": "t/a", "mountpoint": "/a"},
            {"dataset": "t/b", "mountpoint": "/mnt/t+b", "unmounted": "not mounted"}]  # fmt: skip
    past = JobHistory(PLACE, (history.run_of(entry(HOUR, captured=rows)),))
    text = status.as_text(overview(past, full=True))
    assert "Not mounted, captured by default:\n  t/b  not mounted\n" in text
    (job,) = status.as_dict(overview(past, full=True))["jobs"]
    assert job["captured"] == rows


class TestWhateverAHistoryHolds:
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
            "Left behind by earlier runs:\n"
            "  2 snapshots, such as t/a@x\n"
            "  mount /var/run/restomic/default/view\n"
            "    to remove it: restomic --sweep -j default\n"
        )

    def test_when_upkeep_and_drills_last_worked(self):
        done = (
            upkeep(50 * HOUR, check="ok", prune="ok"),
            upkeep(2 * HOUR, "failed", check="ok", prune="failed"),
            drill(26 * HOUR, files=10, restored=9, points=("/a", "/b", "/c", "/d")),
        )
        other = JobHistory(Place("restomic", "mail"), (run(HOUR),), care=(drill(HOUR, "failed"),))
        text = status.as_text(overview(JobHistory(PLACE, (run(HOUR),), care=done), other))
        assert text.endswith(
            "\n\nUpkeep and drills, and when they last worked:\n"
            "  default  repository check  2026-11-23 06:00, 2 h ago\n"
            "           prune             2026-11-21 06:00, 2 d 2 h ago\n"
            "                               FAILED 2026-11-23 06:00: no\\x0aspace\n"
            "           restore drill     2026-11-22 06:00, 1 d 2 h ago\n"
            "                               9 of 10 files, of t/a, t/b, /c and 1 more\n"
            "  mail     restore drill     never\n"
            "                               FAILED 2026-11-23 07:00\n"
        )

    def test_in_full_what_was_captured_and_left_out(self):
        whole = run(
            7 * HOUR, left_out=[{"name": "t/v", "kind": "volume", "reason": "a volume"}],
            not_frozen=["/dev"], notes=["a note"],
        )  # fmt: skip
        never = JobHistory(Place("restomic", "mail"), (run(HOUR, "failed"),))
        text = status.as_text(overview(JobHistory(PLACE, (whole,)), never, full=True))
        assert text.endswith(
            "\n\nCaptured by default, 2026-11-23 01:00:\n  t/a  /a\n  t/b  /b\n\n"
            "Left out by default:\n  t/v  a volume\n\n"
            "Live, not frozen, in default:\n  /dev\n\nNoted by default:\n  a note\n\n"
            "mail has no successful backup, so there is nothing to list.\n"
        )

    def test_in_full_when_the_layout_was_last_saved(self, place, monkeypatch):
        saved = {
            "b.env": Saved("d", NOW - DAY, "beef"), "a\nb": Saved("d", NOW - 2 * HOUR),
        }  # fmt: skip
        kept = keeping.as_dict(Kept(NOW, saved))
        state.remember(place, entry(HOUR, layout=kept))
        monkeypatch.setattr(status, "find_leftovers", lambda *_: [])
        seen = status.observe(DOOR, place.program, None, NOW, full=True)
        assert status.as_text(seen).endswith(
            f"\nLayout of the pools of {place.job}:\n"
            "  saved 2026-11-23 06:00, 2 h ago to a\\x0ab\n"
            "  saved 2026-11-22 08:00, 1 d ago to b.env as beef\n"
        )
        (job,) = status.as_dict(seen)["jobs"]
        assert job["layouts"] == [
            {"repository": "a\nb", "saved": "2026-11-23T06:00:00+0000", "backup": None},
            {"repository": "b.env", "saved": "2026-11-22T08:00:00+0000", "backup": "beef"},
        ]
        short = status.observe(DOOR, place.program, None, NOW)
        assert "Layout" not in status.as_text(short)
        assert "layouts" not in status.as_dict(short)["jobs"][0]

    def test_a_night_with_nothing_new_has_a_mark_of_its_own(self):
        jobs = JobHistory(PLACE, (run(DAY), run(HOUR, "unchanged")))
        told = status.as_text(overview(jobs))
        assert ".....+=\n" in told
        assert "   = nothing new\n" in told
        assert "nothing new" not in status.as_text(overview(JobHistory(PLACE, (run(DAY),))))
        assert overview(jobs).is_well

    def test_in_full_with_the_snapshots_that_were_taken(self):
        rows = [{"dataset": "t/a", "mountpoint": "/a", "snapshot": "t/a@x"}]
        jobs = JobHistory(PLACE, (run(HOUR, captured=rows),))
        assert "  t/a  /a  (@x)\n" in status.as_text(overview(jobs, full=True))
    def test_in_full_of_which_datasets_only_directories_are_in_it(self):
        rows = [{"dataset": "t", "mountpoint": "/t", "directories": ["/t/a", "/t/b"]},
                {"dataset": "u", "mountpoint": "/u"}]  # fmt: skip
        made = run(HOUR, captured=rows)
        text = status.as_text(overview(JobHistory(PLACE, (made,)), full=True))
        assert "\n  t  /t, only /t/a, /t/b\n  u  /u\n" in text
        (job,) = status.as_dict(overview(JobHistory(PLACE, (made,)), full=True))["jobs"]
        assert job["captured"] == rows
        success = job["newest_success"]
        assert (success["datasets"], success["datasets_in_part"]) == (2, 1)

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
    assert job["care"] == []
    assert "captured" not in job


def test_json_in_full():
    done = (drill(HOUR, files=3, restored=3, points=("/a",)),)
    whole = run(HOUR, left_out=[{"name": "t/v", "reason": "a volume"}])
    (job,) = status.as_dict(overview(JobHistory(PLACE, (whole,), care=done), full=True))["jobs"]
    assert job["care"] == [
        {
            "what": "drill", "worked": "2026-11-23T07:00:00+0000", "failed": None, "problems": [],
            "files": 3, "restored": 3, "mountpoints": ["/a"],
        }
    ]  # fmt: skip
    assert job["captured"][0] == {"dataset": "t/a", "mountpoint": "/a"}
    assert job["left_out"] == [{"name": "t/v", "reason": "a volume"}]


@pytest.mark.parametrize(
    ("is_well", "runs", "changes"),
    [
        (True, (run(DAY, "failed"), run(HOUR)), {}),
        (False, (run(DAY), run(HOUR, "failed")), {}),
        (False, (run(HOUR, "trouble"),), {}),
        (False, (run(HOUR),), {"leftovers": (Leftover(PLACE, "snapshot", "t@x"),)}),
        (False, (run(HOUR),), {"trouble": "no zfs"}),
        (True, (), {}),
    ],
)
def test_whether_all_is_well(is_well, runs, changes):
    assert overview(JobHistory(PLACE, runs), **changes).is_well is is_well


def test_all_is_not_well_where_a_drill_fails():
    assert not overview(JobHistory(PLACE, (run(HOUR),), care=(drill(HOUR, "failed"),))).is_well


class TestLook:
    def test_one_program_or_one_job_of_it(self, places, fp):
        for program, job in (("restomic", "a"), ("restomic", "b"), ("kopiatomic", "a")):
            state.remember(Place(program, job), entry(HOUR))
        marked = {"t@restomic-a": "restomic:a:1", "t@restomic-b": "restomic:b:1",
                  "t@kopiatomic-a": "kopiatomic:a:1"}  # fmt: skip
        fp.register(MOUNT, stdout=mount_table("/"), occurrences=4)
        see_snapshots(fp, marked, times=4)
        everything = status.observe(DOOR, "restomic", None, NOW)
        assert [past.place.job for past in everything.jobs] == ["a", "b"]
        assert [each.name for each in everything.leftovers] == ["t@restomic-a", "t@restomic-b"]
        one = status.observe(DOOR, "restomic", "b", NOW)
        assert [past.place.job for past in one.jobs] == ["b"]
        assert [each.name for each in one.leftovers] == ["t@restomic-b"]

    def test_without_zfs_the_history_is_told_all_the_same(self, places, fp):
        state.remember(PLACE, entry(HOUR))
        fp.register(MOUNT, returncode=1, stderr="no")
        seen = status.observe(DOOR, "restomic", None, NOW)
        assert len(seen.jobs) == 1
        assert seen.trouble.startswith("cannot find out what earlier runs have left behind: mount")
