"""The commands for what is done between backups, from the command line to what is shown."""

import json

import pytest

from kopiatomic import cli, environment
from kopiatomic.clients.records import Wishes
from kopiatomic.commands import common, repository
from kopiatomic.errors import EX_NOPERM, EX_USAGE, PERIODIC_TROUBLE, Refusal
from kopiatomic.job import Job
from kopiatomic.repository import drill, upkeep
from kopiatomic.repository.account import Account
from kopiatomic.repository.drill import Drill
from kopiatomic.system.command import Door


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
        monkeypatch.setattr(environment, "_check_way", lambda path, owner: None)
        file = tmp_path / "env"
        file.write_text("RESTIC_HOST=web\n")
        file.chmod(0o600)
        words = ["--upkeep", "-n", "-e", str(file), "-c", "restic-x backup", "--forget=-d 7"]
        assert cli.main("restomic", words) == 0
        ours = "--host web --tag restomic:default --group-by host"
        assert capfd.readouterr().out == f"Would run:\n  restic-x forget {ours} -d 7\n"

    def test_dry_run(self, capfd):
        words = ["--upkeep", "-n", "-c", "restic-x backup", "--verify=5", "--forget=-d 7 --host h"]
        assert cli.main("restomic", words) == 0
        assert capfd.readouterr().out == (
            "Would run:\n  restic-x check --read-data-subset=5%\n"
            "  restic-x forget --tag restomic:default --group-by host -d 7 --host h\n"
        )


@pytest.mark.parametrize("words", [["--size-limit", "x"], ["--seed", "-1"], ["--seed", "x"]])
def test_bad_numbers(capsys, monkeypatch, words):
    monkeypatch.setattr(common, "need_root", lambda job: None)
    assert cli.main("restomic", ["--drill", "3", *words]) == EX_USAGE
    assert cli.main("restomic", ["--drill", "0"]) == EX_USAGE


def test_a_dry_run_shows_no_secret(capfd):
    command = "restic -r rest:http://u:battery@h backup"
    assert cli.main("restomic", ["--upkeep", "-n", "--prune", "-c", command]) == 0
    assert capfd.readouterr().out == "Would run:\n  restic -r rest:http://u:[hidden]@h prune\n"


JOB = Job("restomic", command=("/bin/sh", "backup"))


@pytest.fixture
def runs(monkeypatch):
    """Stand in for upkeep and drill: an account of each, and what they were asked for."""
    asked = []
    monkeypatch.setattr(common, "need_root", lambda job: None)
    accounts = {
        "upkeep": Account("upkeep", "restomic", "default", 0.0, said="last words"),
        "drill": Drill("drill", "restomic", "default", 0.0),
    }

    def run_upkeep(task, streams, wishes, wait):
        asked.append((task, streams, wishes))
        return accounts["upkeep"]

    def run_drill(task, wishes, wait):
        asked.append((task, wishes))
        return accounts["drill"]

    monkeypatch.setattr(upkeep, "run", run_upkeep)
    monkeypatch.setattr(drill, "run", run_drill)
    return asked, accounts


class TestLookAfter:
    def test_what_is_asked_for(self, runs):
        values = {"--verify": "2.5%", "--maintenance": "", "--prune": "",
                  "--forget": "--keep-tag 'a b'"}  # fmt: skip
        repository.look_after(JOB, Door(), values)
        ((task, streams, wishes),) = runs[0]
        assert wishes == Wishes(2.5, True, ("--keep-tag", "a b"), True)
        assert (task.job, task.program, streams.output) == (JOB, "/bin/sh", 1)

    def test_nothing_is_asked_for_by_itself(self, runs):
        repository.look_after(JOB, Door(), {})
        assert runs[0][0][2] == Wishes()

    def test_for_a_person(self, runs, capfd):
        assert repository.look_after(JOB, Door(), {}) == 0
        out, err = capfd.readouterr()
        assert out.startswith("\nrestomic: upkeep succeeded, ")
        assert "last words" not in out + err

    def test_in_json(self, runs, capfd):
        assert repository.look_after(JOB, Door(), {"--json": ""}) == 0
        assert json.loads(capfd.readouterr().out)["kind"] == "upkeep"
        assert runs[0][0][1].output == 2

    def test_what_went_wrong(self, runs, capfd):
        runs[1]["upkeep"].fail("check: exit status 1", 1)
        assert repository.look_after(JOB, Door(), {}) == 1
        assert capfd.readouterr().err == "restomic: check: exit status 1\n"

    def test_the_mail_has_the_clients_last_words_of_a_failure(self, runs, capfd):
        assert repository.look_after(JOB, Door(), {"--periodic": ""}) == 0
        assert "last words" not in capfd.readouterr().out
        runs[1]["upkeep"].fail("check: exit status 1", 1)
        assert repository.look_after(JOB, Door(), {"--periodic": ""}) == PERIODIC_TROUBLE
        out, err = capfd.readouterr()
        assert out.startswith("restomic: upkeep FAILED, ")
        assert "last words" in out
        assert err == ""


class TestRestoreDrill:
    def test_what_is_asked_for(self, runs):
        repository.restore_drill(JOB, Door(), {"--drill": "3", "--seed": "7", "--size-limit": "2k"})
        ((task, wishes),) = runs[0]
        assert (task.job, wishes) == (JOB, drill.Wishes(3, 7, 2048))

    def test_without_a_seed_it_is_another_each_time(self, runs):
        for _ in range(3):
            repository.restore_drill(JOB, Door(), {"--drill": "3"})
        assert len({wishes.seed for _, wishes in runs[0]}) > 1
        assert {wishes.size_limit for _, wishes in runs[0]} == {drill.SIZE_LIMIT}

    def test_for_a_person_and_a_program(self, runs, capfd):
        assert repository.restore_drill(JOB, Door(), {"--drill": "3"}) == 0
        assert "the restore drill succeeded" in capfd.readouterr().out
        assert repository.restore_drill(JOB, Door(), {"--drill": "3", "--json": ""}) == 0
        assert json.loads(capfd.readouterr().out)["kind"] == "drill"

    def test_what_went_wrong(self, runs, capfd):
        runs[1]["drill"].fail("/f: differs", 1)
        assert repository.restore_drill(JOB, Door(), {"--drill": "3"}) == 1
        assert capfd.readouterr().err == "restomic: /f: differs\n"
        assert repository.restore_drill(JOB, Door(), {"--drill": "3", "--periodic": ""}) == 3


@pytest.mark.parametrize(
    ("command", "values"),
    [(repository.look_after, {"--prune": ""}), (repository.restore_drill, {"--drill": "3"})],
)
def test_both_need_root(runs, monkeypatch, command, values):
    def refuse(job):
        raise Refusal("by root", EX_NOPERM)

    monkeypatch.setattr(common, "need_root", refuse)
    with pytest.raises(Refusal):
        command(JOB, Door(), values)
    assert runs[0] == []
