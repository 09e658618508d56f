"""What several repositories are called, and which are one and the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kopiatomic.clients import make_ready
from kopiatomic.clients.base import Task
from kopiatomic.clients.records import Needs, together
from kopiatomic.clients.repositories import names_of
from kopiatomic.errors import Refusal
from kopiatomic.job import Job
from kopiatomic.system.command import Door


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["/etc/a.env", "/etc/b.env"], ("a.env", "b.env")),
        (["/home/x.env", "/away/x.env"], ("home/x.env", "away/x.env")),
        (["/x.env", "/away/x.env", "/etc/y"], ("/x.env", "away/x.env", "y")),
        (["/a/b/x", "/c/b/x"], ("a/b/x", "c/b/x")),
        (["/a/x", "/a/yx"], ("x", "yx")),
    ],
)
def test_what_they_are_called(files, names):
    assert names_of(files) == names


def ready(program: str, *held: dict[str, str], files: tuple[str, ...] = (), **job: object) -> Task:
    files = files or tuple(f"/{number}.env" for number in range(len(held)))
    first, *further = (
        Job(program, env_files=(file,), environment=variables, **job)
        for file, variables in zip(files, held, strict=True)
    )
    return make_ready(first, Door(), {"HOME": "/root"}, installed=False, further=further)


class TestRestic:
    def test_each_has_its_variables_its_name_and_all_secrets_hidden(self):
        task = ready(
            "restomic", {"RESTIC_REPOSITORY": "/a", "RESTIC_PASSWORD": "horse"},
            {"RESTIC_REPOSITORY": "/b", "RESTIC_PASSWORD": "horses and staples"},
        )  # fmt: skip
        (away,) = task.more
        assert (task.repository, away.repository) == ("0.env", "1.env")
        assert (task.env_file, away.env_file) == ("/0.env", "/1.env")
        assert away.environment["RESTIC_REPOSITORY"] == "/b"
        for each in (task, away):
            assert each.hide("horses and staples or horse") == "[hidden] or [hidden]"
        assert "(with the variables of /1.env)" in str(away.client.by_hand(away.job)("init"))

    @pytest.mark.parametrize(
        ("one", "other", "job"),
        [
            ({"RESTIC_REPOSITORY": "/a"}, {"RESTIC_REPOSITORY": "local:/a/"}, {}),
            ({"RESTIC_REPOSITORY": "s3:h/b"}, {"RESTIC_REPOSITORY": "s3:h/b"}, {}),
            ({"RESTIC_REPOSITORY_FILE": "/f"}, {"RESTIC_REPOSITORY_FILE": "/f"}, {}),
            ({"RESTIC_REPOSITORY": "/a"}, {"RESTIC_REPOSITORY": "/b"}, {"options": ("-r", "/c")}),
            ({"A": "1"}, {"A": "2"}, {"command": ("restic", "--repo=/c", "backup")}),
            # Relative ones are those of /, where the client starts.
            ({"RESTIC_REPOSITORY": "/a/b"}, {"RESTIC_REPOSITORY": "a/./b"}, {}),
            ({"RESTIC_REPOSITORY": "/a"}, {"RESTIC_REPOSITORY": "/b/../a"}, {}),
            ({"RESTIC_REPOSITORY": "local:a"}, {"RESTIC_REPOSITORY": "b/../a/"}, {}),
            ({"RESTIC_REPOSITORY": "rest:https://h/a"},
             {"RESTIC_REPOSITORY": "rest:https://h/a/"}, {}),
        ],
    )
    def test_the_same_one_is_refused(self, one, other, job):
        with pytest.raises(Refusal, match=r"/0.env and /1.env lead to the same repository"):
            ready("restomic", one, other, **job)

    def test_links_are_followed(self, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "b").symlink_to("a")
        held = [{"RESTIC_REPOSITORY": f"{tmp_path}/{name}/restic"} for name in "ab"]
        with pytest.raises(Refusal, match="lead to the same repository"):
            ready("restomic", *held)

    @pytest.mark.parametrize(
        ("first", "second", "inherited", "job"),
        [
            ({}, {"RESTIC_REPOSITORY": "/a"}, {"RESTIC_REPOSITORY": "/a"}, {}),
            ({}, {"X": "y"}, {"RESTIC_REPOSITORY": "/a"}, {}),
            ({}, {}, {}, {"options": ("-r", "/a")}),
        ],
    )
    def test_an_empty_file_says_nothing_and_what_it_leaves_counts(
        self, tmp_path, first, second, inherited, job
    ):
        jobs = []
        for name, held in (("a", first), ("b", second)):
            (tmp_path / name).touch(0o600)
            jobs.append(Job("restomic", env_files=(f"{tmp_path}/{name}",), environment=held, **job))
        with pytest.raises(Refusal, match="lead to the same repository"):
            make_ready(jobs[0], Door(), inherited, installed=False, further=jobs[1:])
        # Where it may not be read, in a dry run without rights, nothing is known of it.
        jobs = [each._replace(environment={}, env_files=(f"/none/{n}",))
                for n, each in enumerate(jobs)]  # fmt: skip
        assert make_ready(jobs[0], Door(), inherited, installed=False, further=jobs[1:]).more

    def test_one_that_two_files_name_is_refused(self, tmp_path):
        for name, text in (("a", "/srv/x\n"), ("b", "/srv/x"), ("c", "/srv/$y"), ("d", "/srv/$y")):
            (tmp_path / name).write_text(text)
        held = {name: {"RESTIC_REPOSITORY_FILE": f"{tmp_path}/{name}"} for name in "abcd"}
        assert len(ready("restomic", held["b"], held["c"]).more) == 1
        for one, other in ("ab", "cd"):
            with pytest.raises(Refusal, match="lead to the same repository"):
                ready("restomic", held[one], held[other])

    def test_the_refusal_shows_no_secret(self):
        url = {"RESTIC_REPOSITORY": "rest:http://u:hunter22@h/"}
        with pytest.raises(Refusal) as caught:
            ready("restomic", url, url)
        assert "hunter22" not in str(caught.value)
        assert "RESTIC_REPOSITORY" in str(caught.value)

    @pytest.mark.parametrize(
        ("one", "other", "job"),
        [
            ({"RESTIC_REPOSITORY": "/a"}, {"RESTIC_REPOSITORY": "/b"}, {}),
            ({"A": "1"}, {"A": "2"}, {}),
            ({}, {}, {"options": ("-r", "/c")}),  # not read: a dry run without rights
            ({"RESTIC_REPOSITORY": "/a"}, {"RESTIC_REPOSITORY": "/a"}, {"plain": True}),
            ({"A": "1"}, {"A": "2"}, {"options": ("-r", "$REPO")}),
        ],
    )
    def test_of_others_nothing_is_said(self, one, other, job):
        assert len(ready("restomic", one, other, **job).more) == 1

    def test_the_same_file_twice(self):
        held = {"RESTIC_REPOSITORY": "/a"}
        with pytest.raises(Refusal, match=r"-e /e is given twice"):
            ready("restomic", held, held, files=("/e", "/e"))


class TestWrapper:
    def write(self, tmp_path: Path, text: str) -> tuple[str, str]:
        script = tmp_path / "wrapper"
        script.write_text(f'#!/bin/sh\n{text}\nexec restic "$@"\n')
        script.chmod(0o755)
        return str(script), "backup"

    def ready(self, tmp_path: Path, text: str) -> Task:
        jobs = [
            Job("restomic", command=self.write(tmp_path, text), env_files=(f"/{name}",),
                environment={"NAME": name, "RESTIC_REPOSITORY": f"/{name}"})
            for name in "ab"
        ]  # fmt: skip
        return make_ready(jobs[0], Door(), {}, further=jobs[1:])

    @pytest.mark.parametrize("text", ["export RESTIC_REPOSITORY=/c", "restic -r /c check"])
    def test_one_that_names_a_repository_is_refused(self, tmp_path, text):
        with pytest.raises(Refusal, match="lead to the same repository"):
            self.ready(tmp_path, text)

    @pytest.mark.parametrize("text", ["", 'export RESTIC_REPOSITORY="/srv/$NAME"'])
    def test_one_that_does_not_is_good(self, tmp_path, text):
        assert len(self.ready(tmp_path, text).more) == 1


class TestKopia:
    def config(self, tmp_path: Path, name: str, **storage: object) -> dict[str, str]:
        path = tmp_path / f"{name}.config"
        if storage:
            path.write_text(json.dumps({"storage": {"type": "filesystem", "config": storage}}))
        return {"KOPIA_CONFIG_PATH": str(path)}

    def test_two_configurations_are_two(self, tmp_path):
        held = [self.config(tmp_path, name, path=f"/{name}") for name in "ab"]
        assert len(ready("kopiatomic", *held).more) == 1
        held = [self.config(tmp_path, name) for name in "cd"]
        assert len(ready("kopiatomic", *held).more) == 1

    def test_unless_they_are_of_one_repository(self, tmp_path):
        held = [self.config(tmp_path, name, path="/same") for name in "ab"]
        with pytest.raises(Refusal, match="must set KOPIA_CONFIG_PATH"):
            ready("kopiatomic", *held)

    def test_also_by_other_ways_and_with_other_keys(self, tmp_path):
        (tmp_path / "same").mkdir()
        (tmp_path / "link").symlink_to("same")
        ways = [{"path": f"{tmp_path}/{each}"} for each in ("link", "same/../same")]
        held = [self.config(tmp_path, name, **way) for name, way in zip("ab", ways, strict=True)]
        with pytest.raises(Refusal, match="lead to the same repository"):
            ready("kopiatomic", *held)
        for name, key in zip("ab", ("one", "two"), strict=True):
            storage = {"type": "s3", "config": {"bucket": "b", "endpoint": "h", "accessKeyID": key}}
            (tmp_path / f"{name}.config").write_text(json.dumps({"storage": storage}))
        with pytest.raises(Refusal, match="lead to the same repository"):
            ready("kopiatomic", *held)
        storage["config"]["prefix"] = "other/"
        (tmp_path / "b.config").write_text(json.dumps({"storage": storage}))
        assert len(ready("kopiatomic", *held).more) == 1

    def test_two_servers_are_two(self, tmp_path):
        held = []
        for name, url in (("a", "https://h:1"), ("b", "https://h:2"), ("c", "https://h:1/")):
            path = tmp_path / f"{name}.config"
            path.write_text(json.dumps({"apiServer": {"url": url}}))
            held.append({"KOPIA_CONFIG_PATH": str(path)})
        assert len(ready("kopiatomic", *held[:2]).more) == 1
        with pytest.raises(Refusal, match="lead to the same repository"):
            ready("kopiatomic", held[0], held[2])

    def test_without_one_both_have_the_usual(self):
        with pytest.raises(Refusal, match="lead to the same repository"):
            ready("kopiatomic", {"KOPIA_PASSWORD": "a"}, {"KOPIA_PASSWORD": "b"})


def test_needs_of_all():
    one = Needs("/bin/c", writable=("/a",), scratch=("/s",), texts=("t",))
    other = Needs("/bin/c", writable=("/a", "/b"), places=("/p",), texts=("u",))
    both = together([one, other])
    assert (both.program, both.writable, both.scratch) == ("/bin/c", ("/a", "/b"), ("/s",))
    assert (both.places, both.texts) == (("/p",), ("t", "u"))
