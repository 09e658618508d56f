"""What upkeep removes of real repositories: a job's backups, and nobody else's."""

from __future__ import annotations

import json
import os
import re

import pytest
from support.machine import Machine, shell

from host.conftest import TOP, Repository, clean
from host.ongoing import patched


def call(
    repository: Repository, *words: str, status: int = 0, program: str = "", **environment: str
) -> str:
    """Run restomic or kopiatomic and return all that it printed."""
    installed = {"restic": "restomic", "kopia": "kopiatomic"}[repository.client]
    program = program or f"/usr/local/sbin/{installed}"
    variables = {**repository.environment, **environment}
    result = repository.machine.run([program, *words], env=variables)
    assert result.returncode == status, result.stdout + result.stderr
    clean(repository.machine)
    return result.stdout + result.stderr


def listed(restic: Repository) -> list[dict[str, object]]:
    return json.loads(restic("snapshots", "--json"))


def of(restic: Repository, job: str) -> list[dict[str, object]]:
    """Return the backups with the tag of a job."""
    return [each for each in listed(restic) if f"restomic:{job}" in (each.get("tags") or [])]


def untagged(restic: Repository) -> None:
    """Take the tags of all jobs from the backups, as if they were older than the tags."""
    tags = {tag for each in listed(restic) for tag in each.get("tags") or []}
    for tag in tags:
        if str(tag).startswith("restomic:"):
            restic("tag", "--remove", str(tag))


def forget_commands(machine: Machine, job: str = "default") -> None:
    """Let the history of a job be that of a version that gave no tags."""
    path = machine.path(f"/var/db/kopiatomic/restomic.{job}.history")
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    for entry in entries:
        entry["client"]["command"] = ["restic", "backup"]
        del entry["client_runs"]
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))


@pytest.mark.restic
class TestRestic:
    def test_a_selection_that_changes_each_time(self, filled: Machine, restic: Repository):
        for selection in ("kta/src", "kta/home", "kta/src kta/home", "kta/home/ben"):
            call(restic, *selection.split())
        assert len({tuple(each["paths"]) for each in listed(restic)}) == 4
        last = {each["id"] for each in listed(restic)[-2:]}
        out = call(restic, "--upkeep", "--forget", "--keep-last 2", "--prune")
        assert "forget and prune  ok" in out
        assert {each["id"] for each in listed(restic)} == last
        restic("check")

    def test_a_job_leaves_others_alone(self, filled: Machine, restic: Repository):
        for _ in range(3):
            call(restic, "-j", "one", "kta/src")
            call(restic, "-j", "two", "kta/src", "-o", "--tag nightly")
        restic("backup", f"{TOP}/src")
        restic("backup", "--host", "elsewhere", "--tag", "restomic:one", f"{TOP}/src")
        call(restic, "--upkeep", "-j", "one", "--forget", "--keep-last 1")
        assert len(of(restic, "two")) == 3
        assert all("nightly" in each["tags"] for each in of(restic, "two"))
        assert len(of(restic, "one")) == 2
        assert {each["hostname"] for each in of(restic, "one")} > {"elsewhere"}
        assert len(listed(restic)) == 6

    def test_backups_from_before_the_tag_are_taken_along(
        self, filled: Machine, restic: Repository
    ):
        call(restic, "kta/src")
        call(restic, "kta/src", "kta/home")
        call(restic, "-j", "other", "-r", "kta/home")
        untagged(restic)
        forget_commands(filled)
        forget_commands(filled, "other")
        restic("backup", "--host", "elsewhere", f"{TOP}/src")
        restic("backup", "--host", os.uname().nodename, f"{TOP}/home/docs")
        call(restic, "kta/src")
        out = call(restic, "--upkeep", "--forget", "--keep-last 2")
        assert "give 2 earlier backups the tag restomic:default" in out
        assert len(of(restic, "default")) == 2
        assert len(listed(restic)) == 5
        again = call(restic, "--upkeep", "--forget", "--keep-last 2")
        assert "earlier backup" not in again

    def test_what_two_jobs_may_have_made_stays(self, filled: Machine, restic: Repository):
        for job in ("one", "two"):
            call(restic, "-j", job, "kta/src")
        untagged(restic)
        for job in ("one", "two"):
            forget_commands(filled, job)
            path = filled.path(f"/var/db/kopiatomic/restomic.{job}.history")
            entry = json.loads(path.read_text())
            entry["client"]["snapshots"] = []
            path.write_text(json.dumps(entry) + "\n")
        call(restic, "-j", "one", "kta/src")
        out = call(restic, "-j", "one", "--upkeep", "--forget", "--keep-last 1")
        assert "2 earlier backups without a tag may be of this job or of another" in out
        assert len(listed(restic)) == 3

    def test_by_hand_once_there_are_tags(self, filled: Machine, restic: Repository):
        call(restic, "kta/src")
        restic("backup", f"{TOP}/src")
        call(restic, "kta/src")
        call(restic, "--upkeep", "--forget", "--keep-last 1")
        assert len(listed(restic)) == 2
        assert len(of(restic, "default")) == 1

    def test_the_last_whole_backup_is_not_pushed_out(self, filled: Machine, restic: Repository):
        """By those that lack something, as on nights when a file cannot be read."""
        lacking = ("-r", "kta", "-o", f"--exclude {TOP}/home/*")
        call(restic, "-r", "kta")
        for _ in range(2):
            call(restic, *lacking, status=65)
        before = listed(restic)
        flags = ("--upkeep", "--verify", "0", "--forget", "--keep-last 2", "--prune")
        out = call(restic, *flags, status=65)
        assert f"because the last whole backup, {before[0]['short_id']} of " in out
        assert re.search(r"^  check +ok, .*\n  forget and prune +not run$", out, re.M), out
        assert listed(restic) == before
        call(restic, *flags[:-2], "--keep-last 3")
        assert listed(restic) == before
        call(restic, "-r", "kta")
        call(restic, *flags)
        assert len(listed(restic)) == 2

    def test_the_users_own_flags(self, filled: Machine, restic: Repository):
        for tag in ("day", "night", "day", "night"):
            call(restic, "kta/src", "-o", f"--tag {tag}")
            call(restic, "-j", "other", "kta/src", "-o", f"--tag {tag}")
        call(restic, "--upkeep", "--forget", "--keep-last 1 --tag day")
        left = sorted(each["tags"][-1] for each in of(restic, "default"))
        assert left == ["day", "night", "night"]
        call(restic, "--upkeep", "--forget", "--keep-last 1 --group-by tags")
        assert len(of(restic, "default")) == 2
        assert len(of(restic, "other")) == 4
        call(restic, "--upkeep", "--forget", "--keep-last 1 --host elsewhere")
        assert len(of(restic, "default")) == 2
        before = listed(restic)
        out = call(restic, "--upkeep", "--forget", "--keep-last 1 --dry-run")
        assert "Would have removed" in out
        assert listed(restic) == before
        for words in ("--keep-last 1 --host ''", "--keep-last 1 --tag ''"):
            call(restic, "--upkeep", "--forget", words, status=64)
        assert listed(restic) == before

    def test_other_names_and_times(self, filled: Machine, restic: Repository):
        """The parent, the proof and the drill find backups by host, paths and time."""
        options = "--host vault --tag a,b --time '2026-01-02 03:04:05'"
        for _ in range(2):
            out = call(restic, "kta/src", "kta/home", "-o", options)
            assert "2 of 2 datasets found in the backup" in out
        assert "using parent snapshot" in out
        out = call(restic, "--drill", "2", "-o", "--host vault")
        assert "2 of 2 files restored identical" in out
        call(restic, "--upkeep", "--forget", "--keep-last 1", "-o", "--host vault")
        (left,) = listed(restic)
        assert left["tags"] == ["restomic:default", "a", "b"]


@pytest.mark.restic
class TestLocks:
    def leave(self, restic: Repository) -> None:
        """Have a restic killed while it holds a lock."""
        held = "restic list --no-lock locks | grep -q ."
        slow = f"restic backup --limit-upload 1 {TOP}/home/big & until {held}; do :; done"
        restic.machine.run(["/bin/sh", "-c", f"{slow}; kill -9 $!"], env=restic.environment)
        assert restic("list", "--no-lock", "locks").strip()

    @pytest.fixture(autouse=True)
    def left(self, filled: Machine, restic: Repository) -> None:
        call(restic, "kta/src")
        shell(filled, f"dd if=/dev/urandom of={TOP}/home/big bs=1048576 count=8 2>/dev/null")
        self.leave(restic)

    def test_a_young_one_stays(self, restic: Repository):
        """It could be that of a machine with the same name, where the process lives."""
        out = call(restic, "--upkeep", "--verify", "0", status=11)
        assert "lock without a process: that of process" in out
        assert "the repository is locked by PID" in out
        assert restic("list", "--no-lock", "locks").strip()

    def test_a_stale_one_is_removed_and_told(self, filled: Machine, restic: Repository):
        # There is no waiting for it to grow old.
        old = "from kopiatomic.clients import restic_locks\nrestic_locks._RENEWED = 0\n"
        out = call(restic, "--upkeep", "--verify", "0", program=patched(filled, old))
        assert "stale lock: that of process" in out
        assert "restic removed 1 stale lock" in out
        assert not restic("list", "--no-lock", "locks").strip()
        assert "stale" not in call(restic, "--upkeep", "--verify", "0")


@pytest.mark.kopia
class TestKopia:
    def test_a_source_that_is_given_up_is_told(self, filled: Machine, kopia: Repository):
        call(kopia, "kta/src", "kta/home")
        kopia("snapshot", "create", f"{TOP}/home/docs")
        assert "no job backs up" not in call(kopia, "--upkeep", "--verify", "0")
        call(kopia, "kta/src")
        out = call(kopia, "--upkeep", "--verify", "0")
        (line,) = [each for each in out.splitlines() if "no job backs up" in each]
        assert f":{TOP}/home any more, and kopia keeps 1 backup of it" in line
        command = line.rpartition("for a while: ")[2]
        result = filled.run(["/bin/sh", "-c", command], env=kopia.environment)
        assert result.returncode == 0, result.stderr
        left = {each["source"]["path"] for each in json.loads(kopia("snapshot", "list", "--json"))}
        assert left == {f"{TOP}/src", f"{TOP}/home/docs"}
        assert "no job backs up" not in call(kopia, "--upkeep", "--verify", "0")
