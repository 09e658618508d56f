"""What the mail says of each outcome in which some of it is not in the backup, word for word."""

from __future__ import annotations

import re

import pytest
from support import nights
from support.machine import Machine, shell

from host.conftest import TOP, Repository, clean, where
from host.ongoing import meanwhile, outcome, started
from host.test_one_dataset_lost import MOUNTED, RESTOMIC, TAKEN, leave_no_room

pytestmark = pytest.mark.restic

INFORMATION, TROUBLE = 1, 3


@pytest.fixture
def mailing(filled: Machine, restic: Repository) -> Repository:
    """A repository with a first backup, so that nothing is told of a first one."""
    shell(filled, f"zfs create kta/short; echo short > {TOP}/short/file")
    return restic


def mail(
    restic: Repository, *words: str, status: int, program: str = RESTOMIC, tidy: bool = True
) -> str:
    """Return the mail of a night as periodic(8) gets it, without what differs each time."""
    result = restic.machine.run([program, "--periodic", *words], env=restic.environment)
    assert (result.returncode, result.stderr) == (status, ""), result.stdout
    if tidy:
        clean(restic.machine)
    text = re.sub(r"restomic-[0-9TZ]{16}-[0-9a-f]{12}", "restomic-RUN", result.stdout)
    text = re.sub(r"^snapshot [0-9a-f]{8} saved", "snapshot ID saved", text, flags=re.M)
    return nights.timeless(text)


# What the client has to say is another matter: see test_mail.py.
RAN = re.compile(r"\nrestic ran TIME.*?(?=\n\n|\Z)(\n\nWhat restic said.*)?", re.S)


def told(text: str) -> str:
    """Return a mail without what the client said and did."""
    return RAN.sub("", text).strip("\n")


SELECTED = ("-r", "kta/src", "kta/short")
SHORT = """\
Captured at one moment, DATE:
  kta/src  /kt/kta/src"""


def test_one_that_came_and_went(mailing: Repository):
    shell(mailing.machine, "zfs create kta/src/build")
    program = meanwhile(mailing.machine, TAKEN, "zfs destroy -r kta/src/build")
    text = mail(mailing, "-r", "kta/src", status=INFORMATION, program=program)
    assert told(text) == (
        "restomic: the backup succeeded, TIME\n\n"
        f"{SHORT}\n\n"
        "Left out:\n"
        "  kta/src/build  it has gone since the run began"
    )
    assert "  1 of 1 dataset found in the backup\n" in text
    assert outcome(mailing.machine)["outcome"] == "success"


NAMED_GONE = """\
restomic: the backup is INCOMPLETE, TIME
  ! {what} kta/short: {why}

Captured at one moment, DATE:
  kta/src  /kt/kta/src

Left out:
  kta/short  it has gone since the run began"""


@pytest.mark.parametrize(
    ("when", "what", "why"),
    [
        (TAKEN, "no snapshot of", "no such dataset"),
        (MOUNTED, "cannot mount the snapshot of", "No such file or directory"),
    ],
    ids=["before the snapshot", "after it"],
)
def test_one_that_was_named_and_has_gone(mailing: Repository, when, what: str, why: str):
    program = meanwhile(mailing.machine, when, "zfs destroy -r kta/short")
    text = mail(mailing, *SELECTED, status=TROUBLE, program=program)
    assert told(text) == NAMED_GONE.format(what=what, why=why)
    assert "  1 of 1 dataset found in the backup\n" in text


def test_no_room_for_one(mailing: Repository):
    leave_no_room(mailing.machine)
    assert told(mail(mailing, *SELECTED, status=TROUBLE)) == (
        "restomic: the backup is INCOMPLETE, TIME\n"
        "  ! no snapshot of kta/short: out of space\n\n"
        f"{SHORT}\n\n"
        "Left out:\n"
        "  kta/short  out of space"
    )


def test_a_pool_that_went_away(mailing: Repository):
    machine = mailing.machine
    machine.make_pool("ktb")
    program = meanwhile(machine, TAKEN, "zpool export ktb")
    try:
        text = mail(mailing, "kta/src", "ktb", status=TROUBLE, program=program)
    finally:
        shell(machine, f"zpool import{where(machine)} ktb")
    first, _, rest = told(text).partition("\n")
    problem, _, rest = rest.partition("\n")
    assert first == "restomic: the backup is INCOMPLETE, TIME"
    # In whatever words zfs(8) says that there is no such pool.
    assert problem.startswith("  ! no snapshot of ktb: ")
    assert rest.startswith(f"\n{SHORT}\n\nLeft out:\n  ktb  no snapshot of its pool: ")


def test_a_read_only_pool(mailing: Repository):
    machine = mailing.machine
    machine.make_pool("ktb")
    shell(machine, f"zpool export ktb; zpool import -o readonly=on{where(machine)} ktb")
    try:
        text = mail(mailing, "kta/src", "ktb", status=INFORMATION)
    finally:
        shell(machine, f"zpool export ktb; zpool import{where(machine)} ktb")
    text = re.sub(r"lie [0-9.]+TIME", "lie 0.TIME", text)
    assert told(text.partition("\nNote:")[0]) == (
        "restomic: the backup succeeded, TIME\n\n"
        "Captured DATE, one moment for each pool; kta and ktb lie 0.TIME apart:\n"
        "  kta/src  /kt/kta/src\n"
        "  ktb  /kt/ktb"
    )
    assert text.partition("\nNote:")[2] == (
        "\n  the pool ktb is read-only and so stands still: it is backed up without a snapshot\n"
    )


def test_a_path_that_leads_elsewhere(mailing: Repository):
    machine = mailing.machine
    shell(machine, f"mkdir {TOP}/x; zfs create -o mountpoint={TOP}/x/data kta/xd")
    swap, back = f"cd {TOP}; mv x y; ln -s /tmp x", f"cd {TOP}; rm x; mv y x"
    try:
        text = mail(mailing, "-r", "kta/src", "kta/xd", "-s", swap, status=TROUBLE)
    finally:
        shell(machine, back)
    reason = "a symbolic link or a file has taken the place of a directory on the way there"
    assert told(text) == (
        "restomic: the backup is INCOMPLETE, TIME\n"
        f"  ! cannot show at its mount point kta/xd: {reason}\n\n"
        f"{SHORT}\n\n"
        "Left out:\n"
        f"  kta/xd  {reason}"
    )


def test_nothing_is_left(mailing: Repository):
    program = meanwhile(mailing.machine, TAKEN, "zfs destroy -r kta/short")
    gone = "kta/short: it has gone since the run began"
    text = mail(mailing, "kta/short", status=TROUBLE, program=program)
    assert "restomic: the backup FAILED, TIME\n" in text
    assert f"  ! no selected dataset can be backed up ({gone})\n" in text


def test_a_plan_that_is_refused_after_the_hook(mailing: Repository):
    words = ("kta/nosuch", "-p", "true", "-q", "true")
    assert mail(mailing, *words, status=TROUBLE) == (
        "restomic: the backup FAILED, TIME\n"
        "  ! no dataset is called 'kta/nosuch'; 'zfs list' shows the names there are\n"
    )


def test_a_killed_run_before(mailing: Repository):
    """The mail of the next night says what was in the way of nobody, and is gone now."""
    with started(mailing.machine, "kta/src") as run:
        run.wait_for_client()
        run.kill(client=True)
        text = mail(mailing, "kta/src", status=INFORMATION)
    _, _, swept = text.partition("Removed, left behind by an earlier run:\n")
    lines = swept.splitlines()
    assert "  mount /var/run/restomic/default/hold/0" in lines
    assert "  mount /var/run/restomic/default/view" in lines
    assert lines[-1] == "  snapshot kta/src@restomic-RUN"


def test_the_status_counts_none_of_them(mailing: Repository):
    """A backup that lacks something does not make a night a good one."""
    leave_no_room(mailing.machine)
    mail(mailing, *SELECTED, status=TROUBLE)
    status = mailing.machine.run([RESTOMIC, "--status"]).stdout
    assert re.search(r"^default  never .*\.~$", status, re.M), status
    assert "incomplete: no snapshot of kta/short: out of space" in status
    check = mailing.machine.run([RESTOMIC, "--check"])
    assert check.returncode == 1
    assert "no successful backup yet" in check.stdout
    assert "is INCOMPLETE: no snapshot of kta/short: out of space" in check.stdout
