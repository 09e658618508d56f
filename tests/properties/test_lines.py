"""Stopped at every line of our own code that a run executes, not just between commands."""

from __future__ import annotations

import os
import pickle
import random
import signal
import sys
import time
from collections.abc import Callable

import pytest

from kopiatomic import state
from kopiatomic.system import process
from kopiatomic.system.machine import Dataset, Mount
from properties.conftest import ALL, SEED, count
from properties.model import JOB, Model, attempt, complete, left_over, place
from properties.test_runs import HERE, forget, invariants
from properties.test_runs import foreign as of_others

__all__ = ["place"]

# One with a gap to bridge, two pools whose names begin alike, and / itself frozen.
POINTS = {"p": "/", "p/a": "/a", "p/a/b": "/a/b", "p/a/b/c": "/a/b/c", "p2": "/p2"}
WORK = JOB._replace(
    targets=("p", "p/a", "p/a/b/c", "p2", "p3"), plain=False, before="true", after_snapshot="true",
    after="true",
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


def killed(model: Model, number: int) -> Model | None:
    """Do a run up to its line ``number`` and return the machine as it was left.

    A child does it and vanishes; None if the run had fewer lines.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:

        def vanish() -> None:
            os.write(writer, pickle.dumps(model))
            os._exit(9)

        traced(model, number, vanish)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    os.waitpid(pid, 0)
    return pickle.loads(data) if data else None


def next_run_is_good(model: Model, before: tuple[object, object], what: object) -> None:
    """Assert that the next run makes a backup and leaves nothing of earlier ones."""
    assert state.read_history(HERE) is not None
    report = attempt(model, WORK)
    assert report.status == 0, (what, report.problems)
    assert not left_over(model), what
    assert not complete(model, report), what
    invariants(model, before)


@pytest.mark.parametrize("part", range(4))
def test_killed_at_every_line(place, numbers: list[int], request, part: int):
    for number in numbers[part::4]:
        count(request.node.name)
        forget()
        model = machine()
        before = of_others(model)
        left = killed(model, number)
        if left is not None:  # the number of lines differs a little from run to run
            next_run_is_good(left, before, number)


def test_killed_again_while_it_sweeps(place, numbers: list[int], request):
    """The run after one that was killed is killed as well, most often before its snapshots."""
    chance = random.Random(SEED)
    for _ in range(4000 if ALL else 60):
        count(request.node.name)
        forget()
        model = machine()
        before = of_others(model)
        pair = chance.choice(numbers), int(max(numbers) * chance.random() ** 2) + 1
        for number in pair:
            model = killed(model, number) or model
        next_run_is_good(model, before, pair)


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
            if isinstance(getattr(handler, "__self__", None), process.Signals):
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
            # In the last hook, when the backup is whole already.
            late = last["outcome"] == "trouble" and model.seen is not None
            # After the first of the client runs and before the end of the last.
            made = [run["outcome"] for run in last["client_runs"]]
            late = late or (last["outcome"] == "incomplete" and made[0] == "success")
            assert late or last["outcome"] == "interrupted", (number, last)
            assert last["status"] == 128 + signum
        assert signal.getsignal(signum) in (signal.SIG_DFL, signal.default_int_handler,
                                            signal.SIG_IGN)  # fmt: skip
