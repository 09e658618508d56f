"""Whether the state is part of a boot environment."""

import pytest

from kopiatomic import state
from kopiatomic.monitoring import home
from kopiatomic.system.machine import Mount

ROOT = Mount("zroot/ROOT/default", "/", "zfs")
DEV = Mount("devfs", "/dev", "devfs")


@pytest.fixture(autouse=True)
def usual(monkeypatch):
    """The state is where it is on FreeBSD."""
    monkeypatch.setattr(state, "STATE_DIRECTORY", "/var/db/kopiatomic")


def test_in_the_installers_layout_it_is():
    table = [ROOT, DEV, Mount("zroot/var/log", "/var/log", "zfs")]
    assert home.boot_environment_of_state(table) == "zroot/ROOT/default"
    note = home.note(table)
    assert "/var/db/kopiatomic is part of the boot environment zroot/ROOT/default" in note
    assert "\n" not in note


@pytest.mark.parametrize(
    "table",
    [
        [ROOT, DEV, Mount("zroot/kopiatomic", "/var/db/kopiatomic", "zfs")],
        [ROOT, DEV, Mount("zroot/var", "/var", "zfs")],
        [Mount("/dev/ada0p2", "/", "ufs"), DEV],
        [Mount("zroot", "/", "zfs"), DEV],
        [],
    ],
    ids=["its own dataset", "a dataset above", "ufs", "no boot environments", "nothing is known"],
)
def test_elsewhere_it_is_not(table):
    assert home.boot_environment_of_state(table) is None
    assert home.note(table) is None


def test_what_it_may_explain():
    assert home.may_explain(["exposed", "stale"])
    assert not home.may_explain(["exposed", "uncovered"])
    assert not home.may_explain([])
