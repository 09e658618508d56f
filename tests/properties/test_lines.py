"""Stopped at every line of our own code that a run executes, not just between commands."""

from __future__ import annotations

import os
import pickle
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from kopiatomic import client, state
from kopiatomic.machine import Dataset, Mount
from properties.conftest import ALL, SEED, count
from properties.model import JOB, Model, attempt, complete, left_over, place
from properties.test_runs import HERE, forget, invariants
from properties.test_runs import foreign as of_others

__all__ = ["place"]

# One with a gap to bridge, two pools whose names begin alike, and / itself frozen.
POINTS = {"p": "/", "p/a": "/a", "p/a/b": "/a/b", "p/a/b/c": "/a/b/c", "p2": "/p2"}
WORK = replace(
    JOB, targets=("p", "p/a", "p/a/b/c", "p2"), before="true", after_snapshot="true", after="true"
)


def machine() -> Model:
    datasets = {n: Dataset(n, "filesystem", True, "on", False, "-", "-") for n in POINTS}
    mounts = [Mount(name, point, "zfs") for name, point in POINTS.items()]
    mounts.insert(1, Mount("devfs", "/dev", "devfs"))
    made = Model(datasets, mounts, directories={*POINTS.values(), "/dev"})
    made.datasets.update({"p3": Dataset("p3", "volume", False, "-", False, "-", "-")})
    return made


def traced(model: Model, at: int, stop: Callable[[], None]) -> int:
    """Do a run, calling ``stop`` at its line number ``at``; return how many lines it had."""
    lines = 0

    def on_line(frame, event, _):
        nonlocal lines
        if event == "line":
            lines += 1
            if lines == at:
                stop()
        return on_line

    def on_call(frame, event, _):
        return on_line if "/src/kopiatomic/" in frame.f_code.co_filename else None

    sys.settrace(on_call)
    try:
        attempt(model, WORK)
    finally:
        sys.settrace(None)
    return lines


@pytest.fixture(scope="module")
def numbers(place) -> list[int]:
    """The lines to stop at: all, or a sample."""
    forget()
    model = machine()
    total = traced(model, 0, lambda: None)
    assert total > 500
    assert not left_over(model)
    every = list(range(1, total + 1))
    return every if ALL else random.Random(SEED).sample(every, 150)


@pytest.mark.parametrize("part", range(4))
def test_killed_at_every_line(place, numbers: list[int], request, part: int):
    """SIGKILL: a child does the run and vanishes; the machine is handed over as it was left."""
    for number in numbers[part::4]:
        count(request.node.name)
        forget()
        model = machine()
        before = of_others(model)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:

            def vanish() -> None:
                os.write(writer, pickle.dumps(model))  # noqa: B023
                os._exit(9)

            traced(model, number, vanish)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            data = stream.read()
        os.waitpid(pid, 0)
        if not data:
            continue  # the number of lines differs a little from run to run
        model = pickle.loads(data)
        assert state.read_history(HERE) is not None
        report = attempt(model, WORK)
        assert report.status == 0, (number, report.problems)
        assert not left_over(model), number
        assert not complete(model, report), number
        invariants(model, before)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_asked_to_end_at_every_line(place, numbers: list[int], request, name: str):
    """The run itself cleans up, and says how it ended."""
    signum = getattr(signal, name)
    for number in numbers:
        forget()
        model = machine()
        before = of_others(model)
        sent = []

        def ask() -> None:
            handler = signal.getsignal(signum)
            if isinstance(getattr(handler, "__self__", None), client.Signals):
                sent.append(number)  # noqa: B023
                os.kill(os.getpid(), signum)
                time.sleep(0)

        traced(model, number, ask)
        if sent:
            count(request.node.name)
        assert not left_over(model), number
        invariants(model, before)
        last = state.read_history(HERE)[-1]
        if last["status"] == 0:
            assert model.seen is not None
        else:
            assert last["outcome"] == "interrupted", (number, last)
            assert last["status"] == 128 + signum
        assert signal.getsignal(signum) in (signal.SIG_DFL, signal.default_int_handler,
                                            signal.SIG_IGN)  # fmt: skip
