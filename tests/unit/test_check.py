"""What endangers the backups, and that nothing else is told."""

import json
import os
import stat

import pytest

from kopiatomic import cli, redact, state
from kopiatomic.errors import EX_NOPERM, EX_USAGE, Refusal
from kopiatomic.monitoring import check, exposure, status
from kopiatomic.monitoring.check import MAX_AGE, Expected, Observations
from kopiatomic.monitoring.exposure import WatchedPath
from kopiatomic.monitoring.history import JobHistory, PastRun
from kopiatomic.monitoring.leftovers import Leftover
from kopiatomic.state import Place
from kopiatomic.system.command import Door
from kopiatomic.system.machine import Mount
from unit.machines import dataset, simple, unmounted, zfs

NOW = 1_795_420_800.0
HOUR, DAY = 3600.0, 86400.0
PLACE = Place("restomic", "default")
OTHER = Place("kopiatomic", "offsite")
MARKED = "zfs get -Hp -t snapshot -s local -o name,value org.kopiatomic:run"


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
        assert found.text.endswith("last successful backup: zroot/home/ben")
        assert found.text.startswith("1 dataset is ")
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


def test_leftovers_name_the_sweep():
    left = (Leftover(OTHER, "snapshot", "t@x"), Leftover(OTHER, "note", "/n"))
    (found,) = find(past(run(HOUR)), leftovers=left)
    assert (found.kind, found.job) == ("leftover", "kopiatomic/offsite")
    assert found.text.endswith("killed run: snapshot t@x")
    assert "kopiatomic --sweep -j offsite" in found.remedy


def test_what_cannot_be_seen_is_told_first():
    found = find(past(run(99 * HOUR)), unseen=("no zfs",))
    assert kinds(found) == ["unseen", "stale"]


FILE, DIRECTORY = stat.S_IFREG, stat.S_IFDIR


class TestExposed:
    def see(self, *watched: WatchedPath) -> list[str]:
        found = find(past(run(HOUR)), watched=watched)
        assert all(each.kind == "exposed" for each in found)
        return [f"{each.text}; {each.remedy}" for each in found]

    @pytest.mark.parametrize(
        "watched",
        [
            WatchedPath("env file", "/e", 0, FILE | 0o600),
            WatchedPath("executable", "/w", 0, FILE | 0o755),
            WatchedPath("state directory", "/s", 0, DIRECTORY | 0o700),
            WatchedPath("directory", "/d", 0, DIRECTORY | 0o755, serves="/d/w"),
            WatchedPath("directory", "/tmp", 0, DIRECTORY | 0o1777, serves="/tmp/w"),
        ],
    )
    def test_as_it_should_be(self, watched):
        assert self.see(watched) == []

    @pytest.mark.parametrize(
        ("role", "uid", "mode", "says", "does"),
        [
            ("env file", 0, FILE | 0o640, "other users can read the env file", "chmod 600 '/a b'"),
            ("env file", 0, FILE | 0o602, "other users can write the env file", "chmod 600"),
            ("env file", 0, FILE | 0o666, "users can read and write the env file", "chmod 600"),
            ("env file", 9, FILE | 0o600, "env file /a b does not belong to root", "chown root"),
            ("executable", 0, FILE | 0o775, "which other users can write", "chmod go-w"),
            ("executable", 0, FILE | 0o757, "which other users can write", "chmod go-w"),
            ("executable", 9, FILE | 0o755, "which does not belong to root", "chown root"),
            ("state directory", 0, DIRECTORY | 0o750, "users can read the state", "chmod 700"),
            ("state directory", 0, DIRECTORY | 0o711, "users can enter the state", "chmod 700"),
            ("directory", 0, DIRECTORY | 0o775, "and so replace /w", "chmod go-w '/a b', or move"),
            ("directory", 9, DIRECTORY | 0o755, "its owner can replace /w", "move /w"),
        ],
    )
    def test_told_with_what_to_do(self, role, uid, mode, says, does):
        (text,) = self.see(WatchedPath(role, "/a b", uid, mode, serves="/w"))
        assert says in text
        assert does in text

    def test_every_danger_of_a_program_is_told(self):
        told = self.see(WatchedPath("executable", "/w", 9, FILE | 0o777, secret="RESTIC_PASSWORD"))
        assert len(told) == 3
        assert "RESTIC_PASSWORD" in told[2]


class TestWatched:
    @pytest.fixture(autouse=True)
    def places(self, tmp_path, monkeypatch):
        (tmp_path / "run").mkdir()
        monkeypatch.setattr(state, "RUN_ROOT", str(tmp_path / "run"))
        monkeypatch.setattr(state, "STATE_DIRECTORY", str(tmp_path / "db"))
        # Everybody can get to the script of the tests, wherever they run.
        real = os.stat

        def opened(path, **options):
            found = real(path, **options)
            if stat.S_ISDIR(found.st_mode) and str(path) in map(str, tmp_path.parents):
                return os.stat_result((found.st_mode | 0o001, *found[1:]))
            return found

        tmp_path.chmod(0o755)
        monkeypatch.setattr(os, "stat", opened)

    def wrapper(self, tmp_path, text="#!/bin/sh\nRESTIC_PASSWORD=hunter2\n", mode=0o755):
        path = tmp_path / "bin" / "restic-x"
        path.parent.mkdir(exist_ok=True)
        path.parent.chmod(0o755)
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def watched(self, **changes) -> dict[str, WatchedPath]:
        found = exposure.find_watched([past(run(HOUR, **changes))])
        return {each.path: each for each in found}

    def test_a_wrapper_everybody_can_read_with_its_secret(self, tmp_path):
        path = self.wrapper(tmp_path)
        found = self.watched(client=path)
        assert found[path].secret == "RESTIC_PASSWORD"
        assert found[path].job == "restomic/default"
        assert found[str(tmp_path / "bin")].serves == path
        assert found["/"].role == "directory"
        told = check.as_text(check.findings(Observations((), watched=tuple(found.values())), NOW))
        assert "RESTIC_PASSWORD" in told
        assert "hunter2" not in told

    def test_a_hook_is_run_by_root_like_the_client(self, tmp_path):
        path = self.wrapper(tmp_path, mode=0o777)
        found = self.watched(hooks=[path, "relative/x"])
        assert found[path].role == "executable"
        told = check.as_text(check.findings(Observations((), watched=tuple(found.values())), NOW))
        assert f"root runs {path}, which other users can write" in told

    @pytest.mark.parametrize(
        "name", ["B2_ACCOUNT_KEY", "AZURE_ACCOUNT_KEY", "ST_KEY", "PGPASS", "MYSQL_PWD"]
    )
    def test_what_is_hidden_in_a_mail_is_told_in_a_script(self, tmp_path, name):
        path = self.wrapper(tmp_path, text=f"#!/bin/sh\nexport {name}=hunter2\nexec true\n")
        assert self.watched(client=path)[path].secret == name
        assert redact.redactor({name: "hunter2"})("hunter2") == redact.HIDDEN

    def test_closed_to_others_by_itself_or_by_a_directory(self, tmp_path):
        path = self.wrapper(tmp_path, mode=0o700)
        assert self.watched(client=path)[path].secret is None
        path = self.wrapper(tmp_path)
        os.chmod(os.path.dirname(path), 0o700)
        assert self.watched(client=path)[path].secret is None

    def test_a_program_is_no_script(self, tmp_path):
        path = self.wrapper(tmp_path, text="\x7fELF PASSWORD=hunter2")
        assert self.watched(client=path)[path].secret is None

    def test_behind_a_link_both_ways_are_looked_at(self, tmp_path):
        path = self.wrapper(tmp_path)
        (tmp_path / "link").mkdir()
        (tmp_path / "link" / "restic-y").symlink_to(path)
        found = self.watched(client=str(tmp_path / "link" / "restic-y"))
        assert str(tmp_path / "bin") in found
        assert str(tmp_path / "link") in found

    def test_links_in_a_circle(self, tmp_path):
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "b").symlink_to(tmp_path / "a")
        assert self.watched(client=str(tmp_path / "a")) == {}

    def test_a_bare_name_is_looked_up(self):
        found = self.watched(client="sh").values()
        (path,) = [each.path for each in found if each.role == "executable"]
        assert path.endswith("/sh")

    def test_env_file_and_state(self, tmp_path):
        env_file = tmp_path / "env"
        env_file.write_text("A=1")
        env_file.chmod(0o644)
        os.mkdir(state.STATE_DIRECTORY, 0o755)
        found = self.watched(env_file=str(env_file))
        assert found[str(env_file)].role == "env file"
        assert stat.S_IMODE(found[str(env_file)].mode) == 0o644
        assert found[state.STATE_DIRECTORY].role == "state directory"

    @pytest.mark.parametrize("name", ["relative/x", "", "/no/such", "/a\0b"])
    def test_what_is_not_there(self, name):
        assert self.watched(client=name, env_file=name) == {}


class TestLook:
    def test_what_it_asks(self, tmp_path, monkeypatch, fp):
        monkeypatch.setattr(state, "RUN_ROOT", str(tmp_path / "run"))
        monkeypatch.setattr(state, "STATE_DIRECTORY", str(tmp_path / "db"))
        table = {"mount": {"mounted": [{"special": "t", "node": "/t", "fstype": "zfs"}]}}
        fp.register(["mount", fp.any()], stdout=json.dumps(table), occurrences=2)
        fp.register(["zfs", "list", fp.any()], stdout="t\tfilesystem\tyes\ton\toff\t-\t-\n")
        fp.register(MARKED, stdout="")
        state.remember(PLACE, {"outcome": "success", "moment": "2026-11-23T00:00:00+0000"})
        seen = check.observe(Door(), [Expected(PLACE), Expected(PLACE)], MAX_AGE)
        assert seen.unseen == ()
        assert seen.expected == (Expected(PLACE),)
        told = check.findings(seen, NOW)
        assert [each.text for each in told if each.kind != "exposed"] == [
            "1 dataset is in no job's last successful backup: t"
        ]

    def test_without_zfs_the_rest_is_judged(self, tmp_path, monkeypatch, fp):
        monkeypatch.setattr(state, "RUN_ROOT", str(tmp_path / "run"))
        monkeypatch.setattr(state, "STATE_DIRECTORY", str(tmp_path / "db"))
        fp.register(["mount", fp.any()], returncode=1, stderr="out of luck")
        seen = check.observe(Door(), [], MAX_AGE)
        assert "out of luck" in seen.unseen[0]
        assert kinds(check.findings(seen, NOW))[:2] == ["unseen", "never"]


class TestCommandLine:
    @pytest.mark.parametrize("text", ["0", "-1", "x", "nan", "inf", ""])
    def test_bad_ages(self, text):
        with pytest.raises(Refusal, match="number of hours"):
            check.hours(text)

    @pytest.mark.parametrize("text", ["default", "restic/default", "restomic", "restomic/", "/x"])
    def test_bad_jobs(self, text):
        with pytest.raises(Refusal):
            check.expected(text)

    def test_a_job(self):
        assert check.expected("kopiatomic/offsite") == OTHER

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

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--status", "t"], ["--check", "-a"], ["--check", "--status"], ["--check", "-j", "x"],
            ["--max-age", "3", "t"], ["--expect", "restomic/x", "t"], ["--check", "--max-age=x"],
        ],
    )  # fmt: skip
    def test_what_does_not_go_together(self, capsys, arguments):
        assert cli.main("restomic", arguments) == EX_USAGE
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize(("options", "code"), [([], 71), (["--periodic"], 3)])
    def test_a_status_that_could_not_see_all(self, capfd, monkeypatch, options, code):
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        overview = status.Overview("restomic", None, "box", NOW, (), trouble="no zfs")
        monkeypatch.setattr(status, "observe", lambda *_: overview)
        assert cli.main("restomic", ["--status", *options]) == code
        out, err = capfd.readouterr()
        assert "has made no backup" in out
        assert "restomic: no zfs" in (out if options else err)

    @pytest.mark.parametrize("option", ["--status", "--check"])
    def test_root_only(self, capsys, monkeypatch, option):
        monkeypatch.setattr(os, "geteuid", lambda: 1001)
        assert cli.main("restomic", [option]) == EX_NOPERM
        assert "must be run by root" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("found", "options", "status_"),
        [([], [], 0), (["x"], [], 1), (["x"], ["--periodic"], 3), ([], ["--periodic"], 0)],
    )
    def test_exit_status(self, capfd, monkeypatch, found, options, status_):
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(check, "observe", lambda *_: Observations())
        findings = [check.Finding("stale", None, each, "do it") for each in found]
        monkeypatch.setattr(check, "findings", lambda *_: findings)
        assert cli.main("kopiatomic", ["--check", *options]) == status_
        assert capfd.readouterr().out == ("x\n    do it\n" if found else "")
        assert cli.main("kopiatomic", ["--check", "--json", *options]) == status_
        told = [{"kind": "stale", "job": None, "text": f"{each}; do it"} for each in found]
        assert json.loads(capfd.readouterr().out) == {"findings": told}
