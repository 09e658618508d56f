"""What jobs have backed up, and whose pool is not imported now."""

from dataclasses import replace

import pytest
from support.datasets import simple

from kopiatomic.job import Job
from kopiatomic.monitoring.history import PastRun
from unit.monitoring.runs import DAY, HOUR, NOW
from unit.monitoring.test_check import find, past, run


class TestAway:
    """What came along with -a, or below a directory, and is in a pool that is not imported."""

    BEFORE = run(DAY, captured=("zroot/home", "usb", "usb/x"), points=("/home", "/usb", "/usb/x"))
    ALL = Job("restomic", everything=True)

    def see(self, job: Job | None, *runs: PastRun, captured=("zroot/home",), **changes):
        datasets, table = simple()
        last = run(HOUR, job=job, captured=captured, points=("/home", "/usb"))
        changes = {"datasets": tuple(datasets), "table": tuple(table), **changes}
        return [each for each in find(past(*runs, last), **changes) if each.kind == "dropped"]

    @pytest.mark.parametrize("job", [ALL, Job("restomic", targets=("/usb",), recursive=True)])
    def test_it_is_told(self, job):
        (found,) = self.see(job, self.BEFORE)
        assert found.text == (
            "2 datasets were in a backup, and the pool is not imported now: usb, usb/x"
        )
        assert "zpool import usb; " in found.remedy
        assert found.remedy.endswith("-x usb in the job")

    @pytest.mark.parametrize(
        "job",
        [
            None, ALL._replace(exclude=("usb",)), Job("restomic", targets=("zroot/home",)),
            Job("restomic", targets=("/home",), recursive=True),
            Job("restomic", targets=("/usb",)),
        ],
    )  # fmt: skip
    def test_what_no_job_would_take_along_is_not(self, job):
        assert self.see(job, self.BEFORE) == []

    def test_nor_is_what_is_long_ago_or_was_never_in_a_good_backup(self):
        assert self.see(self.ALL, replace(self.BEFORE, moment=NOW - 41 * DAY)) == []
        assert self.see(self.ALL, replace(self.BEFORE, outcome="incomplete")) == []
        assert self.see(self.ALL) == []

    def test_nor_what_is_imported_for_the_time_of_the_backup_alone(self):
        captured = ("zroot/home", "usb")
        (found,) = self.see(self.ALL, self.BEFORE, captured=captured)
        assert found.text.startswith("1 dataset was in a backup")
        assert found.text.endswith(": usb/x")

    def test_nor_anything_where_no_pool_is_known(self):
        assert self.see(self.ALL, self.BEFORE, datasets=(), table=()) == []
