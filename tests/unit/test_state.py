"""Lock, marker and history, and that other users cannot reach them."""

import json
import os
import subprocess
import sys

import pytest

from kopiatomic import state
from kopiatomic.backup.plan import Captured, Names, Plan
from kopiatomic.backup.report import Report, as_dict
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
        report.plan, report.client = plan, ["kopia", *paths]
        report.figures = report.figures._replace(snapshots=paths)
        report.swept = report.notes = list(paths)
        for number in range(9):
            state.remember(place, {**as_dict(report), "run": number})
        size = os.path.getsize(place.history)
        assert size < len(json.dumps(as_dict(report))) + 9 * 5000
        entries = state.read_history(place)
        assert ["captured" in entry for entry in entries] == [False] * 8 + [True]
        assert entries[0]["client"]["command"] == ["kopia", *paths[:7]]

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


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "a" * 33, "a b", "ä", "a\n", ".x"])
def test_job_names_that_are_refused(name):
    with pytest.raises(Refusal, match="cannot be a job's name"):
        state.check_job_name(name)


@pytest.mark.parametrize("name", ["default", "home", "off-site.2", "A_1"])
def test_job_names(name):
    assert state.check_job_name(name) == name
