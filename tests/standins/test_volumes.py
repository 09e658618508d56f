"""Volumes, their clones and devices, as the recordings have them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox.host import Host

pytestmark = pytest.mark.linux(reason="the stand-ins are for Linux only")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with Host.create(tmp_path / "host") as made:
        ok(made, "zpool create -m /tank tank /dev/vtbd2; zfs create -V 64m tank/vol")
        yield made
        assert made.violations() == []


def ok(host: Host, script: str) -> str:
    result = host.shell("set -e\n" + script)
    assert result.returncode == 0, result.stderr
    return str(result.stdout)


def refused(host: Host, script: str) -> str:
    result = host.shell(script)
    assert result.returncode == 1, result.stdout
    return str(result.stderr)


def devices(host: Host) -> str:
    return ok(host, "ls /dev/zvol/tank 2>/dev/null || true")


def test_a_volume_has_a_device_of_its_size(host: Host) -> None:
    assert devices(host) == "vol\n"
    assert ok(host, "wc -c < /dev/zvol/tank/vol").split() == [str(64 << 20)]
    columns = "name,type,volsize,mounted,mountpoint,canmount"
    assert ok(host, f"zfs list -Hp -t volume -o {columns}").split() == [
        "tank/vol", "volume", str(64 << 20), "-", "-", "-",
    ]  # fmt: skip


def test_a_snapshot_has_one_only_where_snapdev_is_visible(host: Host) -> None:
    ok(host, "zfs snapshot tank/vol@s")
    assert devices(host) == "vol\n"
    ok(host, "zfs set snapdev=visible tank/vol")
    assert devices(host) == "vol\nvol@s\n"


def test_a_clone_has_what_the_snapshot_had(host: Host) -> None:
    write = "printf {} | dd of=/dev/zvol/tank/vol bs=1 seek=512 conv=notrunc 2>/dev/null"
    marks = "-o com.sun:auto-snapshot=false -o syncoid:sync=false -o org.kopiatomic:run=test"
    clone = f"zfs clone -o readonly=on {marks} tank/vol@s tank/restomic-1"
    ok(host, f"{write.format('old')}; zfs snapshot tank/vol@s; {clone}; {write.format('new')}")
    read = "dd if=/dev/zvol/tank/{} bs=1 skip=512 count=3 2>/dev/null"
    assert ok(host, read.format("restomic-1")) == "old"
    assert ok(host, read.format("vol")) == "new"
    assert ok(host, "zfs get -H -s local -o name,value org.kopiatomic:run tank/restomic-1") == (
        "tank/restomic-1\ttest\n"
    )
    assert refused(host, "zfs destroy tank/vol@s") == (
        "cannot destroy 'tank/vol@s': snapshot has dependent clones\n"
        "use '-R' to destroy the following datasets:\ntank/restomic-1\n"
    )
    ok(host, "zfs destroy -d tank/vol@s; zfs destroy tank/restomic-1")
    assert devices(host) == "vol\n"
    assert ok(host, "zfs list -H -t snapshot -o name") == ""


def test_a_volmode_that_is_given_with_the_clone_gives_no_device(host: Host) -> None:
    ok(host, "zfs snapshot tank/vol@s; zfs clone -o volmode=none tank/vol@s tank/c")
    assert devices(host) == "vol\n"
    ok(host, "zfs set volmode=dev tank/c")
    assert devices(host) == "c\nvol\n"


def test_one_that_is_not_none_may_be_the_end(tmp_path: Path) -> None:
    """Fatal trap 12 in g_label_taste(), where it is not the end without a device."""
    with Host.create(tmp_path / "host") as host:
        ok(host, "zpool create tank /dev/vtbd2; zfs create -V 64m tank/vol")
        ok(host, "zfs snapshot tank/vol@s; zfs clone -o volmode=dev tank/vol@s tank/c")
        assert devices(host) == "vol\n"
        assert host.violations() == ["zfs clone -o volmode of tank/c: GEOM may panic"]


def test_geom_looks_at_what_is_in_a_volume_unless_its_volmode_is_dev(host: Host) -> None:
    table = bytearray(512)
    table[450], table[510:] = 0xA5, b"\x55\xaa"
    (host.root / "tmp/table").write_bytes(table)
    ok(host, """
        dd if=/tmp/table of=/dev/zvol/tank/vol conv=notrunc 2>/dev/null
        zfs snapshot tank/vol@s; zfs clone tank/vol@s tank/a
        zfs clone -o volmode=none tank/vol@s tank/b; zfs set volmode=dev tank/b""")
    assert devices(host).split() == ["a", "as1", "b", "vol", "vols1"]


def test_a_volmode_of_none_from_above_gives_no_device(host: Host) -> None:
    ok(host, "zfs set volmode=none tank; zfs snapshot tank/vol@s; zfs clone tank/vol@s tank/c")
    assert devices(host) == ""
    ok(host, "zfs set volmode=dev tank/c")
    assert devices(host) == "c\n"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("tank/no/c", "parent does not exist"),
        ("tank/vol", "dataset already exists"),
        ("other/c", "source and target pools differ"),
        ("tank/vol/c", "parent is not a filesystem"),
        (f"tank/{'c' * 260}", "name is too long"),
    ],
)
def test_a_clone_is_refused(host: Host, name: str, reason: str) -> None:
    ok(host, "zpool create other /dev/vtbd3; zfs snapshot tank/vol@s")
    said = refused(host, f"zfs clone tank/vol@s {name}")
    assert said == f"cannot create '{name}': {reason}\n"


def test_what_is_open_is_not_destroyed(host: Host) -> None:
    said = refused(host, "exec 3< /dev/zvol/tank/vol; zfs destroy tank/vol")
    assert said == "cannot destroy 'tank/vol': dataset is busy\n"
    ok(host, "zfs destroy tank/vol")
    assert devices(host) == ""


def test_devices_follow_the_names_and_the_pool(host: Host) -> None:
    ok(host, "zfs create tank/vm; zfs rename tank/vol tank/vm/disk")
    assert ok(host, "cd /dev/zvol; find . -type l") == "./tank/vm/disk\n"
    ok(host, "zpool export tank; ! test -e /dev/zvol/tank; zpool import tank")
    assert ok(host, "cd /dev/zvol; find . -type l") == "./tank/vm/disk\n"


def test_devices_are_there_after_a_boot_and_hidden_by_a_ruleset(host: Host) -> None:
    host.shut_down()
    host.boot()
    assert devices(host) == "vol\n"
    ok(host, "mkdir /tmp/dev; mount -t devfs -o ruleset=4 devfs /tmp/dev; ! test -e /tmp/dev/zvol")
    ok(host, "umount /tmp/dev")
