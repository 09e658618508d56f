"""Which earlier snapshot restic is told to continue."""

from __future__ import annotations

import json
import os

import pytest

from kopiatomic.clients import restic_parent
from kopiatomic.clients.restic import Restic
from kopiatomic.job import Job
from kopiatomic.system.command import Door

HOST = os.uname().nodename
JOB = Job("restomic")



class TestParent:
    SNAPSHOTS = (
        {"id": "1", "time": "2026-01-01", "hostname": "h", "paths": ["/home"]},
        {"id": "2", "time": "2026-01-02", "hostname": "h", "paths": ["/home"]},
        {"id": "3", "time": "2026-01-03", "hostname": "h", "paths": ["/etc"]},
        {"id": "4", "time": "2026-01-04", "hostname": "other", "paths": ["/home", "/data"]},
    )

    def test_the_newest_that_shares_most(self):
        assert restic_parent.choose(self.SNAPSHOTS, ["/data", "/home"], "h") == "2"

    def test_restic_finds_one_that_holds_all_by_itself(self):
        assert restic_parent.choose(self.SNAPSHOTS, ["/home"], "h") is None

    def test_none_shares_anything(self):
        assert restic_parent.choose(self.SNAPSHOTS, ["/srv"], "h") is None

    def test_one_above_or_below_counts(self):
        assert restic_parent.choose(self.SNAPSHOTS, ["/home/ben", "/srv"], "h") == "2"

    def test_the_repository_may_be_named_after_the_subcommand(self, fp):
        asked = ["restic", "-r", "/r", "--no-cache", "--no-lock", "snapshots", "--json"]
        fp.register(asked, stdout=json.dumps(self.SNAPSHOTS))
        job = Job(
            "restomic", command=("restic", "backup", "-r", "/r", "--tag", "t"),
            options=("--host", "h", "--no-cache"),
        )  # fmt: skip
        assert Restic().parent(Door(), job, ["/data", "/home"], ["/home"], {}) == "2"

    def test_the_host_may_be_given_by_a_variable(self, fp):
        """As restic takes it for the backup's."""
        fp.register(["restic", fp.any()], stdout=json.dumps(self.SNAPSHOTS))
        environment = {"RESTIC_HOST": "h"}
        assert Restic().parent(Door(), JOB, ["/data", "/home"], ["/home"], environment) == "2"

    @pytest.mark.parametrize(
        "job",
        [
            Job("restomic", plain=True),
            Job("restomic", options=("--force",)),
            Job("restomic", command=("wrapper",)),
        ],
    )
    def test_nothing_is_asked(self, fp, job):
        assert Restic().parent(Door(), job, ["/a"], None, {}) is None
        assert not fp.calls

    def test_nothing_is_asked_while_the_paths_stay_the_same(self, fp):
        assert Restic().parent(Door(), JOB, ["/a"], ["/b", "/a"], {}) is None
        assert not fp.calls

    def test_asks_through_the_wrapper_with_the_repositorys_options(self, fp):
        fp.register(
            "restic-x -r /repo --no-lock snapshots --json",
            stdout=f'[{{"id":"9","time":"t","hostname":"{HOST}","paths":["/home"]}}]',
        )
        options = ("--exclude", "x", "-r", "/repo")
        job = Job("restomic", command=("restic-x", "backup"), options=options)
        assert Restic().parent(Door(), job, ["/home", "/data"], ["/home"], {}) == "9"

    @pytest.mark.parametrize(
        "answer", [{"returncode": 1}, {"stdout": "garbage"}, {"stdout": "[1]"}, {"stdout": "[{}]"}]
    )
    def test_a_repository_that_does_not_answer_is_the_backups_to_report(self, fp, answer):
        fp.register(["restic", fp.any()], **answer)
        assert Restic().parent(Door(), JOB, ["/a"], None, {}) is None
        assert fp.calls
