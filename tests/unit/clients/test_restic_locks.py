"""Which locks are stale, and whether it is safe to have them removed."""

import os

import pytest

from kopiatomic.clients import restic_locks
from kopiatomic.clients.reader import ClientFailed
from kopiatomic.clients.records import Ready
from kopiatomic.clients.restic_locks import Lock, read_all, ready, stale_ones
from unit.clients.answers import Matching

HERE = os.uname().nodename
NOW = 1_000_000.0
MINUTE = 60


def lock(process, minutes, host=HERE):
    return Lock(host, process, "root", NOW - minutes * MINUTE)


class TestStale:
    def find(self, *locks, living=()):
        stale, signalled = stale_ones(locks, NOW, lambda process: process in living)
        return [each.process for each in stale], [each.process for each in signalled]

    @pytest.mark.parametrize(
        ("locks", "living", "expected"),
        [
            ([lock(1, 5)], (), [1]),
            ([lock(1, 5)], (1,), []),
            ([lock(1, 31)], (1,), [1]),  # the number is another program's
            ([lock(1, 5, "b"), lock(2, 99, "b")], (), []),  # another machine's matter
            ([lock(1, 5), lock(2, 99, "b"), lock(3, 5, "b")], (), [1, 2]),  # and what goes with it
            ([], (), []),
        ],
    )
    def test_which_are_stale(self, locks, living, expected):
        assert self.find(*locks, living=living)[0] == expected

    @pytest.mark.parametrize(("minutes", "signalled"), [(5, [2]), (31, [2]), (40, [])])
    def test_whom_restic_would_send_a_signal(self, minutes, signalled):
        assert self.find(lock(1, 5), lock(2, minutes), living=(2,))[1] == signalled


class TestReady:
    def answers(self, process, host=HERE):
        text = f'{{"time": "2026-01-01T00:00:00Z", "hostname": "{host}", "pid": {process}}}'
        return {"locks": b"x\n" + b"ab" * 32 + b"\n", "lock": text.encode()}

    def test_what_is_done_and_told(self, utc):
        reader = Matching(self.answers(77))
        found = ready(reader)
        assert reader.asked[1] == ("cat", "--no-lock", "lock", "ab" * 32)
        (step,) = found.steps
        assert step.argv == ("client", "unlock")
        (note,) = found.notes
        assert note == (
            f"stale lock: that of process 77 on {HERE} by somebody, of 2026-01-01 00:00:00 UTC"
        )

    def test_another_machines_is_left_alone(self):
        assert ready(Matching(self.answers(77, "elsewhere"))) == Ready(())

    def test_no_other_program_gets_a_signal(self, monkeypatch):
        stale = [lock(1, 5)], [lock(2, 5)]
        monkeypatch.setattr(restic_locks, "stale_ones", lambda *_: stale)
        found = ready(Matching({"locks": b""}))
        assert not found.steps
        assert "restic would send SIGHUP to process 2" in found.notes[1]

    @pytest.mark.parametrize("minutes", [-3, 0, 9])
    def test_a_young_one_may_be_of_another_machine_with_this_name(self, monkeypatch, minutes):
        """restic unlock would remove it under a backup that goes on, and a prune could follow."""
        monkeypatch.setattr(restic_locks, "read_all", lambda _: [lock(1, minutes), lock(2, 31)])
        monkeypatch.setattr(restic_locks, "lives", lambda _: False)
        monkeypatch.setattr(restic_locks.time, "time", lambda: NOW)
        found = ready(Matching({}))
        assert not found.steps
        (note,) = found.notes
        assert note.startswith(f"lock without a process: that of process 1 on {HERE} by root, of ")
        assert note.endswith("may have it still; 10 minutes after that it is stale")

    def test_one_that_nobody_has_renewed_is_not(self, monkeypatch):
        monkeypatch.setattr(restic_locks, "read_all", lambda _: [lock(1, 11)])
        monkeypatch.setattr(restic_locks, "lives", lambda _: False)
        monkeypatch.setattr(restic_locks.time, "time", lambda: NOW)
        assert [step.argv for step in ready(Matching({})).steps] == [("client", "unlock")]

    def test_what_cannot_be_read_is_passed_over(self):
        answers = self.answers(77)
        assert read_all(Matching({**answers, "lock": b"garbage"})) == []

    def test_no_answer_is_a_doubt(self):
        class Failing(Matching):
            def whole(self, *words):
                raise ClientFailed(12, "wrong password")

        found = ready(Failing({}))
        assert found.doubts == (("stale locks could not be looked for: wrong password", 12),)


def test_which_processes_live():
    assert restic_locks.lives(os.getpid())
    assert not restic_locks.lives(0)
    assert not restic_locks.lives(99_999_999)
