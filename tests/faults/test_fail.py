"""Every command of a run fails at every call, in every way that was ever seen, and in others."""

from __future__ import annotations

import os
import re
import shlex
import time

import pytest
from support.patience import PATIENCE

from faults.conftest import enter, sample
from faults.injector import ANSWERS, CALLS, PLACE, WRAPPED, Case, Injected, failures

pytestmark = [pytest.mark.linux(reason="faults are put into the stand-ins"), pytest.mark.slow]

QUICK = f"{PLACE}/quick"


@pytest.fixture(scope="module", params=["calls", "programs"])
def steps(injected: Injected, request: pytest.FixtureRequest) -> list[str]:
    """Every call of an undisturbed run; without ctypes, each mount is a program that can fail."""
    injected.host.nmount(there=request.param == "calls")
    injected.plan(0)
    case = injected.attempt(QUICK)
    assert case.status == 0, case.output
    assert not injected.check_clean()
    assert ("nmount" in {step.split()[0] for step in case.calls}) is (request.param == "calls")
    return case.calls


def judge(injected: Injected, case: Case, step: str, way: str) -> tuple[str, list[str]]:
    """Return the outcome of a failure and what is wrong about it."""
    wrong = []
    if case.status is None or case.status < 0:
        wrong.append(f"it ended with {case.status}")
    if "Traceback" in case.output or "internal error, please" in case.output:
        wrong.append("it does not know what happened")
    if len(case.output) > 20000 and not step.startswith(USERS):
        wrong.append(f"it said {len(case.output)} characters")
    if case.seconds > 30:
        wrong.append(f"it took {case.seconds:.0f} s")
    problems = [line for line in case.output.splitlines() if line.startswith("restomic: ")]
    left = injected.left_over()
    if case.status == 0:
        if not injected.backup_is_right():
            wrong.append("it says success, and there is no right backup")
        if left:
            wrong.append(f"it says success, and leaves {left}")
        return "went on", wrong + injected.check_clean()
    if not (problems or "FAILED" in case.output):
        wrong.append("it failed and does not say why")
    if not tells(case, step):
        wrong.append("it does not name the command")
    if not left:
        return "failed, clean", wrong + injected.check_clean()
    # What is left must be told with the command that removes it, and the next sweep gets it.
    for each in left:
        kind, _, name = each.partition(" ")
        # A command may well be told for the top of it, or for a snapshot that a mount keeps.
        if kind in ("snapshot", "mount", "hold") and name not in case.output:
            wrong.append(f"{each} is left and not told")
    return "failed, told", wrong


def tells(case: Case, step: str) -> bool:
    """Say whether the output names what failed, by the command or by what it does."""
    words = {
        "hook p": ("-p",), "hook s": ("-s",), "hook q": ("-q",),
        "zfs program": ("no snapshot of", "destroyed"), "zfs destroy": ("destroyed",),
        "umount": ("unmounted",), "unmount": ("unmounted",),
        "nmount": ("cannot mount the snapshot of", "mount_nullfs", "mount -t devfs",
                   "cannot show at its mount point", "is not in the view"),
        "mount -t": ("cannot mount the snapshot of",),
        "mount_nullfs": ("cannot show at its mount point", "is not in the view"),
    }  # fmt: skip
    told = next((told for start, told in words.items() if step.startswith(start)), ())
    return any(word in case.output for word in (*told, step.split()[0]))


def ways_for(step: str) -> list[str]:
    program = step.split()[0]
    key = step if step in ANSWERS else program
    key = next((each for each in ANSWERS if step.startswith(each)), key)
    answers = [f"{key.replace(' ', '-')}-{n}" for n in range(len(ANSWERS.get(key, ())))]
    if program in CALLS:
        # The kernel does what it is asked, or says why not.
        return answers
    # What answers may answer anything, and mounts are looked at; of all else that acts it is
    # believed that it did so if it exits with 0.
    acts = not re.match(r"sysctl|mount|zpool|zfs (list|get|holds)|fstat|kldstat", step)
    unlike = (*(LIES if acts else TRUE), *(ENDLESS if step.startswith(USERS) else ()))
    return [*answers, *(way for way in failures() if way not in unlike)]


# The user's own programs: what they say is carried on, and they may take days.
USERS = ("hook", "client")
ENDLESS = ("hang", "hang-after", "100MB-and-done")
LIES = ("garbage", "100MB-out")
TRUE = ("100MB-and-done",)
WAYS = sorted({*failures()})


def try_one(injected: Injected, step: str, number: int, way: str) -> list[str]:
    injected.plan(number, way)
    case = injected.attempt(QUICK)
    outcome, wrong = judge(injected, case, step, way)
    if "told" in outcome:
        wrong += injected.sweep()
    elif wrong:
        injected.sweep()
    wrong += [f"afterwards: {each}" for each in injected.check_clean()]
    column = way if way in WAYS else f"answer {way[-1]}"
    enter("fail", f"{number:2} {step}", column, "WRONG" if wrong else outcome)
    return [f"{number} {step} {way}: {each}\n{case.output[-1500:]}" for each in wrong]


@pytest.mark.parametrize("part", range(4))
def test_every_command_in_every_way(injected: Injected, steps: list[str], part: int):
    cases = [(n, step, way) for n, step in enumerate(steps, 1) for way in ways_for(step)]
    wrong = []
    only = os.environ.get("KOPIATOMIC_FAULTS_ONLY", "")
    cases = [case for case in cases if case[1].startswith(tuple(only.split(",")))]
    for number, step, way in sample(cases[part::4], 3, f"fail {part}"):
        wrong += try_one(injected, step, number, way)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", sample(list(WRAPPED), 2, "gone"))
def test_a_command_that_cannot_be_started(injected: Injected, steps: list[str], name: str):
    injected.plan(0)
    program = injected.path(WRAPPED[name])
    program.chmod(0)
    try:
        case = injected.attempt(QUICK)
    finally:
        program.chmod(0o755)
    step = next((each for each in steps if each.split()[0] == name), name)
    outcome, wrong = judge(injected, case, step, "gone")
    if "told" in outcome:
        wrong += injected.sweep()
    enter("fail", name, "cannot start", "WRONG" if wrong else outcome)
    assert not wrong, (wrong, case.output)


# Each of them fails at every call that take-down makes, again and again.
LASTING = {
    "unmount": "unmount-0", "umount": "umount-0", "zfs": "zfs-destroy-0", "fstat": "fstat-0",
}  # fmt: skip

# What lets through all but the programs that destroy: the first makes the snapshots.
BUT_DESTROYING = f"""\
case $1 in
program) [ -f {PLACE}/snapped ] || {{ : > {PLACE}/snapped; exec "$real" "$@"; }};;
destroy) ;;
*) exec "$real" "$@";;
esac
"""


@pytest.mark.parametrize("name", LASTING)
def test_a_take_down_that_keeps_failing(injected: Injected, steps: list[str], name: str):
    """What is left is told with the exact command that removes it."""
    by_call = any(step.startswith("nmount") for step in steps)
    if name in (("umount",) if by_call else ("unmount", "fstat")):
        pytest.skip("nothing asks it, this way")
    injected.plan(0)
    wrapper = injected.path(WRAPPED[name])
    text = wrapper.read_text()
    only = BUT_DESTROYING if name == "zfs" else ""
    wrapper.write_text(text.replace('[ "$n" = "$at" ] || exec', f"{only}: || exec").replace(
        "$action", LASTING[name]))  # fmt: skip
    if name == "fstat":
        injected.path(f"{PLACE}/client-plan").write_text("sleep 60 > /dev/null 2>&1 &\n")
    try:
        case = injected.attempt(QUICK)
    finally:
        wrapper.write_text(text)
    left = injected.left_over()
    if name == "fstat":
        assert case.status == 0
        assert not injected.check_clean(), case.output
        return
    assert case.status == 71
    assert left
    told = re.findall(r"or: ((?:umount|zfs) .*)", case.output)
    assert ("zfs" if name == "zfs" else "umount") in {shlex.split(command)[0] for command in told}
    # The innermost mount first, what is held last of them, and then the snapshots.
    told.sort(key=lambda told: (told.startswith("zfs"), "/hold/" in told, -len(told)))
    for command in dict.fromkeys(told):
        injected.run(command)
    assert not [each for each in injected.left_over() if each.startswith(("mount", "snapshot"))]
    assert not injected.sweep()
    assert not injected.next_run()
    enter("fail", name, "keeps failing", "failed, told")


def test_a_snapshot_that_is_made_after_zfs_was_given_up(injected: Injected, steps: list[str]):
    """As on a pool that was suspended: the next run looks for it."""
    number = next(n for n, step in enumerate(steps, 1) if step.startswith("zfs program"))
    injected.plan(number, "late")
    case = injected.attempt(QUICK)
    assert case.status == 73, case.output
    assert "no snapshot of kta: did not end within 1.5 s" in case.output
    before = injected.left_over()
    assert [os.path.basename(each) for each in before] == ["restomic.default.unfinished"]
    deadline = time.monotonic() + 20 * PATIENCE
    while injected.left_over() == before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(injected.left_over()) == 4  # a snapshot of each of three datasets
    assert not injected.next_run()


def test_a_held_snapshot_is_destroyed_by_the_run_after_next(injected: Injected, steps: list[str]):
    hold = "zfs snapshot -o org.kopiatomic:run=restomic:default:dead kta/src@restomic-dead; "
    hold += "zfs hold kt kta/src@restomic-dead; "
    injected.run(hold + "touch /var/db/kopiatomic/restomic.default.unfinished")
    for _ in range(2):
        injected.plan(0)
        case = injected.attempt()
        assert case.status == 0, case.output
        assert "kta/src@restomic-dead of an earlier run stays" in case.output
        assert "zfs destroy kta/src@restomic-dead" in case.output
    injected.run("zfs release kt kta/src@restomic-dead")
    assert not injected.next_run()
