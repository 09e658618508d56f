"""What the system calls are given, and what is made of their answers."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
import sys

import pytest
from support import libc
from support.libc import Library, mounted

from kopiatomic.system import kernel
from kopiatomic.system.machine import Mount

HERE = mounted(b"/dev/vtbd0p2", b"/", b"ufs", (-478, 7), libc.LOCAL)


class TestMounting:
    def test_gives_the_kernel_what_the_programs_do(self, library):
        library.kernel().mount(
            {"fstype": "nullfs", "fspath": "/v/\udcffé", "target": "/a b/.zfs", "ro": ""},
            kernel.MNT_IGNORE,
        )
        assert library.given == [
            ({"fstype": "nullfs", "fspath": "/v/\udcffé", "target": "/a b/.zfs", "ro": ""},
             libc.IGNORE),
        ]  # fmt: skip

    def test_a_refusal_has_its_number_and_what_the_kernel_said(self, library):
        library.refusals["nmount"] = [errno.EPERM]
        library.message = b"no such \xff"
        said = re.escape("Operation not permitted (no such \udcff)")
        with pytest.raises(OSError, match=said) as caught:
            library.kernel().mount({"fstype": "nullfs"})
        assert caught.value.errno == errno.EPERM
        # Which may be just what the number says.
        for library.message in (b"", os.strerror(errno.EBUSY).encode()):
            library.refusals["nmount"] = [errno.EBUSY]
            with pytest.raises(OSError, match=r"busy$") as caught:
                library.kernel().mount({"fstype": "nullfs"})
            assert caught.value.strerror == os.strerror(errno.EBUSY)


class TestUnmounting:
    def test_by_the_number_of_the_file_system_which_may_be_negative(self, library):
        library.table = [HERE]
        library.kernel().unmount((-478, 7))
        assert library.unmounted == [((-478, 7), 0)]
        assert library.table == []

    def test_by_force(self, library):
        library.table, library.busy = [HERE], {(-478, 7)}
        with pytest.raises(OSError, match="busy"):
            library.kernel().unmount((-478, 7))
        library.kernel().unmount((-478, 7), force=True)
        assert library.unmounted == [((-478, 7), libc.FORCE)]

    def test_what_is_there_no_more(self, library):
        with pytest.raises(FileNotFoundError):
            library.kernel().unmount((1, 2))


class TestTheTable:
    def test_is_read_as_it_is_and_in_its_order(self, library):
        library.table = [
            HERE,
            mounted(b"devfs", b"/dev", b"devfs", flags=0),
            mounted(b"tank/a@s", b"/n\nl \xff\xe9", b"zfs", (3, -4), libc.LOCAL | libc.RDONLY),
            mounted(b"x", b"/x", b"tmpfs", flags=libc.NOSUID | libc.NOEXEC | libc.NOSYMFOLLOW),
        ]
        assert library.kernel().mounts() == [
            Mount("/dev/vtbd0p2", "/", "ufs", fsid=(-478, 7)),
            Mount("devfs", "/dev", "devfs", local=False, fsid=(1, 2)),
            Mount("tank/a@s", "/n\nl \udcff\udce9", "zfs", read_only=True, fsid=(3, -4)),
            Mount("x", "/x", "tmpfs", local=False, options=("noexec", "nosuid", "nosymfollow"),
                  fsid=(1, 2)),
        ]  # fmt: skip

    def test_the_longest_name_is_whole(self, library):
        point = b"/" + b"x" * 1022
        library.table = [mounted(point, point, b"nullfs")]
        assert library.kernel().mounts()[0].point == point.decode()

    @pytest.mark.parametrize("more", [7, 8, 9, 100])
    def test_what_is_mounted_meanwhile_is_there_as_well(self, library, monkeypatch, more):
        library.table = [HERE] * 3
        real = library.getfsstat

        def getfsstat(buffer, size, mode):
            count = real(buffer, size, mode)
            if buffer is None:
                library.table += [HERE] * more
            return count

        monkeypatch.setattr(library, "getfsstat", getfsstat)
        assert len(library.kernel().mounts()) == 3 + more

    def test_that_cannot_be_read(self, library):
        library.refusals["getfsstat"] = [errno.EFAULT]
        with pytest.raises(OSError, match="Bad address"):
            library.kernel().mounts()
        library.refusals["getfsstat"] = []

    def test_one_record_where_freebsd_was_seen_to_have_it(self):
        """The offsets that were measured there, not those of a structure of ours."""
        record = bytearray(2344)
        struct.pack_into("<I4xQ", record, 0, 0x20140518, 0x10801019)
        struct.pack_into("8s", record, 192, bytes.fromhex("e7ff042929000000"))
        for at, text in ((280, b"nullfs"), (296, b"/tank/a"), (1320, b"/v/ta\tb")):
            record[at : at + len(text)] = text
        assert kernel.mount_in(memoryview(bytes(record))) == Mount(
            "/tank/a", "/v/ta\tb", "nullfs", read_only=True, local=True, options=("nosuid",),
            fsid=(0x2904FFE7, 0x29),
        )  # fmt: skip
        assert ctypes.sizeof(libc.Statfs) == len(record) == kernel.STATFS_BYTES


def test_what_an_open_directory_is_on(library, tmp_path):
    library.put(tmp_path, HERE)
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        assert library.kernel().mount_of(here) == Mount("/dev/vtbd0p2", "/", "ufs", fsid=(-478, 7))
        library.refusals["fstatfs"] = [errno.EIO]
        with pytest.raises(OSError, match=r"I/O|Input/output"):
            library.kernel().mount_of(here)
    finally:
        os.close(here)


@pytest.mark.parametrize("jailed", [0, 1])
def test_whether_this_is_a_jail(jailed):
    assert Library(jailed=jailed).kernel().number("security.jail.jailed") == jailed


def test_whether_this_is_a_jail_is_not_known(library):
    library.refusals["sysctlbyname"] = [errno.ENOENT]
    with pytest.raises(FileNotFoundError):
        library.kernel().number("security.jail.jailed")


class TestFinding:
    def test_a_system_that_has_the_calls(self, library, monkeypatch):
        monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: library)
        found = kernel.find_kernel()
        assert found is not None
        found.mount({"fstype": "devfs"})
        assert library.given == [({"fstype": "devfs"}, 0)]

    @pytest.mark.parametrize("name", ["nmount", "unmount", "getfsstat", "fstatfs", "sysctlbyname"])
    def test_one_that_lacks_one_of_them(self, monkeypatch, name):
        class Lacking:
            def __getattr__(self, wanted):
                if wanted == name:
                    raise AttributeError(wanted)
                return print

        monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: Lacking())
        assert kernel.find_kernel() is None

    def test_a_python_without_ctypes(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "ctypes", None)
        assert kernel.find_kernel() is None


@pytest.mark.freebsd
def test_the_real_calls(tmp_path):
    for name in ("source", "point"):
        (tmp_path / name).mkdir()
    (tmp_path / "source/file").write_text("x")
    real = kernel.find_kernel()
    assert real is not None
    mount = {"fstype": "nullfs", "fspath": ".", "target": str(tmp_path / "source"), "ro": ""}
    before = os.getcwd()
    os.chdir(tmp_path / "point")
    try:
        real.mount(mount, kernel.MNT_IGNORE)
    finally:
        os.chdir(before)
    (made,) = [each for each in real.mounts() if each.point == str(tmp_path / "point")]
    try:
        assert (made.type, made.read_only) == ("nullfs", True)
        assert (tmp_path / "point/file").read_text() == "x"
        with pytest.raises(OSError, match=r"[Rr]ead-only"):
            (tmp_path / "point/new").touch()
        with open(tmp_path / "point/file") as file:
            assert real.mount_of(file.fileno()) == made
    finally:
        real.unmount(made.fsid, force=True)
    assert made not in real.mounts()
    with pytest.raises(FileNotFoundError):
        real.unmount(made.fsid)
    with pytest.raises(FileNotFoundError):
        real.mount(mount | {"target": str(tmp_path / "nowhere"), "fspath": str(tmp_path)})
    assert real.number("security.jail.jailed") in (0, 1)
