"""Skips what this machine cannot run, each time with the reason."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from support import clients

# Chosen once for all processes that run tests, which collect the same tests only then.
os.environ.setdefault("KOPIATOMIC_FAULTS_SEED", str(random.randrange(10**6)))


def pytest_configure() -> None:
    """Take signals as usual: who starts the tests by nohup(1) does not mean the runs in them."""
    for number in (signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as skipped the tests that need what is not here."""
    for item in items:
        for mark in item.iter_markers():
            reason = _hindrance(mark.name, mark.kwargs.get("reason", "the sandbox needs Linux"))
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))
                break


def _hindrance(mark: str, only_linux: str) -> str | None:
    if mark == "linux" and not sys.platform.startswith("linux"):
        return only_linux
    if mark == "linux" and os.geteuid() != 0:
        return "the sandbox needs root"
    if mark == "linux" and find_spec("_sqlite3") is None:
        return "the sandbox needs a Python with sqlite3"
    if mark == "freebsd" and not sys.platform.startswith("freebsd"):
        return "needs FreeBSD"
    if mark in ("restic", "kopia"):
        return clients.missing(mark)
    return None


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """Put back the umask, which the programs narrow for themselves."""
    before = os.umask(0o022)
    yield
    os.umask(before)
