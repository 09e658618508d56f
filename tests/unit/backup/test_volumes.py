"""Which of the volumes that were chosen are backed up."""

import pytest
from support.datasets import dataset, unmounted

from kopiatomic.backup import volumes
from kopiatomic.backup.selection import Captured, Selection
from kopiatomic.errors import Refusal
from kopiatomic.job import Job
from kopiatomic.system.command import Door

DOOR = Door()
JOB = Job("restomic", volumes=True)
CHOSEN = Selection((), (), (), (
    Captured("t/a", "/dev/zvol/t/a"), Captured("t/s", "/dev/zvol/t/s"),
    Captured("t/named", "/dev/zvol/t/named", named=True),
))  # fmt: skip
LISTED = "zfs list -Hp -t volume -o name,volsize,volmode,org.freebsd:swap t/a t/s"


def test_swap_space_is_left_out_and_told(fp):
    fp.register(LISTED, stdout="t/a\t4096\tdefault\t-\nt/s\t4096\tdefault\ton\n")
    found = volumes.fit_for(JOB, DOOR, CHOSEN)
    assert [each.dataset for each in found.volumes] == ["t/a", "t/named"]
    (left,) = found.left_out
    assert (left.name, left.kind) == ("t/s", "swap")


def test_where_that_cannot_be_told_all_are_backed_up(fp):
    fp.register(LISTED, returncode=1, stderr="cannot open 't/a': dataset does not exist\n")
    assert volumes.fit_for(JOB, DOOR, CHOSEN) == CHOSEN


def test_what_is_named_is_asked_nothing_about(fp):
    named = CHOSEN._replace(volumes=CHOSEN.volumes[2:])
    assert volumes.fit_for(JOB, DOOR, named) == named
    assert volumes.fit_for(JOB, DOOR, Selection((), ())) == Selection((), ())
    assert not fp.calls


def test_existing_snapshots_are_for_file_systems():
    with pytest.raises(Refusal, match=r"^--snapshot .* back up t/a in a job of its own$"):
        volumes.fit_for(JOB._replace(snapshot="auto*"), DOOR, CHOSEN)


def test_plain_has_no_way_for_them():
    with pytest.raises(Refusal, match=r"leave out --plain, or t/a$"):
        volumes.fit_for(JOB._replace(plain=True), DOOR, CHOSEN)
    assert volumes.fit_for(JOB._replace(plain=True), DOOR, Selection((), ())) == Selection((), ())


@pytest.mark.parametrize("target", ["/dev/zvol/t/vm", "/dev/zvol/t/vm/"])
def test_a_directory_of_devices_is_no_volume(target):
    known = [dataset("t/vm"), unmounted("t/vm/disk0", type="volume")]
    job = Job("restomic", targets=("/x", target), origins={target: "/l, line 2"})
    with pytest.raises(Refusal) as caught:
        volumes.check_devices(job, known)
    assert str(caught.value) == (
        f"/l, line 2: '{target}' is a directory of devices, and t/vm a file system; name each "
        "volume (zfs list -t volume -r t/vm shows them), or say -r --volumes t/vm for all that is "
        "in it"
    )


@pytest.mark.parametrize("target", ["/dev/zvol/t/vm/disk0", "t/vm", "/t/vm", "/dev/zvol/t/none"])
def test_a_device_a_dataset_and_a_path_are_taken_for_that(target):
    known = [dataset("t/vm"), unmounted("t/vm/disk0", type="volume")]
    volumes.check_devices(Job("restomic", targets=(target,)), known)
