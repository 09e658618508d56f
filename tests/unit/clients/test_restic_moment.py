"""The moment of a backup, as restic's --time has it."""

from __future__ import annotations

import os

import pytest

from kopiatomic.clients.restic_moment import when


@pytest.mark.parametrize(("zone", "expected"), [
    ("Asia/Tokyo", "2023-11-15 07:13:20"),
    (":Asia/Tokyo", "2023-11-15 07:13:20"),
    ("/usr/share/zoneinfo/Asia/Tokyo", "2023-11-15 07:13:20"),
    # Go, in which restic is written, knows no zones but those that have a file.
    ("JST-9", "2023-11-14 22:13:20"),
    ("EST5EDT,M3.2.0,M11.1.0", "2023-11-14 22:13:20"),
    ("Mars/Olympus", "2023-11-14 22:13:20"),
    ("", "2023-11-14 22:13:20"),
    ("UTC", "2023-11-14 22:13:20"),
    ("/etc/passwd", "2023-11-14 22:13:20"),
])  # fmt: skip
def test_the_time_in_the_clients_zone(zone: str, expected: str):
    if "Tokyo" in zone and not os.path.exists("/usr/share/zoneinfo/Asia/Tokyo"):
        pytest.skip("this machine has no file of that zone")
    assert when(1_700_000_000.5, zone) == expected
    assert when(None, zone) == "TIME-OF-SNAPSHOT"
