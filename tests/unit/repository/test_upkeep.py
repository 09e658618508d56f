"""Upkeep: its steps one after the other, and how it is told."""

import json
import os
import re

import pytest

from kopiatomic import state
from kopiatomic.clients import make_ready
from kopiatomic.clients.records import Wishes
from kopiatomic.errors import EX_DATAERR, EX_TEMPFAIL, EX_UNAVAILABLE, Refusal
from kopiatomic.job import Job
from kopiatomic.repository import account as accounts
from kopiatomic.repository import upkeep
from kopiatomic.system.command import Door
from kopiatomic.system.process import Ended, Streams

ALL = Wishes(verify=5.0, forget=("--keep-daily", "7"), prune=True)


@pytest.mark.parametrize("text", ["-1", "101", "x", "", "nan"])
def test_percentages_that_are_none(text):
    with pytest.raises(Refusal, match="from 0 to 100"):
        upkeep.percent_of(text)


def test_percentages():
    assert [upkeep.percent_of(each) for each in ("0", "2.5", "5%", "100")] == [0, 2.5, 5, 100]


def wrapper(tmp_path, text, listed="[]"):
    """Write a wrapper that notes its words; return the command line of a backup by it.

    Asked for its backups it answers with those ``listed``, and has no locks.
    """
    script = tmp_path / "restic-x"
    script.write_text(
        f'#!/bin/sh\ncase "$1 $2" in "snapshots "* | "snapshot list")\n'
        f"echo '{listed}'; exit;; 'list '*) exit;; esac\n"
        f'echo "$@" >> {tmp_path}/calls\n{text}\n'
    )
    script.chmod(0o755)
    return (str(script), "backup")


class TestRun:
    def run(self, tmp_path, text, wishes=ALL, **environment):
        job = Job("restomic", command=wrapper(tmp_path, text))
        return upkeep.run(make_ready(job, Door(), environment), Streams(), wishes)

    def test_all_well(self, place, tmp_path):
        account = self.run(tmp_path, "exit 0")
        assert (account.outcome, account.status) == ("success", 0)
        assert [step.outcome for step in account.steps] == ["ok", "ok"]
        assert (tmp_path / "calls").read_text().split("\n")[0] == "check --read-data-subset=5%"
        text = upkeep.as_text(account)
        assert text.startswith("restomic: upkeep succeeded, ")
        assert "check with 5 % of the data  ok, " in text

    def test_after_a_failed_check_nothing_is_forgotten(self, place, tmp_path):
        account = self.run(tmp_path, 'test "$1" != check || exit 1')
        assert (account.outcome, account.status) == ("failed", 1)
        assert [step.outcome for step in account.steps] == ["failed", "not run"]
        assert "forget" not in (tmp_path / "calls").read_text()
        assert "prune nothing" in account.problems[0]

    def test_what_would_take_the_last_whole_backup_away_is_not_run(
        self, place, tmp_path, monkeypatch
    ):
        from kopiatomic.clients import restic_retention

        monkeypatch.setattr(restic_retention, "withheld", lambda *_: "it would go")
        account = self.run(tmp_path, "exit 0")
        assert (account.outcome, account.status) == ("failed", EX_DATAERR)
        assert [step.outcome for step in account.steps] == ["ok", "not run"]
        assert account.problems == ["forget and prune: it would go"]
        assert "forget" not in (tmp_path / "calls").read_text()
        # Without anything to forget it makes no difference.
        account = self.run(tmp_path, "exit 0", Wishes(verify=5.0, prune=True))
        assert [step.outcome for step in account.steps] == ["ok", "ok"]

    def test_what_restics_status_means_is_told(self, place, tmp_path):
        account = self.run(tmp_path, "exit 11")
        assert account.status == 11
        assert "the repository is locked" in account.problems[0]

    def test_who_has_locked_the_repository_is_told(self, place, tmp_path):
        says = (
            "repository is already locked by PID 26 on bob.test by root (UID 0, GID 0)\n"
            "lock was created at 2026-11-23 22:22:34 (1.2s ago)"
        )
        account = self.run(tmp_path, f"printf '%s\n' '{says}' >&2; exit 11")
        assert "locked by PID 26 on bob.test by root" in account.problems[0]
        assert f"dead: {tmp_path}/restic-x unlock, on bob.test" in account.problems[0]

    @pytest.mark.parametrize(
        ("says", "told"),
        [
            ("maintenance must be run by designated user: a@b",
             "belongs to a@b alone: .*: {}/restic-x maintenance set --owner=me$"),
            ("operation supported only on direct repository", "through a kopia server"),
        ],
    )  # fmt: skip
    def test_who_may_do_kopias_maintenance_is_told(self, place, tmp_path, says, told):
        script = wrapper(tmp_path, f"echo '{says}' >&2; exit 1")
        job = Job("kopiatomic", command=(script[0], "snapshot", "create"))
        task = make_ready(job, Door(), {})
        account = upkeep.run(task, Streams(), Wishes(maintenance=True))
        assert account.status == 1
        assert re.search(told.format(tmp_path), account.problems[0])

    @pytest.mark.parametrize(
        ("ends", "status"), [("exit 0", EX_UNAVAILABLE), ("exit 3", 3), ("kill -9 $$", 137)]
    )
    def test_what_restic_could_not_forget_is_no_success(self, place, tmp_path, ends, status):
        says = "unable to remove snapshot/802eb from the repository"
        forget = f'test "$1" = check || {{ echo "{says}" >&2; {ends}; }}'
        account = self.run(tmp_path, forget)
        assert (account.outcome, account.status) == ("failed", status)
        assert [step.outcome for step in account.steps] == ["ok", "failed"]
        (problem,) = account.problems
        assert "leave --forget and --prune to one that may remove" in problem

    def test_what_forget_says_is_read_at_a_terminal_too(self, place, tmp_path, monkeypatch):
        captured = []

        def run(door, argv, environment, signals, streams):
            captured.append(streams.capture)
            return Ended(0, 0.1)

        monkeypatch.setattr(upkeep.process, "run", run)
        wishes = Wishes(verify=5, forget=("--keep-last", "3"))
        script = wrapper(tmp_path, "exit 0")
        asked = Job("restomic", command=(script[0], "backup"))
        upkeep.run(make_ready(asked, Door(), {}), Streams(capture=False), wishes)
        assert captured == [False, True]

    def test_of_what_is_said_only_locks_count_outside_of_a_view(self, place, tmp_path):
        account = self.run(tmp_path, "echo 'read-only file system' >&2; exit 5")
        assert account.problems == ["check with 5 % of the data: exit status 5"]

    def test_what_was_not_answered_is_no_success(self, place, tmp_path):
        script = wrapper(tmp_path, "exit 0", listed="what?")
        task = make_ready(Job("restomic", command=script), Door(), {})
        account = upkeep.run(task, Streams(), ALL)
        assert [step.outcome for step in account.steps] == ["ok", "ok"]
        assert (account.outcome, account.status) == ("failed", 1)
        assert "could not be looked for" in account.problems[0]

    def test_what_the_history_tells_is_taken_along(self, place, tmp_path):
        paths = {"paths": ["/a"], "began": "2026-01-02T00:00:00+00:00"}
        state.remember(place, paths)
        old = {"id": "ab", "paths": ["/a"], "time": "2026-01-01T00:00:00Z"}
        listed = json.dumps([{**old, "hostname": os.uname().nodename}])
        script = wrapper(tmp_path, "exit 0", listed)
        task = make_ready(Job("restomic", command=script), Door(), {})
        account = upkeep.run(task, Streams(), ALL)
        calls = (tmp_path / "calls").read_text().splitlines()
        assert calls[1] == "tag --add restomic:default ab"
        assert [step.outcome for step in account.steps] == ["ok", "ok", "ok"]

    def test_what_a_step_has_done_is_told(self, place, tmp_path):
        account = self.run(tmp_path, "exit 0")
        account.notes.append("restic removed 1 stale lock")
        assert upkeep.as_text(account).endswith("\nNote:\n  restic removed 1 stale lock\n")

    def test_goes_into_a_history_of_its_own(self, place, tmp_path):
        self.run(tmp_path, "exit 1")
        (entry,) = state.read_upkeep(place)
        assert (entry["kind"], entry["outcome"], entry["status"]) == ("upkeep", "failed", 1)
        assert [step["outcome"] for step in entry["steps"]] == ["failed", "not run"]
        assert {"began", "ended"} <= entry.keys()
        assert state.read_history(place) == []

    def test_waits_for_no_backup(self, place, tmp_path):
        with state.lock(place), pytest.raises(Refusal) as caught:
            self.run(tmp_path, "exit 0")
        assert caught.value.status == EX_TEMPFAIL
        assert not (tmp_path / "calls").exists()

    def test_a_signal_ends_it(self, place, tmp_path):
        account = self.run(tmp_path, f"kill -TERM {os.getpid()}; sleep 30")
        assert (account.outcome, account.status) == ("interrupted", 128 + 15)
        assert (tmp_path / "calls").read_text().count("\n") == 1
        assert upkeep.as_text(account).startswith("restomic: upkeep was INTERRUPTED")

    def test_secrets_stay_unseen(self, place, tmp_path, capfd):
        account = self.run(tmp_path, 'echo "p=$RESTIC_PASSWORD"; exit 1', RESTIC_PASSWORD="horse")
        account.fail("cannot open with horse", 1)
        accounts.close(place, account, lambda text: text.replace("horse", "[hidden]"))
        out, err = capfd.readouterr()
        assert "p=[hidden]" in out
        kept = [accounts.as_dict(account), state.read_upkeep(place)]
        told = upkeep.as_text(account) + json.dumps(kept)
        assert "horse" not in out + err + told


class TestSeveralRepositories:
    """Each has its turn, and an account in the account of all."""

    def task(self, tmp_path, text):
        command = wrapper(tmp_path, text)
        jobs = [
            Job("restomic", command=command, env_files=(f"/{name}.env",),
                environment={"RESTIC_REPOSITORY": f"/{name}", "RESTIC_PASSWORD": f"secret-{name}"})
            for name in ("here", "away")
        ]  # fmt: skip
        return make_ready(jobs[0], Door(), {}, further=jobs[1:])

    def run(self, tmp_path, text):
        return upkeep.run(self.task(tmp_path, text), Streams(), ALL)

    def test_all_well(self, place, tmp_path):
        account = self.run(tmp_path, 'echo "in $RESTIC_REPOSITORY" >> ' + f"{tmp_path}/where")
        assert (account.outcome, account.problems) == ("success", [])
        assert (tmp_path / "where").read_text().split() == ["in", "/here"] * 2 + ["in", "/away"] * 2
        assert re.search(r"\n  forget and prune, away.env +ok, ", upkeep.as_text(account))
        (entry,) = state.read_upkeep(place)
        assert [each["name"] for each in entry["repositories"]] == ["here.env", "away.env"]
        assert [each["repository"] for each in entry["steps"]][1:3] == ["here.env", "away.env"]

    def test_one_that_fails_does_not_keep_the_next_from_its_turn(self, place, tmp_path):
        text = 'test "$RESTIC_REPOSITORY" != /here || { echo $RESTIC_PASSWORD >&2; exit 12; }'
        account = self.run(tmp_path, text)
        assert (account.outcome, account.status) == ("failed", 12)
        assert [step.outcome for step in account.steps] == ["failed", "not run", "ok", "ok"]
        assert [each.partition(": ")[0] for each in account.problems] == ["here.env"]
        (entry,) = state.read_upkeep(place)
        assert [each["outcome"] for each in entry["repositories"]] == ["failed", "success"]
        assert "secret-here" not in json.dumps(entry)

    def test_a_signal_ends_all_of_it(self, place, tmp_path, surviving):
        account = self.run(tmp_path, "kill -TERM $PPID; sleep 5")
        assert (account.outcome, account.status) == ("interrupted", 143)
        assert [step.outcome for step in account.steps][2:] == ["not run", "not run"]
        assert len(account.problems) == 1
