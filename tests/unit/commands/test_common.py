"""What the commands share."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from kopiatomic import cli, environment, state
from kopiatomic.commands import backup, common, repository
from kopiatomic.errors import (
    EX_NOINPUT,
    EX_NOPERM,
    EX_TEMPFAIL,
    EX_USAGE,
    PERIODIC_TROUBLE,
    Refusal,
)
from kopiatomic.job import Job
from kopiatomic.system.command import Door

# A client that every system has.
SH = ("/bin/sh",)
JOB = Job("restomic", command=SH, plain=True)
WITH_FILE = Job("restomic", command=SH, plain=True, env_files=("/etc/restic.env",))


@pytest.fixture
def user(monkeypatch):
    """Return what makes us somebody else."""

    def become(uid):
        monkeypatch.setattr(common.os, "geteuid", lambda: uid)

    return become


@pytest.fixture
def reads(monkeypatch):
    """Stand in for the env file; returns what it was asked for."""
    asked = []

    def read(path, owner=0):
        asked.append((path, owner))
        return {"RESTIC_PASSWORD": "horse"}

    monkeypatch.setattr(environment, "read", read)
    return asked


def refuse(monkeypatch, status):
    def read(path, owner=0):
        raise Refusal("no", status)

    monkeypatch.setattr(environment, "read", read)


class TestRoot:
    def test_is_needed(self, user):
        user(1001)
        with pytest.raises(Refusal, match="kopiatomic must be run by root") as caught:
            common.need_root(Job("kopiatomic"))
        assert caught.value.status == EX_NOPERM

    def test_is_enough(self, user):
        user(0)
        common.need_root(JOB)


class TestTaskOfRoot:
    def test_nobody_else_gets_as_far_as_the_env_file(self, user, reads):
        user(1001)
        with pytest.raises(Refusal, match="by root"):
            common.task_of_root(WITH_FILE, Door())
        assert reads == []

    def test_has_what_the_env_file_holds(self, user, reads, monkeypatch):
        user(0)
        monkeypatch.setenv("COLD_KEY", "caller's")
        task = common.task_of_root(WITH_FILE, Door())
        assert reads == [("/etc/restic.env", 0)]
        assert task.job.environment == {"RESTIC_PASSWORD": "horse"}
        assert task.environment["RESTIC_PASSWORD"] == "horse"
        assert task.environment["COLD_KEY"] == "caller's"
        assert task.hide("a horse") == "a [hidden]"

    def test_without_an_env_file_none_is_read(self, user, reads):
        user(0)
        assert common.task_of_root(JOB, Door()).job == JOB
        assert reads == []

    def test_an_env_file_that_cannot_be_read_is_a_refusal(self, user, monkeypatch):
        user(0)
        refuse(monkeypatch, EX_NOINPUT)
        with pytest.raises(Refusal):
            common.task_of_root(WITH_FILE, Door())


class TestTaskOfAnyone:
    def test_reads_an_env_file_of_ones_own(self, user, reads):
        user(1001)
        task, notes = common.task_of_anyone(WITH_FILE, Door())
        assert reads == [("/etc/restic.env", 1001)]
        assert task.environment["RESTIC_PASSWORD"] == "horse"
        assert notes == []

    def test_does_without_one_that_only_root_can_read(self, user, monkeypatch):
        user(1001)
        refuse(monkeypatch, EX_NOINPUT)
        task, notes = common.task_of_anyone(WITH_FILE, Door())
        assert task.job == WITH_FILE
        assert notes == ["/etc/restic.env is not read, which root will do"]

    @pytest.mark.parametrize(
        ("uid", "status"), [(0, EX_NOINPUT), (0, EX_NOPERM), (1001, EX_NOPERM)]
    )
    def test_says_what_root_would_be_told(self, user, monkeypatch, uid, status):
        user(uid)
        refuse(monkeypatch, status)
        with pytest.raises(Refusal):
            common.task_of_anyone(WITH_FILE, Door())

    def test_the_client_has_to_be_there_or_not(self, user):
        user(1001)
        job = Job("restomic", command=("/no/such", "backup"))
        with pytest.raises(Refusal, match="is not installed"):
            common.task_of_anyone(job, Door())
        task, notes = common.task_of_anyone(job, Door(), installed=False)
        assert (task.program, notes) == ("", [])


@pytest.mark.parametrize("watched", [True, False])
class TestStreams:
    @pytest.fixture(autouse=True)
    def _terminal(self, monkeypatch, watched):
        monkeypatch.setattr(common, "on_terminal", lambda: watched)

    def test_a_person_sees_what_the_client_says(self, watched):
        streams = common.streams({})
        assert (streams.output, streams.messages, streams.capture) == (1, 2, not watched)

    def test_a_program_that_reads_us_does_not(self, watched):
        streams = common.streams({"--json": ""})
        assert (streams.output, streams.messages, streams.capture) == (2, 2, True)

    def test_the_mail_has_it_in_the_report(self, watched):
        streams = common.streams({"--periodic": ""})
        assert (streams.output, streams.messages, streams.capture) == (None, None, True)


class TestTell:
    GOOD = SimpleNamespace(status=0, problems=[])
    BAD = SimpleNamespace(status=11, problems=["one\n", "two"])

    def test_each_problem_is_a_line(self, capsys):
        assert common.tell(JOB, self.BAD, {}) == 11
        assert capsys.readouterr() == ("", "restomic: one\\x0a\nrestomic: two\n")

    def test_all_is_well(self, capsys):
        assert common.tell(JOB, self.GOOD, {}, 1) == 0
        assert capsys.readouterr() == ("", "")

    def test_periodic_is_told_by_its_own_statuses(self, capsys):
        assert common.tell(JOB, self.BAD, {"--periodic": ""}, 1) == PERIODIC_TROUBLE
        assert common.tell(JOB, self.GOOD, {"--periodic": ""}, 1) == 1
        assert common.tell(JOB, self.GOOD, {"--periodic": ""}) == 0
        assert capsys.readouterr() == ("", "")


class TestShow:
    def test_what_is_no_text_is_made_visible(self, capfd):
        common.show("ü \udcff\n")
        assert capfd.readouterr().out == "ü \\udcff\n"

    def test_comes_after_what_was_printed(self, capfd):
        print("first")
        common.show("second\n")
        assert capfd.readouterr().out == "first\nsecond\n"

    def test_a_pipe_that_takes_little_gets_all_of_it(self, monkeypatch):
        got = []

        def write(descriptor, data):
            got.append((descriptor, bytes(data[:3])))
            return min(3, len(data))

        monkeypatch.setattr(common.os, "write", write)
        common.show("abcdefg")
        assert got == [(1, b"abc"), (1, b"def"), (1, b"g")]

    def test_a_reader_that_has_gone_is_no_trouble(self, monkeypatch):
        reader, writer = os.pipe()
        os.close(reader)
        written = os.write
        monkeypatch.setattr(common.os, "write", lambda _, data: written(writer, data))
        common.show("x")
        os.close(writer)


def seconds_of(values):
    return common.wait_of(Job("restomic"), values, 7).seconds


class TestDuration:
    @pytest.mark.parametrize(
        ("text", "seconds"), [("0", 0), ("45", 45), ("30s", 30), ("10m", 600), ("4h", 14400)]
    )
    def test_is_read(self, text, seconds):
        assert seconds_of({"--wait": text}) == seconds
        assert seconds_of({"--wait": text, "--periodic": ""}) == seconds

    @pytest.mark.parametrize("text", ["", "x", "-1", "1.5h", "1d", "4 h", "h", "1h30m", "9" * 10])
    def test_or_refused(self, text, capsys):
        with pytest.raises(Refusal, match="as in 30s, 10m or 4h"):
            seconds_of({"--wait": text})
        for words in (["tank"], ["--sweep"], ["--upkeep", "--verify", "0"], ["--drill", "1"]):
            assert cli.main("restomic", [f"--wait={text}", *words]) == EX_USAGE
        assert capsys.readouterr().err.count("\n") == 4

    def test_without_it_only_periodic_waits(self):
        assert seconds_of({}) == 0
        assert seconds_of({"--periodic": ""}) == 7
        assert common.wait_of(Job("restomic"), {"--periodic": ""}) == state.NO_WAIT

    @pytest.mark.parametrize(
        ("values", "terminal", "told"),
        [({}, False, False), ({"--verbose": ""}, False, True), ({}, True, True)],
    )
    def test_it_is_told_to_who_watches(self, monkeypatch, capsys, values, terminal, told):
        monkeypatch.setattr(common.os, "isatty", lambda number: terminal)
        wait = common.wait_of(Job("restomic"), values)
        assert (wait.tell is not None) == told
        if wait.tell is not None:
            wait.tell("it goes on")
            assert capsys.readouterr() == ("", "restomic: it goes on\n")

    @pytest.mark.parametrize("words", [["-n", "tank"], ["--status"], ["--check"],
                                       ["-n", "--upkeep", "--verify", "0"]])
    def test_what_takes_no_lock_does_not_wait(self, words, capsys):
        assert cli.main("restomic", ["--wait", "1m", *words]) == EX_USAGE
        assert f"--wait does not go with {words[0]}, which waits for nothing" in (
            capsys.readouterr().err
        )


class TestCallers:
    """Each hands the wait on to the lock."""

    @pytest.fixture
    def waits(self, monkeypatch):
        found = []

        def lock(place, wait=state.NO_WAIT):
            found.append(wait.seconds)
            raise Refusal("busy", EX_TEMPFAIL)

        monkeypatch.setattr(state, "lock", lock)
        monkeypatch.setattr(common, "need_root", lambda job: None)
        monkeypatch.setattr(
            backup.jail, "entered", lambda door: door
        )
        return found

    CARE = (["--upkeep", "--verify", "0"], ["--drill", "1"])
    CLIENT = ("-c", sys.executable, "--plain")

    def main(self, *words):
        return cli.main("restomic", [*self.CLIENT, *words])

    def test_the_option(self, waits):
        for words in (["tank"], ["--sweep"]):
            assert self.main(*words, "--wait", "2m") == EX_TEMPFAIL
        for words in self.CARE:
            assert cli.main("restomic", ["-c", f"{sys.executable} backup", *words, "--wait=2m"]) \
                == EX_TEMPFAIL
        assert waits == [120, 120, 120, 120]

    def test_nothing_said(self, waits):
        for words in (["tank"], ["--sweep"]):
            self.main(*words)
        for words in self.CARE:
            cli.main("restomic", ["-c", f"{sys.executable} backup", *words])
        assert waits == [0, 0, 0, 0]

    def test_in_periodics_name(self, waits):
        for words in (["tank"], ["--sweep"]):
            self.main("--periodic", *words)
        for words in self.CARE:
            cli.main("restomic", ["--periodic", "-c", f"{sys.executable} backup", *words])
        assert waits == [backup.PERIODIC_WAIT, 0, *[repository.PERIODIC_WAIT] * 2]
        assert waits == [600, 0, 21600, 21600]
