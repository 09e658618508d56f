"""Whole runs on random machines, with random faults."""

from __future__ import annotations

import copy
import os
import random
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase

import hypothesis
import pytest
from hypothesis import strategies as st
from support.datasets import NAMES, make_plan

from kopiatomic import state
from kopiatomic.backup.report import Report, as_dict, as_mail
from kopiatomic.backup.selection import Captured
from kopiatomic.backup.unmounted import Sight
from kopiatomic.errors import Refusal
from kopiatomic.formatting import as_json
from kopiatomic.job import Job
from kopiatomic.system.command import printable
from kopiatomic.system.machine import lies_in, nearest
from kopiatomic.system.zfs import pool_of
from properties.conftest import SEED, count, several
from properties.machines import jobs, machines
from properties.model import (
    FAULTS,
    HERE,
    Model,
    attempt,
    complete,
    disturbs,
    half_good,
    left_over,
    needs_of,
    place,
    place_of,
    renamed,
)

__all__ = ["place"]


OURS = "restomic:default:"


def forget() -> None:
    """Begin with no history, as after a boot."""
    shutil.rmtree(state.STATE_DIRECTORY, ignore_errors=True)
    shutil.rmtree(f"{state.RUN_ROOT}/restomic", ignore_errors=True)
    state.forget_search()
    with suppress(FileNotFoundError):
        os.unlink(state.holds_mark(HERE))


def foreign(model: Model) -> tuple[object, object]:
    """Return what must be the same after as before."""
    snapshots = {
        name: replace(each, tags={tag for tag in each.tags if not tag.startswith(OURS)})
        for name, each in model.snapshots.items()
        if not each.run.startswith("restomic:default:") or each.source != "local"
    }  # fmt: skip
    mounts = [
        m for m in model.mounts
        if not lies_in(m.point, HERE.directory) and "/.zfs/snapshot/restomic-" not in m.point
    ]  # fmt: skip
    return snapshots, mounts


def invariants(model: Model, before: tuple[object, object]) -> None:
    """Assert what holds after whatever happened."""
    assert foreign(model) == before
    assert not model.trespasses
    for name, snapshot in model.destroyed:
        assert snapshot.run.startswith("restomic:default:"), name
        assert snapshot.source == "local"


def refused(refusal: Refusal) -> None:
    """Assert that a refusal is the job's fault, or a fault's, and says so."""
    assert str(refusal).strip()
    assert refusal.status in (64, 66, 69, 71, 75, 78)


def reported(report: Report) -> None:
    """Assert that a report says in full what there is to say."""
    well = report.outcome in ("success", "unchanged")
    assert (report.status != 0) == bool(report.problems) == (not well)
    for problem in report.problems:
        assert "internal error" not in problem
        assert problem.strip() == problem
        assert len(printable(problem)) < 5000
    if report.plan is not None:
        named = {each.dataset for each in report.plan.members}
        named |= {each.name for each in report.plan.left_out}
        assert all(each.reason for each in report.plan.left_out)
        assert len(named) == len(report.plan.members) + len(report.plan.left_out)
    as_mail(report)
    as_json(as_dict(report)).encode()


def selected(model: Model, job: Job) -> dict[str, Captured]:
    """Return what a job selects of a machine that can be captured, by dataset."""
    try:
        datasets, sight = list(model.datasets.values()), Sight(model.look_at)
        drawn = make_plan(job, datasets, model.mounts, NAMES, needs_of(job), sight=sight)
    except Refusal:
        return {}
    return {
        each.dataset: each for each in drawn.members
        if each.named or job.snapshot is None or matches(model, each.dataset, job.snapshot)
    }  # fmt: skip


def matches(model: Model, dataset: str, pattern: str) -> bool:
    """Say whether a dataset has a snapshot that a run may take: one that is no run's."""
    return any(
        name.startswith(f"{dataset}@") and each.run == "-"
        and fnmatchcase(name.partition("@")[2], pattern)
        for name, each in model.snapshots.items()
    )  # fmt: skip


def misses(report: Report) -> bool:
    """Say whether a dataset was named of which there is no snapshot to take."""
    return report.plan is not None and any(each.missed for each in report.plan.left_out)


def good(model: Model, report: Report, chosen: dict[str, Captured]) -> list[str]:
    """Name why a run that is called good is none: no good run lacks what was chosen.

    What has gone meanwhile may be missing, where nobody named it; and it is told.
    """
    wrong = complete(model, report)
    drawn = report.plan
    assert drawn is not None
    there = {each.dataset: each for each in drawn.members}
    told = {each.name for each in drawn.left_out}
    for name, each in chosen.items():
        found = there.get(name) or there.get(renamed(model, name))
        if found is not None:
            # The device of a volume has its new name as well; what is in it, complete() tells.
            paths = each.paths if found not in drawn.volumes or found.dataset == name else ()
            lacking = [path for path in paths if not nearest(path, found.paths)]
            wrong += [f"{path} of {name} is not in the backup" for path in lacking]
            continue
        if name in model.datasets or each.named:
            wrong.append(f"{name} is there, or was named, and is not in the backup")
        # Renamed between the two looks at the machine, it is told by its new name.
        if name not in told and renamed(model, name) not in told:
            wrong.append(f"{name} is not told")
    for run in report.runs:
        if run.proof is not None and run.proof[0] != run.proof[1]:
            wrong.append(f"the proof of {run.name} found {run.proof}")
    return wrong


def moved(model: Model, report: Report) -> bool:
    """Say whether a volume was renamed after its snapshot was made, before it was read."""
    volumes = report.plan.volumes if report.plan is not None else ()
    return any(renamed(model, each.dataset) != each.dataset for each in volumes)


def unreachable(model: Model, job: Job, chance: random.Random) -> None:
    """Let some of several repositories be down."""
    if job.env_files and chance.random() < 0.4:
        model.down = set(chance.sample([*map(place_of, job.env_files)], chance.randint(1, 2)))


def alone(model: Model, report: Report) -> None:
    """Assert that a repository that is down is in trouble, and no other one."""
    places = [place_of(file) for file in report.env_files]
    for run in report.runs:
        assert (run.outcome == "failed") == (places[run.run.repository] in model.down)
        assert run.outcome in ("success", "failed")
    assert report.outcome == ("failed" if model.down == {*places} else "incomplete")


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
        model.calls = chance.random() < 0.8
        unreachable(model, job, chance)
        job = job._replace(proof=chance.random() < 0.5)
        report, chosen = None, selected(model, job)
        try:
            report = attempt(model, job)
        except Refusal as refusal:
            refused(refusal)
            # Up to four more are asked by the first run after a boot.
            assert faults or model.call <= (6 if job.snapshot is None else 13)
        else:
            reported(report)
            if report.outcome in state.GOOD:
                assert not good(model, report, chosen)
            assert not half_good(model, report)
            assert not disturbs(model, report, job)
            ordinary = not faults and not (misses(report) or moved(model, report))
            if ordinary and model.down and report.runs:
                alone(model, report)
            elif ordinary and report.status:
                # What a hook might have mended is refused when it has run.
                assert job.before, report.problems
                assert report.plan is None
        if report is not None and report.status == 0:
            assert left_over(model) == []
        undo(model)
        invariants(model, before)
        # The next run finds nothing in its way, and takes down what is left.
        model.faults, model.stubborn, model.down = {}, set(), set()
        try:
            again = attempt(model, job)
        except Refusal as refusal:
            refused(refusal)
        else:
            assert again.status == 0 or again.plan is None or misses(again), again.problems
            if again.outcome in state.GOOD:
                assert not good(model, again, selected(model, job))
            # Without a newer snapshot there is nothing to do, once there is a good backup.
            assert again.outcome != "unchanged" or report is None or report.outcome in state.GOOD
            assert left_over(model) == []
        invariants(model, before)
        assert state.read_history(HERE) is not None

    check()


def undo(model: Model) -> None:
    """Give what was renamed its old name back."""
    if model.moves and model.moves[1] in model.datasets:
        model.rename(*model.moves[::-1])
    model.moves = None


KINDS = ("refused", "read-only", "suspended", "misled", "moves", "blind", "pruned", "vanish")
ERRORS = (13, 17, 28, 69)


def trouble(model: Model, chance: random.Random) -> None:
    """Let a machine have what befalls datasets and pools while a run goes on."""
    names = sorted(model.datasets)
    pools = sorted({pool_of(name) for name in names})
    model.calls = chance.random() < 0.9
    model.looked, model.hourly = chance.random() < 0.3, chance.random() < 0.3
    model.idle, model.full = chance.random() < 0.1, chance.random() < 0.1
    points = sorted(m.point for m in model.mounts if m.type == "zfs" and m.point != "/")
    for kind in chance.choices(KINDS, k=chance.randint(1, 3)):
        if kind == "refused":
            model.refused[chance.choice(names)] = chance.choice(ERRORS)
        elif kind == "read-only":
            model.read_only.add(chance.choice(pools))
        elif kind == "suspended":
            model.suspended.add(chance.choice(pools))
        elif kind == "misled" and points:
            model.misled.add(chance.choice(points))
        elif kind == "vanish":
            model.vanished |= set(chance.sample(sorted(model.directories), k=1))
        elif kind == "pruned":
            # Without the calls it is not seen.
            model.pruned = chance.choice(names) if model.calls else ""
        elif kind == "blind" and points:
            model.blind.add(chance.choice(points))
        nested = [name for name in names if "/" in name]
        if kind == "moves" and nested:
            old = chance.choice(nested)
            model.moves, model.moves_at = (old, f"{old}_moved"), chance.randint(2, 16)
    model.suspended -= model.read_only
    if model.moves and pool_of(model.moves[0]) in model.read_only | model.suspended:
        model.moves = None


def test_no_run_is_good_unless_all_that_was_chosen_is_in_the_backup(place, request):
    """Datasets come and go, pools stand still or fail, clients leave out what they like."""
    outcomes: Counter[str] = Counter()

    @hypothesis.seed(SEED)
    @several(in_ci=500, in_all=20000)
    @hypothesis.given(st.data())
    def check(data: st.DataObject) -> None:
        count(request.node.name)
        forget()
        model = data.draw(machines())
        job = data.draw(jobs(model))._replace(proof=True)
        chance = random.Random(data.draw(st.integers(0, 2**64)))
        trouble(model, chance)
        unreachable(model, job, chance)
        hypothesis.note(f"{model}")
        before = copy.deepcopy(foreign(model))
        chosen = selected(model, job)
        try:
            report = attempt(model, job)
        except Refusal as refusal:
            refused(refusal)
        else:
            outcomes[report.outcome] += 1
            reported(report)
            if report.outcome in state.GOOD:
                assert not good(model, report, chosen)
            assert not half_good(model, report)
            assert not disturbs(model, report, job)
        assert left_over(model) == []
        undo(model)
        invariants(model, before)

    check()
    assert {"success", "incomplete", "failed"} <= set(outcomes), outcomes
