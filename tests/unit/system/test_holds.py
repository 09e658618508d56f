"""What is asked of zfs-hold(8) and its like, and how the answers are read."""

import pytest

from kopiatomic.system import holds
from kopiatomic.system.command import CommandFailed, Door, GivenUp
from kopiatomic.system.holds import Hold

DOOR = Door()
TAG = "restomic:default:0123456789ab"
THERE = "zfs list -H -t snapshot -s name -o name"
GONE = "cannot open '{}': dataset does not exist\n"


def test_one_command_holds_all(fp):
    fp.register(["zfs", "hold", TAG, "t/a@1", "t/b@1"])
    assert holds.hold(DOOR, TAG, ["t/a@1", "t/b@1"]) == holds.Held()


def test_what_could_not_be_held_is_found_by_asking(fp):
    names = ["t/a@1", "t/b@1", "t/c@1"]
    reason = "cannot hold snapshot 't/b@1': out of space\n"
    fp.register(["zfs", "hold", TAG, *names], returncode=1, stderr=GONE.format("t/c") + reason)
    line = f"t/a@1\t{TAG}\tMon Nov 23 05:04 2026\nt/b@1\tkeep\tMon Nov 23 05:04 2026\n"
    fp.register(["zfs", "holds", "-H", *names], returncode=1, stdout=line,
                stderr=GONE.format("t/c@1"))  # fmt: skip
    fp.register(f"{THERE} t/a@1 t/b@1 t/c@1", returncode=1, stdout="t/a@1\nt/b@1\n",
                stderr=GONE.format("t/c@1"))  # fmt: skip
    done = holds.hold(DOOR, TAG, names)
    assert done.gone == {"t/c@1"}
    assert list(done.refused) == ["t/b@1"]
    assert "out of space" in done.refused["t/b@1"]
    assert not done.unsure


def test_where_zfs_was_given_up_nothing_is_known(monkeypatch):
    def given_up(*_, **__):
        raise GivenUp(["zfs", "hold"], "did not end within 900 s")

    monkeypatch.setattr(Door, "run", given_up)
    done = holds.hold(DOOR, TAG, ["t/a@1", "t/b@1"])
    assert (set(done.refused), done.unsure) == ({"t/a@1", "t/b@1"}, True)
    assert set(holds.release(DOOR, TAG, ["t/a@1", "t/b@1"]).left) == {"t/a@1", "t/b@1"}


def test_a_hold_that_was_never_made_is_none_to_release(fp):
    names = ["t/a@1", "t/b@1", "t/c@1"]
    said = "cannot release hold from snapshot 't/a@1': no such tag on this dataset\n"
    fp.register(["zfs", "release", TAG, *names], returncode=1, stderr=said)
    fp.register(["zfs", "holds", "-H", *names], returncode=1, stderr=GONE.format("t/c@1"),
                stdout=f"t/b@1\t{TAG}\tMon Nov 23 05:04 2026\n")  # fmt: skip
    fp.register(f"{THERE} t/a@1 t/b@1 t/c@1", returncode=1, stdout="t/a@1\nt/b@1\n",
                stderr=GONE.format("t/c@1"))  # fmt: skip
    done = holds.release(DOOR, TAG, names)
    assert (set(done.left), done.gone) == ({"t/b@1"}, {"t/c@1"})


def test_what_cannot_be_asked_stays(fp):
    fp.register(["zfs", "release", TAG, "t/a@1"], returncode=1, stderr="cannot release: I/O error")
    fp.register(["zfs", "holds", "-H", "t/a@1"], returncode=1, stderr="internal error")
    assert "internal error" in holds.release(DOOR, TAG, ["t/a@1"]).left["t/a@1"]


@pytest.mark.parametrize("odd", ["nonsense", "t/z@1\tx\ty", "t/a@1\tx", "\t\t", "t/a@1\tx\ty\tz"])
def test_a_line_that_makes_no_sense_is_no_hold(fp, odd):
    text = f"{odd}\nt/a@1\t{TAG}\tMon Nov 23 05:04 2026\n"
    fp.register(["zfs", "holds", "-H", "t/a@1"], stdout=text)
    assert holds.held(DOOR, ["t/a@1"]) == [Hold(TAG, "t/a@1")]


def test_no_holds_and_no_snapshots(fp):
    fp.register(["zfs", "holds", "-H", "t/a@1"], returncode=1,
                stderr=GONE.format("t/a@1") + "no datasets available\n")  # fmt: skip
    assert holds.held(DOOR, ["t/a@1"]) == []
    assert holds.held(DOOR, []) == []


def test_all_of_a_job_are_found_wherever_they_are(fp):
    text = "t/a@1\t0\nt/b@1\t2\nt/c@1\t1\nnonsense\n"
    fp.register("zfs list -Hp -t snapshot -s name -o name,userrefs", stdout=text)
    when = "Mon Nov 23 05:04 2026"
    lines = [f"t/b@1\tkeep\t{when}", f"t/b@1\t{TAG}\t{when}", f"t/c@1\trestomic:other:1\t{when}"]
    fp.register(["zfs", "holds", "-H", "t/b@1", "t/c@1"], stdout="\n".join(lines) + "\n")
    assert holds.with_tags(DOOR, "restomic:default:") == [Hold(TAG, "t/b@1")]


def test_where_they_cannot_be_seen_it_is_said(fp):
    fp.register("zfs list -Hp -t snapshot -s name -o name,userrefs", returncode=1, stderr="no")
    with pytest.raises(CommandFailed):
        holds.with_tags(DOOR, "restomic:default:")
