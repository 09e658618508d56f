"""The figures that restic closes a backup with."""

from __future__ import annotations

import pytest

from kopiatomic.clients.records import Figures
from kopiatomic.clients.restic import Restic

SAID = b"""using parent snapshot 1290b76e

Files:           1 new,     2 changed,  7781 unmodified
Dirs:            0 new,    19 changed,   952 unmodified
Added to the repository: 370.349 KiB (61.627 KiB stored)

processed 7784 files, 265.116 MiB in 0:03
snapshot f1b4b257 saved
"""


class TestFigures:
    def test_lines(self):
        figures = Restic().figures(SAID, b"")
        assert figures == Figures(7784, 3, 19, 277994275, 379237, ("f1b4b257",))

    def test_json(self):
        line = (
            b'{"message_type":"summary","files_new":1,"files_changed":2,"files_unmodified":3,'
            b'"dirs_new":0,"dirs_changed":4,"data_added":5,"total_files_processed":6,'
            b'"total_bytes_processed":7,"snapshot_id":"abc"}\n'
        )
        said = b'{"message_type":"status"}\n' + line
        assert Restic().figures(said, b"") == Figures(6, 3, 4, 7, 5, ("abc",))

    @pytest.mark.parametrize("text", [b"", b"{" * 10000, b"\n{" * 10000, b"\xff\xfe{}", b"{}\n[]"])
    def test_nonsense_gives_no_figures(self, text):
        assert Restic().figures(text, b"") == Figures()
