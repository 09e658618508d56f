"""Sources that no job backs up any more."""

import pytest

from kopiatomic.clients.kopia_sources import NAMED, given_up
from kopiatomic.clients.records import ByHand, Made, Past

BY_HAND = ByHand("kopia-x")


def backup(path, second):
    """Return a backup as kopia lists it."""
    source = {"host": "h", "userName": "root", "path": path}
    return {"source": source, "startTime": f"1970-01-01T00:00:{second:02}Z"}


def run(paths, ended, job="default", meant=""):
    return Made(job, ended - 1, ended, tuple(paths.split()), meant=tuple(meant.split()))


class TestGivenUp:
    def find(self, listed, own, others=()):
        return given_up(listed, Past(tuple(own), tuple(others)), BY_HAND)

    def test_what_is_told(self, utc):
        listed = [backup("/a b", 1), backup("/a b", 2), backup("/c", 2)]
        own = [Made("default", 0, 3, ("/a b", "/c")), run("/c", 5)]
        assert self.find(listed, own) == [
            "no job backs up root@h:/a b any more, and kopia keeps 2 backups of it for ever, the "
            "last of 1970-01-01 00:00:02 UTC; if they are not wanted, and it is not only away for "
            "a while: kopia-x snapshot delete --all-snapshots-for-source 'root@h:/a b' --delete"
        ]

    @pytest.mark.parametrize(
        ("own", "others"),
        [
            ([run("/a", 3)], []),
            ([run("/a", 3), run("/b", 4)], [run("/a", 2, "other")]),  # another job's now
            ([run("/a", 3), run("/b", 4, meant="/a")], []),  # not mounted last time
            ([run("/a", 3), run("", 4)], []),  # that came to nothing
            ([run("/b", 3)], []),  # never a job's
            ([run("/a", 0), run("/b", 4)], []),  # by hand since then
            ([], []),
        ],
    )
    def test_what_is_not_told(self, own, others):
        assert self.find([backup("/a", 1)], own, others) == []

    def test_volumes_are_told_like_paths(self):
        device = "/dev/zvol/t/v"
        was = Made("default", 1, 2, ("/a",), streams=(device,))
        assert self.find([backup(device, 1)], [was]) == []
        only = Made("default", 3, 4, (), streams=(device,))
        assert len(self.find([backup(device, 1), backup("/a", 1)], [was, only])) == 1
        assert len(self.find([backup(device, 1)], [was, run("/a", 4)])) == 1

    def test_no_more_than_some(self):
        names = [f"/{number}" for number in range(NAMED + 2)]
        listed = [backup(name, 1) for name in names]
        found = self.find(listed, [run(" ".join(names), 3), run("/x", 4)])
        assert len(found) == NAMED + 1
        assert found[-1] == "and 2 more sources that no job backs up any more"
