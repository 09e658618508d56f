"""The command of --notify: what it is told, when, and what comes of one that fails."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from kopiatomic import cli, formatting
from kopiatomic.backup import routine
from kopiatomic.backup.report import Report
from kopiatomic.clients import make_ready
from kopiatomic.commands import common, notify
from kopiatomic.commands.notify import Notice
from kopiatomic.errors import EX_NOPERM, EX_OSERR, EX_TEMPFAIL, EX_USAGE, Refusal
from kopiatomic.job import Job
from kopiatomic.repository import drill, upkeep
from kopiatomic.repository.account import Account
from kopiatomic.repository.drill import Drill
from kopiatomic.system.command import CommandFailed, Door

NOTICE = Notice("restomic", "home", "backup", "failed", 73, "no space", "the report\n", "run-1")
SH = ("/bin/sh", "backup")
NAMES = "PROGRAM JOB RUN ACTION OUTCOME STATUS MESSAGE".split()


@pytest.fixture
def told(tmp_path):
    """What a command was told: the words to be told with, and what reads it."""

    class Told:
        command = f"cat > {tmp_path}/text; env | grep ^KOPIATOMIC_ | sort > {tmp_path}/env"

        @property
        def there(self) -> bool:
            return (tmp_path / "env").exists()

        @property
        def text(self) -> str:
            return (tmp_path / "text").read_text()

        @property
        def variables(self) -> dict[str, str]:
            lines = (tmp_path / "env").read_text().splitlines()
            found = dict(line.removeprefix("KOPIATOMIC_").split("=", 1) for line in lines)
            # The tests have some of their own.
            return {name: found[name] for name in NAMES if name in found}

    return Told()


def tell(command: str | None, notice=NOTICE, status=73, *options: str, **job: object) -> int:
    made = Job("restomic", command=SH, notify=command, **job)
    task = make_ready(made, Door(), os.environ)
    return notify.tell_end(task, notice, dict.fromkeys(options, ""), status)


class TestOfAnEnd:
    def test_it_is_told_all(self, told):
        assert tell(told.command) == 73
        assert told.text == "the report\n"
        assert told.variables == {
            "PROGRAM": "restomic", "JOB": "home", "RUN": "run-1", "ACTION": "backup",
            "OUTCOME": "failed", "STATUS": "73", "MESSAGE": "no space",
        }  # fmt: skip

    def test_without_a_command_nobody_is(self):
        assert tell(None) == 73

    def test_no_secret_is_told(self, told):
        notice = NOTICE._replace(message="a horse", text="the horse\n")
        tell(told.command, notice, environment={"RESTIC_PASSWORD": "horse"})
        assert told.text == "the [hidden]\n"
        assert told.variables["MESSAGE"] == "a [hidden]"

    def test_the_env_file_is_the_clients(self, tmp_path):
        environment = {"RESTIC_PASSWORD": "horse"}
        tell(f"env > {tmp_path}/all", environment=environment)
        assert "horse" not in (tmp_path / "all").read_text()

    def test_more_problems_than_fit_into_an_environment(self, told):
        tell(told.command, NOTICE._replace(message="x" * 3_000_000, text="y" * 3_000_000))
        assert told.variables["MESSAGE"] == "x" * formatting.MESSAGE
        assert told.text == "y" * 3_000_000

    def test_names_that_are_no_text(self, told):
        tell(told.command, NOTICE._replace(message="a\nb\udcff", text="c\udcff\n"))
        assert told.variables["MESSAGE"] == r"a\x0ab\xff"
        assert told.text == "c\\udcff\n"

    def test_what_it_prints_keeps_out_of_the_report(self, capfd):
        tell("echo out; echo err >&2")
        assert capfd.readouterr() == ("", "out\nerr\n")
        tell("echo out; echo err >&2", NOTICE, 73, "--periodic")
        assert capfd.readouterr() == ("", "")

    def test_it_need_not_read(self):
        tell("exit 0", NOTICE._replace(text="y" * 3_000_000))


class TestOneThatFails:
    @pytest.mark.parametrize("status", [0, 73])
    def test_changes_no_status(self, capfd, status):
        assert tell("echo oh; exit 22", NOTICE, status) == status
        assert capfd.readouterr() == (
            "", "oh\nrestomic: the command of --notify failed, exit status 22\n",
        )  # fmt: skip

    @pytest.mark.parametrize(("status", "shown"), [(0, 1), (1, 1), (3, 3)])
    def test_is_in_the_mail(self, capfd, status, shown):
        assert tell("echo oh; exit 22", NOTICE, status, "--periodic") == shown
        assert capfd.readouterr() == (
            "restomic (job home): the command of --notify failed, exit status 22\n"
            "\nWhat it said:\n  oh\n", "",
        )  # fmt: skip

    def test_with_its_secrets_hidden(self, capfd):
        tell("TOKEN=battery; echo got $TOKEN; exit 1", NOTICE, 0, "--periodic")
        assert "got [hidden]\n" in capfd.readouterr().out

    def test_one_that_hangs_is_ended(self, capfd, monkeypatch):
        monkeypatch.setattr(notify, "LIMIT", 0.3)
        assert tell("sleep 1000", NOTICE, 0) == 0
        assert "was ended because it took more than 0 s" in capfd.readouterr().err

    def test_a_signal_ends_it_and_not_us(self, capfd, tmp_path):
        def interrupt():
            while not (tmp_path / "on").exists():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=interrupt).start()
        assert tell(f": > {tmp_path}/on; exec sleep 1000", NOTICE, 0) == 0
        assert "failed, killed by SIGTERM" in capfd.readouterr().err

    def test_one_that_cannot_be_started(self, capfd, monkeypatch):
        def refuse(*_):
            raise CommandFailed(["sh"], "cannot be started: no memory")

        monkeypatch.setattr(notify.process, "run_told", refuse)
        assert tell("true", NOTICE, 0) == 0
        assert "--notify cannot be started: no memory" in capfd.readouterr().err

    def test_an_error_of_ours(self, capfd, monkeypatch):
        monkeypatch.setattr(notify.process, "run_told", lambda *_: 1 / 0)
        assert tell("true", NOTICE, 0) == 0
        assert "internal error, please report it: ZeroDivisionError" in capfd.readouterr().err


@pytest.fixture
def root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def run(*words: str) -> int:
    return cli.main("restomic", ["-c", "/bin/sh backup", "-j", "home", *words])


@pytest.mark.usefixtures("root")
class TestWhatEnds:
    def test_a_backup(self, told, monkeypatch):
        made = Report("restomic", "home", "run-1", 100.0)
        made.fail("no space", 73)
        made.said = "last words"
        monkeypatch.setattr(routine, "run", lambda task, streams, wait: made)
        assert run("--notify", told.command, "tank") == 73
        assert told.text.startswith("restomic (job home): the backup FAILED, ")
        assert "last words" in told.text
        assert told.variables == {
            "PROGRAM": "restomic", "JOB": "home", "RUN": "run-1", "ACTION": "backup",
            "OUTCOME": "failed", "STATUS": "73", "MESSAGE": "no space",
        }  # fmt: skip

    def test_for_periodic_it_is_the_status_of_the_run(self, told, monkeypatch):
        made = Report("restomic", "home", "run-1", 100.0)
        made.fail("no space", 73)
        monkeypatch.setattr(routine, "run", lambda task, streams, wait: made)
        assert run("--periodic", "--notify", told.command, "tank") == 3
        assert told.variables["STATUS"] == "73"

    @pytest.mark.parametrize(("problem", "outcome"), [(None, "success"), ("worn", "failed")])
    def test_upkeep(self, told, monkeypatch, problem, outcome):
        account = Account("upkeep", "restomic", "home", 0.0, said="last words")
        if problem:
            account.fail(problem, 1)
        monkeypatch.setattr(upkeep, "run", lambda *_: account)
        assert run("--upkeep", "--prune", "--notify", told.command) == account.status
        assert "restomic (job home): upkeep " in told.text
        assert ("last words" in told.text) == bool(problem)
        assert told.variables["ACTION"] == "upkeep"
        assert told.variables["OUTCOME"] == outcome
        assert told.variables["RUN"] == ""

    def test_a_drill(self, told, monkeypatch):
        account = Drill("drill", "restomic", "home", 0.0)
        monkeypatch.setattr(drill, "run", lambda *_: account)
        assert run("--drill", "3", "--notify", told.command) == 0
        assert "the restore drill succeeded" in told.text
        assert (told.variables["ACTION"], told.variables["STATUS"]) == ("drill", "0")


@pytest.mark.usefixtures("root")
class TestWhatIsRefused:
    def test_bad_arguments(self, told, capfd):
        assert run("--notify", told.command) == EX_USAGE
        assert told.text.startswith("restomic (job home): NO BACKUP: nothing to back up")
        assert told.variables["OUTCOME"] == "refused"
        assert told.variables["STATUS"] == "64"
        assert told.variables["MESSAGE"].startswith("nothing to back up")
        assert told.variables["RUN"] == ""
        assert capfd.readouterr().err.startswith("restomic: nothing to back up")

    @pytest.mark.parametrize(
        ("words", "action"),
        [
            (["--nosuch", "tank"], "backup"),
            (["--upkeep", "--nosuch"], "upkeep"),
            (["--upkeep", "--verify", "x"], "upkeep"),
            (["--drill", "x"], "drill"),
            (["--drill"], "backup"),
            (["--max-age=3", "tank"], "backup"),
        ],
    )
    def test_an_option_behind_it(self, told, words, action):
        assert run("--notify", told.command, *words) == EX_USAGE
        assert told.variables["ACTION"] == action

    @pytest.mark.parametrize(
        "words",
        [
            ["--nosuch", "--notify"], ["-o", "--notify", "--nosuch", "--"],
            ["tank", "-n", "--nosuch", "--notify"], ["--", "--notify"],
        ],
    )  # fmt: skip
    def test_what_is_no_option_of_ours_is_not_run(self, told, words):
        assert run(*words, told.command) != 0
        assert not told.there

    @pytest.mark.parametrize(
        "words", [["-n", "-x", "y"], ["--status", "tank"], ["--check", "-j", "x"], ["--sweep"]]
    )
    def test_what_is_no_backup_is_told_to_nobody(self, told, words, capfd):
        assert run("--notify", told.command, *words) == EX_USAGE
        assert not told.there
        if words[0] != "-n":
            assert f"--notify does not go with {words[0]}" in capfd.readouterr().err

    def test_a_name_that_no_job_can_have(self, told):
        """A command may make a file of it."""
        assert run("-j", "../x", "--notify", told.command, "tank") == EX_USAGE
        assert told.variables["JOB"] == ""
        assert "'../x' cannot be a job's name" in told.text

    def test_in_the_mail_too(self, told, capfd):
        assert run("--periodic", "--notify", f"{told.command}; exit 9") == 3
        out, err = capfd.readouterr()
        assert err == ""
        assert out.splitlines() == [
            told.text.rstrip("\n"),
            "restomic (job home): the command of --notify failed, exit status 9",
        ]

    @pytest.mark.parametrize(
        ("error", "status", "outcome"),
        [
            (Refusal("still running", EX_TEMPFAIL), EX_TEMPFAIL, "refused"),
            (Refusal("interrupted by SIGTERM while it waited", 143), 143, "interrupted"),
            (CommandFailed(["zfs"], "no"), EX_OSERR, "failed"),
            (KeyboardInterrupt(), 130, "interrupted"),
            (ValueError("oh"), 70, "failed"),
        ],
    )
    def test_by_whatever(self, told, monkeypatch, error, status, outcome):
        def refuse(*_):
            raise error

        monkeypatch.setattr(routine, "run", refuse)
        assert run("--notify", told.command, "tank") == status
        assert told.variables["OUTCOME"] == outcome
        assert told.variables["STATUS"] == str(status)

    def test_to_somebody_who_is_not_root(self, told, monkeypatch):
        monkeypatch.setattr(os, "geteuid", lambda: 1001)
        assert run("--notify", told.command, "tank") == EX_NOPERM
        assert told.variables["STATUS"] == str(EX_NOPERM)

    def test_no_secret_is_told(self, told, capfd):
        command = f"restic -r rest:http://u:battery@h --password=hunter22 'backup {'x' * 3}"
        words = ["-c", command, "--notify", f"TOKEN=correct; {told.command}; exit 1", "--verbose"]
        assert run(*words, "tank") == EX_USAGE
        everything = told.text + str(told.variables) + capfd.readouterr().err
        assert "+ /bin/sh -c" in everything
        for secret in ("battery", "hunter22", "correct"):
            assert secret not in everything

    def test_with_the_umask_of_the_caller(self, tmp_path):
        before = os.umask(0o027)
        try:
            assert run("--notify", f"umask > {tmp_path}/umask") == EX_USAGE
        finally:
            os.umask(before)
        assert (tmp_path / "umask").read_text() == "0027\n"


def test_the_command_of_a_job_is_no_reason_to_refuse_it(root, told, monkeypatch, capfd):
    monkeypatch.setattr(common, "need_root", lambda job: None)
    made = Report("restomic", "home", "run-1", 100.0)
    monkeypatch.setattr(routine, "run", lambda task, streams, wait: made)
    assert run("--notify", "/no/such/program", "tank") == 0
    assert "the command of --notify failed, exit status 127" in capfd.readouterr().err


