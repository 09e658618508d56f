"""What kopia is told, and how its answers are read."""

from __future__ import annotations

import json

import pytest

from kopiatomic.clients.kopia import Kopia
from kopiatomic.clients.reader import ClientFailed
from kopiatomic.clients.records import CHECK, MAINTENANCE, Figures, Request, Wishes
from kopiatomic.errors import Refusal
from kopiatomic.job import Job
from kopiatomic.system.command import Door
from unit.clients.answers import Answers

MOMENT = 1795410241.9  # 2026-11-23 05:04:01 UTC
JOB = Job("kopiatomic")


class TestBackupCommand:
    def test_in_full(self):
        job = Job("kopiatomic", options=("--tags=a:b",))
        assert Kopia().backup_command(job, Request(("/data",), moment=MOMENT)) == [
            "kopia", "snapshot", "create", "--start-time", "2026-11-23 05:04:01 UTC", "--json",
            "--json-verbose", "--progress", "--tags=a:b", "/data",
        ]  # fmt: skip

    def test_before_the_moment_is_known(self):
        words = Kopia().arguments(JOB, Request(("/data",)))
        assert words[:2] == ["--start-time", "TIME-OF-SNAPSHOT"]

    def test_the_users_own_time_wins(self):
        job = Job("kopiatomic", options=("--start-time=2020-01-01 00:00:00 UTC",))
        assert Kopia().arguments(job, Request((), moment=MOMENT)) == [
            "--json", "--json-verbose", "--progress",
        ]  # fmt: skip

    @pytest.mark.parametrize("own", ["--json", "--no-json", "--no-progress"])
    def test_the_users_own_output_wins(self, own):
        job = Job("kopiatomic", options=(own,))
        assert len(Kopia().arguments(job, Request((), moment=MOMENT))) == 2

    def test_at_a_terminal_kopia_speaks_to_the_user(self):
        words = Kopia().backup_command(JOB, Request(("/data",), moment=MOMENT, captured=False))
        assert "--json" not in words
        assert not Kopia().speaks_to_us_alone(words)
        words = Kopia().backup_command(JOB, Request(("/data",), moment=MOMENT))
        assert Kopia().speaks_to_us_alone(words)

    def test_continues_the_history_by_itself(self, fp):
        assert Kopia().parent(Door(), JOB, ["/a"], None, {}) is None
        assert not fp.calls

    def test_no_status_means_incomplete(self):
        assert not any(map(Kopia().is_incomplete, range(256)))


class TestRepository:
    @pytest.fixture
    def config(self, tmp_path):
        path = tmp_path / ".config/kopia/repository.config"
        path.parent.mkdir(parents=True)
        path.write_text('{"storage": {"type": "filesystem", "config": {"path": "/backup"}}}')
        return path

    def test_stands_in_kopias_configuration(self, tmp_path, config):
        environment = {"HOME": str(tmp_path)}
        assert Kopia().repository(JOB, environment) == "/backup"
        config.write_text('{"storage": {"type": "s3", "config": {"path": "/backup"}}}')
        assert Kopia().repository(JOB, environment) is None
        config.write_text("[]")
        assert Kopia().repository(JOB, environment) is None
        config.unlink()
        assert Kopia().repository(JOB, environment) is None

    def test_the_configuration_may_be_elsewhere(self, tmp_path, config):
        job = Job("kopiatomic", options=(f"--config-file={config}",))
        assert Kopia().repository(job, {}) == "/backup"
        assert Kopia().repository(JOB, {"KOPIA_CONFIG_PATH": str(config)}) == "/backup"
        assert Kopia().repository(JOB, {"XDG_CONFIG_HOME": f"{tmp_path}/.config"}) == "/backup"

    def test_a_wrapper_may_have_another(self, tmp_path, config):
        job = Job("kopiatomic", command=("kopia-x", "snapshot"))
        assert Kopia().repository(job, {"HOME": str(tmp_path)}) is None

    def test_directories_of_its_own(self):
        variables = {
            "KOPIA_CACHE_DIRECTORY": "/no/c", "KOPIA_CONFIG_PATH": "/etc/kopia/x.config",
            "KOPIA_LOG_DIR": "/l", "RESTIC_CACHE_DIR": "/r", "HOME": "/h",
        }  # fmt: skip
        assert Kopia().scratch(JOB, variables, "") == (
            ["/h/.cache/kopia", "/l/cli-logs", "/l/content-logs", "/no/c"],
            ["/etc/kopia", "/l", "/no/c"],
        )
        assert Kopia().scratch(JOB, {"HOME": "/h"}, "") == (
            ["/h/.cache/kopia", "/h/.cache/kopia/cli-logs", "/h/.cache/kopia/content-logs"],
            ["/h/.config/kopia", "/h/.cache/kopia"],
        )


class TestFigures:
    def test_json_and_last_lines_of_progress(self):
        one = (
            b'{"id":"a","rootEntry":{"name":"x","obj":"k1",'
            b'"summ":{"size":5,"files":1,"symlinks":1}},"x":[{}]}\n'
        )
        two = one.replace(b'"a"', b'"b"')
        said = (
            b"Snapshotting root@h:/x ...\n\r | 1 hashing, 0 hashed (0 B), 0 cached (0 B)"
            b"\r * 0 hashing, 1 hashed (5 B), 0 cached (0 B), uploaded 1.5 KB, estimating...\n"
            b"\r * 0 hashing, 2 hashed (5 B), 1 cached (9 B), uploaded 20 B, estimating...\n"
        )
        figures = Kopia().figures(one + two, said)
        assert figures == Figures(4, 3, None, 10, None, ("a", "b"))

    def test_whether_it_has_excluded_something(self):
        """How much it is it does not say: what it counts is more at times."""
        told = '{"id":"a","stats":{"excludedFileCount":%s,"excludedDirCount":%s},"rootEntry":{}}\n'
        for files, directories, expected in (
            (0, 0, False), (2, 0, True), (0, 1, True), ("null", "[]", False),
        ):  # fmt: skip
            said = (told % (files, directories)).encode()
            assert Kopia().figures(said, b"").excluded is expected
            assert Kopia().figures(said + b'{"rootEntry":{}}\n', b"").excluded is expected
        assert not Kopia().figures(b'{"rootEntry":{}}', b"").excluded

    @pytest.mark.parametrize("text", [b"", b"{" * 10000, b"\n{" * 10000, b"\xff\xfe{}", b"{}\n[]"])
    def test_nonsense_gives_no_figures(self, text):
        assert Kopia().figures(text, b"") == Figures()


def test_what_is_not_known_is_not_explained():
    assert Kopia().hint(1, "boom") is None
    assert Kopia().hint_between(JOB, 1, "boom") is None


class TestLivePlaces:
    """kopia takes no excludes on its command line, so the user has to set a policy."""

    def test_the_command_is_told_for_each_path(self):
        said = Kopia().about_live(["/dev", "/home/a b/x", "/home/c"], ["/data", "/home"])
        assert said == [
            "kopia cannot be told to pass over what it writes itself; if you do not want it in the "
            "backup: kopia policy set '--add-ignore=/a b/x/*' '--add-ignore=/c/*' /home"
        ]

    def test_below_the_root(self):
        (said,) = Kopia().about_live(["/dev"], ["/"])
        assert said.endswith(": kopia policy set '--add-ignore=/dev/*' /")

    def test_a_name_that_only_begins_alike_lies_elsewhere(self):
        assert Kopia().about_live(["/homes/x"], ["/home"]) == []

    def test_nothing_is_live(self):
        assert Kopia().about_live([], ["/home"]) == []


class TestSteps:
    def commands(self, wishes, command="kopia-x snapshot create"):
        job = Job("kopiatomic", command=tuple(command.split()))
        return [" ".join(step.argv) for step in Kopia().steps(job, wishes, {})]

    def test_verification_and_maintenance(self):
        wishes = Wishes(verify=5.0, maintenance=True)
        assert self.commands(wishes) == [
            "kopia-x snapshot verify --verify-files-percent=5",
            "kopia-x maintenance run --full",
        ]

    def test_their_kinds_and_titles(self):
        steps = Kopia().steps(JOB, Wishes(verify=2.5, maintenance=True), {})
        assert [step[:2] for step in steps] == [
            (CHECK, "snapshot verify with 2.5 % of the files"), (MAINTENANCE, "full maintenance"),
        ]  # fmt: skip
        (step,) = Kopia().steps(JOB, Wishes(verify=0.0), {})
        assert step.title == "snapshot verify"
        assert step.argv[-1] == "--verify-files-percent=0"

    @pytest.mark.parametrize(
        ("wishes", "says"),
        [
            (Wishes(), "--verify or --maintenance"),
            (Wishes(prune=True), "are restic's"),
            (Wishes(forget=("--keep-last=1",)), "are restic's"),
            (Wishes(verify=5.0, prune=True), "are restic's"),
        ],
    )
    def test_what_cannot_be(self, wishes, says):
        with pytest.raises(Refusal, match=says):
            self.commands(wishes, "")

    @pytest.mark.parametrize(
        ("said", "told"),
        [
            ("maintenance must be run by designated user: a@b",
             "belongs to a@b alone: leave it to that one, or take it over for good: "
             "kopia-x maintenance set --owner=me"),
            ("operation supported only on direct repository", "through a kopia server"),
        ],
    )  # fmt: skip
    def test_who_may_do_maintenance(self, said, told):
        job = Job("kopiatomic", command=("kopia-x", "snapshot", "create"))
        assert told in str(Kopia().step_hint(job, MAINTENANCE, 1, f"ERROR {said}\n"))

    def test_no_success_is_doubted_and_other_failures_are_not_explained(self):
        assert Kopia().step_problem(MAINTENANCE, "unable to remove snapshot/1") is None
        assert Kopia().step_hint(JOB, CHECK, 1, "boom") is None


def test_the_newest_complete_backup_of_each_source():
    def manifest(name, path, when, **more):
        return {"id": name, "source": {"path": path}, "startTime": when, "rootEntry": {}, **more}

    listed = [
        manifest("1", "/b", "2026-01-01T00:00:00Z"), manifest("2", "/b", "2026-01-03T00:00:00Z"),
        manifest("3", "/b", "2026-01-02T00:00:00Z"), manifest("4", "/a", "2026-01-01T00:00:00Z"),
        manifest("5", "/a", "2026-01-09T00:00:00Z", incomplete="canceled"),
    ]  # fmt: skip
    client = Answers({("snapshot", "list", "--json"): json.dumps(listed).encode()})
    assert [(each.path, each.backup) for each in Kopia().sources(client, JOB, {})] == [
        ("/a", "4"), ("/b", "2"),
    ]  # fmt: skip


@pytest.mark.parametrize("answer", [b"", b"{}", b'[{"id": "1"}]', b"[1]"])
def test_a_list_of_backups_that_is_none(answer):
    client = Answers({("snapshot", "list", "--json"): answer})
    with pytest.raises(ClientFailed, match="not understood"):
        Kopia().sources(client, JOB, {})


def test_it_says_itself_that_something_is_missing():
    said = " * 0 hashing, 1 hashed\n! Ignored 1 error(s) while snapshotting root@h:/x.\nend\n"
    assert "Ignored 1 error(s)" in Kopia().lacking(said)
    assert Kopia().lacking(" * 0 hashing, 1 hashed\n") is None


@pytest.mark.parametrize(
    ("command", "options", "path"),
    [
        ("kopia snapshot create /etc", "", "/etc"), ("", "--parallel 2 /etc", "/etc"),
        ("nice -n 5 /usr/bin/kopia snapshot create", "../x", "../x"),
        ("nice /usr/bin/kopia snapshot create", "--log-dir /l -p /x --config-file=/c", None),
        ("/root/wrapper", "--tags /etc", None), ("", "--stdin-file a /src", None),
    ],
)  # fmt: skip
def test_paths_in_the_users_own_words_are_refused(command, options, path):
    given = Job("kopiatomic", command=tuple(command.split()), options=tuple(options.split()))
    if path is None:
        Kopia().check_words(given, "")
    else:
        with pytest.raises(Refusal, match=f"gives kopia the path '{path}', which would be backed"):
            Kopia().check_words(given, "")
    Kopia().check_words(given._replace(plain=True), "")
