"""The restore drill, from the repository to the report."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

import pytest

from kopiatomic import state
from kopiatomic.clients import make_ready
from kopiatomic.clients.restic import Restic
from kopiatomic.errors import EX_NOINPUT, Refusal
from kopiatomic.job import Job
from kopiatomic.repository import drill
from kopiatomic.system.command import Door
from unit.drills import node, place

__all__ = ["place"]


@pytest.fixture
def restic(tmp_path):
    """A stand-in for restic with two files, of which the second is damaged."""
    (tmp_path / "good").write_text("good")
    found = os.stat(tmp_path / "good")
    entries = [
        {**node(str(tmp_path / "good"), 4), "inode": found.st_ino},
        node("/nowhere/bad\nfile", 4),
    ]
    answers = {
        "snapshots": json.dumps([{"id": "0123456789", "paths": ["/p"],
                                  "time": "2026-01-02T03:04:05Z"}]),
        "ls": "\n".join(json.dumps(each) for each in entries),
    }  # fmt: skip
    script = tmp_path / "restic-x"
    script.write_text(
        f"#!{sys.executable} -I\nimport os, sys, time\n"
        f"open({str(tmp_path / 'calls')!r}, 'a').write(repr(sys.argv[1:]) + chr(10))\n"
        "if os.environ.get('SLOW') == sys.argv[1]: time.sleep(30)\n"
        "if os.environ.get('FAIL') == sys.argv[1]: sys.stderr.write('Fatal: no'); sys.exit(12)\n"
        f"if sys.argv[1] in {answers!r}: print({answers!r}[sys.argv[1]])\n"
        "elif sys.argv[3].endswith('good'): print('good', end='')\n"
        "else: print('Fatal: ciphertext verification failed', file=sys.stderr); sys.exit(1)\n"
    )
    script.chmod(0o755)
    return Job("restomic", command=(str(script), "backup"))


class TestRun:
    def run(self, job, **environment):
        return drill.run(make_ready(job, Door(), environment), drill.Wishes(files=5, seed=7))

    def test_what_does_not_come_back_is_told(self, place, restic):
        account = self.run(restic)
        assert (account.outcome, account.status) == ("failed", 1)
        (problem,) = account.problems
        assert problem == (
            "/nowhere/bad\nfile: cannot be restored: restic-x dump: "
            "Fatal: ciphertext verification failed (exit status 1)"
        )
        (tally,) = account.tallies
        assert (tally.chosen, tally.restored) == (2, 1)
        text = drill.as_text(account)
        assert text.startswith("restomic: the restore drill FAILED, ")
        assert "  ! /nowhere/bad\\x0afile: cannot be restored" in text
        assert "--seed 7 " in text
        assert "0 of 2 files restored identical" in text
        assert os.listdir(state.STATE_DIRECTORY) == ["restomic.default.upkeep"]

    def test_goes_into_the_history_of_upkeep(self, place, restic):
        self.run(restic)
        (entry,) = state.read_upkeep(place)
        assert (entry["kind"], entry["outcome"]) == ("drill", "failed")
        assert entry["steps"][0]["outcome"] == "failed"
        assert state.read_history(place) == []

    def test_is_limited_to_this_host(self, place, restic, tmp_path):
        self.run(restic, RESTIC_HOST="elsewhere")
        first = (tmp_path / "calls").read_text().split("\n")[0]
        assert first == "['snapshots', '--json', '--latest', '1', '--host', 'elsewhere']"

    def test_a_client_that_fails(self, place, restic):
        account = self.run(restic, FAIL="snapshots")
        assert account.status == 12
        assert account.problems[0].endswith(
            "Fatal: no (exit status 12); the repository's password is wrong"
        )

    def test_a_source_that_cannot_be_listed(self, place, restic):
        account = self.run(restic, FAIL="ls")
        assert account.status == 1
        assert account.problems[0].startswith("/p: restic-x ls: Fatal: no (exit status 12)")

    def test_secrets_stay_unseen(self, place, restic):
        account = self.run(restic, PASSWORD="ciphertext")
        kept = [drill.as_dict(account), state.read_upkeep(place)]
        told = drill.as_text(account) + json.dumps(kept)
        assert "Fatal: [hidden] verification failed" in told
        assert "ciphertext" not in told

    def test_no_backup(self, place, restic, monkeypatch):
        monkeypatch.setattr(Restic, "sources", lambda *_: [])
        assert self.run(restic).status == EX_NOINPUT

    @pytest.mark.parametrize("step", ["snapshots", "ls", "dump"])
    def test_a_signal_ends_it_in_order(self, place, restic, step):
        timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        began = time.monotonic()
        account = self.run(restic, SLOW=step)
        assert time.monotonic() - began < 10
        assert (account.outcome, account.status) == ("interrupted", 128 + 15)
        assert os.listdir(state.STATE_DIRECTORY) == ["restomic.default.upkeep"]


@pytest.mark.parametrize(
    ("text", "size"), [("5", 5), ("2k", 2048), ("500M", 500 << 20), ("1G", 1 << 30)]
)
def test_sizes(text, size):
    assert drill.size_of(text) == size


def test_size_and_count_raise():
    with pytest.raises(Refusal):
        drill.size_of("1.5G")
