"""Fixtures: the port as it was built."""

from __future__ import annotations

import pytest

from port.build import Port


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Port:
    """The port, staged with all options, its programs for FreeBSD's python3. Do not change it."""
    port = Port(tmp_path_factory.mktemp("port"), {"python_CMD": "/usr/local/bin/python3"})
    port.make("package")
    return port
