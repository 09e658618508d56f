"""Waiting for the job's lock: how long, what ends it, and what is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from kopiatomic import cli, formatting, state
from kopiatomic.backup import report
from kopiatomic.commands import backup, common, repository
from kopiatomic.errors import EX_TEMPFAIL, EX_USAGE, Refusal
from kopiatomic.job import Job
from kopiatomic.repository import drill, upkeep
from kopiatomic.repository.account import Account
from kopiatomic.repository.account import as_dict as account_as_dict
from kopiatomic.state import Wait

JOB = Job("restomic")

HOLD = (
    "import fcntl, os, sys, time\n"
    "file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)\n"
    "fcntl.flock(file, fcntl.LOCK_EX)\n"
    "os.pwrite(file, b'4711 1700000000\\n', 0)\n"
    "print('held', flush=True)\n"
    "sys.stdin.read()\n"
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(state, "RUN_ROOT", str(tmp_path / "run"))
    monkeypatch.setattr(state, "INTERVAL", 0.05)
    place = state.Place("restomic", "default")
    state.private_directory(place.root)
    return place


@pytest.fixture
def other(place):
    """Another process that has the lock until its standard input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, place.lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def soon(number):
    """Send ourselves a signal, from outside: a thread of ours would be asked to take it."""
    return subprocess.Popen(["/bin/sh", "-c", f"sleep 0.3; kill -{number:d} {os.getpid()}"])


def mask():
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


class TestLock:
    def test_nobody_is_waited_for_where_nobody_has_it(self, place):
        with state.lock(place, Wait(3600)) as waited:
            assert waited == 0

    def test_who_waits_gets_it_when_the_other_ends(self, place, other):
        threading.Timer(0.3, other.stdin.close).start()
        with state.lock(place, Wait(60)) as waited:
            assert waited > 0
            assert state.is_locked(place)
        assert mask() == set()

    def test_it_gives_up_in_the_end_and_says_so(self, place, other):
        with pytest.raises(Refusal) as caught, state.lock(place, Wait(0.2)):
            pytest.fail("two have the lock")
        assert caught.value.status == EX_TEMPFAIL
        message = str(caught.value)
        assert "job default of restomic still runs since 2023-11-1" in message
        assert "(process 4711); waited 0 s for it; end it, or wait longer" in message
        assert mask() == set()

    def test_it_does_not_wait_unless_told_to(self, place, other, monkeypatch):
        monkeypatch.setattr(signal, "sigtimedwait", None)
        with pytest.raises(Refusal, match=r"wait for it \(with --wait\), or end it"), (
            state.lock(place)
        ):
            pytest.fail("two have the lock")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_a_signal_ends_the_wait(self, place, other, number, monkeypatch):
        # It need not come round to the next try.
        monkeypatch.setattr(state, "INTERVAL", 600.0)
        with soon(number), pytest.raises(Refusal) as caught, state.lock(place, Wait(3600)):
            pytest.fail("two have the lock")
        assert caught.value.status == 128 + number
        assert str(caught.value).startswith(
            f"interrupted by {signal.Signals(number).name} while it waited: job default of"
        )
        assert mask() == set()

    def test_a_signal_that_the_caller_ignores_does_not(self, place, other):
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        threading.Timer(1, other.stdin.close).start()
        try:
            with soon(signal.SIGHUP), state.lock(place, Wait(60)) as waited:
                assert waited > 0
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_who_watches_is_told_that_it_waits(self, place, other):
        told = []

        def tell(line):
            told.append(line)
            other.stdin.close()

        with state.lock(place, Wait(3600, tell)):
            pass
        assert len(told) == 1
        assert told[0].startswith("job default of restomic still runs since 2023-11-1")
        assert told[0].endswith(" (process 4711); waiting up to 1 h 0 min for it")

    def test_nobody_is_told_of_no_wait(self, place, other):
        with state.lock(state.Place("restomic", "else"), Wait(3600, pytest.fail)):
            pass
        with pytest.raises(Refusal), state.lock(place, Wait(0, pytest.fail)):
            pass

    def test_who_waits_leaves_the_note_of_the_other_alone(self, place, other):
        with pytest.raises(Refusal), state.lock(place, Wait(0.2)):
            pass
        with open(place.lock, "rb") as file:
            assert file.read() == b"4711 1700000000\n"


def seconds_of(values):
    return common.wait_of(JOB, values, 7).seconds


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
        assert common.wait_of(JOB, {"--periodic": ""}) == state.NO_WAIT

    @pytest.mark.parametrize(
        ("values", "terminal", "told"),
        [({}, False, False), ({"--verbose": ""}, False, True), ({}, True, True)],
    )
    def test_it_is_told_to_who_watches(self, monkeypatch, capsys, values, terminal, told):
        monkeypatch.setattr(common.os, "isatty", lambda number: terminal)
        wait = common.wait_of(JOB, values)
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
            backup.preflight, "not_in_a_jail", lambda door: None
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


class TestTold:
    LINE = "  waited 1 h 2 min for another run of the job to end"

    def test_in_a_backups_report(self):
        done = report.Report("restomic", "default", "run", 0.0)
        assert "waited" not in report.as_text(done)
        assert not done.noteworthy
        done.waited = 3723.4567
        assert report.as_text(done).splitlines()[1] == self.LINE
        assert self.LINE in report.as_mail(done)
        assert report.as_dict(done)["waited"] == 3723.457
        assert done.noteworthy

    @pytest.mark.parametrize("made", [
        (Account("upkeep", "restomic", "default", 0.0), upkeep.as_text),
        (drill.Drill("drill", "restomic", "default", 0.0), drill.as_text),
    ], ids=["upkeep", "drill"])  # fmt: skip
    def test_in_what_is_done_between_backups(self, made):
        account, as_text = made
        assert "waited" not in as_text(account)
        account.waited = 3723.4567
        assert as_text(account).splitlines()[1] == self.LINE
        assert account_as_dict(account)["waited"] == 3723.457

    def test_nothing_of_no_wait(self):
        assert formatting.waited(0) == []
