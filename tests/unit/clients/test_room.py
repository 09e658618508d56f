"""The directory that a client may write to."""

from __future__ import annotations

import os
import stat

import pytest

from kopiatomic.clients import room
from kopiatomic.clients.room import AT_ONCE, Room, batches


@pytest.fixture
def held(tmp_path):
    made = Room(str(tmp_path))
    yield made
    made.close()


class TestRoom:
    def test_what_is_put_in(self, held, tmp_path):
        held.put("a", b"text")
        assert (tmp_path / "a").read_bytes() == b"text"
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
        assert held.has("a")
        assert not held.has("b")
        with pytest.raises(FileExistsError):
            held.put("a", b"other")

    def test_what_is_taken_is_gone(self, held, tmp_path):
        (tmp_path / "a").write_text("text")
        with held.taken("a") as descriptor:
            assert os.read(descriptor, 9) == b"text"
        assert os.listdir(tmp_path) == []

    def test_no_link_is_followed(self, held, tmp_path):
        (tmp_path / "secret").write_text("text")
        os.symlink(tmp_path / "secret", tmp_path / "a")
        with pytest.raises(OSError, match=r"a"), held.taken("a"):
            pass
        assert os.listdir(tmp_path) == ["secret"]

    def test_what_is_free(self, held, monkeypatch):
        free = held.free()
        assert free > 0
        monkeypatch.setattr(room, "RESERVE", 1 << 60)
        assert held.free() == 0
        with pytest.raises(OSError, match="too much"), held.file(1):
            pass


class TestBatches:
    def test_they_fit(self):
        sizes = {"a": 5, "b": 5, "c": 1, "d": 30, "e": 1}
        assert [*batches(sizes, 10)] == [["a", "b"], ["c"], ["d"], ["e"]]

    def test_nothing_fits(self):
        assert [*batches({"a": 1, "b": 2}, 0)] == [["a"], ["b"]]

    def test_not_too_many(self):
        names = [str(number) for number in range(AT_ONCE + 1)]
        assert [*batches(dict.fromkeys(names, 0), 1)] == [names[:-1], names[-1:]]

    def test_none(self):
        assert [*batches({}, 10)] == []
