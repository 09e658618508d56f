"""Upkeep: which commands it comes to, what is refused, and how it is told."""

import json
import os
import re

import pytest

from kopiatomic import cli, state
from kopiatomic import environment as environment_module
from kopiatomic.clients import invocation
from kopiatomic.errors import EX_TEMPFAIL, EX_UNAVAILABLE, EX_USAGE, Refusal
from kopiatomic.job import Job
from kopiatomic.repository import upkeep
from kopiatomic.repository.upkeep import Wishes
from kopiatomic.system.command import Door
from kopiatomic.system.process import Ended, Streams

HOST = os.uname().nodename
ALL = Wishes(verify=5.0, forget=("--keep-daily", "7"), prune=True)


def job(program="restomic", command="restic-x backup", options="", **more):
    return Job(program, command=tuple(command.split()), options=tuple(options.split()), **more)


def commands(wishes, environment=None, **words):
    return [" ".join(step.argv) for step in upkeep.plan(job(**words), wishes, environment or {})]


class TestBaseCommand:
    @pytest.mark.parametrize(
        ("program", "command", "options", "base"),
        [
            ("restomic", "", "", "restic"),
            ("restomic", "restic-x backup", "", "restic-x"),
            ("restomic", "nice -n 9 restic -r /r backup --tag x", "", "nice -n 9 restic -r /r"),
            ("restomic", "restic backup --repo=/r", "--tag t -o s3.x=1 --exclude r --cacert /c",
             "restic --repo=/r -o s3.x=1 --cacert /c"),
            ("restomic", "restic backup", "-r/repo --insecure-tls --host h",
             "restic -r/repo --insecure-tls"),
            ("kopiatomic", "", "", "kopia"),
            ("kopiatomic", "kopia-x snapshot create", "--tags a:b", "kopia-x"),
            ("kopiatomic", "kopia snapshot create --config-file /c", "--no-progress --tags a:b",
             "kopia --config-file /c --no-progress"),
        ],
    )  # fmt: skip
    def test_is_what_comes_before_the_subcommand_and_the_repository(
        self, program, command, options, base
    ):
        assert " ".join(invocation.base_command(job(program, command, options))) == base

    @pytest.mark.parametrize(
        ("program", "command", "plain"),
        [
            ("restomic", "my-backup", False),
            ("kopiatomic", "my-backup", False),
            ("restomic", "restic backup", True),
        ],
    )
    def test_a_command_without_its_subcommand_is_refused(self, program, command, plain):
        with pytest.raises(Refusal, match="does not name its subcommand"):
            invocation.base_command(job(program, command, plain=plain))


class TestSteps:
    def test_restic_checks_before_it_forgets(self):
        assert commands(ALL) == [
            "restic-x check --read-data-subset=5%",
            f"restic-x forget --host {HOST} --keep-daily 7 --prune",
        ]

    def test_each_only_when_asked_for(self):
        assert commands(Wishes(verify=0)) == ["restic-x check"]
        assert commands(Wishes(prune=True)) == ["restic-x prune"]
        assert commands(Wishes(verify=2.5)) == ["restic-x check --read-data-subset=2.5%"]

    def test_the_host_is_the_backups(self):
        wishes = Wishes(forget=("--keep-last=1",))
        assert commands(wishes, {"RESTIC_HOST": "e"}) == ["restic-x forget --host e --keep-last=1"]
        assert commands(wishes, {"RESTIC_HOST": "e"}, options="--host o") == [
            "restic-x forget --host o --keep-last=1"
        ]
        own = Wishes(forget=("--keep-last=1", "--host", "all"))
        assert commands(own) == ["restic-x forget --keep-last=1 --host all"]

    def test_restics_short_h_of_forget_is_not_the_host(self):
        assert commands(Wishes(forget=("-H", "24"))) == [f"restic-x forget --host {HOST} -H 24"]

    def test_kopia(self):
        wishes = Wishes(verify=5.0, maintenance=True)
        assert commands(wishes, program="kopiatomic", command="kopia-x snapshot create") == [
            "kopia-x snapshot verify --verify-files-percent=5",
            "kopia-x maintenance run --full",
        ]

    @pytest.mark.parametrize(
        ("program", "wishes", "says"),
        [
            ("restomic", Wishes(), "say what is to be done"),
            ("kopiatomic", Wishes(), "--verify or --maintenance"),
            ("restomic", Wishes(maintenance=True), "--maintenance is kopia's"),
            ("kopiatomic", Wishes(prune=True), "are restic's"),
            ("kopiatomic", Wishes(forget=("--keep-last=1",)), "are restic's"),
        ],
    )
    def test_what_cannot_be(self, program, wishes, says):
        with pytest.raises(Refusal, match=says):
            upkeep.plan(job(program, ""), wishes, {})


class TestForget:
    @pytest.mark.parametrize(
        "words",
        [
            "", "--tag x", "--host h", "--prune", "--group-by host", "--tag --keep-last",
            "--host --keep-daily --prune",
        ],
    )  # fmt: skip
    def test_needs_keep_flags(self, words):
        with pytest.raises(Refusal, match="without a --keep flag every backup could go"):
            upkeep.check_forget(words.split())

    @pytest.mark.parametrize("words", ["--keep-last 3 abcd1234", "latest --keep-last=3", "-l3 x"])
    def test_takes_no_names_of_snapshots(self, words):
        with pytest.raises(Refusal, match="belongs to no option"):
            upkeep.check_forget(words.split())

    def test_takes_nothing_that_removes_all(self):
        with pytest.raises(Refusal, match="no backup at all"):
            upkeep.check_forget(["--keep-last", "1", "--unsafe-allow-remove-all"])

    @pytest.mark.parametrize(
        "words",
        [
            "--keep-daily 7", "--keep-within=1y", "-d 7 -w 5", "-d7", "-H 24 --tag a --path /x",
            "--keep-last -1 --group-by host --max-unused 5%", "--keep-tag t -c -n",
        ],
    )  # fmt: skip
    def test_takes_policies(self, words):
        upkeep.check_forget(words.split())


@pytest.mark.parametrize("text", ["-1", "101", "x", "", "nan"])
def test_percentages_that_are_none(text):
    with pytest.raises(Refusal, match="from 0 to 100"):
        upkeep.percent_of(text)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ({}, "restic-x unlock"),
        ({"command": "", "options": "-r /r --tag t"}, "restic -r /r unlock"),
        ({"command": "my-backup"}, "restic unlock"),
        ({"env_file": "/e"}, "restic-x unlock (with the variables of /e)"),
    ],
)
def test_how_the_client_is_called_by_hand(words, line):
    assert invocation.by_hand(job(**words))("unlock") == line


def test_percentages():
    assert [upkeep.percent_of(each) for each in ("0", "2.5", "5%", "100")] == [0, 2.5, 5, 100]


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(state, "RUN_ROOT", str(tmp_path / "run"))
    monkeypatch.setattr(state, "STATE_DIRECTORY", str(tmp_path / "db"))
    monkeypatch.setattr("os.geteuid", lambda: os.stat(tmp_path).st_uid)
    monkeypatch.setattr("kopiatomic.backup.preflight.need_root", lambda job: None)
    return state.Place("restomic", "default")


def wrapper(tmp_path, text):
    """Write a wrapper that notes its words; return the command line of a backup by it."""
    script = tmp_path / "restic-x"
    script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n{text}\n')
    script.chmod(0o755)
    return (str(script), "backup")


class TestRun:
    def run(self, tmp_path, text, wishes=ALL, **environment):
        command = wrapper(tmp_path, text)
        return upkeep.run(Job("restomic", command=command), Door(), Streams(), environment, wishes)

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
        account = upkeep.run(
            Job("kopiatomic", command=(script[0], "snapshot", "create")),
            Door(), Streams(), {}, Wishes(maintenance=True),
        )  # fmt: skip
        assert account.status == 1
        assert re.search(told.format(tmp_path), account.problems[0])

    @pytest.mark.parametrize(("ends", "status"), [(0, EX_UNAVAILABLE), (3, 3)])
    def test_what_restic_could_not_forget_is_no_success(self, place, tmp_path, ends, status):
        says = "unable to remove snapshot/802eb from the repository"
        forget = f'test "$1" = check || {{ echo "{says}" >&2; exit {ends}; }}'
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

        monkeypatch.setattr(upkeep.client, "run", run)
        wishes = Wishes(verify=5, forget=["--keep-last", "3"])
        script = wrapper(tmp_path, "exit 0")
        asked = Job("restomic", command=(script[0], "backup"))
        upkeep.run(asked, Door(), Streams(capture=False), {}, wishes)
        assert captured == [False, True]

    def test_of_what_is_said_only_locks_count_outside_of_a_view(self, place, tmp_path):
        account = self.run(tmp_path, "echo 'read-only file system' >&2; exit 5")
        assert account.problems == ["check with 5 % of the data: exit status 5"]

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
        upkeep.close(place, account, lambda text: text.replace("horse", "[hidden]"))
        out, err = capfd.readouterr()
        assert "p=[hidden]" in out
        kept = [upkeep.as_dict(account), state.read_upkeep(place)]
        told = upkeep.as_text(account) + json.dumps(kept)
        assert "horse" not in out + err + told


class TestCommandLine:
    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["--verify", "5"], "--verify goes with --upkeep"),
            (["--seed", "5", "--upkeep"], "--seed goes with --drill"),
            (["--upkeep", "--drill", "5"], "two things"),
            (["--upkeep", "--prune", "tank"], "name no dataset"),
            (["--drill", "5", "-a"], "name no dataset"),
            (["--drill", "5", "-n"], "-n does not go with --drill"),
            (["--upkeep", "-n"], "say what is to be done"),
            (["--upkeep", "-n", "--forget", "--tag x"], "without a --keep flag"),
        ],
    )
    def test_refuses(self, capsys, words, says):
        assert cli.main("restomic", words) == EX_USAGE
        out, err = capsys.readouterr()
        assert out == ""
        assert says in err

    def test_dry_run_with_an_env_file(self, capfd, tmp_path, monkeypatch):
        """It shows what will be run, with the host that the env file gives."""
        monkeypatch.setattr(environment_module, "_check_way", lambda path, owner: None)
        file = tmp_path / "env"
        file.write_text("RESTIC_HOST=web\n")
        file.chmod(0o600)
        words = ["--upkeep", "-n", "-e", str(file), "-c", "restic-x backup", "--forget=-d 7"]
        assert cli.main("restomic", words) == 0
        assert capfd.readouterr().out == "Would run:\n  restic-x forget --host web -d 7\n"

    def test_dry_run(self, capfd):
        words = ["--upkeep", "-n", "-c", "restic-x backup", "--verify=5", "--forget=-d 7 --host h"]
        assert cli.main("restomic", words) == 0
        assert capfd.readouterr().out == (
            "Would run:\n  restic-x check --read-data-subset=5%\n"
            "  restic-x forget -d 7 --host h\n"
        )
