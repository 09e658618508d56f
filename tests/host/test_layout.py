"""The layout comes along, and a pool is made anew from it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support import tree
from support.machine import Machine, shell

from host.anew import (
    ALTROOT,
    BY_SED,
    LATER,
    PROGRAMS,
    back_up,
    dump,
    names,
    properties,
    restore,
)  # fmt: skip
from host.conftest import POOL, TOP, Repository


@pytest.fixture(autouse=True)
def with_layouts(request: pytest.FixtureRequest) -> None:
    """Let runs save the layout, as they do."""
    if "machine" in request.fixturenames:
        request.getfixturevalue("machine").layouts = True


@pytest.fixture(params=[pytest.param(name, marks=getattr(pytest.mark, name)) for name in PROGRAMS])
def repository(request: pytest.FixtureRequest) -> Repository:
    return request.getfixturevalue(request.param)


def saved(made: Repository) -> list[str]:
    """Return the names of the layouts in a repository."""
    if made.client == "restic":
        listed = json.loads(made("snapshots", "--json"))
        return [each["paths"][0] for each in listed if each["paths"][0].startswith("/kopiatomic/")]
    listed = json.loads(made("snapshot", "list", "--all", "--json"))
    paths = [each["source"]["path"] for each in listed]
    return [path for path in paths if path.startswith("/kopiatomic/")]


def without_streams(made: Repository, instead: str) -> str:
    """Return the command of a wrapper that does something else than to store a stream."""
    wrapper = made.machine.path(f"{made.directory}/wrapper")
    wrapper.write_text(
        f'#!/bin/sh\ncase "$*" in *--stdin*) {instead};; esac\nexec {made.client} "$@"\n'
    )
    wrapper.chmod(0o755)
    verb = {"restic": "backup", "kopia": "snapshot create"}[made.client]
    return f"{made.directory}/wrapper {verb}"


def forget_looks(machine: Machine) -> None:
    """Let the last look at the layout be of yesterday."""
    for path in machine.path("/var/db/kopiatomic").glob("*.history"):
        text = re.sub(r'"looked": [0-9.]+', '"looked": 1000.0', path.read_text())
        path.write_text(text)


class TestSaving:
    def test_once_and_as_a_backup_of_its_own(self, filled: Machine, repository: Repository):
        said = back_up(repository, "kta/src")
        assert "the layout of the pools is saved as " in said
        assert saved(repository) == ["/kopiatomic/layout/default.json"]
        assert "layout" not in back_up(repository, "kta/src")
        forget_looks(filled)
        assert "layout" not in back_up(repository, "kta/src")
        assert len(saved(repository)) == 1

    def test_again_when_it_has_changed(self, filled: Machine, repository: Repository):
        back_up(repository, "kta/src")
        shell(filled, f"zfs set quota=67108864 {POOL}/src")
        forget_looks(filled)
        said = back_up(repository, "kta/src")
        assert "the layout of the pools has changed and is saved as " in said
        held = json.loads(dump(repository))
        (source,) = [each for each in held["datasets"] if each["name"] == f"{POOL}/src"]
        assert source["properties"] == {"quota": "67108864"}

    @pytest.mark.restic
    def test_again_where_the_repository_is_made_anew(self, filled: Machine, restic: Repository):
        """Its name says nothing of it, and neither does a backup of the files that succeeds."""
        back_up(restic, "kta/src")
        place = restic.environment["RESTIC_REPOSITORY"]
        shell(filled, f"mv {place} {place}.lost; restic init", env=restic.environment)
        forget_looks(filled)
        said = back_up(restic, "kta/src")
        assert "the layout of the pools was not in the repository any more and is saved as" in said
        assert saved(restic) == ["/kopiatomic/layout/default.json"]
        forget_looks(filled)
        assert "layout" not in back_up(restic, "kta/src")
        told = filled.run(["/usr/local/sbin/restomic", "--status", "--full"]).stdout
        assert "Layout of the pools of default:\n  saved " in told

    def test_again_where_it_was_removed_by_hand(self, filled: Machine, repository: Repository):
        back_up(repository, "kta/src")
        if repository.client == "restic":
            repository("forget", "--tag", "restomic:default:layout", "--unsafe-allow-remove-all")
        else:
            listed = json.loads(repository("snapshot", "list", "--all", "--json"))
            (layout,) = [x for x in listed if x["source"]["path"].startswith("/kopiatomic/")]
            repository("snapshot", "delete", "--delete", layout["id"])
        assert saved(repository) == []
        forget_looks(filled)
        assert "was not in the repository any more" in back_up(repository, "kta/src")
        assert saved(repository) == ["/kopiatomic/layout/default.json"]

    @pytest.mark.restic
    def test_again_where_the_job_is_led_to_another_repository(
        self, filled: Machine, restic: Repository
    ):
        back_up(restic, "kta/src")
        other = {"RESTIC_REPOSITORY": f"{restic.directory}/other"}
        result = filled.run(["restic", "init"], env={**restic.environment, **other})
        assert result.returncode == 0, result.stderr
        assert "the layout of the pools is saved as " in back_up(restic, "kta/src", **other)
        assert "layout" not in back_up(restic, "kta/src", **other)

    def test_a_mark_on_datasets_takes_nothing_out_of_it(self, filled: Machine, repository):
        shell(filled, f"zfs set org.kopiatomic:run=x {POOL}")
        try:
            said = back_up(repository, "kta/src")
        finally:
            shell(filled, f"zfs inherit org.kopiatomic:run {POOL}")
        assert "is saved as" in said
        assert "internal error" not in said
        names = {each["name"] for each in json.loads(dump(repository))["datasets"]}
        assert {POOL, f"{POOL}/src", f"{POOL}/home/ben"} <= names

    def test_no_secret_gets_into_it(self, filled: Machine, repository: Repository):
        secret = "correct horse"
        assert secret in repository.environment.values()
        shell(filled, f"zfs set org.x:note='it is {secret}' {POOL}/src")
        shell(filled, f"zpool set comment='TOKEN=geheim' {POOL}")
        try:
            said = back_up(repository, "kta/src")
        finally:
            shell(filled, f"zpool set comment= {POOL}")
        assert f"the comment of the pool {POOL}, which may hold a secret" in said
        text = dump(repository)
        assert secret not in text
        assert "geheim" not in text
        assert "org.x:note" in text

    def test_it_holds_the_pools_that_the_job_captures(self, filled: Machine, repository):
        filled.make_pool("ktb")
        back_up(repository, "kta/src")
        assert [each["name"] for each in json.loads(dump(repository))["pools"]] == ["kta"]

    def test_of_each_job_by_its_name(self, filled: Machine, repository: Repository):
        back_up(repository, "-j", "home", "kta/src")
        assert saved(repository) == ["/kopiatomic/layout/home.json"]

    def test_not_without_being_asked(self, filled: Machine, repository: Repository):
        said = back_up(repository, "--no-layout", "kta/src")
        assert "layout" not in said
        assert saved(repository) == []

    def test_not_where_the_files_are_not_in_a_backup(self, filled: Machine, repository: Repository):
        program = f"/usr/local/sbin/{PROGRAMS[repository.client]}"
        key = "RESTIC_PASSWORD" if repository.client == "restic" else "KOPIA_CONFIG_PATH"
        environment = {**repository.environment, key: "/nowhere"}
        result = filled.run([program, "kta/src"], env=environment)
        assert result.returncode != 0
        assert "layout" not in result.stdout
        assert saved(repository) == []

    def test_a_client_that_cannot_is_a_note(self, filled: Machine, repository: Repository):
        command = without_streams(repository, "echo no room >&2; exit 5")
        said = back_up(repository, "-c", command, "kta/src")
        assert "the layout of the pools was not saved: exit status 5, no room" in said
        assert "the backup succeeded" in said
        assert "the layout of the pools is saved" in back_up(repository, "kta/src")

    def test_what_is_not_in_the_repository_is_saved_again(self, filled: Machine, repository):
        """A wrapper may end well and have saved nothing."""
        words = ("-c", without_streams(repository, "exec cat >/dev/null"), "kta/src")
        for _ in range(2):
            said = back_up(repository, *words)
            assert "the layout of the pools was not saved: " in said
        assert "the layout of the pools is saved" in back_up(repository, "kta/src")
        assert saved(repository) == ["/kopiatomic/layout/default.json"]

    @pytest.mark.restic
    def test_the_latest_backup_is_the_one_with_the_files(self, filled: Machine, restic: Repository):
        back_up(restic, "kta/src")
        assert restic("ls", "latest").splitlines()[-1] == f"{TOP}/src/main.c"

    @pytest.mark.restic
    def test_forgetting_keeps_both(self, filled: Machine, restic: Repository):
        back_up(restic, "kta/src")
        back_up(restic, "kta/src")
        result = filled.run(
            ["/usr/local/sbin/restomic", "--upkeep", "--forget", "--keep-last 1", "--prune"],
            env=restic.environment,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        paths = [each["paths"] for each in json.loads(restic("snapshots", "--json"))]
        assert sorted(paths) == [["/kopiatomic/layout/default.json"], [f"{TOP}/src"]]

    def test_a_drill_is_about_the_files(self, filled: Machine, repository: Repository):
        back_up(repository, "kta/src")
        program = f"/usr/local/sbin/{PROGRAMS[repository.client]}"
        result = filled.run([program, "--drill", "3"], env=repository.environment)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "layout" not in result.stdout


MUCH = f"""
zfs set compression=gzip {POOL}/home
zfs set quota=209715200 atime=off {POOL}/src
zfs create -o mountpoint={TOP}/deep/down -o recordsize=16384 -o org.test:note="it's mine" {POOL}/up
zfs create -o canmount=noauto -o mountpoint={TOP}/na {POOL}/na
zfs create -o canmount=off {POOL}/home/none
zfs create -o mountpoint=legacy {POOL}/legacy
zfs create -s -V 16777216 {POOL}/vol
mkdir -p /kt/legacy
mount -t zfs {POOL}/legacy /kt/legacy
zfs mount {POOL}/na
echo up > {TOP}/deep/down/up
echo legacy > /kt/legacy/file
echo na > {TOP}/na/file
zfs set readonly=on {POOL}/up
"""


def test_a_pool_is_made_anew(filled: Machine, repository: Repository):
    shell(filled, MUCH)
    home = filled.path(f"{TOP}/home")
    is_restic = repository.client == "restic"
    expected = tree.picture(home, symlink_times=False) if is_restic else names(home)
    before = properties(filled, POOL)
    back_up(repository, "-r", POOL)
    text = dump(repository)
    place = repository.directory
    filled.path(f"{place}/layout.json").write_text(text)
    (device,) = json.loads(text)["pools"][0]["groups"][0]["devices"]
    # The pool is lost, and so is what it was on.
    shell(filled, f"umount /kt/legacy; zpool destroy {POOL}")
    shell(filled, BY_SED.format(place))
    printed = filled.run(["/usr/local/sbin/restomic", "--layout", f"{place}/layout.json"])
    assert printed.stdout == filled.path(f"{place}/layout.sh").read_text()
    shell(filled, f"mkdir -p {ALTROOT}; ALTROOT={ALTROOT} sh {place}/layout.sh")
    restore(repository, ALTROOT)
    shell(filled, LATER.format(place))
    anew = filled.path(f"{ALTROOT}{TOP}/home")
    assert (tree.picture(anew, symlink_times=False) if is_restic else names(anew)) == expected
    for path, content in (
        (f"{TOP}/deep/down/up", "up\n"), ("/kt/legacy/file", "legacy\n"), (f"{TOP}/na/file", "na\n")
    ):  # fmt: skip
        assert filled.path(f"{ALTROOT}{path}").read_text() == content
    # As after the boot that follows.
    shell(filled, f"zpool export {POOL}; zpool import -d {Path(device).parent} {POOL}")
    shell(filled, f"zfs mount {POOL}/na; mount -t zfs {POOL}/legacy /kt/legacy")
    assert properties(filled, POOL) == before
    assert filled.path(f"{TOP}/src/main.c").exists()
    forget_looks(filled)
    assert "layout" not in back_up(repository, "-r", POOL)
    shell(filled, "umount /kt/legacy; rmdir /kt/legacy")
