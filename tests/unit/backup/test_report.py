"""What a run came to: which outcome, and what people, mails and programs are told."""

import json

import pytest
from support.datasets import ROOT, dataset, plan_for, simple, unmounted, zfs

from kopiatomic.backup import report
from kopiatomic.backup.client_runs import Called, ClientRun, Try
from kopiatomic.backup.news import Before, news
from kopiatomic.backup.plan import Plan
from kopiatomic.backup.report import Report
from kopiatomic.backup.selection import Existing
from kopiatomic.backup.unmounted import EMPTY, Sight
from kopiatomic.clients.records import Figures
from kopiatomic.system.machine import Dataset

NOW = 1_795_420_800.0  # 2026-11-23 08:00:00 UTC

pytestmark = pytest.mark.usefixtures("utc")


def done(**changes) -> Report:
    """Return the report of a good run."""
    made = Report("restomic", "default", "restomic:default:1", NOW - 62)
    made.ended = NOW
    made.plan = plan_for(simple(), "tank")
    made.captured_at = {"tank": NOW - 60}
    called = settle(made)
    called.words, called.status, called.seconds = ["/bin/restic-x", "backup"], 0, 50.0
    for name, value in changes.items():
        assert hasattr(made, name) or hasattr(called, name)
        setattr(called if hasattr(called, name) else made, name, value)
    return made


def settle(made: Report) -> Called:
    """Let a run have one client run, which has made a backup; return that."""
    made.runs = made.runs or [Called(ClientRun())]
    made.runs[0].saved = True
    return made.runs[0]


def fresh(*failures: tuple[int, str]) -> Report:
    """Return the report of a run with failures, whose statuses and outcomes these are."""
    made = Report("restomic", "default", "r", NOW)
    for number, (status, outcome) in enumerate(failures):
        made.fail(f"problem {number}", status, outcome)
    return made


class TestOutcome:
    RANKS = ("trouble", "incomplete", "failed")

    @pytest.mark.parametrize("first", RANKS)
    @pytest.mark.parametrize("second", RANKS)
    def test_the_worst_problem_decides_and_of_two_alike_the_first(self, first, second):
        made = fresh((1, first), (2, second))
        worst = max(first, second, key=self.RANKS.index)
        assert (made.outcome, made.status) == (worst, 1 if worst == first else 2)
        assert made.problems == ["problem 0", "problem 1"]

    def test_an_interruption_is_as_bad_as_a_failure(self):
        assert fresh((143, "interrupted"), (1, "failed")).outcome == "interrupted"
        assert fresh((1, "failed"), (143, "interrupted")).outcome == "failed"
        assert fresh((1, "incomplete"), (143, "interrupted")).status == 143

    @pytest.mark.parametrize("outcome", ["failed", "interrupted", "trouble"])
    def test_trouble_beside_a_backup_does_not_make_it_a_failed_one(self, outcome):
        made = fresh()
        settle(made)
        made.fail("busy", 71, outcome)
        assert (made.outcome, made.status) == ("trouble", 71)

    def test_nor_does_trouble_that_came_before_it(self):
        made = fresh((69, "failed"))
        settle(made)
        assert (made.outcome, made.status) == ("trouble", 69)

    def test_a_backup_that_lacks_something_is_no_good_one(self):
        made = fresh((73, "incomplete"))
        settle(made)
        assert (made.outcome, made.status) == ("incomplete", 73)
        made.fail("busy", 71)
        assert (made.outcome, made.status) == ("incomplete", 73)

    def test_nor_one_that_is_found_to_lack_something_afterwards(self):
        made = fresh()
        settle(made)
        made.fail("busy", 71)
        made.fail("t/x is not in the backup", 65, "incomplete")
        assert (made.outcome, made.status) == ("incomplete", 65)

    @pytest.mark.parametrize("order", [1, -1])
    def test_nor_one_beside_which_something_else_went_wrong(self, order):
        """A lost dataset and a hook that fails, in either order, before there is a backup."""
        made = fresh(*[(73, "incomplete"), (69, "failed")][::order])
        settle(made)
        assert made.outcome == "incomplete"
        assert made.status == 73

    def test_no_backup_after_all(self):
        """The client has ended well, and the repository has nothing."""
        made = fresh()
        settle(made)
        made.runs[0].saved = False
        made.fail("there is no new backup", 65)
        assert (made.outcome, made.status) == ("failed", 65)

    def test_nothing_new_is_no_backup_and_no_failure(self):
        made = fresh()
        made.not_needed()
        assert (made.outcome, made.status) == ("unchanged", 0)
        made.fail("the command of -q failed", 69)
        assert (made.outcome, made.status) == ("failed", 69)

    def test_the_moment_is_that_of_the_last_pool(self):
        assert done(captured_at={"b": 2.0, "a": 3.0}).moment == 3.0
        assert done(captured_at={}).moment is None

    def test_what_is_so_every_night_is_not_noteworthy(self):
        assert not done().noteworthy
        assert done(notes=["n"]).noteworthy
        assert done(swept=["s"]).noteworthy
        assert done(complaints="no cache").noteworthy
        assert done(plan=plan_for(simple(), "zroot/home")).noteworthy


def later(plan: Plan, **changes) -> Report:
    """Return the report of a good run, whose plan is compared with the history."""
    made = done(plan=plan)
    for name, value in changes.items():
        setattr(made, name, value)
    made.compared = news(plan, BEFORE)
    return made


BEFORE = Before(
    "2026-11-22 07:59", {"zroot/home": "/home", "zroot/home/old": "/home/old"},
    {"zroot/home/vol": "volume", "zroot/home/x": "property"}, frozenset(), frozenset({"standing"}),
)  # fmt: skip


def home(*more: Dataset) -> Plan:
    """Return the plan of a job for zroot/home, with a volume, and one that is excused."""
    datasets, mounts = simple()
    volume = unmounted("zroot/home/vol", type="volume")
    machine = ([*datasets, volume, dataset("zroot/home/x", backup="off"), *more], mounts)
    return plan_for(machine, "zroot/home", recursive=True)


class TestNews:
    def test_of_a_first_backup_all_is_told_that_may_hold_files(self):
        made = done(plan=home(unmounted("zroot/home/c", canmount="off")))
        assert made.noteworthy
        lines = report.as_text(made).splitlines()
        assert lines[5:-3] == [
            "",
            "Left out:",
            "  zroot/home/vol  a volume, which holds no files",
            "",
            "Left out as you asked:",
            "  zroot/home/x  its property org.kopiatomic:backup is off",
            "",
            "Never mounted (canmount=off or mountpoint=none), so without files to back up:",
            "  zroot/home/c",
            "",
        ]
        assert lines[-3] == (
            "The next reports name only changes; 'restomic --status --full' lists everything."
        )

    def test_what_cannot_hold_files_and_what_is_asked_for_is_no_news_even_then(self):
        datasets, mounts = simple()
        datasets += [dataset("zroot/home/x", backup="off"), unmounted("zroot/c", canmount="off")]
        datasets += [unmounted("zroot/none", mountpoint="none")]
        plan = plan_for((datasets, mounts), everything=True, exclude=("zroot",))
        assert not done(plan=plan).noteworthy

    def test_of_a_later_one_what_is_new_is_told_by_name(self):
        made = later(home(unmounted("zroot/home/locked", keystatus="unavailable")))
        assert made.noteworthy
        assert report.as_text(made).splitlines()[1:7] == [
            "",
            "New since the last good backup, of 2026-11-22 07:59:",
            "  left out  zroot/home/locked  not mounted: its encryption key is not loaded",
            "  gone      zroot/home/old     "
            "destroyed, renamed, without its pool, or no longer chosen",
            "  captured  zroot/home/ben     /home/ben",
            "",
        ]
        assert report.as_dict(made)["changes"] == {
            "captured": ["zroot/home/ben"], "missing": [], "left_out": ["zroot/home/locked"],
            "gone": ["zroot/home/old"],
        }  # fmt: skip

    def test_the_rest_is_counted_and_no_news(self):
        plan = home()
        captured = {each.dataset: each.point for each in plan.captured}
        plan = plan._replace(notes=("standing",))
        made = later(plan, job="home", notes=["standing"])
        made.compared = news(plan, BEFORE._replace(captured=captured))
        assert not made.noteworthy
        lines = report.as_text(made).splitlines()
        told = "As before: 2 left out, 1 noted; 'restomic --status --full -j home' lists them."
        assert told in lines
        assert "Note:" not in lines
        assert not any("New since" in line for line in lines)

    def test_what_the_run_itself_notes_is_told_each_time(self):
        made = later(home(), notes=["standing"])
        assert made.notes_to_tell == ["standing"]

    def test_where_there_is_no_backup_the_next_one_tells_what_is_new(self):
        made = later(home())
        made.runs[0].saved = False
        made.fail("no", 1)
        text = report.as_text(made)
        assert "New since" not in text
        assert "As before" not in text

    def test_of_thousands_the_first_few_are_named_and_the_changes(self):
        names = [f"tank/{number:04}" for number in range(3000)]
        machine = (
            [*simple()[0], *map(dataset, names)],
            [*simple()[1], *(zfs(name, f"/{name}") for name in names)],
        )
        plan = plan_for(machine, "tank", recursive=True)
        made = done(plan=plan)
        captured = {each.dataset: each.point for each in plan.captured}
        del captured["tank/2000"]
        made.compared = news(plan, BEFORE._replace(captured=captured))
        text = report.as_text(made)
        assert "  captured  tank/2000  /tank/2000\n" in text
        assert ": 3,001 datasets\n  tank       /data\n" in text
        assert "\n  and 2,996 more\n" in text
        assert len(text.splitlines()) < 20
        made.compared = news(plan, BEFORE._replace(captured={}))
        assert "  captured  and 2,991 more\n" in report.as_text(made)


class TestText:
    def test_of_a_good_run(self):
        assert report.as_text(done()).splitlines() == [
            "restomic: the backup succeeded, 1 min 2 s",
            "",
            "Captured at one moment, 2026-11-23 07:59:00 UTC:",
            "  tank  /data",
            "",
            "restic-x ran 50 s",
        ]

    def test_problems_come_right_after_the_headline(self):
        made = done()
        made.fail("cannot destroy t@x: \x1b[2Jbusy", 71)
        first, second, *_ = report.as_text(made).splitlines()
        assert "NOT ALL IS WELL" in first
        assert second == "  ! cannot destroy t@x: \\x1b[2Jbusy"

    def test_how_far_pools_lie_apart(self):
        text = report.as_text(done(captured_at={"zroot": NOW - 59.5, "tank": NOW - 60}))
        assert "one moment for each pool; tank and zroot lie 0.5 s apart:" in text

    def test_nothing_was_captured_where_no_snapshot_was_made(self):
        made = fresh()
        made.plan = done().plan
        made.fail("no space", 73)
        text = report.as_text(made)
        assert "Captured" not in text
        assert "/data" not in text

    def test_what_is_left_out_and_why(self):
        machine = ([*simple()[0], dataset("zroot/home/x", backup="off")], simple()[1])
        text = report.as_text(done(plan=plan_for(machine, "zroot/home", recursive=True)))
        assert "\nLeft out as you asked:\n  zroot/home/x  its property" in text
        assert "'restomic --status --full' lists everything.\n" in text

    def test_the_clients_status_and_figures(self):
        figures = Figures(files=2, size=2048, new_or_changed=1, added=10, excluded=True)
        text = report.as_text(done(status=3, figures=figures))
        (line,) = (line for line in text.splitlines() if line.startswith("restic-x ran"))
        assert "exit status 3" in line
        assert line.endswith(": 2 files, 2 KiB, 1 new or changed, 10 B added, some excluded")

    @pytest.mark.parametrize(
        ("count", "told"),
        [(0, None), (1, "saved as id0"), (3, "saved as id0, id1, id2"), (9, "as 9 backups")],
    )
    def test_backups_by_name_as_long_as_they_are_few(self, count, told):
        figures = Figures(snapshots=tuple(f"id{n}" for n in range(count)))
        text = report.as_text(done(figures=figures))
        assert told in text if told else "saved as" not in text

    def test_what_a_client_that_failed_has_told_of_is_not_called_saved(self):
        """As kopia does where the repository is full: it tells of a backup, then it writes it."""
        made = done(status=1, figures=Figures(snapshots=("id0",)))
        made.runs[0].saved = False
        text = report.as_text(made)
        assert "\n  failed after it had told of id0\n" in text
        assert "saved as" not in text

    def test_how_many_datasets_were_found_in_the_backup(self):
        assert "\n  11 of 12 datasets found in the backup\n" in report.as_text(done(proof=(11, 12)))
        assert "found in the backup" not in report.as_text(done())

    def test_what_the_client_said_on_standard_error(self):
        lines = [f"line {number}\x1b" for number in range(15)]
        text = report.as_text(done(complaints="\n".join(lines)))
        told = text[text.index("What restic-x said on standard error:") :].splitlines()[1:]
        assert told[:2] == ["  line 0\\x1b", "  line 1\\x1b"]
        assert told[12:] == ["  ... and 3 more lines"]


def test_a_wait_is_told():
    line = "  waited 1 h 2 min for another run of the job to end"
    told = Report("restomic", "default", "run", 0.0)
    assert "waited" not in report.as_text(told)
    assert not told.noteworthy
    told.waited = 3723.4567
    assert report.as_text(told).splitlines()[1] == line
    assert line in report.as_mail(told)
    assert report.as_dict(told)["waited"] == 3723.457
    assert told.noteworthy


class TestUnmounted:
    """What is captured although nothing shows it is told with its place, night by night."""

    def report(self, **changes) -> Report:
        machine = [dataset("t"), unmounted("t/n", mountpoint="none")], [*ROOT, zfs("t", "/t")]
        plan = plan_for(machine, "t", "t/n", sight=Sight(lambda path: EMPTY), at="/mnt")
        return done(plan=plan, captured_at={"t": NOW - 60}, **changes)

    LINE = "  t/n  shown at /mnt/t+n: not mounted: its property mountpoint is none"

    def test_in_every_report(self):
        assert f"\nCaptured although not mounted:\n{self.LINE}\n" in report.as_text(self.report())
        before = Before("2026-11-22 08:00", {"t": "/t", "t/n": "/mnt/t+n"}, {})
        again = self.report()
        again.compared = news(again.plan, before)
        assert f"\nCaptured although not mounted:\n{self.LINE}\n" in report.as_text(again)
        assert not again.news.is_any

    def test_in_a_plan_and_as_data(self):
        made = self.report()
        assert self.LINE in report.plan_as_text(made.plan, [["restic"]], ["files"])
        rows = report.as_dict(made)["captured"]
        assert rows == [
            {"dataset": "t", "mountpoint": "/t"},
            {"dataset": "t/n", "mountpoint": "/mnt/t+n",
             "unmounted": "not mounted: its property mountpoint is none"},
        ]  # fmt: skip

    def test_mounted_by_now_it_is_news_where(self):
        made = done(plan=plan_for(simple(), "tank"))
        made.compared = news(made.plan, Before("2026-11-22 08:00", {"tank": "/mnt/tank"}, {}))
        assert made.news.captured == (("tank", "/data (before: /mnt/tank)"),)
        assert "although" not in report.as_text(made)


class TestMail:
    def test_of_a_good_run_does_not_repeat_what_the_client_said(self):
        assert report.as_mail(done(said="100 %\n")) == report.as_text(done())

    def test_of_a_bad_one_does(self):
        made = done(said="Fatal: wrong password\n")
        made.fail("restic-x failed", 1)
        mail = report.as_mail(made)
        assert mail.endswith("\nWhat restic-x said:\n  Fatal: wrong password\n")


def test_secrets_are_taken_out_of_all_that_came_from_outside():
    text = "with hunter2"
    made = done(
        said=text, words=[text], problems=[text], notes=[text], swept=[text], command=(text,),
        complaints=text,
    )  # fmt: skip
    made.conceal(lambda text: text.replace("hunter2", "[hidden]"))
    assert "hunter2" not in report.as_mail(made) + json.dumps(report.as_dict(made))
    assert "[hidden]" in report.as_text(made)


def test_data():
    data = json.loads(json.dumps(report.as_dict(done())))
    assert (data["program"], data["job"], data["outcome"]) == ("restomic", "default", "success")
    assert data["captured"] == [{"dataset": "tank", "mountpoint": "/data"}]
    assert data["moment"] == data["captured_at"]["tank"] == "2026-11-23T07:59:00+0000"
    assert (data["seconds"], data["status"], data["client"]["status"]) == (62, 0, 0)
    assert (data["found_in_backup"], data["complaints"]) == (None, [])
    data = report.as_dict(done(proof=(1, 2), complaints="a\nb"))
    assert (data["found_in_backup"], data["complaints"]) == ([1, 2], ["a", "b"])


class TestPlan:
    CLIENT = ("/bin/restic-x", "backup", "/data")

    def test_says_the_commands_in_their_order_and_that_it_would(self):
        plan = plan_for(simple(), "tank")
        lines = report.plan_as_text(plan, [self.CLIENT], ["files"]).splitlines()
        assert lines[:2] == ["Would capture:", "  tank  /data"]
        commands = lines[lines.index("Would run:") + 1 : -1]
        assert commands[0].startswith("  zfs snapshot -o org.kopiatomic:run=")
        assert commands[0].endswith(f" {plan.snapshots[0]}")
        (hold,) = plan.holds
        assert commands[1] == f"  mount -t zfs -o ro,nosuid tank@restomic-1 {hold.directory}"
        points = [line.split()[-1].removeprefix(plan.names.view) for line in commands[2:-1]]
        assert points == [mount.point.rstrip("/") for mount in plan.view]
        assert commands[-1] == f"  chroot {plan.names.view} /bin/restic-x backup /data"

    def test_more_than_a_command_line_holds(self):
        names = [f"tank/{number:04}{'x' * 190}" for number in range(3000)]
        machine = (
            [*simple()[0], *map(dataset, names)],
            [*simple()[1], *(zfs(name, f"/{name}") for name in names)],
        )
        plan = plan_for(machine, "tank", recursive=True)
        text = report.plan_as_text(plan, [self.CLIENT], ["files"])
        assert "a channel program for 3001 snapshots" in text
        assert "zfs snapshot" not in text

    def test_data(self):
        plan = plan_for(simple(), "tank")
        data = json.loads(json.dumps(report.plan_as_dict(plan, [self.CLIENT], ["files"])))
        assert data["captured"] == [{"dataset": "tank", "mountpoint": "/data"}]
        assert data["client"] == list(self.CLIENT)
        assert len(data["view"]) == len(plan.view)
        assert data["paths"] == ["/data"]
        assert data["not_in_view"] == ["/home", "/home/ben"]


class TestTries:
    TRY = Try(1, 62.0, "Fatal: of horse: connection refused")

    def test_each_is_told(self):
        made = done(tries=[self.TRY, self.TRY])
        told = report.as_text(made)
        line = "  after 1 min 2 s, exit status 1: Fatal: of horse: connection refused\n"
        assert f"\nTried before, but the repository could not be reached:\n{line}{line}" in told
        assert made.noteworthy
        row = {"status": 1, "seconds": 62.0, "reason": self.TRY.reason}
        assert report.as_dict(made)["tries"] == [row, row]

    def test_without_secrets(self):
        made = done(tries=[self.TRY])
        made.conceal(lambda text: text.replace("horse", "[hidden]"))
        assert "horse" not in report.as_text(made)

    def test_none(self):
        assert "Tried before" not in report.as_text(done())
        assert report.as_dict(done())["tries"] == []


class TestExisting:
    """Where snapshots of others are taken."""

    def taken(self, *creations: float) -> Plan:
        plan = plan_for(simple(), "tank", "zroot/home")
        captured = tuple(
            each._replace(existing=Existing(f"{each.dataset}@auto", "7", 5, when))
            for each, when in zip(plan.captured, creations, strict=True)
        )
        holds = tuple(
            hold._replace(snapshot=each.existing.name, existing=each.existing)
            for hold, each in zip(plan.holds, captured, strict=True)
        )
        return plan._replace(captured=captured, holds=holds)

    def test_the_report_names_them(self):
        text = report.as_text(done(plan=self.taken(NOW - 60, NOW - 60)))
        assert "Captured by existing snapshots @auto, created 2026-11-23 07:59:00 UTC:" in text
        text = report.as_text(done(plan=self.taken(NOW - 60, NOW - 3660)))
        assert "lie 1 h 0 min apart:" in text

    def test_json_has_them_and_how_far_apart(self):
        told = report.as_dict(done(plan=self.taken(NOW - 60, NOW - 3660)))
        assert told["captured"][0]["snapshot"] == "tank@auto"
        assert told["captured"][0]["guid"] == "7"
        assert told["existing"]["seconds_apart"] == 3600
        assert "existing" not in report.as_dict(done())
        assert list(report.as_dict(done())["captured"][0]) == ["dataset", "mountpoint"]

    def test_nothing_new(self):
        made = done(plan=self.taken(NOW - 60, NOW - 60), runs=[], captured_at={})
        made.not_needed()
        text = report.as_text(made)
        assert text.startswith("restomic: the backup was NOT NEEDED, 1 min 2 s\n")
        assert "all snapshots that would be taken are in a good backup already" in text

    def test_a_plan_holds_them_and_makes_none(self):
        plan = self.taken(NOW - 60, NOW - 60)
        assert plan.snapshots == ()
        text = report.plan_as_text(plan, [["restic"] for _ in plan.runs], ["files"])
        assert "zfs snapshot" not in text
        assert "  zfs hold restomic:default:1 tank@auto\n" in text
        assert "  zfs hold restomic:default:1 zroot/home@auto\n" in text
        assert "Would take these existing snapshots, and make none:\n  tank@auto" in text
        rows = report.plan_as_dict(plan, [["restic"]], ["files"])["captured"]
        assert [row["snapshot"] for row in rows] == ["tank@auto", "zroot/home@auto"]
        assert all(isinstance(row["age_seconds"], int) for row in rows)


def test_where_the_layout_is_saved_is_a_line_and_no_reason_for_a_mail_of_its_own():
    made = fresh()
    settle(made)
    made.layouts = ["is saved as a1b2c3d4"]
    assert "  the layout of the pools is saved as a1b2c3d4\n" in report.as_text(made)
    assert not made.noteworthy
    made.layout = {"looked": 1.0, "saved": {}}
    assert report.as_dict(made)["layout"] == made.layout
