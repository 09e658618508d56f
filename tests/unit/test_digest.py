"""A digest is the same with and without the module that is quick to load."""

import hashlib
import importlib
import sys

import pytest

from kopiatomic import digest


@pytest.fixture(params=["lean", "hashlib"])
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    if request.param == "hashlib":
        monkeypatch.setitem(sys.modules, "_blake2", None)
    yield importlib.reload(digest)
    monkeypatch.undo()
    importlib.reload(digest)


@pytest.mark.parametrize("data", [b"", b"abc", bytes(1 << 16)], ids=len)
def test_it_is_blake2b(module, data: bytes):
    assert module.digest(data) == hashlib.blake2b(data, digest_size=16).hexdigest()


def test_as_it_has_always_been(module):
    # Older histories have digests of volumes' blocks.
    assert module.digest(b"abc") == "cf4ab791c62b8d2b2109c90275287816"
