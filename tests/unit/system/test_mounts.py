"""The mount table as mount(8) tells it."""

import json

import pytest

from kopiatomic.system import mounts
from kopiatomic.system.command import CommandFailed, Door
from kopiatomic.system.machine import Mount

# As recorded on FreeBSD 14.2, with a tab in a mount point left as it is.
RECORDED = (
    '{"mount": {"mounted": [{"special":"zroot/home","node":"/home","fstype":"zfs", '
    '"opts": ["local","nfsv4acls"],"fsid":"122dd362dedc351b", "vnodes": {"count":6}}, '
    '{"special":"/home/.zfs/snapshot/k1","node":"/m/with ta\tb","fstype":"nullfs", '
    '"opts": ["local","noatime","nosuid","read-only","nfsv4acls"],"fsid":"03ff002929000000", '
    '"vnodes": {"count":1}}, {"special":"t","node":"/m/nl\\nl","fstype":"zfs", '
    '"opts": [],"fsid":"04"}]}}\n'
)


def test_reads_the_table(fp):
    fp.register("mount -v --libxo json", stdout=RECORDED)
    assert mounts.table(Door()) == [
        Mount("zroot/home", "/home", "zfs"),
        Mount("/home/.zfs/snapshot/k1", "/m/with ta\tb", "nullfs", read_only=True),
        Mount("t", "/m/nl\nl", "zfs", local=False),
    ]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"mount": 1}', '{"mount": {"mounted": [{"node": "/"}]}}', "[" * 9999]
)
def test_anything_else_is_a_failure(text):
    with pytest.raises(CommandFailed, match="not a mount table"):
        mounts.parse(("mount",), text)


def test_an_empty_table():
    assert mounts.parse(("mount",), json.dumps({"mount": {"mounted": []}})) == []
