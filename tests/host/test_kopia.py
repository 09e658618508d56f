"""kopiatomic with the real kopia: section 1 of the design, measured."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime

import pytest
from support import tree
from support.machine import Machine, shell

from host.conftest import TOP, Repository, clean

pytestmark = pytest.mark.kopia


def kopiatomic(kopia: Repository, *words: str, status: int = 0, **variables: str) -> str:
    """Run kopiatomic, expect a status, expect it to be clean afterwards; return its output."""
    environment = {**kopia.environment, **variables}
    result = kopia.machine.run(["/usr/local/sbin/kopiatomic", *words], env=environment)
    assert result.returncode == status, result.stdout + result.stderr
    clean(kopia.machine)
    return result.stdout + result.stderr


def snapshots(kopia: Repository) -> list[dict[str, object]]:
    """Return the repository's snapshots, oldest first."""
    found = json.loads(kopia("snapshot", "list", "--json"))
    return sorted(found, key=lambda each: (each["startTime"], each["source"]["path"]))


def made_by(kopia: Repository, *words: str) -> list[dict[str, object]]:
    """Run kopiatomic and return the snapshots that it made, by path.

    Not by time: that is to the second, and two runs may begin in the same one.
    """
    before = {each["id"] for each in snapshots(kopia)}
    kopiatomic(kopia, *words)
    made = [each for each in snapshots(kopia) if each["id"] not in before]
    return sorted(made, key=lambda each: each["source"]["path"])


def root(snapshot: dict[str, object]) -> str:
    return snapshot["rootEntry"]["obj"]


def cached(snapshot: dict[str, object]) -> tuple[int, int]:
    """Return how many files were taken from the snapshot before, and how many were read."""
    stats = snapshot["stats"]
    return stats.get("cachedFiles", 0), stats.get("nonCachedFiles", 0)


def listing(kopia: Repository) -> list[str]:
    """Return what the newest snapshot holds, by relative name."""
    snapshot = snapshots(kopia)[-1]
    return [line.partition("/")[2] for line in kopia("ls", "-r", root(snapshot)).splitlines()]


def test_snapshots_bear_the_live_paths_and_the_moment(filled: Machine, kopia: Repository):
    before = int(time.time())
    kopiatomic(kopia, "-r", "kta/home", "kta/src", "-s", "date +%s > /tmp/kt-snapshot; sleep 2")
    marked = int(filled.path("/tmp/kt-snapshot").read_text())
    filled.path("/tmp/kt-snapshot").unlink()
    found = snapshots(kopia)
    assert [each["source"]["path"] for each in found] == [f"{TOP}/home", f"{TOP}/src"]
    for each in found:
        moment = datetime.fromisoformat(re.sub(r"\.\d+", "", each["startTime"])).timestamp()
        assert before <= moment <= marked


def test_a_run_continues_the_history_of_live_backups(filled: Machine, kopia: Repository):
    kopia("snapshot", "create", f"{TOP}/home", f"{TOP}/src")
    live_home, live_src = sorted(snapshots(kopia), key=lambda each: each["source"]["path"])
    home, src = made_by(kopia, "-r", "kta/home", "kta/src")
    assert (root(home), root(src)) == (root(live_home), root(live_src))
    assert cached(home)[1] == cached(src)[1] == 0
    assert cached(home)[0] > 0


def test_a_second_run_over_unchanged_data_finds_nothing(filled: Machine, kopia: Repository):
    (first,) = made_by(kopia, "-r", "kta")
    blobs = contents(kopia)
    (second,) = made_by(kopia, "-r", "kta")
    assert root(first) == root(second)
    assert cached(second)[1] == 0
    assert contents(kopia) == blobs


def contents(kopia: Repository) -> set[str]:
    """Return the ids of all file and directory contents in the repository."""
    listing = json.loads(kopia("content", "list", "--json"))
    # Contents that begin with m and n are manifests and indexes: one more for each snapshot.
    return {each["contentID"] for each in listing if each["contentID"][0] not in "mn"}


@pytest.mark.parametrize("second", [("kta/home",), ("kta/home", "kta/src", "kta/new")])
def test_another_selection_reads_nothing_again(filled: Machine, kopia: Repository, second):
    shell(filled, "zfs create kta/new")
    kopiatomic(kopia, "kta/home", "kta/src")
    made = made_by(kopia, *second)
    assert [cached(each)[1] for each in made] == [0] * len(second)


def test_what_is_restored_is_the_moment_and_not_the_change(filled: Machine, kopia: Repository):
    home = filled.path(f"{TOP}/home")
    expected = tree.picture(home, **tree.KEPT_BY_KOPIA)
    change = f"echo changed > {TOP}/home/docs/letter.txt; rm {TOP}/home/big; touch {TOP}/home/new"
    kopiatomic(kopia, "-r", "kta/home", "-s", change)
    assert not (home / "big").exists()
    kopia("restore", root(snapshots(kopia)[0]), f"{kopia.directory}/out")
    assert tree.picture(filled.path(f"{kopia.directory}/out"), **tree.KEPT_BY_KOPIA) == expected


def test_a_policy_on_live_paths_excludes(filled: Machine, kopia: Repository):
    kopia("policy", "set", f"{TOP}/home", "--add-ignore", "/ben/docs")
    assert ", some excluded\n" in kopiatomic(kopia, "-r", "kta/home")
    names = listing(kopia)
    assert "ben/big" in names
    assert "docs/letter.txt" in names
    assert not [name for name in names if name.startswith("ben/docs")]


def test_what_kopia_takes_for_a_cache_is_told(filled: Machine, kopia: Repository):
    assert "excluded" not in kopiatomic(kopia, "kta/src")
    cache = filled.path(f"{TOP}/src/cache")
    cache.mkdir()
    (cache / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
    (cache / "file").write_text("not kept")
    assert ", some excluded\n" in kopiatomic(kopia, "kta/src")
    assert "cache/file" not in listing(kopia)
    kopia("policy", "set", "--global", "--ignore-cache-dirs", "false")
    assert "excluded" not in kopiatomic(kopia, "kta/src")
    assert "cache/file" in listing(kopia)


def test_an_action_that_leads_a_backup_elsewhere(filled: Machine, kopia: Repository):
    """As those do that make snapshots of their own: what is saved is not what was captured."""
    elsewhere = "/kt/elsewhere"
    shell(filled, f"mkdir {elsewhere}; echo live > {elsewhere}/file")
    action = filled.path("/kt/action")
    action.write_text(f"#!/bin/sh\necho KOPIA_SNAPSHOT_PATH={elsewhere}\n")
    action.chmod(0o755)
    kopia("repository", "connect", "filesystem", "--path", f"{kopia.directory}/kopia",
          "--enable-actions")  # fmt: skip
    kopia("policy", "set", f"{TOP}/src", "--before-snapshot-root-action", "/kt/action")
    said = kopiatomic(kopia, "kta/src", "kta/home", status=65)
    assert f"kta/src ({TOP}/src) is not in the backup" in said
    assert "1 of 2 datasets found in the backup" in said
    action.write_text("#!/bin/sh\ntrue\n")
    kopiatomic(kopia, "kta/src", "kta/home")


def test_what_was_left_out_never_appears(filled: Machine, kopia: Repository):
    kopiatomic(kopia, "-r", "kta/home", "-x", "kta/home/ben")
    names = listing(kopia)
    assert "with space/note" in names
    assert [name for name in names if name.startswith("ben/")] == ["ben/"]


@pytest.mark.parametrize("command", ["snapshot create", "snapshot"])
def test_through_a_wrapper(filled: Machine, kopia: Repository, command):
    wrapper = filled.path(f"{kopia.directory}/kopia-myrepo")
    lines = [f"export {name}='{value}'" for name, value in kopia.environment.items()]
    wrapper.write_text("\n".join(["#!/bin/sh", *lines, 'exec kopia "$@"', ""]))
    wrapper.chmod(0o700)
    given = f"{kopia.directory}/kopia-myrepo {command}"
    result = filled.run(["/usr/local/sbin/kopiatomic", "-c", given, "kta/src"])
    assert result.returncode == 0, result.stderr
    assert [each["source"]["path"] for each in snapshots(kopia)] == [f"{TOP}/src"]


def test_failure_passes_kopias_status_on(filled: Machine, kopia: Repository):
    output = kopiatomic(kopia, "-o", "--nosuch", "kta/src", status=1)
    assert "kopiatomic: the backup FAILED" in output


def test_figures_in_json(filled: Machine, kopia: Repository):
    result = filled.run(
        ["/usr/local/sbin/kopiatomic", "--json", "kta/src"], env=kopia.environment
    )
    report = json.loads(result.stdout)
    assert report["outcome"] == "success"
    assert report["client"]["files"] == 1
    assert report["client"]["snapshots"] == [snapshots(kopia)[0]["id"]]
