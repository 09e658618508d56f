"""The mount table as the kernel has it, and as mount(8) tells it."""

import errno
import json

import pytest
from support.libc import mounted

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
        Mount(
            "/home/.zfs/snapshot/k1", "/m/with ta\tb", "nullfs", read_only=True,
            options=("nosuid",),
        ),
        Mount("t", "/m/nl\nl", "zfs", local=False),
    ]  # fmt: skip


class TestByTheKernel:
    def test_no_program_is_started(self, library, fp):
        library.table = [mounted(b"zroot/home", b"/home", b"zfs")]
        lines = []
        table = mounts.table(Door(lines.append, library.kernel()))
        assert table == [Mount("zroot/home", "/home", "zfs", fsid=(1, 2))]
        assert lines == ["+ getfsstat"]
        assert not fp.calls

    def test_where_it_refuses_no_program_is_asked_that_may_wait(self, library, fp):
        library.refusals["getfsstat"] = [errno.EFAULT]
        with pytest.raises(CommandFailed, match=r"^getfsstat: Bad address$"):
            mounts.table(Door(kernel=library.kernel()))
        assert not fp.calls


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"mount": 1}', '{"mount": {"mounted": [{"node": "/"}]}}', "[" * 9999]
)
def test_anything_else_is_a_failure(text):
    with pytest.raises(CommandFailed, match="not a mount table"):
        mounts.parse(("mount",), text)


def test_an_empty_table():
    assert mounts.parse(("mount",), json.dumps({"mount": {"mounted": []}})) == []
