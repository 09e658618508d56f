"""What endangers the backups, and that nothing else is told."""

import json
import stat
from dataclasses import replace

import pytest
from support.datasets import dataset, simple, unmounted, zfs

from kopiatomic import state
from kopiatomic.client_rows import Row
from kopiatomic.errors import Refusal
from kopiatomic.job import Job
from kopiatomic.monitoring import care, check
from kopiatomic.monitoring.care import PastCare
from kopiatomic.monitoring.check import MAX_AGE, Expected, Observations
from kopiatomic.monitoring.exposure import WatchedPath
from kopiatomic.monitoring.history import JobHistory, PastRun
from kopiatomic.monitoring.leftovers import Leftover
from kopiatomic.state import Place
from kopiatomic.system.command import Door
from kopiatomic.system.machine import Dataset, Mount
from unit.monitoring.runs import DAY, HOUR, LISTED, NOW, PLACE, see_snapshots
from unit.monitoring.test_care import drill, upkeep, upkeep_of

OTHER = Place("kopiatomic", "offsite")

pytestmark = pytest.mark.usefixtures("utc")


def run(age: float, outcome: str = "success", **changes) -> PastRun:
    return PastRun(outcome, began=NOW - age, moment=NOW - age, **changes)


def find(*jobs: JobHistory, **changes) -> list[check.Finding]:
    return check.findings(Observations(jobs, **changes), NOW)


def past(*runs: PastRun, place: Place = PLACE, **changes) -> JobHistory:
    return JobHistory(place, runs, **changes)


def kinds(found) -> list[str]:
    return [each.kind for each in found]


class TestStale:
    def test_a_fresh_job_is_silent(self):
        assert find(past(run(47 * HOUR))) == []

    def test_an_old_one_is_told_with_its_age_and_limit(self):
        (found,) = find(past(run(76 * HOUR)))
        assert (found.kind, found.job) == ("stale", "restomic/default")
        assert "3 d 4 h ago; at most 48 h are allowed" in found.text
        assert "periodic.conf(5)" in found.remedy
        assert f"rm {PLACE.history}" in found.remedy

    def test_the_limit_can_be_set(self):
        assert find(past(run(76 * HOUR)), max_age=80.0) == []
        assert kinds(find(past(run(3 * HOUR)), max_age=2.5)) == ["stale"]

    @pytest.mark.parametrize("outcome", ["failed", "incomplete", "interrupted"])
    def test_any_other_outcome_is_no_backup(self, outcome):
        (found,) = find(past(run(60 * HOUR), run(HOUR, outcome, problems=("no\nspace",))))
        assert found.kind == "stale"
        assert ": no\\x0aspace" in found.text
        assert "restomic --status -j default" in found.remedy

    def test_trouble_after_a_backup_makes_it_no_worse(self):
        assert find(past(run(60 * HOUR), run(HOUR, "trouble", problems=("busy",)))) == []

    def test_a_failure_after_a_fresh_backup_is_left_to_the_daily_mail(self):
        assert find(past(run(20 * HOUR), run(HOUR, "failed"))) == []

    def test_never_succeeded(self):
        (found,) = find(past(run(HOUR, "failed", problems=("why",))))
        assert (found.kind, found.job) == ("never", "restomic/default")
        assert "FAILED: why" in found.text

    def test_a_run_under_way_is_told(self):
        (found,) = find(past(run(60 * HOUR), running=True, since=NOW - 50 * HOUR))
        assert "it is running now, since" in found.text
        assert "(50 h 0 min)" in found.text

    def test_an_expected_job_that_is_not_known(self):
        found = find(past(run(HOUR)), expected=(Expected(PLACE), Expected(OTHER)))
        assert [(each.kind, each.job) for each in found] == [("never", "kopiatomic/offsite")]
        assert "never run" in found[0].text

    def test_one_that_is_not_expected_may_be_old(self):
        old = past(run(99 * DAY), place=OTHER)
        assert find(past(run(HOUR)), old, expected=(Expected(PLACE),)) == []
        assert kinds(find(past(run(HOUR)), old)) == ["stale"]

    def test_each_expected_job_has_its_own_limit(self):
        old = [past(run(60 * HOUR)), past(run(60 * HOUR), place=OTHER)]
        (found,) = find(*old, expected=(Expected(PLACE, 24.0), Expected(OTHER, 192.0)))
        assert found.job == "restomic/default"
        assert "at most 24 h are allowed" in found.text

    def test_no_job_at_all(self):
        (found,) = find()
        assert (found.kind, found.job) == ("never", None)


class TestSnapshots:
    """Where existing ones are taken, it counts how old these are."""

    def of(self, age: float, start: float, outcome: str = "success") -> PastRun:
        moment = NOW - age
        return PastRun(outcome, began=NOW - start, moment=NOW - HOUR, oldest=moment,
                       oldest_name="t/a@x")  # fmt: skip

    def test_the_oldest_of_them_counts(self):
        assert find(past(self.of(47 * HOUR, HOUR))) == []
        (found,) = find(past(self.of(72 * HOUR, HOUR)))
        assert found.kind == "stale"
        assert "the last successful backup has t/a@x, which is of 2026-11-20 08:00, 3 d ago" in (
            found.text
        )
        assert "see why there is no newer snapshot for the job to take" in found.remedy

    def test_runs_that_find_nothing_new_do_not_make_it_fresh(self):
        idle = PastRun("unchanged", began=NOW - HOUR)
        assert find(past(self.of(20 * HOUR, 20 * HOUR), idle)) == []
        (found,) = find(past(self.of(72 * HOUR, 70 * HOUR), idle))
        assert "; the last run (2026-11-23 07:00) found no newer snapshot" in found.text
        assert "the replication" in found.remedy
        assert "correct that" not in found.remedy

    def test_where_it_does_not_run_any_more_that_is_told(self):
        (found,) = find(past(self.of(99 * HOUR, 98 * HOUR)))
        assert "nothing has started it since" in found.remedy

    def test_a_dataset_without_one_is_in_no_backup(self):
        job = Job("restomic", everything=True, snapshot="x")
        last = run(HOUR, job=job, captured=("tank",), unmatched=("zroot/home",))
        datasets, table = simple()
        (found,) = find(past(last), datasets=tuple(datasets), table=tuple(table))
        assert found.text == "1 dataset is in no job: zroot/home"


class TestClock:
    def test_a_backup_from_the_future_is_not_fresh(self):
        found = find(past(run(60 * HOUR), run(-400 * DAY)))
        assert kinds(found) == ["clock", "stale"]

    def test_if_there_is_no_other_its_date_is_not_trusted(self):
        found = find(past(run(-DAY)))
        assert kinds(found) == ["clock", "never"]
        assert "date can be trusted" in found[1].text

    def test_one_that_a_good_backup_came_after_is_no_matter(self):
        assert find(past(run(-400 * DAY), run(HOUR))) == []

    def test_the_order_of_the_history_counts(self):
        """A wrong date of an older run must not make up for the newest one's age."""
        assert kinds(find(past(run(HOUR), run(60 * HOUR)))) == ["stale"]

    def test_a_little_ahead_is_usual(self):
        assert find(past(run(-60))) == []

    def test_a_success_without_a_date(self):
        assert kinds(find(past(PastRun("success")))) == ["never"]


class TestUncovered:
    def see(self, *runs: PastRun, machine=None, **changes):
        datasets, table = machine or simple()
        return find(past(*runs), datasets=tuple(datasets), table=tuple(table), **changes)

    def test_all_captured(self):
        names = ("zroot/home", "zroot/home/ben", "tank")
        assert self.see(run(HOUR, captured=names)) == []

    def test_one_that_nobody_captured(self):
        (found,) = self.see(run(HOUR, captured=("zroot/home", "tank")))
        assert found.kind == "uncovered"
        assert found.text == "1 dataset is in no job: zroot/home/ben"
        assert "zfs set org.kopiatomic:backup=off DATASET" in found.remedy

    def test_excluded_on_purpose(self):
        done = run(HOUR, captured=("zroot/home", "tank"), excluded=("zroot/home/ben",))
        assert self.see(done) == []

    def test_the_newest_good_run_counts(self):
        whole = run(20 * HOUR, captured=("zroot/home", "zroot/home/ben", "tank"))
        less = run(HOUR, captured=("zroot/home", "tank"))
        assert self.see(less, whole) == []
        assert kinds(self.see(whole, less)) == ["uncovered"]
        assert self.see(whole, run(HOUR, "incomplete")) == []

    def test_off_jailed_and_unmounted_ones_are_not_named(self):
        datasets = [
            dataset("t/off", backup="off"), dataset("t/jail", jailed=True), unmounted("t/no"),
            dataset("t/hidden"), dataset("t/live"),
        ]  # fmt: skip
        table = [
            zfs("t/off", "/off"), zfs("t/jail", "/jail"), zfs("t/hidden", "/top/hidden"),
            Mount("x", "/top", "ufs"), zfs("t/live@snap", "/live/.zfs/snapshot/snap"),
            Mount("/t/no", "/var/run/restomic/default/view", "nullfs"),
        ]  # fmt: skip
        assert self.see(run(HOUR, captured=("x",)), machine=(datasets, table)) == []
        table.append(zfs("t/live", "/live"))
        (found,) = self.see(run(HOUR, captured=("x",)), machine=(datasets, table))
        assert found.text.endswith(": t/live")

    def test_what_was_captured_unmounted_is_covered_now_that_it_is_mounted(self):
        """Though nobody knows any more where it would be shown."""
        job = Job("restomic", targets=("t/n", "t/j"), at="/nonexistent/at")
        done = run(HOUR, job=job, captured=("t/n", "t/j"))
        machine = ([dataset("t/n"), unmounted("t/j", jailed=True)], [zfs("t/n", "/t/n")])
        assert self.see(done, machine=machine) == []

    def test_in_a_jail_its_own_are_looked_at(self):
        datasets = [dataset("t/x"), dataset("t/j", jailed=True)]
        machine = (datasets, [zfs("t/x", "/"), zfs("t/j", "/j")])
        (found,) = self.see(run(HOUR, captured=("x",)), machine=machine, in_jail=True)
        assert found.text == "1 dataset is in no job: t/j"

    def test_ten_are_named_and_the_rest_counted(self):
        names = [f"t/d{number:02}" for number in range(13)]
        machine = ([*map(dataset, names)], [zfs(name, f"/{name}") for name in names])
        (found,) = self.see(run(HOUR), machine=machine)
        assert found.text.startswith("13 datasets are")
        assert found.text.endswith("t/d09 and 3 more")

    def test_without_any_good_backup_only_that_is_told(self):
        assert kinds(self.see(run(HOUR, "failed"))) == ["never"]

    def test_a_job_that_is_not_expected_covers_until_it_is_retired(self):
        datasets, table = simple()
        rest = past(run(HOUR, captured=("zroot/home", "tank")))
        for age, told in ((31 * DAY, []), (99 * DAY, ["uncovered"])):
            monthly = past(run(age, captured=("zroot/home/ben",)), place=OTHER)
            found = find(
                rest, monthly, expected=(Expected(PLACE),),
                datasets=tuple(datasets), table=tuple(table),
            )  # fmt: skip
            assert kinds(found) == told


class TestDropped:
    """What is not mounted, as a volume is not, and that was in a backup once."""

    VOLUME = Dataset("t/vm", "volume", False, "-", False, "-", "-", "-")

    def see(self, *runs: PastRun, last: Job, others=(), **changes) -> list[check.Finding]:
        datasets = (
            dataset("t"), self.VOLUME._replace(**changes), unmounted("t/n"),
            unmounted("t/j", jailed=True), dataset("t/ROOT/now"),
            unmounted("t/ROOT/old", canmount="noauto"),
        )  # fmt: skip
        table = (zfs("t/ROOT/now", "/"), zfs("t", "/t"))
        done = run(HOUR, job=last, captured=("t", "t/ROOT/now"))
        jobs = (past(*runs, done), *others)
        return find(*jobs, datasets=datasets, table=table)

    BEFORE = run(DAY, captured=("t", "t/vm", "t/n", "t/j", "t/ROOT/now", "t/ROOT/old", "t/gone"))
    ALL = Job("restomic", everything=True)

    def test_it_is_told(self):
        (found,) = self.see(self.BEFORE, last=self.ALL)
        assert found.kind == "dropped"
        told = "3 datasets were in a backup once, and no job has it now: t/vm, t/n, t/j"
        assert found.text == told
        assert "--volumes" in found.remedy
        assert "zfs set org.kopiatomic:backup=off DATASET" in found.remedy

    def test_who_never_chose_any_hears_of_none(self):
        assert self.see(last=self.ALL) == []
        assert self.see(run(DAY, "incomplete", captured=("t", "t/vm")), last=self.ALL) == []

    def test_volumes_that_the_job_chooses_are_covered(self):
        before = run(DAY, captured=("t", "t/vm"))
        assert self.see(before, last=self.ALL._replace(volumes=True)) == []
        named = Job("restomic", targets=("t", "t/ROOT/now", "t/vm"))
        assert self.see(before, last=named) == []
        assert self.see(before, last=self.ALL._replace(exclude=("t/vm",), volumes=True)) == []
        assert self.see(before, last=self.ALL, backup="off") == []

    def test_the_newest_good_backup_of_any_job_counts(self):
        """A key may be loaded, or a disk mounted, for the time of the backup alone."""
        volumes = Job("kopiatomic", targets=("t/vm",))
        other = past(run(HOUR, job=volumes, captured=("t/vm", "t/n", "t/j")), place=OTHER)
        assert self.see(self.BEFORE, last=self.ALL, others=(other,)) == []


class TestChosen:
    """What a job would choose today counts, and not what it captured."""

    def see(self, job: Job | None, *more: Dataset, captured=("zroot/home", "tank"), **changes):
        datasets, mounts = simple()
        seen = [zfs(each.name, f"/{each.name}") for each in more if each.mounted]
        done = run(HOUR, job=job, captured=captured)
        return find(
            past(done), datasets=(*datasets, *more), table=(*mounts, *seen), **changes
        )  # fmt: skip

    def test_one_that_tonights_run_will_take(self):
        new = dataset("zroot/home/new")
        whole = Job("restomic", targets=("zroot/home", "tank"), recursive=True)
        assert self.see(whole, new) == []
        assert self.see(Job("restomic", everything=True), new) == []
        (found,) = self.see(whole._replace(recursive=False), new)
        assert found.text == "2 datasets are in no job: zroot/home/ben, zroot/home/new"

    def test_one_that_was_captured_and_is_not_chosen_any_more(self):
        (found,) = self.see(Job("restomic", targets=("tank",)))
        assert found.text.endswith(": zroot/home, zroot/home/ben")

    def test_one_that_a_pattern_excludes(self):
        new = dataset("tank/build/1")
        job = Job("restomic", everything=True, exclude=("tank/build*",))
        assert self.see(job, new, captured=()) == []

    def test_a_boot_environment_that_bectl_has_mounted(self):
        root = (zfs("zroot/ROOT/now", "/"), zfs("zroot/ROOT/old", "/tmp/be_mount.x"))
        datasets = (
            dataset("zroot/ROOT/now", canmount="noauto"),
            dataset("zroot/ROOT/old", canmount="noauto"),
        )
        done = run(HOUR, job=Job("restomic", everything=True))
        assert find(past(done), datasets=datasets, table=root) == []

    def test_one_whose_name_is_too_long_for_a_snapshot_is_in_no_backup(self):
        long = dataset(f"tank/{'x' * 240}")
        (found,) = self.see(Job("restomic", everything=True), long)
        assert found.text == f"1 dataset is in no job: {long.name}"

    def test_a_job_for_a_path(self, tmp_path):
        place = str(tmp_path)
        job = Job("restomic", targets=(place,))
        mounts = (zfs("t", "/"), zfs("t/x", place))
        done = run(HOUR, job=job)
        found = find(past(done), datasets=(dataset("t"), dataset("t/x")), table=mounts)
        assert [each.text for each in found] == ["1 dataset is in no job: t"]

    def test_one_of_which_only_directories_are_chosen(self, tmp_path):
        """The backup of /etc is none of the dataset that holds /."""
        place = tmp_path / "mounted"
        (place / "etc").mkdir(parents=True)
        machine = ((dataset("t"), dataset("t/x")), (zfs("t", "/"), zfs("t/x", str(place))))

        def see(*jobs: Job, datasets=machine[0]) -> list[check.Finding]:
            runs = [run(HOUR, job=job) for job in jobs]
            pairs = zip(runs, (PLACE, OTHER), strict=False)
            made = [past(each, place=where) for each, where in pairs]
            return find(*made, datasets=datasets, table=machine[1])

        part = Job("restomic", targets=("t", str(place / "etc")))
        (found,) = see(part)
        assert found.kind == "partial"
        assert found.text == "of 1 dataset only directories are in a job: t/x"
        assert "zfs set org.kopiatomic:backup=off DATASET" in found.remedy
        assert see(part, Job("kopiatomic", targets=("t/x",))) == []
        # Whoever means it says so as of any other dataset, and what is named stays in.
        assert see(part, datasets=(dataset("t"), dataset("t/x", backup="off"))) == []

    def test_one_of_which_only_directories_were_captured(self):
        names = ("zroot/home", "zroot/home/ben", "tank")
        done = run(HOUR, captured=names, parts={"tank": ("/tank/x",)})
        datasets, table = simple()
        (found,) = find(past(done), datasets=tuple(datasets), table=tuple(table))
        assert (found.kind, found.text.rpartition(": ")[2]) == ("partial", "tank")

    @pytest.mark.parametrize("target", ["gone", "/no/such/path", "zroot"])
    def test_where_the_next_run_would_be_refused_what_was_captured_counts(self, target):
        job = Job("restomic", targets=(target,))
        assert self.see(job, captured=("zroot/home", "zroot/home/ben", "tank")) == []
        assert kinds(self.see(job)) == ["uncovered"]


class TestNeglected:
    """Upkeep and drills: failed the last time, late, or never made though they are expected."""

    def see(self, *done: PastCare, what="upkeep", limit=180.0, first=40 * DAY, **changes):
        expected = (Expected(PLACE), Expected(PLACE, limit, what))
        job = past(run(first), run(HOUR), care=done)
        return find(job, **{"expected": expected, **changes})

    def test_one_that_works_is_silent(self):
        assert self.see(upkeep(160 * HOUR, check="ok")) == []
        assert self.see(drill(160 * HOUR), what="drill") == []

    def test_one_that_failed_is_told_until_it_works_with_when_it_last_did(self):
        done = [drill(40 * DAY), drill(8 * DAY, "failed", problems=("/x: it differs",))]
        for expected in (None, (Expected(PLACE),), (Expected(PLACE, 180.0, "drill"),)):
            (found,) = self.see(*done, expected=expected)
            assert (found.kind, found.job) == ("failed", "restomic/default")
            assert found.text == (
                "restomic/default: the restore drill FAILED 2026-11-15 08:00 "
                "(it last worked 2026-10-14 08:00, 40 d ago): /x: it differs"
            )
            assert "--drill; for details: restomic --status -j default" in found.remedy
        assert self.see(*done, drill(HOUR)) == self.see()
        (found,) = self.see(drill(HOUR, "failed"), what="drill")
        assert found.text.endswith(" FAILED 2026-11-23 07:00 (it has never worked)")

    def test_a_daily_check_does_not_hide_a_weekly_prune_that_fails(self):
        done = [
            upkeep(9 * DAY, prune="ok"), upkeep(2 * DAY, "failed", prune="failed"),
            upkeep(HOUR, check="ok"),
        ]  # fmt: skip
        (found,) = self.see(*done)
        assert found.text.startswith("restomic/default: the prune FAILED 2026-11-21 08:00 (it last")
        assert "--upkeep" in found.remedy

    @pytest.mark.parametrize(("what", "called"), [("upkeep", "upkeep"), ("drill", "restore drill")])
    def test_one_that_is_late(self, what, called):
        done = [upkeep(8 * DAY, check="ok"), drill(8 * DAY)]
        (found,) = self.see(*done, what=what)
        assert (found.kind, found.job) == ("stale", "restomic/default")
        assert found.text == (
            f"restomic/default: the last {called} that worked was 2026-11-15 08:00, 8 d ago; "
            "at most 180 h are allowed"
        )
        assert f"--{what}" in found.remedy

    def test_one_that_never_ran_though_it_is_enabled(self):
        (found,) = self.see(what="drill")
        assert (found.kind, found.job) == ("never", "restomic/default")
        said = "restomic/default: its restore drill is enabled, and none has ever worked"
        assert found.text == said

    def test_a_new_job_has_time_for_its_first_one(self):
        assert self.see(first=6 * DAY) == []
        assert kinds(self.see(first=8 * DAY)) == ["never"]

    def test_a_job_that_never_ran_is_told_once(self):
        both = (Expected(OTHER), Expected(OTHER, 180.0, "upkeep"))
        (found,) = find(expected=both)
        assert found.text == "kopiatomic/offsite: it has never run"
        alone = (Expected(OTHER, 180.0, "upkeep"),)
        assert kinds(find(expected=alone)) == ["never"]

    @pytest.mark.parametrize("what", ["upkeep", "drill"])
    def test_of_two_repositories_one_is_not_both(self, what):
        """The env file of the second was not added where that is started."""
        rows = tuple(
            Row(("files", "", f"/etc/{name}"), name, name, "success") for name in ("a.env", "b.env")
        )
        job = past(run(40 * DAY, rows=rows), run(HOUR, rows=rows))
        done = upkeep_of("/etc/a.env", HOUR) if what == "upkeep" else drill(
            HOUR, env_file="/etc/a.env"
        )
        job = replace(job, care=tuple(care.named([done], job.repositories)))
        expected = (Expected(PLACE), Expected(PLACE, 180.0, what))
        (found,) = find(job, expected=expected)
        called = "upkeep" if what == "upkeep" else "restore drill"
        assert (found.kind, found.text) == (
            "never", f"restomic/default: its {called} of b.env is enabled, and none has ever worked"
        )
        assert f"name its env file as well where --{what} is started" in found.remedy
        assert find(job, expected=(Expected(PLACE),)) == []

    def test_a_repository_that_was_added_has_time_for_its_first_one(self):
        first, second = (
            Row(("files", "", f"/etc/{name}"), name, name, "success") for name in ("a.env", "b.env")
        )
        before, expected = run(40 * DAY, rows=(first,)), (Expected(PLACE, 180.0, "drill"),)
        for age, told in ((6 * DAY, []), (8 * DAY, ["never"])):
            job = past(before, run(age, rows=(first, second)), run(HOUR, rows=(first, second)))
            done = care.named([drill(HOUR, env_file="/etc/a.env")], job.repositories)
            job = replace(job, care=tuple(done))
            assert kinds(find(job, expected=expected)) == told

    def test_of_two_limits_the_shorter_one_is_told(self):
        both = (Expected(PLACE, 756.0, "upkeep"), Expected(PLACE, 36.0, "upkeep"))
        (found,) = self.see(upkeep(40 * DAY, check="ok"), expected=both)
        assert "at most 36 h are allowed" in found.text

    def test_a_job_that_is_retired_may_have_failed_long_ago(self):
        old = past(run(99 * DAY), place=OTHER, care=(drill(50 * DAY, "failed"),))
        assert find(past(run(HOUR)), old, expected=(Expected(PLACE),)) == []

    def test_where_there_is_nothing_but_upkeep_no_backup_is_missed(self):
        elsewhere = past(place=OTHER, care=(upkeep(HOUR, check="ok"),))
        assert find(past(run(HOUR)), elsewhere) == []


def test_leftovers_name_the_sweep():
    left = (Leftover(OTHER, "snapshot", "t@x"), Leftover(OTHER, "note", "/n"))
    (found,) = find(past(run(HOUR)), leftovers=left)
    assert (found.kind, found.job) == ("leftover", "kopiatomic/offsite")
    assert found.text.endswith("earlier run: snapshot t@x")
    assert "kopiatomic --sweep -j offsite" in found.remedy


def test_copies_of_snapshots_and_clones():
    clone = "u/t/restomic-20261127T030000Z-0123456789ab.0"
    (found,) = find(past(run(HOUR)), copies=(clone,))
    assert found.text.startswith("1 dataset is a copy of snapshots and clones for backups")
    (found,) = find(past(run(HOUR)), copies=("u/a@restomic-1", f"{clone}@x", clone))
    assert found.text.startswith("3 snapshots and datasets are copies of snapshots and clones")
    assert "zfs destroy u/a@restomic-1;" in found.remedy
    (found,) = find(past(run(HOUR)), copies=("u/a@restomic-1",))
    assert found.text.startswith("1 snapshot is a copy of snapshots for backups")


def test_what_cannot_be_seen_is_told_first():
    found = find(past(run(99 * HOUR)), unseen=("no zfs",))
    assert kinds(found) == ["unseen", "stale"]


def test_what_others_can_reach_is_told_of_the_job_that_relies_on_it():
    open_to_all = WatchedPath("env file", "/e", 0, stat.S_IFREG | 0o644, "restomic/default")
    (found,) = find(past(run(HOUR)), watched=(open_to_all,))
    assert (found.kind, found.job) == ("exposed", "restomic/default")
    assert "/e" in found.text
    assert "chmod 600 /e" in found.remedy
    closed = WatchedPath("env file", "/e", 0, stat.S_IFREG | 0o600, "restomic/default")
    assert find(past(run(HOUR)), watched=(closed,)) == []


class TestLook:
    def test_what_it_asks(self, places, fp):
        table = {"mount": {"mounted": [{"special": "t", "node": "/t", "fstype": "zfs"}]}}
        fp.register(["mount", fp.any()], stdout=json.dumps(table), occurrences=2)
        fp.register(["zfs", "list", fp.any()], stdout="t\tfilesystem\tyes\ton\toff\t-\t/x\t-\n")
        see_snapshots(fp, {})
        copy = "t@restomic-20261126T000000Z-0123456789ab"
        fp.register(LISTED, stdout=f"t@daily\n{copy}\n")
        ask = ["zfs", "get", "-H", "-s", "received", "-o", "name", "org.kopiatomic:run", copy]
        fp.register(ask, stdout=f"{copy}\n")
        state.remember(PLACE, {"outcome": "success", "moment": "2026-11-23T00:00:00+0000"})
        observed = check.observe(Door(), [Expected(PLACE), Expected(PLACE)], MAX_AGE)
        assert observed.unseen == ()
        assert observed.expected == (Expected(PLACE),)
        told = check.findings(observed, NOW)
        assert [each.text for each in told if each.kind != "exposed"] == [
            "1 dataset is in no job: t",
            "1 snapshot is a copy of snapshots for backups, which a replication took along and "
            f"nothing here removes: {copy}",
        ]

    def test_without_zfs_the_rest_is_judged(self, places, fp):
        fp.register(["mount", fp.any()], returncode=1, stderr="out of luck")
        observed = check.observe(Door(), [], MAX_AGE)
        assert "out of luck" in observed.unseen[0]
        assert kinds(check.findings(observed, NOW))[:2] == ["unseen", "never"]


class TestCommandLine:
    @pytest.mark.parametrize("text", ["0", "-1", "x", "nan", "inf", ""])
    def test_bad_ages(self, text):
        with pytest.raises(Refusal, match="number of hours"):
            check.hours(text)

    @pytest.mark.parametrize(
        "text",
        ["default", "restic/default", "restomic", "restomic/", "/x", "restomic/x/", "restomic/x/y",
         "restomic//drill", "restomic/x/drill/", "restomic/x/backup"],
    )  # fmt: skip
    def test_bad_jobs(self, text):
        with pytest.raises(Refusal):
            check.expected(text)

    def test_a_job(self):
        assert check.expected("kopiatomic/offsite") == (OTHER, "backup")
        assert check.expected("kopiatomic/offsite/upkeep") == (OTHER, "upkeep")
        assert check.expected("kopiatomic/offsite/drill") == (OTHER, "drill")

    @pytest.mark.parametrize(
        ("words", "ages", "all_others"),
        [
            ("", [], 48), ("M36", [], 36), ("E", [48], 48), ("M36 E E", [36, 36], 36),
            ("M36 E M200 E M30", [36, 200], 30), ("E M36", [36], 36),
        ],
    )  # fmt: skip
    def test_an_age_holds_for_the_jobs_after_it(self, words, ages, all_others):
        options = [
            ("--max-age", word[1:]) if word[0] == "M" else ("--expect", "kopiatomic/offsite")
            for word in words.split()
        ]
        assert check.wishes(options) == ([Expected(OTHER, age) for age in ages], all_others)
