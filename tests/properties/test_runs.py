"""Whole runs on random machines, with random faults."""

from __future__ import annotations

import copy
import random
import shutil

import hypothesis
import pytest
from hypothesis import strategies as st

from kopiatomic import state
from kopiatomic.backup.report import as_dict, as_mail
from kopiatomic.errors import Refusal
from kopiatomic.formatting import as_json
from kopiatomic.system.command import printable
from kopiatomic.system.machine import lies_in
from properties.conftest import SEED, count, several
from properties.machines import jobs, machines
from properties.model import FAULTS, Model, attempt, complete, left_over, place

__all__ = ["place"]
HERE = state.Place("restomic", "default")


def forget() -> None:
    """Begin with no history."""
    shutil.rmtree(state.STATE_DIRECTORY, ignore_errors=True)
    shutil.rmtree(f"{state.RUN_ROOT}/restomic", ignore_errors=True)


def foreign(model: Model) -> tuple[object, object]:
    """Return what must be the same after as before."""
    snapshots = {
        name: each for name, each in model.snapshots.items()
        if not each.run.startswith("restomic:default:") or each.source != "local"
    }  # fmt: skip
    return snapshots, [m for m in model.mounts if not lies_in(m.point, HERE.directory)]


def invariants(model: Model, before: tuple[object, object]) -> None:
    """Assert what holds after whatever happened."""
    assert foreign(model) == before
    assert not model.trespasses
    for name, snapshot in model.destroyed:
        assert snapshot.run.startswith("restomic:default:"), name
        assert snapshot.source == "local"
    for point in model.unmounted:
        assert lies_in(point, HERE.directory)


def refused(refusal: Refusal) -> None:
    """Assert that a refusal is the job's fault, or a fault's, and says so."""
    assert str(refusal).strip()
    assert refusal.status in (64, 66, 69, 71, 75, 78)


def reported(report) -> None:
    """Assert that a report says in full what there is to say."""
    assert (report.status != 0) == bool(report.problems) == (report.outcome != "success")
    for problem in report.problems:
        assert "internal error" not in problem
        assert problem.strip() == problem
        assert len(printable(problem)) < 5000
    if report.plan is not None:
        named = {each.dataset for each in report.plan.captured}
        named |= {each.name for each in report.plan.left_out}
        assert all(each.reason for each in report.plan.left_out)
        assert len(named) == len(report.plan.captured) + len(report.plan.left_out)
    as_mail(report)
    as_json(as_dict(report)).encode()


@pytest.mark.parametrize("faults", [0, 1, 2, 4])
def test_a_run_is_complete_or_has_failed(place, request, faults: int):
    @hypothesis.seed(SEED + faults)
    @several(in_ci=120, in_all=6000)
    @hypothesis.given(st.data())
    def check(data: st.DataObject) -> None:
        count(request.node.name)
        forget()
        model = data.draw(machines())
        job = data.draw(jobs(model))
        before = copy.deepcopy(foreign(model))
        chance = random.Random(data.draw(st.integers(0, 2**64)))
        for _ in range(faults):
            model.faults[chance.randint(1, 25)] = chance.choice(FAULTS)
        if faults > 1:
            points = chance.sample(["", "/dev", "/a", "/home", "/b"], chance.randrange(4))
            model.stubborn = {f"{HERE.directory}/view{point}" for point in points}
        nested = sorted(name for name in model.datasets if "/" in name)
        if nested and chance.random() < 0.3:
            model.moves = (chosen := chance.choice(nested), f"{chosen}_moved")
        hypothesis.note(f"{model.faults} {model.stubborn} {model.moves}")
        report = None
        try:
            report = attempt(model, job)
        except Refusal as refusal:
            refused(refusal)
            assert faults or model.call <= 3
        else:
            reported(report)
            if report.outcome in state.GOOD:
                assert not complete(model, report)
            if not faults:
                assert report.status == 0, report.problems
        if report is not None and report.status == 0:
            assert left_over(model) == []
        if model.moves:
            moved, model.moves = model.moves[::-1], None
            model.rename(*moved)
        invariants(model, before)
        # The next run finds nothing in its way, and takes down what is left.
        model.faults, model.stubborn = {}, set()
        try:
            again = attempt(model, job)
        except Refusal as refusal:
            refused(refusal)
        else:
            assert again.status == 0, again.problems
            assert not complete(model, again)
            assert left_over(model) == []
        invariants(model, before)
        assert state.read_history(HERE) is not None

    check()
