"""Our own snapshots are found, and that there are none is noted."""

import pytest

from kopiatomic import state
from kopiatomic.backup import own
from kopiatomic.system.command import CommandFailed, Door

DOOR = Door()
LIST = "zfs list -H -o name -s name -t snapshot"
POOLS = "zpool list -Hp -o name,readonly,health"
GET = ["zfs", "get", "-Hp", "-s", "local", "-o", "name,value", "org.kopiatomic:run"]


def test_those_of_a_job_by_their_mark(place, fp):
    names = ["t@kopiatomic-1", "t@restomic-1", "t@restomic-2", "t@restomic-3", "t@restomic-4"]
    runs = ["kopiatomic:default:1", "restomic:default:2", "restomic:other:3", "restomic:default:4"]
    fp.register(POOLS, stdout="t\toff\tONLINE\n")
    fp.register(LIST, stdout="".join(f"{each}\n" for each in ["t@daily", *names]))
    # The last one bears no mark of ours: somebody else has named it so.
    text = "".join(f"{name}\t{run}\n" for name, run in zip(names, runs, strict=False))
    # A pool that is exported now was there then, and may have some of them as well.
    state.note_search(["t", "u"])
    fp.register([*GET, *names], stdout=text)
    assert own.of_job(DOOR, place) == ["t@restomic-1", "t@restomic-3"]
    assert not state.was_searched()


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
