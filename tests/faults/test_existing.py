"""A run that takes existing snapshots, with any of its commands failing, and killed at any step.

What there was before must be there after it: no snapshot is destroyed, no hold of others is
released, and what a killed run holds still is released by the next one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from faults.conftest import enter, sample
from faults.injector import PLACE, Injected
from faults.test_fail import judge, ways_for
from faults.test_kill import aftermath

pytestmark = [pytest.mark.linux(reason="faults are put into the stand-ins"), pytest.mark.slow]

QUICK = f"{PLACE}/quick"
KILLS = ("KILL-one", "KILL-group", "power", "TERM-one", "INT-group")
WHEN = ("before", "inside", "after")


@pytest.fixture(scope="module")
def taking(injected: Injected) -> Iterator[Injected]:
    """A host where all runs take existing snapshots."""
    injected.existing = ["--snapshot", "auto-*"]
    yield injected
    injected.existing = []


@pytest.fixture(scope="module")
def steps(taking: Injected) -> list[str]:
    """Every call of an undisturbed run, which is not the first one on the machine."""
    taking.plan(0)
    taking.attempt(QUICK)
    taking.plan(0)
    case = taking.attempt(QUICK)
    assert case.status == 0, case.output
    assert not taking.check_clean()
    assert taking.backup_is_right()
    assert {"zfs hold", "zfs release"} <= set(case.calls)
    assert not {"zfs program", "zfs snapshot", "zfs destroy"} & set(case.calls)
    return case.calls


@pytest.mark.parametrize("part", range(2))
def test_every_command_in_every_way(taking: Injected, steps: list[str], part: int):
    cases = [(n, step, way) for n, step in enumerate(steps, 1) for way in ways_for(step)]
    wrong: list[str] = []
    # The rest is as in any run.
    ours = [case for case in cases if case[1].startswith(("zfs", "zpool"))][part::2]
    for number, step, way in sample(ours, 5, f"existing {part}"):
        taking.plan(number, way)
        case = taking.attempt(QUICK)
        outcome, found = judge(taking, case, step, way)
        found += taking.sweep() if "told" in outcome or found else []
        found += [f"afterwards: {each}" for each in taking.check_clean()]
        enter("existing", f"{number:2} {step}", way, "WRONG" if found else outcome)
        wrong += [f"{number} {step} {way}: {each}\n{case.output[-1500:]}" for each in found]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("way", KILLS)
def test_at_every_step(taking: Injected, steps: list[str], way: str):
    only = os.environ.get("KOPIATOMIC_FAULTS_ONLY", "")
    cases = [(n, when) for n in range(1, len(steps) + 1) for when in WHEN]
    cases = [case for case in cases if steps[case[0] - 1].startswith(tuple(only.split(",")))]
    failures = []
    for number, when in sample(cases, 2, f"existing {way}"):
        taking.plan(number, f"{way}-{when}")
        case = taking.attempt()
        outcome, wrong = aftermath(taking, case, way, number)
        row = f"{number:2} {when:6} {steps[number - 1]}"
        enter("existing", row, way, "WRONG" if wrong else outcome)
        if wrong:
            failures.append((number, when, steps[number - 1], wrong, case.output))
            taking.next_run()
    assert not failures, failures
