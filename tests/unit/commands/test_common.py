"""What the commands share: root, the job made ready, where words go, the exit status."""

from __future__ import annotations

import os

import pytest

from kopiatomic import environment
from kopiatomic.commands import common
from kopiatomic.errors import EX_NOPERM, Refusal
from kopiatomic.job import Job
from kopiatomic.system.command import Door

# A client that is there, wherever the tests run.
CLIENT = ("/bin/sh", "backup")


def become(monkeypatch, user: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)


@pytest.fixture
def open_way(monkeypatch):
    """Let no directory above an env file matter."""
    monkeypatch.setattr(environment, "_check_way", lambda path, owner: None)


def env_file(tmp_path, mode: int = 0o600) -> str:
    path = tmp_path / "env"
    path.write_text("RESTIC_PASSWORD=hunter2\n")
    path.chmod(mode)
    return str(path)


class TestRoot:
    def test_anyone_else_is_refused(self, monkeypatch):
        become(monkeypatch, 1001)
        with pytest.raises(Refusal, match=r"^kopiatomic must be run by root") as caught:
            common.need_root(Job("kopiatomic"))
        assert caught.value.status == EX_NOPERM

    def test_root(self, monkeypatch):
        become(monkeypatch, 0)
        common.need_root(Job("kopiatomic"))


class TestEnvironment:
    def test_nobody_but_root_gets_as_far_as_reading_it(self, monkeypatch, tmp_path):
        become(monkeypatch, 1001)
        job = Job("restomic", command=CLIENT, env_file=str(tmp_path / "none"))
        with pytest.raises(Refusal, match="run by root"):
            common.task_of_root(job, Door())

    @pytest.mark.usefixtures("open_way")
    def test_a_dry_run_reads_the_users_own(self, tmp_path):
        job = Job("restomic", command=CLIENT, env_file=env_file(tmp_path))
        task, notes = common.task_of_anyone(job, Door())
        assert task.environment["RESTIC_PASSWORD"] == "hunter2"
        assert task.hide("a hunter2") == "a [hidden]"
        assert notes == []

    def test_a_dry_run_says_that_one_for_root_alone_is_not_read(self, monkeypatch, tmp_path):
        become(monkeypatch, 1001)
        path = str(tmp_path / "none")
        task, notes = common.task_of_anyone(Job("restomic", command=CLIENT, env_file=path), Door())
        assert task.job.environment == {}
        assert notes == [f"{path} is not read, which root will do"]

    @pytest.mark.usefixtures("open_way")
    @pytest.mark.parametrize("user", [0, 1001])
    def test_a_dry_run_refuses_one_that_a_backup_will_refuse(self, monkeypatch, tmp_path, user):
        path = env_file(tmp_path, 0o644)
        become(monkeypatch, user)
        with pytest.raises(Refusal, match="chmod 600"):
            common.task_of_anyone(Job("restomic", command=CLIENT, env_file=path), Door())

    def test_none(self):
        task, notes = common.task_of_anyone(Job("restomic", command=CLIENT), Door())
        assert (task.job, notes) == (Job("restomic", command=CLIENT), [])
        assert task.program == "/bin/sh"


class TestStreams:
    def test_of_the_mail_nothing_is_written_at_once(self):
        streams = common.streams({"--periodic": ""})
        assert (streams.output, streams.messages, streams.capture) == (None, None, True)

    def test_where_the_report_is_data_the_client_speaks_elsewhere(self):
        streams = common.streams({"--json": ""})
        assert (streams.output, streams.capture) == (2, True)

    @pytest.mark.parametrize("terminal", [True, False])
    def test_a_terminal_is_the_clients(self, monkeypatch, terminal):
        monkeypatch.setattr(common, "on_terminal", lambda: terminal)
        streams = common.streams({})
        assert (streams.output, streams.messages, streams.capture) == (1, 2, not terminal)


class Came:
    """What came of something."""

    def __init__(self, status: int, *problems: str) -> None:
        self.status, self.problems = status, problems


class TestExitStatus:
    JOB = Job("restomic")

    def test_problems_are_told_and_the_status_passed_on(self, capsys):
        assert common.tell(self.JOB, Came(71, "busy", "odd\x1b[1m"), {}) == 71
        assert capsys.readouterr() == ("", "restomic: busy\nrestomic: odd\\x1b[1m\n")

    @pytest.mark.parametrize(
        ("status", "good", "answer"), [(71, 0, 3), (71, 1, 3), (0, 0, 0), (0, 1, 1)]
    )
    def test_periodics_own(self, capsys, status, good, answer):
        assert common.tell(self.JOB, Came(status, "busy"), {"--periodic": ""}, good) == answer
        assert capsys.readouterr() == ("", "")


class TestShowing:
    def test_bytes_that_are_no_text(self, capfd):
        common.show("a\udcff\n")
        assert capfd.readouterr().out == "a\\udcff\n"

    def test_a_reader_that_has_gone(self, monkeypatch):
        def write(descriptor, data):
            raise BrokenPipeError

        monkeypatch.setattr(os, "write", write)
        common.show("text")
