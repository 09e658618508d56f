"""What is asked of gpart(8) and glabel(8), and how their answers are read."""

import pytest

from kopiatomic.system import disks
from kopiatomic.system.command import CommandFailed, Door
from kopiatomic.system.disks import Disk

DOOR = Door()
SHOW = """\
=>      40  41942960    ada0  GPT  (20G)
        40      1024  ada0p1  freebsd-boot  (512K)
      1064       984          - free -  (492K)
      2048  41938944  ada0p2  freebsd-zfs  [bootme]  (20G)

=>40      976773088  da1  MBR  (466G)
  40      976773088  da1s1  freebsd  [active]  (466G)

=>         0  976773088   da1s1  BSD  (466G)
           0  976773088  da1s1a  freebsd-zfs  (466G)

"""
BACKUP = """\
GPT 128
1   freebsd-boot     40     1024 boot0 \n2    freebsd-zfs   2048 41938944  [bootme] \n\
"""


def answers(fp, labels: str = "") -> None:
    fp.register("gpart show -p", stdout=SHOW)
    fp.register("glabel status -s", stdout=labels)


def test_nothing_is_asked_where_no_device_is(fp):
    assert disks.disks(DOOR, ["/var/pool.img"]) == ()
    assert list(fp.calls) == []


def test_the_table_of_the_disk_that_a_partition_is_on(fp):
    answers(fp)
    fp.register("gpart backup ada0", stdout=BACKUP)
    table = ("GPT 128", "1 freebsd-boot 40 1024 boot0", "2 freebsd-zfs 2048 41938944 [bootme]")
    assert disks.disks(DOOR, ["/dev/ada0p2"]) == (Disk("ada0", table),)


@pytest.mark.parametrize(
    "device", ["/dev/gpt/my%20data", "/dev/gpt/my%20data.eli", "/dev/ada0p2.eli"]
)
def test_labels_and_what_is_encrypted_lead_there_too(fp, device):
    answers(fp, "gpt/my%20data  N/A  ada0p2\n  gpt/boot0  N/A  ada0p1\n")
    fp.register("gpart backup ada0", stdout="GPT 128\n")
    assert disks.disks(DOOR, [device]) == (Disk("ada0", ("GPT 128",)),)


def test_a_slice_has_a_table_of_its_own(fp):
    answers(fp)
    for name, scheme in (("da1", "MBR 4"), ("da1s1", "BSD 8")):
        fp.register(f"gpart backup {name}", stdout=f"{scheme}\n")
    found = disks.disks(DOOR, ["/dev/da1s1a"])
    assert found == (Disk("da1", ("MBR 4",)), Disk("da1s1", ("BSD 8",)))


def test_a_whole_disk_has_none(fp):
    answers(fp)
    assert disks.disks(DOOR, ["/dev/ada7"]) == ()


def test_labels_that_lead_in_a_circle_end(fp):
    answers(fp, "gpt/a  N/A  gpt/b\ngpt/b  N/A  gpt/a\n")
    assert disks.disks(DOOR, ["/dev/gpt/a"]) == ()


def test_garbage_is_refused(fp):
    fp.register("gpart show -p", stdout="something else entirely\n")
    with pytest.raises(CommandFailed, match="not understood"):
        disks.disks(DOOR, ["/dev/ada0p2"])
