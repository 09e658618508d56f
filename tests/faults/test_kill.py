"""The run is stopped at every step, in every way in which that can happen."""

from __future__ import annotations

import os
import random
import shlex
import signal

import pytest

from faults.conftest import SEED, enter, sample
from faults.injector import PLACE, RESTOMIC, Case, Injected

pytestmark = [pytest.mark.linux(reason="faults are put into the stand-ins"), pytest.mark.slow]

QUICK = f"{PLACE}/quick"
WAYS = ("KILL-one", "KILL-group", "power", *(
    f"{name}-{whom}" for name in ("TERM", "INT", "HUP") for whom in ("one", "group", "twice")
))  # fmt: skip
WHEN = ("before", "inside", "after")


@pytest.fixture(scope="module")
def steps(injected: Injected) -> list[str]:
    """Every call of an undisturbed run."""
    injected.plan(0)
    case = injected.attempt()
    assert case.status == 0, case.output
    assert not injected.check_clean()
    assert injected.backup_is_right()
    return case.calls


def expect_order(injected: Injected, case: Case, signum: int, limit: float = 6.0) -> list[str]:
    """Name what is wrong after a signal that the run can catch."""
    wrong = injected.check_clean()
    if case.status not in (0, 128 + signum, -signum):
        wrong.append(f"status {case.status}")
    if case.status == 0 and not injected.backup_is_right():
        wrong.append("status 0 without a right backup")
    if case.status == 128 + signum and "interrupted by" not in case.output:
        wrong.append("it does not say that it was interrupted")
    if case.seconds > limit:
        wrong.append(f"it took {case.seconds:.1f} s")
    if "Traceback" in case.output or "internal error" in case.output:
        wrong.append("a traceback")
    if not injected.history_reads():
        wrong.append("the history cannot be read")
    return wrong


def aftermath(injected: Injected, case: Case, way: str, number: int) -> tuple[str, list[str]]:
    """Return the outcome of a fault and what is wrong about it."""
    name = way.partition("-")[0]
    if name in ("TERM", "INT", "HUP"):
        limit = 15.0 if number == 0 else 6.0
        wrong = expect_order(injected, case, getattr(signal, f"SIG{name}"), limit)
        outcome = "clean, done" if case.status == 0 else "clean"
        if number % 4 == 0:
            wrong += injected.next_run()
        return outcome, wrong
    left = injected.left_over()
    wrong = [] if left else injected.check_clean()
    if number % 2:
        wrong += injected.sweep()
    wrong += injected.next_run()
    return ("swept" if left else "nothing left"), wrong


def enter_nth(row: str, number: int, outcome: str) -> None:
    """Enter what came of one of many faults alike, nine to a row."""
    enter("kill", f"{row}, {number // 9}", f"KILL {number % 9 + 1}", outcome)


@pytest.mark.parametrize("way", WAYS)
def test_at_every_step(injected: Injected, steps: list[str], way: str):
    cases = [(n, when) for n in range(1, len(steps) + 1) for when in WHEN]
    failures = []
    for number, when in sample(cases, 1, way):
        injected.plan(number, f"{way}-{when}")
        case = injected.attempt()
        outcome, wrong = aftermath(injected, case, way, number)
        row = f"{number:2} {when:6} {steps[number - 1]}"
        enter("kill", row, way, "WRONG" if wrong else outcome)
        if wrong:
            failures.append((number, when, steps[number - 1], wrong, case.output))
            injected.next_run()
    assert not failures, failures


def test_at_any_time(injected: Injected, steps: list[str]):
    """SIGKILL after a random time, which also hits the program between its commands."""
    chance = random.Random(SEED)
    for number in range(len(sample(range(60), 3, "times"))):
        injected.plan(0)
        case = injected.attempt(delay=chance.uniform(0.03, 0.7))
        outcome, wrong = aftermath(injected, case, "KILL-one", number)
        enter_nth("at a random moment", number, "WRONG" if wrong else outcome)
        assert not wrong


def test_again_while_it_sweeps(injected: Injected, steps: list[str]):
    """What is left by a run that was killed in the view is swept by runs that are killed too."""
    chance = random.Random(f"{SEED} again")
    client = next(number for number, step in enumerate(steps, 1) if step.startswith("client"))
    for number in range(len(sample(range(40), 3, "again"))):
        wrong, told = [], ""
        injected.plan(client, "KILL-one-inside")
        injected.attempt()
        for _ in range(chance.randint(1, 3)):
            at, when = chance.randint(1, 9), chance.choice(WHEN)
            injected.plan(at, f"{chance.choice(('KILL-one', 'KILL-group', 'power'))}-{when}")
            told += f" {at} {when}: {injected.attempt().calls}"
        if number % 2:
            wrong += injected.sweep()
        wrong += injected.next_run()
        enter_nth("while sweeping", number, "WRONG" if wrong else "swept")
        assert not wrong, (told, wrong)


# How the client takes it when it is asked to end; the fault comes from inside it.
IGNORE = "trap '' TERM INT HUP"
CLIENTS = {
    "that ends when asked": ("", "exec sleep 30"),
    "that tidies up": ("trap 'sleep 0.3; echo tidied; exit 130' TERM INT HUP", "sleep 30 & wait"),
    "that will not listen": (IGNORE, "sleep 8; sleep 8"),
    "that will not and prints": (IGNORE, "exec yes"),
    "that leaves a child": ("", "sh -c 'trap \"\" TERM; sleep 30' & sleep 30"),
    "that leaves one that prints": ("", "setsid yes & sleep 30"),
}


@pytest.mark.parametrize("way", sample(WAYS, 3, "ways"))
def test_inside_the_client(injected: Injected, steps: list[str], way: str):
    for manner in sample(list(CLIENTS), 1, f"client {way}"):
        injected.plan(0)
        name, _, whom = way.partition("-")
        target = "-$PPID" if whom == "group" else "$PPID"
        send = f"kill -{name} {target}"
        if whom == "twice":
            send += f"; sleep 0.1; {send}"
        if way == "power":
            send = f"echo > {PLACE}/cut"
        before, after = CLIENTS[manner]
        text = f"{before}\n(sleep 0.05; {send}) &\n{after}\n"
        injected.path(f"{PLACE}/client-plan").write_text(text)
        case = injected.attempt(QUICK)
        outcome, wrong = aftermath(injected, case, way, 0)
        if manner == "that tidies up" and whom in ("one", "group") and name in ("TERM", "HUP"):
            wrong += [] if "tidied" in case.output else ["it was not asked politely"]
        enter("kill", f"a client {manner}", way, "WRONG" if wrong else outcome)
        assert not wrong, (manner, wrong, case.output[-3000:])


def test_hung_up_twice_from_outside(injected: Injected, steps: list[str]):
    """nohup(1) sets SIGHUP to be ignored: then the run goes on."""
    injected.plan(0)
    words = shlex.join(injected.words(RESTOMIC))
    process = injected.machine.popen(
        ["/bin/sh", "-c", f"trap '' HUP; exec {words} > /dev/null 2>&1"], new_group=True
    )
    while process.poll() is None and len(injected.calls()) < 5:
        pass
    os.kill(process.pid, signal.SIGHUP)
    assert process.wait(30) == 0
    assert not injected.check_clean()
    assert injected.backup_is_right()
