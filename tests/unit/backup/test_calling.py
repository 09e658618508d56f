"""Calling the client: what is read in its words, and what it is asked for.

How client runs follow each other is in test_routine.py.
"""

import pytest

from kopiatomic import state
from kopiatomic.backup import calling
from kopiatomic.backup.plan import Plan
from kopiatomic.backup.selection import Captured
from kopiatomic.clients.base import Task
from kopiatomic.job import Job
from kopiatomic.state import Place

TASK = Task(Job("restomic"), None, None, {}, "", str)


@pytest.mark.parametrize(
    ("text", "point"),
    [("open /m n/f", "/m n"), ("open /m", None), ("open /mnt/xy", None), ("", None),
     ("open '/mnt/x'", "/mnt/x"), ("sftp:h:/srv/mnt/x", None),
     ("cannot read /mnt/x/data/f", None), ("open /mnt/x/data2", "/mnt/x")],
)  # fmt: skip
def test_which_of_the_unseen_a_text_names(text, point):
    captured = (Captured("kta/x", "/mnt/x/data"),)
    plan = Plan(None, captured, (), (), (), (), unseen=("/m n", "/mnt/x"))
    hint = calling.unseen_hint(plan, text)
    assert (hint is None) if point is None else hint.startswith(f"{point}, which it names")


def test_the_last_paths_are_those_of_the_last_good_run(places):
    place = Place("restomic", "default")
    assert calling.last_paths(place, TASK) is None
    state.remember(place, {"outcome": "success", "paths": ["/a", "/b"]})
    state.remember(place, {"outcome": "failed", "paths": ["/a"]})
    assert calling.last_paths(place, TASK) == ["/a", "/b"]


def test_of_several_repositories_each_has_last_paths_of_its_own(places):
    place = Place("restomic", "default")

    def remember(paths, here, away):
        rows = [
            {"kind": "files", "env_file": f"/{name}", "outcome": outcome}
            for name, outcome in (("here", here), ("away", away))
        ]
        state.remember(place, {"outcome": "incomplete", "paths": paths, "client_runs": rows})

    remember(["/a"], "success", "success")
    remember(["/a", "/b"], "success", "failed")
    for name, paths in (("here", ["/a", "/b"]), ("away", ["/a"])):
        job = Job("restomic", env_files=(f"/{name}",))
        assert calling.last_paths(place, TASK._replace(job=job, repository=name)) == paths
    assert calling.last_entry(place)["paths"] == ["/a", "/b"]
