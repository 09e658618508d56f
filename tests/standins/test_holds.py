"""Holds, and sending and receiving: as cmd/zfs/zfs_main.c and libzfs_dataset.c have them.

Of the refusals, those of a hold that keeps a snapshot are in the transcripts.
"""

from __future__ import annotations

import pytest
from sandbox.host import Host

from standins.conftest import said

pytestmark = pytest.mark.linux(reason="the stand-ins are for Linux only")


def tags(host: Host) -> list[list[str]]:
    names = said(host, "zfs list -Ht snapshot -o name")[0].split("\n")[:-1]
    lines = host.run(["zfs", "holds", "-H", *names]).stdout.splitlines()
    return [line.split("\t")[:2] for line in lines]


def test_each_snapshot_is_held_for_itself(host: Host) -> None:
    said(host, "for s in 1 2; do zfs snapshot zroot/home@$s; done; zfs hold k zroot/home@2")
    names = "zroot/home@2 zroot/home@none zroot/nowhere@1 x zroot/home@1"
    out, status = said(host, f"zfs hold k {names}")
    assert status == 1
    assert out.splitlines() == [
        "cannot hold snapshot 'zroot/home@2': tag already exists on this dataset",
        "cannot hold snapshot 'zroot/home@none': dataset does not exist",
        "cannot open 'zroot/nowhere': dataset does not exist",
        "'x' is not a snapshot",
    ]
    assert tags(host) == [["zroot/home@1", "k"], ["zroot/home@2", "k"]]
    script = "zfs release k zroot/home@none zroot/home@1; zfs release z zroot/home@2"
    out, status = said(host, script)
    assert out.splitlines() == [
        "cannot release hold from snapshot 'zroot/home@none': dataset does not exist",
        "cannot release hold from snapshot 'zroot/home@2': no such tag on this dataset",
    ]
    assert tags(host) == [["zroot/home@2", "k"]]
    assert said(host, "zfs list -Hpo userrefs zroot/home@2") == ("1\n", 0)


def test_asking_for_holds(host: Host) -> None:
    said(host, "zfs snapshot zroot/home@1; zfs hold k zroot/home@1")
    out, status = said(host, "zfs holds -H zroot/home@1 zroot/home@none")
    assert out.splitlines()[0] == "cannot open 'zroot/home@none': dataset does not exist"
    assert (out.splitlines()[1].startswith("zroot/home@1\tk\t"), status) == (True, 1)
    out, status = said(host, "zfs holds -H zroot/home@none")
    assert (out.splitlines()[-1], status) == ("no datasets available", 1)


def test_a_read_only_pool_holds_nothing(host: Host) -> None:
    said(host, "zfs snapshot zroot/home@1; zfs hold k zroot/home@1")
    host.pool("zroot", readonly=True)
    assert said(host, "zfs hold x zroot/home@1") == ("cannot hold: pool is read-only\n", 1)
    assert said(host, "zfs release k zroot/home@1") == ("cannot release: pool is read-only\n", 1)
    none = "cannot release hold from snapshot 'zroot/home@1': no such tag on this dataset\n"
    assert said(host, "zfs release x zroot/home@1") == (none, 1)


def test_nor_is_anything_else_changed_in_it(host: Host) -> None:
    said(host, "zfs snapshot zroot/home@1; zfs set org.x:y=1 zroot/home")
    host.pool("zroot", readonly=True)
    fixed = "pool is read-only\n"
    for script, answer, status in (
        ("zfs create zroot/new", "cannot create 'zroot/new': ", 1),
        ("zfs create -V 1m zroot/new", "cannot create 'zroot/new': ", 1),
        ("zfs rename zroot/home zroot/new", "cannot rename 'zroot/home': ", 1),
        ("zfs rename zroot/home@1 zroot/home@2", "cannot rename 'zroot/home@1': ", 1),
        ("zfs inherit org.x:y zroot/home", "cannot inherit org.x:y for 'zroot/home': ", 1),
        ("zfs set org.x:y=2 zroot/home", "cannot set property for 'zroot/home': ", 255),
        ("zfs set org.x:y=2 zroot/home@1", "cannot set property for 'zroot/home@1': ", 255),
        ("zfs rollback zroot/home@1", "cannot rollback 'zroot/home': ", 1),
        ("zfs destroy zroot/home@1", "cannot destroy snapshots: ", 1),
        ("zpool set comment=x zroot", "cannot set property for 'zroot': ", 1),
    ):
        assert said(host, script) == (answer + fixed, status), script
    assert said(host, "zfs get -Ho value org.x:y zroot/home") == ("1\n", 0)


def test_a_release_unmounts_by_force_and_may_destroy(host: Host) -> None:
    """dsl_dataset_user_release_impl(); what a nullfs is on stays."""
    said(host, """
        for s in 1 2; do zfs snapshot zroot/home@$s; done; mkdir -p /v/a /v/b /v/c
        mount -t zfs zroot/home@1 /v/a; mount -t zfs zroot/home@2 /v/b; mount_nullfs /v/b /v/c
        zfs hold k zroot/home@1 zroot/home@2""")
    assert said(host, "zfs release k zroot/home@1 zroot/home@2") == ("", 0)
    nodes = said(host, "mount -v")[0]
    assert ("/v/a" in nodes, "/v/b" in nodes) == (False, True)
    said(host, "umount /v/c /v/b; zfs hold k zroot/home@1; zfs destroy -d zroot/home@1")
    assert said(host, "zfs release k zroot/home@1") == ("", 0)
    assert said(host, "zfs list -Ht snapshot -o name zroot/home")[0] == "zroot/home@2\n"


def test_a_renamed_snapshot_keeps_its_holds(host: Host) -> None:
    said(host, "zfs snapshot zroot/home@1; zfs hold k zroot/home@1")
    guid = said(host, "zfs list -Hpo guid zroot/home@1")
    assert said(host, "zfs rename zroot/home@1 zroot/home@moved") == ("", 0)
    assert tags(host) == [["zroot/home@moved", "k"]]
    assert said(host, "zfs list -Hpo guid zroot/home@moved") == guid


def test_what_is_received_is_the_same_snapshot(host: Host) -> None:
    """transcript-7, 20: a property of ours comes along with -R, and is received then."""
    said(host, """
        echo one > /home/f; zfs snapshot -o org.x:run=mine zroot/home@1
        zfs send -R zroot/home@1 | zfs receive -u zroot/copy
        echo two > /home/f; zfs snapshot zroot/home@2
        zfs send -i @1 zroot/home@2 | zfs receive zroot/copy
        zfs set mountpoint=/copy zroot/copy; zfs mount zroot/copy""")
    line = said(host, "zfs get -Ho name,value,source org.x:run zroot/copy@1 zroot/copy@2")[0]
    assert line.splitlines() == ["zroot/copy@1\tmine\treceived", "zroot/copy@2\t-\t-"]
    columns = "zfs list -Hpo guid,creation zroot/{}@2"
    assert said(host, columns.format("copy")) == said(host, columns.format("home"))
    assert said(host, "cat /copy/f") == ("two\n", 0)
    out, status = said(host, "zfs send -i @1 zroot/home@2 | zfs receive zroot/copy")
    assert (out.splitlines(), status) == ([
        "cannot receive incremental stream: most recent snapshot of zroot/copy does not",
        "match incremental source",
    ], 1)  # fmt: skip
    said(host, "zfs hold k zroot/copy@2")
    out, status = said(host, "zfs send -i @1 zroot/home@2 | zfs receive -F zroot/copy")
    assert (out, status) == ("cannot receive incremental stream: dataset is busy\n", 1)
