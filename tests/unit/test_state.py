"""Lock, marker and history, and that other users cannot reach them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from kopiatomic import state
from kopiatomic.backup.client_runs import Called, ClientRun
from kopiatomic.backup.names import Names
from kopiatomic.backup.plan import Plan
from kopiatomic.backup.report import Report, as_dict
from kopiatomic.backup.selection import Captured
from kopiatomic.errors import EX_NOPERM, EX_TEMPFAIL, Refusal


class TestLock:
    def test_the_second_run_is_refused_and_told_since_when(self, place):
        with state.lock(place):
            assert state.is_locked(place)
            with pytest.raises(Refusal) as caught, state.lock(place):
                pass
        assert caught.value.status == EX_TEMPFAIL
        assert "restomic/default is still running, since 2" in str(caught.value)
        assert f"(process {os.getpid()})" in str(caught.value)
        assert not state.is_locked(place)

    def test_jobs_do_not_lock_each_other(self, place):
        with state.lock(place), state.lock(state.Place("restomic", "other")):
            pass

    def test_a_dead_process_holds_nothing(self, place):
        code = (
            "import os, sys; sys.path.insert(0, 'src'); from kopiatomic import state;"
            f"state.RUN_ROOT = {state.RUN_ROOT!r};"
            "lock = state.lock(state.Place('restomic', 'default')); lock.__enter__();"
            "os.kill(os.getpid(), 9)"
        )
        subprocess.run([sys.executable, "-c", code], check=False)
        assert os.path.exists(place.lock)
        with state.lock(place):
            pass

    def test_a_link_in_its_place_is_not_followed(self, place, tmp_path):
        state.private_directory(place.root)
        os.symlink(tmp_path / "victim", place.lock)
        with pytest.raises(Refusal, match="cannot lock"), state.lock(place):
            pass
        assert not (tmp_path / "victim").exists()

    def test_no_lock_file_is_no_lock(self, place):
        assert not state.is_locked(place)


# What takes a lock and keeps it until its standard input ends.
HOLD = (
    "import fcntl, os, sys, time\n"
    "file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)\n"
    "fcntl.flock(file, fcntl.LOCK_EX)\n"
    "os.pwrite(file, b'4711 1700000000\\n', 0)\n"
    "print('held', flush=True)\n"
    "sys.stdin.read()\n"
)


@pytest.fixture
def impatient(place, monkeypatch):
    """A job whose lock is tried again and again without much of a pause."""
    monkeypatch.setattr(state, "INTERVAL", 0.05)
    state.private_directory(place.root)
    return place


@pytest.fixture
def other(impatient):
    """Another process that has the lock until its standard input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, impatient.lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


@contextmanager
def signalled(number):
    """Send ourselves a signal again and again, from outside: a thread of ours would take it."""
    words = f"while sleep 0.2; do kill -{number:d} {os.getpid()}; done"
    with subprocess.Popen(["/bin/sh", "-c", words]) as process:
        try:
            yield
        finally:
            process.kill()


def mask():
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.usefixtures("surviving")
class TestWaiting:
    def test_nobody_is_waited_for_where_nobody_has_it(self, place):
        with state.lock(place, state.Wait(3600)) as waited:
            assert waited == 0

    def test_who_waits_gets_it_when_the_other_ends(self, place, other):
        threading.Timer(0.3, other.stdin.close).start()
        with state.lock(place, state.Wait(60)) as waited:
            assert waited > 0
            assert state.is_locked(place)
        assert mask() == set()

    def test_it_gives_up_in_the_end_and_says_so(self, place, other):
        with pytest.raises(Refusal) as caught, state.lock(place, state.Wait(0.2)):
            pytest.fail("two have the lock")
        assert caught.value.status == EX_TEMPFAIL
        message = str(caught.value)
        assert "restomic/default is still running, since 2023-11-1" in message
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
        wait = state.Wait(3600)
        with signalled(number), pytest.raises(Refusal) as caught, state.lock(place, wait):
            pytest.fail("two have the lock")
        assert caught.value.status == 128 + number
        assert str(caught.value).startswith(
            f"interrupted by {signal.Signals(number).name} while it waited: restomic/default is"
        )
        assert mask() == set()

    def test_a_signal_that_the_caller_ignores_does_not(self, place, other):
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        threading.Timer(1, other.stdin.close).start()
        try:
            with signalled(signal.SIGHUP), state.lock(place, state.Wait(60)) as waited:
                assert waited > 0
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_who_watches_is_told_that_it_waits(self, place, other):
        told = []

        def tell(line):
            told.append(line)
            other.stdin.close()

        with state.lock(place, state.Wait(3600, tell)):
            pass
        assert len(told) == 1
        assert told[0].startswith("restomic/default is still running, since 2023-11-1")
        assert told[0].endswith(" (process 4711); waiting up to 1 h 0 min for it")

    def test_nobody_is_told_of_no_wait(self, place, other):
        with state.lock(state.Place("restomic", "else"), state.Wait(3600, pytest.fail)):
            pass
        with pytest.raises(Refusal), state.lock(place, state.Wait(0, pytest.fail)):
            pass

    def test_who_waits_leaves_the_note_of_the_other_alone(self, place, other):
        with pytest.raises(Refusal), state.lock(place, state.Wait(0.2)):
            pass
        with open(place.lock, "rb") as file:
            assert file.read() == b"4711 1700000000\n"


class TestPrivateDirectory:
    def test_is_closed_to_others_whatever_the_umask(self, tmp_path):
        old = os.umask(0)
        try:
            state.private_directory(str(tmp_path / "d"))
        finally:
            os.umask(old)
        assert os.stat(tmp_path / "d").st_mode & 0o777 == 0o700

    @pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
    def test_one_that_is_open_is_refused(self, tmp_path, mode):
        (tmp_path / "d").mkdir()
        (tmp_path / "d").chmod(mode)
        with pytest.raises(Refusal, match="closed to other users") as caught:
            state.private_directory(str(tmp_path / "d"))
        assert caught.value.status == EX_NOPERM

    def test_a_link_is_refused(self, tmp_path):
        (tmp_path / "real").mkdir(mode=0o700)
        (tmp_path / "link").symlink_to(tmp_path / "real")
        with pytest.raises(Refusal, match="not a directory"):
            state.private_directory(str(tmp_path / "link"))

    def test_a_directory_that_cannot_be_made(self, tmp_path):
        with pytest.raises(Refusal, match="No such file"):
            state.private_directory(str(tmp_path / "no" / "d"))


class TestUnfinished:
    def test_is_noted_and_taken_back(self, place):
        assert not state.is_unfinished(place)
        state.begin(place, "restomic:default:1")
        assert state.is_unfinished(place)
        state.finish(place)
        assert not state.is_unfinished(place)
        state.finish(place)

    def test_what_was_written_by_half_goes_with_it(self, place):
        state.begin(place, "restomic:default:1")
        for path in (place.unfinished, place.history, place.upkeep):
            with open(f"{path}.new", "w") as file:
                file.write("{")
        state.finish(place)
        assert os.listdir(state.STATE_DIRECTORY) == []


def test_how_a_job_is_called_and_asked_for():
    place = state.Place("restomic", "home")
    assert place.label == "restomic/home"
    assert place.status_command == "restomic --status -j home"
    assert place.sweep_command == "restomic --sweep -j home"


class TestHistory:
    def test_comes_back_in_order(self, place):
        for number in range(3):
            state.remember(place, {"run": number})
        assert [entry["run"] for entry in state.read_history(place)] == [0, 1, 2]
        assert os.stat(place.history).st_mode & 0o077 == 0

    def test_lets_go_of_the_oldest(self, place, monkeypatch):
        monkeypatch.setattr(state, "HISTORY_LENGTH", 2)
        for number in range(5):
            state.remember(place, {"run": number})
        assert [entry["run"] for entry in state.read_history(place)] == [3, 4]

    def test_but_never_of_the_last_good_one(self, place, monkeypatch):
        """A job that fails each quarter of an hour has more runs than are kept in a week."""
        monkeypatch.setattr(state, "HISTORY_LENGTH", 2)
        for number, outcome in enumerate(("success", "trouble", *["failed"] * 4)):
            state.remember(place, {"run": number, "outcome": outcome})
        assert [entry["run"] for entry in state.read_history(place)] == [1, 4, 5]
        state.remember(place, {"run": 6, "outcome": "success"})
        assert [entry["run"] for entry in state.read_history(place)] == [5, 6]

    def test_nor_of_the_last_good_one_of_each_kind(self, place, monkeypatch):
        monkeypatch.setattr(state, "HISTORY_LENGTH", 1)
        for kind, outcome in (("drill", "success"), ("upkeep", "success"), ("drill", "failed")):
            state.remember_upkeep(place, {"kind": kind, "outcome": outcome})
        told = [(entry["kind"], entry["outcome"]) for entry in state.read_upkeep(place)]
        assert told == [("drill", "success"), ("upkeep", "success"), ("drill", "failed")]

    def test_old_entries_lose_their_lists_where_they_would_take_much(self, place, monkeypatch):
        """Thousands of datasets each night must not make a history that nobody can read."""
        monkeypatch.setattr(state, "HISTORY_BYTES", 2000)
        captured = [{"dataset": f"tank/{n:0100}", "mountpoint": "/"} for n in range(5)]
        for number in range(20):
            outcome = "success" if number in (2, 7) else "failed"
            state.remember(place, {"run": number, "outcome": outcome, "captured": captured})
        entries = state.read_history(place)
        assert [entry["run"] for entry in entries] == list(range(20))
        # The newest as far as they fit, and the last successful one.
        assert [entry["run"] for entry in entries if "captured" in entry] == [7, 18, 19]
        assert os.path.getsize(place.history) < 2000 + 1000 + 20 * 100

    def test_a_history_of_ten_thousand_datasets_stays_small(self, place):
        report = Report("kopiatomic", "default", "run", 0.0)
        paths = tuple(f"/tank/{number:09}" for number in range(10000))
        captured = tuple(Captured(path[1:], path) for path in paths)
        plan = Plan(Names("", "", ""), captured, (), (), (), paths)
        called = Called(ClientRun(paths=paths))
        report.plan, report.runs, called.words = plan, [called], ["kopia", *paths]
        called.figures = called.figures._replace(snapshots=paths)
        report.swept = report.notes = list(paths)
        for number in range(9):
            state.remember(place, {**as_dict(report), "run": number})
        size = os.path.getsize(place.history)
        assert size < len(json.dumps(as_dict(report))) + 9 * 5000
        entries = state.read_history(place)
        assert ["captured" in entry for entry in entries] == [False] * 8 + [True]
        assert entries[0]["client"]["command"] == ["kopia", *paths[:7]]
        assert entries[0]["client_runs"][0]["paths"] == list(paths[:8])

    def test_newest_first(self, place):
        for number in range(3):
            state.remember(place, {"run": number})
        with open(place.history, "ab") as file:
            file.write(b"{broken\n")
        assert [entry["run"] for entry in state.newest_first(place)] == [2, 1, 0]

    def test_damage_costs_only_the_damaged_lines(self, place):
        state.remember(place, {"run": 1})
        with open(place.history, "ab") as file:
            file.write(b'{"run": \xff\n[]\n"x"\n' + json.dumps({"run": 2}).encode() + b"\n{")
        assert [entry["run"] for entry in state.read_history(place)] == [1, 2]

    def test_none_yet(self, place):
        assert state.read_history(place) == []


class TestHolds:
    HOLDS = (
        state.NotedHold("restomic:default:1", "123", "t/a b@x y"),
        state.NotedHold("restomic:default:1", "", "t@z"),
    )  # fmt: skip

    def test_come_back_as_they_were_noted(self, place):
        assert state.read_holds(place) == []
        state.note_holds(place, self.HOLDS)
        assert state.read_holds(place) == list(self.HOLDS)
        assert os.stat(place.holds).st_mode & 0o777 == 0o600
        state.note_holds(place, [])
        assert not os.path.exists(place.holds)
        state.note_holds(place, [])

    def test_outlive_the_end_of_a_run(self, place):
        state.note_holds(place, self.HOLDS)
        state.begin(place, "r")
        state.finish(place)
        assert state.read_holds(place) == list(self.HOLDS)

    def test_damage_costs_only_the_damaged_lines(self, place):
        state.note_holds(place, self.HOLDS)
        with open(place.holds, "ab") as file:
            file.write(b"half\n\xff\xfe\t\t\nx\ty\tno snapshot\n")
        assert state.read_holds(place) == list(self.HOLDS)


class TestSearch:
    def test_holds_for_the_pools_that_were_there(self, places):
        assert not state.was_searched()
        state.note_search(["t", "u"])
        assert state.was_searched()
        assert state.was_searched(["u"])
        assert not state.was_searched(["u", "v"])

    def test_holds_until_the_next_boot_also_where_nobody_empties_var_run(self, places, monkeypatch):
        state.note_search([])
        monkeypatch.setattr(time, "monotonic", lambda: 100.0)
        mark = f"{state.RUN_ROOT}/kopiatomic.searched"
        now = time.time()
        for age, holds in ((50, True), (150, False), (-50, False)):
            os.utime(mark, (now - age, now - age))
            assert state.was_searched() is holds

    def test_holds_for_this_state_directory(self, places):
        """Not for one that was mounted or made in its place."""
        state.private_directory(state.STATE_DIRECTORY)
        state.note_search([])
        assert state.was_searched()
        os.rename(state.STATE_DIRECTORY, f"{state.STATE_DIRECTORY}.old")
        assert not state.was_searched()
        state.private_directory(state.STATE_DIRECTORY)
        assert not state.was_searched()

    def test_a_link_in_its_place_is_neither_read_nor_written(self, places):
        (places / "victim").write_text("none\n")
        os.symlink(places / "victim", f"{state.RUN_ROOT}/kopiatomic.searched")
        assert not state.was_searched()
        state.note_search([])
        assert (places / "victim").read_text() == "none\n"
        assert state.was_searched()

    def test_where_it_cannot_be_noted_the_next_one_searches(self, places, monkeypatch):
        monkeypatch.setattr(state, "RUN_ROOT", f"{places}/nowhere")
        state.note_search([])
        assert not state.was_searched()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "a" * 33, "a b", "ä", "a\n", ".x"])
def test_job_names_that_are_refused(name):
    with pytest.raises(Refusal, match="cannot be a job's name"):
        state.check_job_name(name)


@pytest.mark.parametrize("name", ["default", "home", "off-site.2", "A_1"])
def test_job_names(name):
    assert state.check_job_name(name) == name


def test_the_jobs_with_a_history(place):
    assert state.places("restomic") == []
    for program, job in (("restomic", "b"), ("restomic", "a.b"), ("kopiatomic", "c")):
        state.remember(state.Place(program, job), {})
    state.remember_upkeep(state.Place("restomic", "d"), {})
    assert [each.job for each in state.places("restomic")] == ["a.b", "b"]
