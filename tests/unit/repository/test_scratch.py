"""The scratch file of a drill: closed to others, and nothing else is touched."""

from __future__ import annotations

import os
import stat

import pytest

from kopiatomic import state
from kopiatomic.repository import scratch
from kopiatomic.repository.account import Account
from kopiatomic.repository.scratch import Scratch


class TestScratch:
    @pytest.fixture
    def account(self, place):
        state.private_directory(state.STATE_DIRECTORY)
        return Account("drill", "restomic", "default", 0.0)

    def test_is_closed_and_goes(self, place, account):
        with Scratch(place, account) as room:
            assert stat.S_IMODE(os.stat(room.path).st_mode) == 0o700
            with room.file(10) as descriptor:
                assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o600
                assert os.listdir(room.path) == ["file"]
            assert os.listdir(room.path) == []
        assert os.listdir(state.STATE_DIRECTORY) == []
        assert account.problems == []

    def test_what_is_not_ours_in_it_stays_and_is_told(self, place, account, tmp_path):
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious/file").write_text("x")
        with Scratch(place, account) as room:
            os.symlink(tmp_path / "precious", room.path + "/link")
            os.mkdir(room.path + "/directory")
            open(room.path + "/left", "w").close()
        assert (tmp_path / "precious/file").exists()
        assert sorted(os.listdir(room.path)) == ["directory", "link"]
        assert account.status
        assert f"{room.path} stays" in account.problems[0]

    def test_no_room(self, place, account):
        with (
            Scratch(place, account) as room,
            pytest.raises(OSError, match="too much"),
            room.file(1 << 60),
        ):
            pass

    def test_what_a_killed_drill_left_is_swept(self, place, account):
        other = state.Place("restomic", "default.x")
        dead, foreign = Scratch(place, account), Scratch(other, account)
        open(dead.path + "/file", "w").close()
        os.symlink("/etc", f"{state.STATE_DIRECTORY}/drill.restomic.default.abcdefgh")
        open(f"{state.STATE_DIRECTORY}/restomic.default.history", "w").close()
        notes = scratch.sweep(place)
        assert any(dead.path in note and "is removed" in note for note in notes)
        assert any("abcdefgh" in note and "stays" in note for note in notes)
        assert not os.path.exists(dead.path)
        assert os.path.exists(foreign.path)
        assert os.path.exists("/etc/passwd")
