"""restomic with the real restic: section 1 of the design, measured."""

from __future__ import annotations

import json
import re
import sys
import time
from datetime import datetime

import pytest
from support import clients, tree
from support.machine import Machine, shell

from host.conftest import TOP, Repository, clean

pytestmark = pytest.mark.restic

# Feature flags came with 0.17; before, each new device number is a change.
modern = pytest.mark.skipif(
    tuple(map(int, (clients.version("restic") or "0").split("."))) < (0, 17),
    reason="this restic has no device-id-for-hardlinks (0.17)",
)
LINK_TIMES = not sys.platform.startswith("freebsd")


def restomic(restic: Repository, *words: str, status: int = 0, **variables: str) -> str:
    """Run restomic, expect a status, expect it to be clean afterwards; return its output."""
    environment = {**restic.environment, **variables}
    result = restic.machine.run(["/usr/local/sbin/restomic", *words], env=environment)
    assert result.returncode == status, result.stdout + result.stderr
    clean(restic.machine)
    return result.stdout + result.stderr


def changes(output: str) -> tuple[int, int, int, int, str]:
    """Return files new, changed; directories new, changed; bytes added, from restic's lines."""
    files = re.search(r"^Files: +(\d+) new, +(\d+) changed", output, re.M)
    dirs = re.search(r"^Dirs: +(\d+) new, +(\d+) changed", output, re.M)
    added = re.search(r"^Added to the repo\w*: ([\d.]+ \w+)", output, re.M)
    assert files, output
    assert dirs
    assert added
    return int(files[1]), int(files[2]), int(dirs[1]), int(dirs[2]), added[1]


NOTHING = (0, 0, 0, 0, "0 B")


def without_device_numbers(machine: Machine) -> None:
    """Remove the files with which restic stores a device number, new for each nullfs mount.

    Even with its feature for that, it does so for files of several links, fifos and sockets.
    """
    for top in (f"{TOP}/home", f"{TOP}/home/ben"):
        shell(machine, f"rm '{top}/docs/the same letter' {top}/fifo")


def snapshots(restic: Repository) -> list[dict[str, object]]:
    return json.loads(restic("snapshots", "--json"))


def moment_of(snapshot: dict[str, object]) -> float:
    """Return a backup's time, which restic tells in the local one."""
    return datetime.fromisoformat(re.sub(r"\.\d+", "", str(snapshot["time"]))).timestamp()


def test_snapshots_bear_the_live_paths_and_the_moment(filled: Machine, restic: Repository):
    before = time.time()
    restomic(restic, "-r", "kta/home", "kta/src")
    after = time.time()
    (snapshot,) = snapshots(restic)
    assert snapshot["paths"] == [f"{TOP}/home", f"{TOP}/src"]
    assert int(before) <= moment_of(snapshot) <= after


def test_the_moment_is_the_snapshots_and_not_the_backups(filled: Machine, restic: Repository):
    restomic(restic, "kta/src", "-s", "date +%s > /tmp/kt-snapshot; sleep 2")
    marked = int(filled.path("/tmp/kt-snapshot").read_text())
    filled.path("/tmp/kt-snapshot").unlink()
    assert marked - 1 <= moment_of(snapshots(restic)[0]) <= marked


def live_backup(restic: Repository) -> None:
    """Back up the live files, and let its second pass.

    restic takes no parent that is newer than --time, which has no fractions.
    """
    restic("backup", f"{TOP}/home", f"{TOP}/src")
    time.sleep(1.0)


@modern
def test_a_run_continues_the_history_of_live_backups(filled: Machine, restic: Repository):
    without_device_numbers(filled)
    restic.environment["RESTIC_FEATURES"] = "device-id-for-hardlinks=true"
    live_backup(restic)
    output = restomic(restic, "-r", "kta/home", "kta/src")
    assert "using parent snapshot" in output
    assert changes(output) == NOTHING


def test_after_a_live_backup_without_the_feature_no_file_is_read(
    filled: Machine, restic: Repository
):
    live_backup(restic)
    output = restomic(restic, "-r", "kta/home", "kta/src")
    assert "using parent snapshot" in output
    assert changes(output)[:3] == (0, 0, 0)


@modern
def test_a_second_run_over_unchanged_data_finds_nothing(filled: Machine, restic: Repository):
    without_device_numbers(filled)
    restomic(restic, "-r", "kta")
    assert changes(restomic(restic, "-r", "kta")) == NOTHING


def test_hard_links_and_fifos_cost_a_second_run_no_file(filled: Machine, restic: Repository):
    restomic(restic, "-r", "kta/home")
    assert changes(restomic(restic, "-r", "kta/home"))[:3] == (0, 0, 0)


@modern
@pytest.mark.parametrize("second", [("kta/home",), ("kta/home", "kta/src", "kta/new")])
def test_another_selection_reads_nothing_again(filled: Machine, restic: Repository, second):
    shell(filled, "zfs create kta/new")
    restomic(restic, "kta/home", "kta/src")
    files_new, files_changed, _, _, _ = changes(restomic(restic, *second))
    assert (files_new, files_changed) == (0, 0)


def test_what_is_restored_is_the_moment_and_not_the_change(filled: Machine, restic: Repository):
    home = filled.path(f"{TOP}/home")
    expected = tree.picture(home, symlink_times=LINK_TIMES)
    change = (
        f"echo changed > {TOP}/home/docs/letter.txt; rm {TOP}/home/big; "
        f"touch {TOP}/home/ben/new; rmdir {TOP}/home/hollow"
    )
    restomic(restic, "-r", "kta/home", "-s", change)
    assert not (home / "big").exists()
    restic("restore", "latest", "--target", f"{restic.directory}/out")
    restored = filled.path(f"{restic.directory}/out{TOP}/home")
    assert tree.picture(restored, symlink_times=LINK_TIMES) == expected


@pytest.mark.parametrize("how", ["option", "file"])
def test_excludes_written_for_live_paths(filled: Machine, restic: Repository, how):
    if how == "file":
        filled.path(f"{restic.directory}/excludes").write_text(f"{TOP}/home/ben/docs\n")
        options = f"--exclude-file {restic.directory}/excludes"
    else:
        options = f"--exclude {TOP}/home/ben/docs"
    restomic(restic, "-r", "kta/home", "-o", options)
    listing = restic("ls", "latest")
    assert f"{TOP}/home/ben/big" in listing
    assert f"{TOP}/home/docs/letter.txt" in listing
    assert f"{TOP}/home/ben/docs" not in listing


def test_the_users_own_features_survive(filled: Machine, restic: Repository):
    wrapper = filled.path(f"{restic.directory}/restic-show")
    wrapper.write_text('#!/bin/sh\necho "features: $RESTIC_FEATURES"\nexec restic "$@"\n')
    wrapper.chmod(0o755)
    own = "explicit-s3-anonymous-auth=true"
    output = restomic(
        restic, "kta/src", "-c", f"{restic.directory}/restic-show backup", RESTIC_FEATURES=own
    )
    assert f"features: {own},device-id-for-hardlinks=true" in output


def test_through_a_wrapper(filled: Machine, restic: Repository):
    repository, password = restic.environment.values()
    wrapper = filled.path(f"{restic.directory}/restic-myrepo")
    wrapper.write_text(
        f"#!/bin/sh\nexport RESTIC_REPOSITORY={repository}\nexport RESTIC_PASSWORD='{password}'\n"
        'exec restic "$@"\n'
    )
    wrapper.chmod(0o700)
    result = filled.run(
        ["/usr/local/sbin/restomic", "-c", f"{restic.directory}/restic-myrepo backup", "kta/src"]
    )
    assert result.returncode == 0, result.stderr
    (snapshot,) = snapshots(restic)
    assert snapshot["paths"] == [f"{TOP}/src"]


def test_what_was_left_out_never_appears(filled: Machine, restic: Repository):
    filled.path(f"{TOP}/home/ben/left-out").write_text("live")
    restomic(restic, "-r", "kta/home", "-x", "kta/home/ben")
    listing = restic("ls", "latest").splitlines()
    assert f"{TOP}/home/ben" in listing
    assert not [line for line in listing if line.startswith(f"{TOP}/home/ben/")]
    assert f"{TOP}/home/with space/note" in listing


def test_a_gap_is_bridged(filled: Machine, restic: Repository):
    shell(filled, "zfs create kta/home/ben/data; zfs create kta/home/ben/data/deep")
    filled.path(f"{TOP}/home/ben/data/deep/f").write_text("deep")
    restomic(restic, "kta/home", "kta/home/ben/data/deep")
    listing = restic("ls", "latest").splitlines()
    assert f"{TOP}/home/ben/data/deep/f" in listing
    assert f"{TOP}/home/ben/big" not in listing


def test_failure_passes_restics_status_on(filled: Machine, restic: Repository):
    output = restomic(restic, "kta/src", status=12, RESTIC_PASSWORD="not this one")
    assert "restomic: the backup FAILED" in output
    assert "the repository's password is wrong" in output


def test_a_repository_within_the_frozen_is_refused(filled: Machine, restic: Repository):
    shell(filled, f"mkdir {TOP}/src/repo")
    output = restomic(
        restic, "kta/src", status=78, RESTIC_REPOSITORY=f"{TOP}/src/repo"
    )
    assert f"--live {TOP}/src/repo" in output


def test_a_repository_within_the_frozen_works_when_it_is_live(filled: Machine, restic: Repository):
    own = {**restic.environment, "RESTIC_REPOSITORY": f"{TOP}/src/repo"}
    assert filled.run(["restic", "init"], env=own).returncode == 0
    restomic(restic, "kta/src", "--live", f"{TOP}/src/repo", **own)
    listing = filled.run(["restic", "ls", "latest"], env=own).stdout.splitlines()
    assert f"{TOP}/src/main.c" in listing
    assert not [line for line in listing if line.startswith(f"{TOP}/src/repo/")]


def test_figures_in_json(filled: Machine, restic: Repository):
    result = filled.run(
        ["/usr/local/sbin/restomic", "--json", "kta/src"], env=restic.environment
    )
    report = json.loads(result.stdout)
    assert report["outcome"] == "success"
    assert report["client"]["files"] == 1
    assert report["client"]["snapshots"] == [snapshots(restic)[0]["short_id"]]
    assert report["captured"] == [{"dataset": "kta/src", "mountpoint": f"{TOP}/src"}]
