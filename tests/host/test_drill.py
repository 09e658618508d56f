"""The restore drill with real clients, hostile names and damaged repositories."""

from __future__ import annotations

import json
import os
import time

import pytest
from support.machine import Machine, shell

from host.conftest import TOP, Repository
from host.test_upkeep import call, damage, noise

NAMES = [
    "sp ace", "new\nline", "gl*b?[a]", "-rf", "quote\"'\\back", "tab\t", "\x01", "$(id)", "ümläut",
    "\u2028", "\\ufffd", "\ufffd", "%s", "a" * 200,
]  # fmt: skip


@pytest.fixture(params=[pytest.param("restic", marks=pytest.mark.restic),
                        pytest.param("kopia", marks=pytest.mark.kopia)])  # fmt: skip
def repository(request: pytest.FixtureRequest, filled: Machine) -> Repository:
    """A repository of each client, on a machine with files."""
    found: Repository = request.getfixturevalue(request.param)
    return found


def drilled(repository: Repository, count: int, *words: str, status: int = 0) -> dict:
    """Run a drill and return its account; expect that its scratch directory has gone."""
    out, _ = call(repository, "--drill", str(count), "--json", *words, status=status)
    left = os.listdir(repository.machine.path("/var/db/kopiatomic"))
    assert not [name for name in left if name.startswith("drill.")]
    return json.loads(out)


def hostile(machine: Machine) -> None:
    """Put files with hostile names into directories with hostile names."""
    for directory in ("", "/-d *", "/[new]\nline"):
        top = machine.path(f"{TOP}/src{directory}")
        top.mkdir(exist_ok=True)
        # restic(1) is started for each file: one will do where the directory's name is hostile.
        for name in NAMES[:1] if directory else NAMES:
            (top / name).write_text(f"{directory} {name}")


def test_hostile_names_come_back(repository: Repository):
    machine = repository.machine
    hostile(machine)
    call(repository, "kta/src")
    account = drilled(repository, 100)
    (source,) = account["sources"]
    assert source["chosen"] == len(NAMES) + 2 + 1
    assert (source["identical"], source["restored"]) == (source["chosen"], source["chosen"])
    assert account["outcome"] == "success"
    assert account["problems"] == []


def test_each_source_has_its_drill(repository: Repository):
    call(repository, "kta/home/ben")
    call(repository, "kta/src")
    account = drilled(repository, 1)
    assert sorted(source["title"] for source in account["sources"]) == [
        f"{TOP}/home/ben", f"{TOP}/src",
    ]  # fmt: skip
    assert [source["identical"] for source in account["sources"]] == [1, 1]


def test_only_the_newest_backup_is_drilled(repository: Repository):
    machine = repository.machine
    call(repository, "kta/src")
    machine.path(f"{TOP}/src/main.c").write_text("int main(void) { return 1; }\n")
    time.sleep(1.0)  # a backup's moment is told to the second
    call(repository, "kta/src")
    (source,) = drilled(repository, 9)["sources"]
    assert (source["chosen"], source["identical"]) == (1, 1)


def test_an_earlier_selection_is_not_drilled_for_good(repository: Repository):
    """Of what is chosen no more, kopia has a source, and restic a set of paths."""
    call(repository, "kta/src", "kta/home/ben")
    time.sleep(1.0)  # a backup's moment is told to the second
    call(repository, "kta/src", "kta/home/with space")
    titles = sorted(source["title"] for source in drilled(repository, 1)["sources"])
    home, src = f"{TOP}/home", f"{TOP}/src"
    if repository.client.endswith("kopia"):
        assert titles == [f"{home}/ben", f"{home}/with space", src]
    else:
        assert titles == [f"{home}/with space, {src}"]


def test_a_changed_live_file_is_no_difference(repository: Repository):
    machine = repository.machine
    call(repository, "kta/src")
    machine.path(f"{TOP}/src/main.c").write_text("int main(void) { return 1; }\n")
    account = drilled(repository, 5)
    assert account["status"] == 0
    (source,) = account["sources"]
    assert (source["restored"], source["identical"]) == (1, 0)
    assert source["changed_since"] == [f"{TOP}/src/main.c"]


def test_a_deleted_file_still_comes_back(repository: Repository):
    call(repository, "kta/src")
    repository.machine.path(f"{TOP}/src/main.c").unlink()
    (source,) = drilled(repository, 5)["sources"]
    assert (source["restored"], len(source["changed_since"])) == (1, 1)


@pytest.mark.freebsd  # the sandbox shows .zfs to mount_nullfs only
def test_a_change_is_bridged_by_a_zfs_snapshot(repository: Repository):
    machine = repository.machine
    shell(machine, "zfs snapshot kta/src@hourly")
    call(repository, "kta/src")
    machine.path(f"{TOP}/src/main.c").write_text("int main(void) { return 1; }\n")
    (source,) = drilled(repository, 5)["sources"]
    assert (source["restored"], source["identical"]) == (1, 1)


def test_a_damaged_repository_is_found(repository: Repository):
    machine = repository.machine
    noise(machine, f"{TOP}/src/noise")
    call(repository, "kta/src")
    damage(repository)
    account = drilled(repository, 50, status=1)
    assert account["outcome"] == "failed"
    assert f"{TOP}/src/noise: cannot be restored" in "\n".join(account["problems"])


def test_the_seed_chooses_the_same_again(repository: Repository):
    call(repository, "-r", "kta/home")
    shell(repository.machine, f"find {TOP}/home -type f -exec touch '{{}}' +")

    def chosen(seed: int) -> list[str]:
        account = drilled(repository, 3, "--seed", str(seed))
        assert account["seed"] == seed
        return [path for source in account["sources"] for path in source["changed_since"]]

    assert chosen(5) == chosen(5)
    assert len({tuple(chosen(seed)) for seed in range(3)}) > 1


def test_large_files_are_passed_over(repository: Repository):
    noise(repository.machine, f"{TOP}/src/noise")
    call(repository, "kta/src")
    (source,) = drilled(repository, 5, "--size-limit", "1M")["sources"]
    assert (source["chosen"], source["too_large"]) == (1, 1)


def test_the_report(repository: Repository):
    call(repository, "kta/src")
    out, err = call(repository, "--drill", "5", "--seed", "42")
    assert ": the restore drill succeeded, " in out.splitlines()[0]
    assert "  1 of 1 files restored identical\n" in out
    assert "--seed 42 " in out
    assert err == ""


@pytest.mark.restic
def test_names_that_are_not_utf8(filled: Machine, restic: Repository):
    top = os.fsencode(filled.path(f"{TOP}/src"))
    with open(top + b"/\xff\xfe", "wb") as file:
        file.write(b"x")
    call(restic, "kta/src")
    (source,) = drilled(restic, 5)["sources"]
    assert (source["chosen"], source["identical"], source["unnamed"]) == (1, 1, 1)


def test_no_backup_is_trouble(repository: Repository):
    account = drilled(repository, 5, status=66)
    assert "no backup of this machine" in account["problems"][0]
