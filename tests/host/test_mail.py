"""The morning mail, word for word, and that it keeps its secrets.

KOPIATOMIC_GOLDEN=write writes the golden files anew: read them as the
administrator would before you commit them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import installed, nights
from support.machine import BASE, FreeBSD, Machine, Sandbox, shell, wait_for

pytest.importorskip("jinja2", reason="needs jinja2, as building the port does")
pytestmark = pytest.mark.restic
word_for_word = pytest.mark.linux(reason="paths and what else the machine has are the sandbox's")

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine on which one night has passed."""
    made: Machine = (
        Sandbox(tmp_path / "host") if sys.platform.startswith("linux") else FreeBSD()
    )
    try:
        nights.prepare(made)
        yield made
    finally:
        made.close()


def compare(
    name: str, mails: list[str], same: Callable[[str], str] = nights.timeless
) -> None:
    """Hold mails against a golden file, with what is to be the ``same`` in every run made so."""
    text = "\n".join(same(nights.body(mail)) for mail in mails)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("KOPIATOMIC_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


@word_for_word
def test_a_good_night_and_a_bad_one(machine: Sandbox):
    compare("good-night", nights.good_night(machine))
    compare("bad-night", nights.bad_night(machine))


def everything_kept(machine: Machine) -> str:
    """Return all that the program has written to keep, and its mails."""
    kept = [*machine.path("/var/db/kopiatomic").iterdir()]
    if machine.is_sandbox:
        kept += machine.path("/var/log").glob("*")
    return "".join(path.read_text(errors="replace") for path in kept if path.is_file())


LEAKS = {
    "an env file": 'echo "cannot open $RESTIC_REPOSITORY with $RESTIC_PASSWORD" >&2; exit 1',
    "a url": (
        "export RESTIC_REPOSITORY=https://user:wr4pper-pw@h/; echo $RESTIC_REPOSITORY; exit 1"
    ),
    "a wrapper": "RESTIC_PASSWORD=wr4pper-pw; set -x; : $RESTIC_PASSWORD; exit 1",
    "the arguments": 'echo "called as $0 $*"; ps -axww -o args 2>/dev/null; exit 1',
}


@pytest.mark.parametrize("leak", LEAKS)
def test_no_secret_shows_when_the_client_fails_and_prints_it(machine: Machine, leak: str):
    name = f"{machine.prefix}/sbin/restic-leaky"
    wrapper = machine.path(name)
    wrapper.write_text(f"#!/bin/sh\nps -axww -o args > {BASE}/ps 2>/dev/null\n{LEAKS[leak]}\n")
    wrapper.chmod(0o700)
    conf = machine.path(machine.periodic_conf)
    conf.write_text(conf.read_text() + f'daily_restomic_command="{name} backup"\n')
    mails = "".join(machine.periodic())
    assert "the backup FAILED" in mails
    processes = machine.path(f"{BASE}/ps")
    seen = mails + everything_kept(machine) + (processes.read_text() if processes.exists() else "")
    assert nights.SECRET not in seen
    assert "wr4pper-pw" not in seen
    if leak != "the arguments":
        assert "[hidden]" in mails


def test_a_backup_that_still_runs_is_told_with_its_beginning(machine: Machine):
    wrapper = machine.path(f"{machine.prefix}/sbin/restic-slow")
    wrapper.write_text(f"#!/bin/sh\necho > {BASE}/slow; exec sleep 6000\n")
    wrapper.chmod(0o700)
    conf = machine.path(machine.periodic_conf)
    conf.write_text(f"{conf.read_text()}daily_restomic_home_wait=1s\n")
    run = machine.popen(
        ["/usr/local/sbin/restomic", "-j", "home", "--plain", "-c",
         f"{machine.prefix}/sbin/restic-slow", "kta/home"]
    )
    try:
        wait_for(machine.path(f"{BASE}/slow").exists)
        daily = machine.periodic()[-1]
    finally:
        run.terminate()
        run.wait(30)
    assert "restomic (job home): NO BACKUP: restomic/home is still running, since 2" in daily
    assert "; waited 1 s for it; end it, or wait longer (with --wait)\n" in daily
    assert "restomic (job mail): the backup succeeded" in daily


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("daily_restomic_home_datasets=''", "daily_restomic_home_datasets is empty"),
        ("daily_restomic_home_datasets=kta/hmoe", "no dataset is called 'kta/hmoe'"),
        ("daily_restomic_home_command=/no/such", "the client '/no/such' is not installed"),
        ("daily_restomic_profiles='home no-such'", "daily_restomic_profiles"),
        ("daily_restomic_enable=Yse", 'daily_restomic_enable="Yse" is neither YES nor NO'),
        ('daily_restomic_home_datasets="kta/\'home"', "no closing quotation"),
    ],
)
def test_a_job_that_cannot_run_is_trouble_even_if_everything_else_is_hidden(
    machine: Machine, lines: str, says: str
):
    conf = machine.path(machine.periodic_conf)
    quiet = "daily_show_success=NO\ndaily_show_info=NO\ndaily_show_badconfig=NO\n"
    conf.write_text(conf.read_text() + quiet + lines + "\n")
    assert says in machine.periodic()[-1]


def outcomes(machine: Sandbox) -> dict[str, int]:
    """Return the exit status of each daily script of ours, and of the security script."""
    scripts = ("daily/800.restomic", "daily/900.status-restomic", "security/800.kopiatomic")
    environment = {"PERIODIC": "security daily"}
    return {
        each.partition(".")[2]: machine.run(
            [f"/usr/local/etc/periodic/{each}"], env=environment, timeout=300
        ).returncode
        for each in scripts
    }


@word_for_word
def test_the_nights_of_a_machine_as_the_installer_lays_it_out(tmp_path: Path):
    """From the first one to one in which much is wrong, with the weekly mails between them."""
    machine = installed.create(tmp_path / "host")
    try:
        compare("installed-first-night", machine.periodic(), installed.same)
        machine.path("/home/ada/new").write_text("written by day")
        compare("installed-good-night", machine.periodic(), installed.same)
        compare("installed-good-week", machine.periodic("weekly"), installed.same)
        installed.change(machine)
        compare("installed-night-with-a-change", machine.periodic(), installed.same)
        machine.path("/home/ada/new").write_text("written by another day")
        compare("installed-night-after-it", machine.periodic(), installed.same)
        installed.misfortune(machine)
        compare("installed-bad-night", machine.periodic(), installed.same)
        compare("installed-bad-week", machine.periodic("weekly"), installed.same)
        compare("installed-night-after-that-week", machine.periodic(), installed.same)
    finally:
        machine.close()


@word_for_word
def test_what_periodic_shows_of_each_night(tmp_path: Path):
    """What is no news is success to periodic(8), what is new is information, the rest trouble."""
    machine = installed.create(tmp_path / "host")
    try:
        nights_ = {
            "first": (lambda: None, (1, 0, 0)),
            "good": (lambda: None, (0, 0, 0)),
            # What is not mounted any more has dropped out of the backup: --check says so.
            "change": (lambda: installed.change(machine), (1, 0, 3)),
            "after": (lambda: None, (0, 0, 3)),
            "bad": (lambda: installed.misfortune(machine), (3, 1, 3)),
        }
        for name, (by_day, expected) in nights_.items():
            by_day()
            assert tuple(outcomes(machine).values()) == expected, name
        # Whatever is not to be shown, a bad night is; and where all is well nothing is sent.
        conf = machine.path("/etc/periodic.conf")
        shown = conf.read_text()
        hidden = "".join(f"daily_show_{each}=NO\n" for each in ("success", "info", "badconfig"))
        conf.write_text(shown + hidden)
        security, daily = map(nights.body, machine.periodic())
        assert "Checking the backups" in security
        assert "restomic: the backup FAILED" in daily
        assert "restomic on fbsd142.test" not in daily
        shell(machine, "zpool import backup; restomic --sweep -a")
        machine.periodic()
        assert machine.periodic() == []
        conf.write_text(shown)
        (daily,) = machine.periodic()
        assert "restomic: the backup succeeded" in daily
        assert "restomic on fbsd142.test" in daily
    finally:
        machine.close()
