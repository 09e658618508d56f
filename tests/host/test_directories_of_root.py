"""Directories of / alone: what stays live for the client is no concern of the backup.

Sandbox only: no test owns the / of a real machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox import layouts
from support.machine import Sandbox, shell

from host.conftest import clean
from host.test_directories import back_up, entry, restored, sources
from host.test_root import LIVE, repository

pytestmark = pytest.mark.linux(reason="no test owns the / of a real machine")

CLIENTS = [
    pytest.param("restic", marks=pytest.mark.restic),
    pytest.param("kopia", marks=pytest.mark.kopia),
]
CHOSEN = ("/etc", "/usr/local/etc", "/root")


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Sandbox]:
    """FreeBSD as its installer lays it out, with all that is no dataset of its own in one."""
    machine = Sandbox(tmp_path / "host", root_dataset="zroot/ROOT/default")
    try:
        layouts.installer(machine.host)
        shell(
            machine,
            """
            mkdir -p /backup /usr/local/etc /root/.ssh /srv
            for each in /home /etc /usr/local/etc /root /srv; do echo $each > $each/mark; done
            """,
        )
        yield machine
    finally:
        machine.close()


@pytest.mark.parametrize("client", CLIENTS)
def test_what_a_user_of_restic_tries_first(installed: Sandbox, client: str):
    """The repository, the cache and /tmp are on the same dataset."""
    made = repository(installed, client)
    shell(installed, "rm -rf /root/.cache; chmod 700 /root")
    change = "echo late > /etc/mark; echo late > /root/mark"
    said = back_up(made, *LIVE, *CHOSEN, "-s", change)
    assert set(sources(made)) == set(CHOSEN)
    for path in CHOSEN:
        out = installed.path(restored(made, path))
        assert (out / "mark").read_text() == f"{path}\n"
    assert "3 of 3 paths found in the backup" in said
    assert "unable to open cache" not in said
    # /home, /tmp and so on lie in none of these.
    assert entry(made)["left_out"] == []
    # What the client writes is in /root, and told; the repository is not.
    places = {"restic": {"/root/.cache/restic"}, "kopia": set()}[client]
    live = set(entry(made)["not_frozen"])
    assert live >= places
    assert all(place.startswith("/root/") for place in live)
    if client == "restic":
        names = made("ls", "latest").splitlines()
        assert not [name for name in names if name.startswith("/root/.cache/restic/")]
    said = back_up(made, *LIVE, *CHOSEN)
    assert "New since" not in said
    assert "/root/.cache" not in said


@pytest.mark.parametrize("client", CLIENTS)
def test_what_stays_live_elsewhere_is_no_news(installed: Sandbox, client: str):
    made = repository(installed, client)
    said = back_up(made, *LIVE, "/etc", "--live", "/srv")
    assert entry(made)["not_frozen"] == []
    assert "Live, not frozen" not in said
    if client == "kopia":
        assert "kopia policy set" not in said
    assert "Note:" not in said


@pytest.mark.restic
def test_live_must_not_undo_the_freezing(installed: Sandbox):
    made = repository(installed, "restic")
    shell(installed, "mkdir /usr/local/etc/inner")
    said = back_up(made, *LIVE, "/usr/local/etc", "--live", "/usr/local", status=64)
    assert "--live /usr/local would undo the freezing of /usr/local/etc" in said
    said = back_up(made, *LIVE, "/usr/local/etc", "--live", "/usr/local/etc/inner")
    assert entry(made)["not_frozen"] == ["/usr/local/etc/inner"]


@pytest.mark.restic
def test_a_repository_within_is_refused(installed: Sandbox):
    made = repository(installed, "restic")
    said = back_up(made, *LIVE, "/backup", status=78)
    assert "--live /backup/r" in said


@pytest.mark.restic
def test_with_r_the_datasets_mounted_below(installed: Sandbox):
    made = repository(installed, "restic")
    shell(installed, "echo src > /usr/src/mark; echo local > /usr/local/mark")
    back_up(made, *LIVE, "-r", "/usr", "-o", "--exclude=/compat/*")
    names = set(made("ls", "latest").splitlines())
    assert {"/usr/src/mark", "/usr/local/mark", "/usr/local/etc/mark"} <= names
    rows = {row["dataset"]: row for row in entry(made)["captured"]}
    assert set(rows) == {"zroot/ROOT/default", "zroot/usr/ports", "zroot/usr/src"}
    assert rows["zroot/ROOT/default"]["directories"] == ["/usr"]
    # zroot/usr itself belongs at /usr, and holds nothing.
    assert [row["name"] for row in entry(made)["left_out"]] == ["zroot/usr"]
    back_up(made, *LIVE, "/usr")
    names = set(made("ls", "latest").splitlines())
    assert "/usr/src/mark" not in names
    assert "/usr/src" in names
    clean(installed)


@pytest.mark.kopia
def test_hints_about_what_kopia_writes_are_for_the_paths_that_hold_it(installed: Sandbox):
    made = repository(installed, "kopia")
    said = back_up(made, *LIVE, "/root", "/etc")
    hints = [line for line in said.splitlines() if "kopia policy set" in line]
    assert hints
    assert all(line.endswith(" /root") for line in hints), hints
    assert "/.cache/kopia" in hints[0]
