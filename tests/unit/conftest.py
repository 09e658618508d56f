"""Fixtures of the tests of more than one package."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.libc import Library

from kopiatomic import state


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let working directories lie in run/, and state in db/, of the directory of the test."""
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(state, "RUN_ROOT", str(tmp_path / "run"))
    monkeypatch.setattr(state, "STATE_DIRECTORY", str(tmp_path / "db"))
    return tmp_path


@pytest.fixture
def place(places: Path) -> state.Place:
    """Where a job keeps its things, for a test of one job."""
    return state.Place("restomic", "default")


@pytest.fixture
def utc() -> Iterator[None]:
    """Let local time be UTC."""
    if not hasattr(time, "tzset"):
        pytest.skip("this Python has no time.tzset")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def surviving() -> Iterator[None]:
    """Let a signal that comes when the code under test no longer waits for it end nothing."""
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def library() -> Library:
    """FreeBSD's system calls for mounts, of which nothing is real."""
    return Library()
