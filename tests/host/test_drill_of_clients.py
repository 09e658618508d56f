"""The restore drill by the real clients, in directories of the test's own."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from host.test_proof_of_clients import NAMES, Setup, kopia, restic, setup, top, wrapper
from kopiatomic import state
from kopiatomic.clients import client_of
from kopiatomic.repository import drill
from kopiatomic.system.command import encode

__all__ = ["kopia", "restic", "setup", "top"]


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(state, "RUN_ROOT", str(tmp_path / "run"))
    # The history of backups: none, as after a machine was set up anew.
    assert not list(state.newest_first(state.Place("restomic", "default")))


def remember(setup: Setup, *points: object, outcome: str = "success") -> None:
    """Note a run that captured these mount points."""
    rows = [{"dataset": "tank", "mountpoint": str(point)} for point in points]
    entry = {"outcome": outcome, "captured": rows}
    state.remember(state.Place(setup.program, "default"), entry)


def drilled(
    setup: Setup, files: int = 5, command: Sequence[str] = (), seed: int = 3
) -> drill.Drill:
    """Drill and return the account."""
    wishes = drill.Wishes(files=files, seed=seed)
    account = drill.run(setup.task(command=command), wishes)
    json.dumps(drill.as_dict(account))
    assert drill.as_text(account)
    return account


def test_every_mount_point_has_its_share(setup: Setup):
    top = setup.top
    for number in range(200):
        (top / f"ann/{number}").write_text("one of many")
    setup.backup(setup.task(), top)
    remember(setup, top, top / "ann", top / "ben", top / "hollow")
    for seed in range(3):
        account = drilled(setup, files=2, seed=seed)
        (tally,) = account.tallies
        assert account.problems == []
        assert (tally.chosen, tally.identical) == (3, 3)
        assert tally.absent == []


def test_a_mount_point_that_is_not_there(setup: Setup):
    top = setup.top
    setup.backup(setup.task(), top / "ann")
    remember(setup, top / "ann", top / "ann/gone", top / "ben")
    account = drilled(setup)
    assert account.outcome == "failed"
    assert account.problems == [
        f"{top}/ben was captured, but no backup in the repository has it",
        f"{top}/ann/gone was captured, but is not in the backup",
    ]
    remember(setup, top / "ann", top / "ben", outcome="failed")
    remember(setup, top / "ann")
    assert drilled(setup).problems == []


def test_a_mount_point_that_is_empty(setup: Setup):
    top = setup.top
    hollow = top / "hollow"
    setup.backup(setup.task(), top, moment=2_000_000_000.0)
    remember(setup, top, hollow)
    assert drilled(setup).problems == []
    (hollow / "file").write_text("was there before the backup, as its time says")
    assert drilled(setup).problems == [f"{hollow} was captured, but is empty in the backup"]


def test_a_mount_point_that_was_filled_since(setup: Setup):
    setup.backup(setup.task(), setup.top)
    remember(setup, setup.top, setup.top / "hollow")
    (setup.top / "hollow/file").write_text("new")
    assert drilled(setup).problems == []


def test_mount_points_below_one_with_nothing_else(setup: Setup):
    """A dataset that only holds the mount points of others is empty, and rightly so."""
    top = setup.top / "mnt"
    for name in ("ann", "ben"):
        (top / name).mkdir(parents=True)
        (top / name / "file").write_text(name)
    paths = [top, top / "ann", top / "ben"]
    setup.backup(setup.task(), *paths, moment=2_000_000_000.0)
    remember(setup, *paths)
    assert drilled(setup).problems == []


def test_hostile_mount_points(setup: Setup):
    points = [f"{setup.top}/ben/{name}" for name in NAMES]
    for point in points:
        os.mkdir(encode(point))
        Path(os.fsdecode(encode(f"{point}/file"))).write_text("x")
    setup.backup(setup.task(), setup.top)
    remember(setup, *points)
    account = drilled(setup)
    (tally,) = account.tallies
    assert account.problems == []
    assert tally.absent == []


@pytest.mark.parametrize("lines", [["echo my wrapper"], ["date +%s%N", "echo", "echo '[0]'"]])
def test_a_wrapper_that_says_something_first(setup: Setup, lines: list[str]):
    (setup.top / "ben/empty").touch()
    command = wrapper(setup, *lines)
    setup.backup(setup.task(command=command), setup.top)
    remember(setup, setup.top, setup.top / "ben")
    account = drilled(setup, 10, command)
    (tally,) = account.tallies
    assert account.problems == []
    assert (tally.chosen, tally.identical) == (4, 4)


def deep(setup: Setup) -> None:
    """Make a backup of many files, three directories below the top."""
    for number in range(60):
        directory = setup.top / f"ann/{number % 5}/x"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{number}").write_text(f"one of many: {number}" * number)
    setup.backup(setup.task(), setup.top)
    remember(setup, setup.top, setup.top / "ann/1/x")


@pytest.mark.kopia
def test_kopia_restores_many_files_by_few_processes(kopia: Setup):
    deep(kopia)
    log = kopia.top.parent / "calls"
    account = drilled(kopia, 40, wrapper(kopia, f'echo "$1" >> {log}'))
    (tally,) = account.tallies
    assert account.problems == []
    assert (tally.chosen, tally.identical, tally.absent) == (40, 40, [])
    calls = log.read_text().split()
    # The list of backups; the directories of each depth; all files. How often that is of two
    # rounds is a matter of chance.
    assert calls.count("snapshot") == 1
    assert calls.count("restore") >= 1
    assert len(calls) <= 15


@pytest.mark.kopia
@pytest.mark.parametrize("line", [
    '[ "$1" != restore ] || exit 1',
    '[ "$1" != restore ] || exit 0',
    # It runs where there is no such directory.
    'case $1 in restore) shift; set -- restore /nonexistent/0.kopia-entry; esac',
])  # fmt: skip
def test_a_kopia_that_does_not_restore_what_we_ask_for(kopia: Setup, line: str):
    deep(kopia)
    account = drilled(kopia, 5, wrapper(kopia, line))
    (tally,) = account.tallies
    assert account.problems == []
    assert (tally.chosen, tally.identical, tally.absent) == (5, 5, [])


@pytest.mark.kopia
def test_the_classic_wrapper(kopia: Setup):
    """As in the README of the first kopiatomic: connect, and hand the words on."""
    path = kopia.top.parent / "kopia-mine"
    path.write_text(
        "#!/bin/sh\nexport KOPIA_PASSWORD='correct horse'\n"
        f"{kopia.path} repository connect filesystem --path={kopia.top.parent}/kopia\n"
        f'{kopia.path} "$@"\n'
    )
    path.chmod(0o755)
    del kopia.environment["KOPIA_PASSWORD"]
    os.unlink(kopia.environment["KOPIA_CONFIG_PATH"])
    command = [str(path), *client_of("kopiatomic").subcommand]
    task = kopia.task(command=command)
    assert task.client.repository(task.job, task.environment, task.script) == (
        f"{kopia.top.parent}/kopia"
    )
    itself, proof = kopia.backup(task, kopia.top)({kopia.top: True})
    assert itself
    assert proof.found == (str(kopia.top),)
    assert task.client.complaints(kopia.last["messages"]) == ""
    remember(kopia, kopia.top)
    account = drilled(kopia, 3, command)
    assert account.problems == []
    assert account.tallies[0].identical == 3
    assert "correct horse" not in drill.as_text(account)


def test_what_is_to_be_said_of_a_good_run(setup: Setup):
    for words in ((), ("--json",)):
        setup.backup(setup.task(*words), setup.top)
        assert client_of(setup.program).complaints(setup.last["messages"]) == ""


@pytest.mark.restic
def test_what_is_to_be_said_of_a_run_that_ended_well(restic: Setup):
    restic.environment["RESTIC_CACHE_DIR"] = "/dev/null/cache"
    for words in ((), ("--json",), ("--quiet",)):
        restic.backup(restic.task(*words), restic.top)
        said = client_of("restomic").complaints(restic.last["messages"])
        assert said.startswith("unable to open cache: ")
        assert "\n" not in said


@pytest.mark.kopia
def test_progress_is_not_said(kopia: Setup):
    kopia("policy", "set", "--ignore-unknown-types=false", str(kopia.top))
    os.mkfifo(kopia.top / "fifo")
    kopia.backup(kopia.task(), kopia.top, status=1)
    assert b"hashing" in kopia.last["messages"]
    said = client_of("kopiatomic").complaints(kopia.last["messages"]).split("\n")
    assert said[0].startswith('! Error when processing "fifo": unknown or unsupported entry type')
    assert said[1:] == [f"Found 1 fatal error(s) while snapshotting {said[1].split()[-1]}"]
