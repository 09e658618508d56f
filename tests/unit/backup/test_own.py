"""Our own snapshots are found, and that there are none is noted."""

import pytest

from kopiatomic import state
from kopiatomic.backup import own
from kopiatomic.system.command import CommandFailed, Door
from kopiatomic.system.zfs import NotDestroyed

DOOR = Door()
LIST = "zfs list -H -o name -s name -t snapshot,volume"
POOLS = "zpool list -Hp -o name,readonly,health"
GET = ["zfs", "get", "-Hp", "-o", "name,source,value", "org.kopiatomic:run"]


def test_those_of_a_job_by_their_mark(place, fp):
    names = ["t@kopiatomic-1", "t@restomic-1", "t@restomic-2", "t@restomic-3", "t@restomic-4"]
    runs = ["kopiatomic:default:1", "restomic:default:2", "restomic:other:3", "restomic:default:4"]
    fp.register(POOLS, stdout="t\toff\tONLINE\n")
    fp.register(LIST, stdout="".join(f"{each}\n" for each in ["t@daily", *names]))
    # The last one bears no mark of ours: somebody else has named it so.
    text = "".join(f"{name}\tlocal\t{run}\n" for name, run in zip(names, runs, strict=False))
    # A pool that is exported now was there then, and may have some of them as well.
    state.note_search(["t", "u"])
    fp.register([*GET, *names], stdout=text)
    assert own.of_job(DOOR, place) == ["t@restomic-1", "t@restomic-3"]
    assert not state.was_searched()


CLONE = "t/restomic-20261127T030000Z-0123456789ab.0"


def test_a_clone_goes_before_its_snapshot(fp):
    fp.register(f"zfs destroy {CLONE}")
    fp.register("zfs destroy t/v@restomic-1")
    assert own.remove(DOOR, ["t/v@restomic-1", CLONE]) == own.Swept()
    assert [call[2] for call in fp.calls] == [CLONE, "t/v@restomic-1"]


def test_what_stays_is_told_and_what_went_along(fp):
    fp.register(f"zfs destroy {CLONE}", returncode=1, stderr="volume has children")
    fp.register(f"zfs list -H -o origin {CLONE}", stdout="t/v@restomic-1\n")
    listed = f"zfs list -H -d 1 -t snapshot -o name {CLONE}"
    fp.register(listed, stdout=f"{CLONE}@auto\n")
    fp.register(f"zfs destroy {CLONE}@auto")
    fp.register(f"zfs destroy {CLONE}", returncode=1, stderr="no")
    fp.register("zfs destroy t/v@restomic-1", returncode=1, stderr="has dependent clones")
    removed = own.remove(DOOR, [CLONE, "t/v@restomic-1"])
    assert [each.name for each in removed.left] == [CLONE, "t/v@restomic-1"]
    assert removed.strangers == (f"{CLONE}@auto",)


def test_what_helps_by_hand(place):
    """A clone may have snapshots by then, and until it goes, what it was made from stays."""
    clone, snapshot = (NotDestroyed(name, "no") for name in (CLONE, "t/v@restomic-1"))
    for each in (clone, snapshot):
        told = own.by_hand(place, (clone, snapshot), each.name)
        assert told == "restomic --sweep -j default"
    assert own.by_hand(place, (snapshot,), snapshot.name) == "zfs destroy t/v@restomic-1"


def test_that_there_are_none_is_noted(place, fp):
    fp.register(POOLS, stdout="t\toff\tONLINE\n")
    fp.register(LIST, stdout="t@daily\n")
    assert own.of_job(DOOR, place) == []
    assert state.was_searched(["t"])
    assert not state.was_searched(["t", "u"])


def test_where_it_cannot_be_seen_nothing_is_noted(place, fp):
    fp.register(POOLS, stdout="t\toff\tONLINE\n")
    fp.register(LIST, returncode=1, stderr="cannot iterate filesystems: I/O error")
    with pytest.raises(CommandFailed):
        own.of_job(DOOR, place)
    assert not state.was_searched()
