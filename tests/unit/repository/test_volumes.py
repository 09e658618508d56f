"""The drill of a volume: with what it is compared, and what is told."""

from __future__ import annotations

import pytest

from kopiatomic import state
from kopiatomic.clients.base import Client, Task
from kopiatomic.clients.records import File, Source, Tally
from kopiatomic.formatting import iso
from kopiatomic.job import Job
from kopiatomic.repository import volumes
from kopiatomic.state import Place
from kopiatomic.system import fingerprint
from kopiatomic.system.command import Door
from kopiatomic.system.fingerprint import BLOCK

DEVICE = "/dev/zvol/t/vm/d"
MOMENT = 1767323045.0
SOURCE = Source("abcdef0123", DEVICE, MOMENT, paths=(DEVICE,))
CONTENT = b"".join(bytes([n]) * BLOCK for n in range(4))


@pytest.mark.parametrize(
    ("paths", "is_one"),
    [((DEVICE,), True), (("/home",), False), ((DEVICE, "/home"), False), ((), False)],
)
def test_what_is_of_a_volume(paths, is_one):
    assert volumes.is_of_volume(SOURCE._replace(paths=paths)) is is_one


def entry(blocks, snapshots=("abcdef01",), moment=MOMENT, **more):
    row = {"stream": DEVICE, "size": len(CONTENT), "blocks": blocks,
           "client": {"snapshots": list(snapshots)}}  # fmt: skip
    return {"outcome": "success", "moment": iso(moment), "client_runs": [{"stream": None}, row],
            **more}  # fmt: skip


def noted(tmp_path):
    (tmp_path / "device").write_bytes(CONTENT)
    return fingerprint.as_list(fingerprint.take(str(tmp_path / "device"), len(CONTENT)))


class TestFingerprint:
    def test_that_of_the_backup_by_its_id(self, place, tmp_path):
        """An incomplete run may have made a newer backup of it."""
        state.remember(place, entry(["1:a"], ["fedcba"]))
        state.remember(place, entry(["2:b"], outcome="incomplete"))
        state.remember(place, entry(["3:c"], ["fedcba"]))
        assert volumes.fingerprint_of(place, SOURCE).blocks == {2: "b"}

    def test_or_by_its_moment(self, place):
        """On a terminal the client does not tell its id."""
        state.remember(place, entry(["1:a"], [], MOMENT - 60))
        state.remember(place, entry(["2:b"], [], MOMENT))
        assert volumes.fingerprint_of(place, SOURCE).blocks == {2: "b"}

    def test_the_last_backup_may_be_that_of_another_job(self, place):
        state.remember(place, entry(["1:a"], ["fedcba"], MOMENT - 60))
        state.remember(Place(place.program, "other"), entry(["2:b"]))
        assert volumes.fingerprint_of(place, SOURCE).blocks == {2: "b"}

    def test_that_of_another_program_is_not_asked_for(self, place):
        state.remember(Place("kopiatomic", place.job), entry(["2:b"]))
        assert volumes.fingerprint_of(place, SOURCE) is None

    @pytest.mark.parametrize("odd", [
        {}, {"client_runs": None}, {"client_runs": ["x", {"stream": DEVICE}]},
        {"client_runs": [{"stream": DEVICE, "client": {"snapshots": [7, None]}}]},
        {"client_runs": [{"stream": DEVICE, "client": {"snapshots": ["abc"]}, "blocks": 3}]},
    ])  # fmt: skip
    def test_what_makes_no_sense_is_nothing(self, place, odd):
        state.remember(place, odd)
        assert volumes.fingerprint_of(place, SOURCE) is None


class Sample(Client):
    """A client whose repository has a volume."""

    def __init__(self, size=4 * BLOCK, there=True):
        self.size, self.there = size, there

    def stream_in(self, reader, source):
        return File(DEVICE, self.size, None, ("dump", DEVICE)) if self.there else None


class Reads:
    """A reader of what the client prints."""

    def __init__(self, content=CONTENT):
        self.content, self.limit = content, 0

    def beginning(self, limit, *words):
        assert words == ("dump", DEVICE)
        self.limit = limit
        return iter([self.content[: min(limit, 100_000)], self.content[100_000:limit]])


def drilled(place, client=None, content=CONTENT, limit=1 << 30):
    task = Task(Job("restomic"), client or Sample(), Door(), {}, "", str)
    tally = Tally(SOURCE)
    reader = Reads(content)
    volumes.drill(task, reader, place, tally, limit)
    assert reader.limit <= limit
    return tally


def test_all_of_it(place, tmp_path):
    state.remember(place, entry(noted(tmp_path)))
    tally = drilled(place)
    assert (tally.problems, tally.identical, tally.blocks) == ([], 1, (4, 4))
    assert volumes.told(tally) == [
        "256 KiB of it read", "4 of 4 blocks are as noted when it was backed up",
    ]  # fmt: skip


def test_as_far_as_allowed(place, tmp_path):
    state.remember(place, entry(noted(tmp_path)))
    tally = drilled(place, limit=BLOCK + 100)
    assert (tally.problems, tally.read, tally.blocks) == ([], BLOCK + 100, (1, 1))
    assert volumes.told(tally)[0] == (
        "64.1 KiB of its 256 KiB read, as far as --size-limit allows"
    )


def test_one_that_differs(place, tmp_path):
    state.remember(place, entry(noted(tmp_path)))
    tally = drilled(place, content=CONTENT[: 2 * BLOCK] + b"x" * 2 * BLOCK)
    assert tally.problems == [
        f"{DEVICE}: differs from what was backed up in 2 of 4 blocks, from byte {2 * BLOCK} on"
    ]
    assert tally.identical == 0


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", b""])
def test_one_of_another_length(place, tmp_path, content):
    state.remember(place, entry(noted(tmp_path)))
    tally = drilled(place, content=content)
    size = len(CONTENT)
    assert tally.problems == [f"{DEVICE}: restored as {len(content)} bytes, not {size}"]


def test_one_whose_size_is_not_that_of_the_volume(place, tmp_path):
    state.remember(place, entry(noted(tmp_path)))
    tally = drilled(place, Sample(size=512))
    assert tally.problems == [f"{DEVICE}: 512 bytes in the backup, although it had {len(CONTENT)}"]


def test_one_of_which_nothing_is_noted_shows_nothing(place):
    tally = drilled(place)
    assert tally.problems == [
        f"{DEVICE}: nothing is noted of this backup that it could be compared with"
    ]
    assert (tally.changed, tally.identical) == ([], 0)
    assert "nothing is noted" in volumes.told(tally)[1]


def test_one_that_is_not_there(place):
    tally = drilled(place, Sample(there=False))
    assert tally.problems == [f"{DEVICE}: there is no volume in the backup"]
    assert volumes.told(tally) == []
