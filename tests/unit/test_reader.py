"""Reading what the client prints."""

from __future__ import annotations

import os
import sys
import time

from kopiatomic import state
from kopiatomic.clients.reader import Reader
from kopiatomic.system.command import Door
from kopiatomic.system.process import Signals
from unit.drills import place

__all__ = ["place"]


def test_a_listing_is_read_as_it_comes(place):
    state.private_directory(state.STATE_DIRECTORY)
    code = "import sys\nfor i in range(100000): print('x' * 50)\nprint('end', end='')"
    with Signals() as signals:
        reader = Reader(Door(), [sys.executable, "-c"], os.environ, signals)
        lines = list(reader.lines(code))
    assert len(lines) == 100_001
    assert lines[-1] == b"end"


def test_a_listing_left_early_ends_the_client(place):
    state.private_directory(state.STATE_DIRECTORY)
    code = "import time\nprint('one', flush=True)\ntime.sleep(60)"
    with Signals() as signals:
        reader = Reader(Door(), [sys.executable, "-c"], os.environ, signals)
        began = time.monotonic()
        lines = reader.lines(code)
        assert next(lines) == b"one"
        lines.close()
    assert time.monotonic() - began < 10
