"""In a jail: whether this is one, and which rights it lacks, by their names in jail.conf."""

import errno
import os

import pytest
from support.libc import Library

from kopiatomic.backup import jail
from kopiatomic.errors import EX_UNAVAILABLE, Refusal
from kopiatomic.system.command import Door

JAILED = "sysctl -n security.jail.jailed"
ALL = {
    "security.jail.mount_allowed": 1, "security.jail.mount_zfs_allowed": 1,
    "security.jail.mount_nullfs_allowed": 1, "security.jail.mount_devfs_allowed": 1,
    "security.jail.enforce_statfs": 1,
}  # fmt: skip


def door(**changes: int | None) -> Door:
    """Return the door of a jail with all rights but some; a variable that is None is unknown."""
    library = Library(jailed=1)
    changed = {f"security.jail.{name}": value for name, value in changes.items()}
    known = {**ALL, **changed}
    library.rights = {name: value for name, value in known.items() if value is not None}
    return Door(kernel=library.kernel())


class TestWhetherThisIsOne:
    @pytest.mark.parametrize("jailed", [0, 1])
    def test_the_kernel_is_asked_where_that_spares_a_program(self, fp, jailed):
        made = jail.entered(Door(kernel=Library(jailed=jailed).kernel()))
        assert made.jailed is bool(jailed)
        assert not fp.calls

    def test_the_kernel_does_not_know(self, library):
        library.refusals["sysctlbyname"] = [errno.ENOENT]
        assert not jail.entered(Door(kernel=library.kernel())).jailed

    @pytest.mark.parametrize("answer", [{"stdout": "0\n"}, {"returncode": 1}, {"stdout": "?\n"}])
    def test_no_jail_or_nobody_knows(self, fp, answer):
        fp.register(JAILED, **answer)
        assert not jail.entered(Door()).jailed

    def test_a_program_knows(self, fp):
        fp.register(JAILED, stdout="1\n")
        assert jail.entered(Door()).jailed


class TestRights:
    @pytest.fixture(autouse=True)
    def device(self, monkeypatch):
        monkeypatch.setattr(jail, "ZFS", "/dev/null")

    def test_all_of_them(self):
        jail.check_rights(door())

    @pytest.mark.parametrize(
        ("lacks", "named"),
        [
            ({"mount_allowed": 0}, "allow.mount"),
            ({"mount_zfs_allowed": 0}, "allow.mount.zfs"),
            ({"mount_nullfs_allowed": 0}, "allow.mount.nullfs"),
            ({"mount_devfs_allowed": 0}, "allow.mount.devfs"),
            ({"enforce_statfs": 2}, "enforce_statfs=1"),
            ({"enforce_statfs": 0}, "enforce_statfs=1"),
            ({"mount_zfs_allowed": 0, "enforce_statfs": 2}, "allow.mount.zfs, enforce_statfs=1"),
        ],
    )
    def test_what_is_missing_is_named(self, lacks, named):
        with pytest.raises(Refusal) as caught:
            jail.check_rights(door(**lacks))
        assert caught.value.status == EX_UNAVAILABLE
        assert f"its parameters lack {named}; add that in jail.conf(5) on the host, or" in str(
            caught.value
        )

    def test_without_devices_no_right_is_needed_for_them(self, monkeypatch):
        monkeypatch.setattr(jail, "ZFS", "/")
        monkeypatch.setattr(os.path, "exists", lambda path: path != "/dev/null")
        jail.check_rights(door(mount_devfs_allowed=0))

    def test_without_the_device_of_zfs_nothing_works(self, monkeypatch):
        monkeypatch.setattr(jail, "ZFS", "/nonexistent/zfs")
        with pytest.raises(Refusal, match=r"this jail has no /nonexistent/zfs: .*unhide") as caught:
            jail.check_rights(door())
        assert caught.value.status == EX_UNAVAILABLE

    def test_a_file_system_that_the_host_has_not_loaded(self):
        with pytest.raises(Refusal, match=r"allow\.mount\.nullfs; .* load nullfs there before"):
            jail.check_rights(door(mount_nullfs_allowed=None))

    def test_by_programs(self, fp):
        for name, value in ALL.items():
            fp.register(f"sysctl -n {name}", stdout=f"{value}\n")
        jail.check_rights(Door())
