"""What nmount(2) is given and what is made of its answer."""

from __future__ import annotations

import ctypes
import os
import subprocess

import pytest

from kopiatomic.system import nullfs


def test_gives_the_kernel_what_mount_nullfs_does(call):
    nmount = nullfs.find_nmount()
    nmount(nullfs.options("/a b/.zfs", "/v/\udcff\u00e9", read_only=True))
    nmount(nullfs.options("/", "/v", read_only=False))
    assert call.given == [
        ([b"fstype\0", b"nullfs\0", b"fspath\0", b"/v/\xff\xc3\xa9\0", b"target\0",
          b"/a b/.zfs\0", b"ro\0", b"\0"], 0),
        ([b"fstype\0", b"nullfs\0", b"fspath\0", b"/v\0", b"target\0", b"/\0"], 0),
    ]  # fmt: skip
    assert len(call.argtypes) == 3


def test_a_system_without_it(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: object())
    assert nullfs.find_nmount() is None


@pytest.mark.freebsd
def test_the_real_call(tmp_path):
    for name in ("source", "point"):
        (tmp_path / name).mkdir()
    (tmp_path / "source/file").write_text("x")
    nmount = nullfs.find_nmount()
    mount = nullfs.options(str(tmp_path / "source"), ".", read_only=True)
    before = os.getcwd()
    os.chdir(tmp_path / "point")
    try:
        nmount(mount)
    finally:
        os.chdir(before)
    try:
        assert (tmp_path / "point/file").read_text() == "x"
        with pytest.raises(OSError, match=r"[Rr]ead-only"):
            (tmp_path / "point/new").touch()
    finally:
        subprocess.run(["umount", str(tmp_path / "point")], check=True)
    with pytest.raises(FileNotFoundError):
        nmount(mount | {"target": str(tmp_path / "nowhere"), "fspath": str(tmp_path)})
