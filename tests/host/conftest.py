"""Fixtures of the behaviour tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest
from support import tree
from support.machine import BASE, FreeBSD, Machine, Sandbox, shell

POOL = "kta"
TOP = f"{BASE}/{POOL}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On anything but Linux and FreeBSD, or without root, there is no machine to test on."""
    reason = None
    if os.geteuid() != 0:
        reason = "needs root"
    elif not sys.platform.startswith(("linux", "freebsd")):
        reason = "needs FreeBSD, or Linux for the sandbox"
    elif sys.platform.startswith("linux") and find_spec("_sqlite3") is None:
        reason = "the sandbox needs a Python with sqlite3"
    for item in items:
        if reason and "tests/host" in item.nodeid:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with an empty pool ``kta`` on /kt/kta."""
    made: Machine = (
        Sandbox(tmp_path / "host") if sys.platform.startswith("linux") else FreeBSD()
    )
    try:
        made.make_pool(POOL)
        yield made
    finally:
        made.close()


@pytest.fixture
def filled(machine: Machine) -> Machine:
    """A machine with files in kta/home, kta/home/ben and "kta/home/with space"; kta/src beside."""
    shell(
        machine,
        f"for each in home home/ben 'home/with space' src; do zfs create {POOL}/\"$each\"; done",
    )
    tree.fill(machine.path(f"{TOP}/home"))
    tree.fill(machine.path(f"{TOP}/home/ben"))
    machine.path(f"{TOP}/home/with space/note").write_text("in a dataset with a space")
    machine.path(f"{TOP}/src/main.c").write_text("int main(void) { return 0; }\n")
    return machine


@dataclass
class Repository:
    """A client's repository on a machine."""

    machine: Machine
    client: str
    directory: str
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *words: str, check: bool = True) -> str:
        """Run the client and return what it printed."""
        result = self.machine.run([self.client, *words], env=self.environment)
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result.stdout


def empty_directory(machine: Machine, tmp_path: Path) -> str:
    """Return a directory outside all that is backed up, as the machine calls it."""
    if machine.is_sandbox:
        machine.path("/backup").mkdir(exist_ok=True)
        return "/backup"
    return str(tmp_path)


@pytest.fixture
def restic(machine: Machine, tmp_path: Path) -> Repository:
    """A restic repository."""
    directory = empty_directory(machine, tmp_path)
    environment = {
        "RESTIC_REPOSITORY": f"{directory}/restic",
        "RESTIC_PASSWORD": "correct horse",
    }
    repository = Repository(machine, "restic", directory, environment)
    repository("init")
    return repository


@pytest.fixture
def kopia(machine: Machine, tmp_path: Path) -> Repository:
    """A kopia repository, connected."""
    directory = empty_directory(machine, tmp_path)
    environment = {"KOPIA_PASSWORD": "correct horse", "KOPIA_CHECK_FOR_UPDATES": "false"}
    if not machine.is_sandbox:
        environment["KOPIA_CONFIG_PATH"] = f"{directory}/kopia.config"
        environment["KOPIA_CACHE_DIRECTORY"] = f"{directory}/kopia-cache"
        environment["KOPIA_LOG_DIR"] = f"{directory}/kopia-log"
    repository = Repository(machine, "kopia", directory, environment)
    repository("repository", "create", "filesystem", "--path", f"{directory}/kopia")
    return repository


def where(machine: Machine) -> str:
    """Return what zpool(8) has to be told to find the pools, which lie in files."""
    return "" if machine.is_sandbox else f" -d {machine.directory}"


def make_read_only(machine: Machine, pool: str) -> None:
    """Import a pool as one that nobody can write to; nothing of it may be in use."""
    shell(machine, f"zpool export {pool}; zpool import -o readonly=on{where(machine)} {pool}")


def leave_pool_no_room(machine: Machine, pool: str) -> None:
    """Fill a pool so that it has room for no snapshot."""
    if machine.is_sandbox:
        machine.host.pool(pool, full=True)
        return
    reserve = f"zfs set reservation=$(zfs list -Hpo avail {pool}) {pool}/ballast"
    shell(machine, f"zfs create -o mountpoint=none {pool}/ballast; {reserve}")


def clean(machine: Machine) -> None:
    """Assert that a run has left nothing of its own behind."""
    snapshots = machine.run(["zfs", "list", "-H", "-t", "snapshot", "-o", "name"]).stdout
    assert "restomic-" not in snapshots
    assert "kopiatomic-" not in snapshots
    mounts = machine.run(["mount", "-v"]).stdout
    assert "/var/run/restomic" not in mounts
    assert "/var/run/kopiatomic" not in mounts
    for program in ("restomic", "kopiatomic"):
        run = machine.path(f"/var/run/{program}")
        left = [each.name for each in run.iterdir()] if run.exists() else []
        assert all(name.endswith(".lock") for name in left), left
        state = machine.path("/var/db/kopiatomic")
        assert not state.exists() or not list(state.glob("*.unfinished"))
