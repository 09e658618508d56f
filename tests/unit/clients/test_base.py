"""What all clients have in common: how they are called, what they need, and their table."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kopiatomic import clients
from kopiatomic.clients import client_of, make_ready, programs
from kopiatomic.clients.base import Client
from kopiatomic.clients.kopia import Kopia
from kopiatomic.clients.parsing import permissions
from kopiatomic.clients.records import ByHand, Needs, Request
from kopiatomic.clients.restic import Restic
from kopiatomic.errors import EX_UNAVAILABLE, Refusal
from kopiatomic.job import Job
from kopiatomic.system import command
from kopiatomic.system.command import Door

SOURCE = str(Path(clients.__file__).parents[2])


def job(program="restomic", command="restic-x backup", options="", **more):
    return Job(program, command=tuple(command.split()), options=tuple(options.split()), **more)


def words(program, *command, **more):
    return client_of(program).command(Job(program, command=command, **more))


class TestCommand:
    @pytest.mark.parametrize(
        ("given", "completed"),
        [
            ("", "kopia snapshot create"),
            ("kopia", "kopia snapshot create"),
            ("/usr/local/bin/kopia", "/usr/local/bin/kopia snapshot create"),
            ("kopia snapshot", "kopia snapshot create"),
            ("kopia snapshot --parallel=4", "kopia snapshot create --parallel=4"),
            ("kopia-myrepo snapshot", "kopia-myrepo snapshot create"),
            ("kopia-myrepo snapshot create", "kopia-myrepo snapshot create"),
            ("backup-home", "backup-home"),
        ],
    )
    def test_kopia(self, given, completed):
        assert words("kopiatomic", *given.split()) == completed.split()

    @pytest.mark.parametrize(
        ("given", "completed"),
        [
            ("", "restic backup"),
            ("restic", "restic backup"),
            ("restic -r /backup", "restic -r /backup backup"),
            ("restic-myrepo backup", "restic-myrepo backup"),
            ("backup-home", "backup-home"),
        ],
    )
    def test_restic(self, given, completed):
        assert words("restomic", *given.split()) == completed.split()

    def test_plain_is_left_alone(self):
        assert words("restomic", "restic", plain=True) == ["restic"]


def test_plain_gets_paths_and_nothing_else():
    given = Job("restomic", command=("tar", "-cf", "/x"), options=("-v",), plain=True)
    request = Request(("/data",), moment=1795410241.9, parent="p")
    assert client_of("restomic").backup_command(given, request) == [
        "tar", "-cf", "/x", "-v", "/data",
    ]  # fmt: skip


class TestProgram:
    @pytest.fixture(autouse=True)
    def _path(self, tmp_path, monkeypatch):
        monkeypatch.setattr(command, "PATH", f"/nonexistent:{tmp_path}")

    def executable(self, path):
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
        return str(path)

    def program(self, *words):
        return client_of("restomic").program(Job("restomic", command=words))

    def test_is_looked_up_in_our_path(self, tmp_path):
        path = self.executable(tmp_path / "restic")
        assert self.program() == path
        assert self.program("restic", "-r", "/r") == path

    def test_may_be_a_wrapper_named_by_its_path(self, tmp_path):
        path = self.executable(tmp_path / "my-backup")
        assert self.program(path) == path

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            ((), "'restic' is not installed; install sysutils/restic"),
            (("nosuch", "backup"), "'nosuch' is not installed; look at -c, or its path"),
            (("/no/such",), "'/no/such' is not installed; look at -c, or its path"),
        ],
    )
    def test_is_not_there(self, words, says):
        with pytest.raises(Refusal, match=says) as caught:
            self.program(*words)
        assert caught.value.status == EX_UNAVAILABLE

    def test_is_not_executable(self, tmp_path):
        path = tmp_path / "wrapper"
        path.write_text("#!/bin/sh\n")
        path.chmod(0o644)
        with pytest.raises(Refusal, match=f"{path} is not executable; chmod \\+x {path}") as caught:
            self.program(str(path))
        assert caught.value.status == EX_UNAVAILABLE


class TestBaseCommand:
    @pytest.mark.parametrize(
        ("program", "command", "options", "base"),
        [
            ("restomic", "", "", "restic"),
            ("restomic", "restic-x backup", "", "restic-x"),
            ("restomic", "nice -n 9 restic -r /r backup --tag x", "", "nice -n 9 restic -r /r"),
            ("restomic", "restic backup --repo=/r", "--tag t -o s3.x=1 --exclude r --cacert /c",
             "restic --repo=/r -o s3.x=1 --cacert /c"),
            ("restomic", "restic backup", "-r/repo --insecure-tls --host h",
             "restic -r/repo --insecure-tls"),
            ("kopiatomic", "", "", "kopia"),
            ("kopiatomic", "kopia-x snapshot create", "--tags a:b", "kopia-x"),
            ("kopiatomic", "kopia snapshot create --config-file /c", "--no-progress --tags a:b",
             "kopia --config-file /c --no-progress"),
        ],
    )  # fmt: skip
    def test_is_what_comes_before_the_subcommand_and_the_repository(
        self, program, command, options, base
    ):
        given = job(program, command, options)
        assert " ".join(client_of(program).base_command(given)) == base

    @pytest.mark.parametrize(
        ("program", "command", "plain"),
        [
            ("restomic", "my-backup", False),
            ("kopiatomic", "my-backup", False),
            ("restomic", "restic backup", True),
        ],
    )
    def test_a_command_without_its_subcommand_is_refused(self, program, command, plain):
        with pytest.raises(Refusal, match="does not name its subcommand"):
            client_of(program).base_command(job(program, command, plain=plain))


class TestVersion:
    @pytest.mark.parametrize(
        ("program", "words", "said", "version"),
        [
            ("restomic", "restic version", "restic 0.18.0 compiled with go1.24\n", "0.18.0"),
            ("kopiatomic", "kopia --version", "0.22.3 build: abc from: kopia/kopia\n", "0.22.3"),
            ("restomic", "restic version", "hello\nrestic 0.9-dev\n", "0.9-dev"),
            ("restomic", "restic version", "something else\n", None),
        ],
    )
    def test_is_what_the_client_says(self, fp, program, words, said, version):
        fp.register(words, stdout=said)
        client = client_of(program)
        assert client.version(Door(), Job(program), {}) == version

    def test_is_not_known_where_it_cannot_be_asked(self, fp):
        fp.register("restic version", returncode=1)
        assert client_of("restomic").version(Door(), Job("restomic"), {}) is None
        wrapper = Job("restomic", command=("restic-x",))
        assert client_of("restomic").version(Door(), wrapper, {}) is None


class TestByHand:
    @pytest.mark.parametrize(
        ("words", "line"),
        [
            ({}, "restic-x unlock"),
            ({"command": "", "options": "-r /r --tag t"}, "restic -r /r unlock"),
            ({"command": "my-backup"}, "restic unlock"),
            ({"env_files": ("/e",)}, "restic-x unlock (with the variables of /e)"),
        ],
    )
    def test_how_the_client_is_called_by_hand(self, words, line):
        assert client_of("restomic").by_hand(job(**words))("unlock") == line

    def test_the_env_file_is_quoted_for_a_shell(self):
        assert ByHand("c", "/root/my env")("w") == "c w (with the variables of '/root/my env')"


class TestEnvironment:
    def env(self, program="restomic", inherited=None, **job):
        return client_of(program).environment(Job(program, **job), inherited or {})

    def test_what_endangers_root_is_dropped(self):
        inherited = {"LD_PRELOAD": "x", "PYTHONPATH": "x", "PATH": "/evil", "COLD_KEY": "k"}
        environment = self.env(inherited=inherited)
        assert environment["COLD_KEY"] == "k"
        assert "/evil" not in environment["PATH"]
        assert not {"LD_PRELOAD", "PYTHONPATH"} & set(environment)

    def test_the_env_file_wins(self):
        environment = self.env(inherited={"A": "1"}, environment={"A": "2"})
        assert environment["A"] == "2"

    def test_the_env_file_may_set_what_is_not_inherited(self):
        own = {"PATH": "/opt/bin", "PYTHONPATH": "/opt/lib"}
        assert self.env(inherited=own, environment=own).items() >= own.items()

    def test_kopia_and_plain_get_none_of_restics(self):
        assert "RESTIC_FEATURES" not in self.env("kopiatomic")
        assert "RESTIC_FEATURES" not in self.env(plain=True)


class Sample(Client):
    """A client with a directory and a repository of its own."""

    name = "sample"
    subcommand = ("backup",)

    def scratch(self, job, known, script):
        return [known["SAMPLE_CACHE"]] if "SAMPLE_CACHE" in known else [], [
            known.get("SAMPLE_DIRECTORY", "")
        ]

    def repository(self, job, environment, script=""):
        return environment.get("SAMPLE_REPOSITORY")

    def is_repository(self, directory):
        return os.path.exists(f"{directory}/sample")


class TestNeeds:
    def needs(self, live=(), script="", **environment):
        return Sample().needs(Job("sample", live=live), "/bin/sh", environment, script)

    def test_are_real_paths_of_what_is_there(self, tmp_path):
        for name in ("real", "home/.cache", "home/.config"):
            (tmp_path / name).mkdir(parents=True)
        (tmp_path / "link").symlink_to("real")
        top = os.path.realpath(tmp_path)
        needs = self.needs(
            ("/l",), HOME=f"{tmp_path}/home", SAMPLE_CACHE=f"{tmp_path}/link/cache",
            SAMPLE_DIRECTORY=f"{tmp_path}/link", TMPDIR=f"{tmp_path}/link",
            SAMPLE_REPOSITORY=f"{tmp_path}/link/repository",
        )  # fmt: skip
        assert needs == Needs(
            os.path.realpath("/bin/sh"), f"{top}/real",
            writable=(f"{top}/home/.config", f"{top}/home/.cache", f"{top}/real"), live=("/l",),
            repository=f"{top}/real/repository", scratch=(f"{top}/real/cache",),
            places=self.spelled(f"{tmp_path}/home", "/bin/sh", f"{tmp_path}/link"),
            texts=(f"{tmp_path}/link",),
        )  # fmt: skip

    def spelled(self, *paths):
        """Return paths as they stand and without their symbolic links."""
        both = [each for path in paths for each in (path, os.path.realpath(path))]
        return tuple(dict.fromkeys(both))

    def test_without_any_of_it(self, tmp_path):
        needs = self.needs(HOME=str(tmp_path))
        assert needs == Needs(
            os.path.realpath("/bin/sh"), os.path.realpath("/tmp"),
            places=self.spelled(str(tmp_path), "/bin/sh"),
        )  # fmt: skip

    def test_what_a_wrapper_sets_counts_as_the_environment(self, tmp_path):
        (tmp_path / "home/.config").mkdir(parents=True)
        script = f"#!/bin/sh\nexport HOME={tmp_path}/home SAMPLE_CACHE={tmp_path}/cache\n"
        top = os.path.realpath(tmp_path)
        needs = self.needs(script=script, HOME="/no", SAMPLE_CACHE="/no/cache")
        assert needs.writable == (f"{top}/home/.config",)
        assert needs.scratch == (f"{top}/cache",)
        assert needs.texts == (script,)
        assert {f"{tmp_path}/home", f"{tmp_path}/cache"} <= set(needs.places)

    def test_repositories_in_a_live_place(self, tmp_path):
        for name in ("live/one", "live/two", "live/other/deep"):
            (tmp_path / name).mkdir(parents=True)
        for name in ("live/one", "live/two", "live/other/deep"):
            (tmp_path / name / "sample").touch()
        assert set(self.needs((f"{tmp_path}/live",)).repositories) == {
            f"{tmp_path}/live/one", f"{tmp_path}/live/two",
        }  # fmt: skip
        assert self.needs((f"{tmp_path}/live/one",)).repositories == (f"{tmp_path}/live/one",)

    def test_the_places_that_variables_name_are_taken_instead(self, tmp_path):
        for name in (".cache", ".config", "cache", "config"):
            (tmp_path / name).mkdir()
        needs = self.needs(
            HOME=str(tmp_path), XDG_CACHE_HOME=f"{tmp_path}/cache",
            XDG_CONFIG_HOME=f"{tmp_path}/config",
        )  # fmt: skip
        top = os.path.realpath(tmp_path)
        assert needs.writable == (f"{top}/config", f"{top}/cache")

    def test_one_place_by_two_names_is_one(self, tmp_path):
        (tmp_path / "c").mkdir()
        (tmp_path / "d").symlink_to("c")
        needs = self.needs(
            HOME="/no", XDG_CACHE_HOME=f"{tmp_path}/c", SAMPLE_DIRECTORY=f"{tmp_path}/d"
        )
        assert needs.writable == (os.path.realpath(tmp_path / "c"),)


class TestHints:
    @pytest.mark.parametrize(
        "text", ["mkdir /c: Read-only file system", "EROFS: open '/x'"]
    )
    def test_a_client_that_writes_where_the_view_is_frozen(self, text):
        assert "name that directory with --live" in Client().hint(1, text)
        # Outside of a backup there is no view.
        assert Sample().hint_between(Job("sample"), 1, text) is None

    def test_nothing_is_known_of_others(self):
        assert Client().hint(1, "boom") is None


class TestTable:
    def test_each_program_has_its_client(self):
        assert {program: client_of(program).name for program in programs()} == {
            "kopiatomic": "kopia", "restomic": "restic",
        }  # fmt: skip

    def test_an_unknown_program_is_an_error(self):
        with pytest.raises(KeyError):
            client_of("borgomic")

    def test_a_row_of_the_table_is_a_program(self, monkeypatch):
        monkeypatch.setitem(clients.TABLE, "borgomic", Client)
        assert type(client_of("borgomic")) is Client
        assert "borgomic" in programs()

    @pytest.mark.parametrize(
        ("program", "other"), [("restomic", "kopia"), ("kopiatomic", "restic")]
    )
    def test_only_the_client_that_is_needed_is_imported(self, program, other):
        code = (
            f"import sys; sys.path.insert(0, {SOURCE!r}); from kopiatomic import clients;"
            f"clients.client_of({program!r}); print('kopiatomic.clients.{other}' in sys.modules)"
        )
        result = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
        assert result.stdout == "False\n"


@pytest.fixture
def wrapper(tmp_path):
    """A wrapper that knows a password."""
    path = tmp_path / "restic-x"
    path.write_text("#!/bin/sh\nexport RESTIC_PASSWORD='correct horse'\nexec restic \"$@\"\n")
    path.chmod(0o700)
    return str(path)


class TestReady:
    def test_is_all_that_the_client_is_run_with(self, wrapper):
        job = Job("restomic", command=(wrapper, "backup"), environment={"A": "file"})
        task = make_ready(job, Door(), {"A": "caller", "B": "caller", "LD_PRELOAD": "/x"})
        assert (task.job, task.client.name, task.program) == (job, "restic", wrapper)
        assert (task.environment["A"], task.environment["B"]) == ("file", "caller")
        assert "LD_PRELOAD" not in task.environment
        assert task.door == Door()

    def test_hides_what_the_environment_the_words_and_the_wrapper_hold(self, wrapper):
        job = Job(
            "restomic", command=(wrapper, "backup"), options=("--password=battery",),
            environment={"RESTIC_REST_PASSWORD": "staple"},
        )  # fmt: skip
        task = make_ready(job, Door(), {"KOPIA_PASSWORD": "caller's own"})
        said = task.hide("correct horse battery staple caller's own")
        assert said == "[hidden] [hidden] [hidden] [hidden]"

    def test_hides_what_the_hooks_hold(self):
        """The report has the text of one that fails."""
        job = Job(
            "restomic", command=("true",), before="dump --password=battery /db",
            after_snapshot="PGPASSWORD='correct horse' psql", after="curl https://me:staple@x/",
        )  # fmt: skip
        hide = make_ready(job, Door(), {}).hide
        said = hide(f"{job.before}; {job.after_snapshot}; {job.after}")
        assert said == (
            "dump --password=[hidden] /db; PGPASSWORD=[hidden] psql; "
            "curl https://me:[hidden]@x/"
        )

    @pytest.mark.parametrize(
        ("program", "told"), [("kopiatomic", "[hidden] [hidden]"), ("restomic", "hunter22 battery")]
    )
    def test_which_short_options_take_a_secret_the_client_says(self, tmp_path, program, told):
        """kopia's -p is the password itself, and restic's the name of a file that holds it."""
        name = client_of(program).name
        path = tmp_path / "wrapper"
        path.write_text(f'#!/bin/sh\nmkdir -p /var/run/x\nexec {name} -p battery "$@"\n')
        path.chmod(0o700)
        job = Job(program, command=(str(path), "backup"), options=("-p", "hunter22"))
        hide = make_ready(job, Door(), {}).hide
        assert hide("hunter22 battery /var/run/x") == f"{told} /var/run/x"

    def test_the_trace_holds_no_secret(self, wrapper, fp):
        lines: list[str] = []
        fp.register(["true", "correct horse", "tank"])
        job = Job("restomic", command=(wrapper, "backup"))
        make_ready(job, Door(trace=lines.append), {}).door.run(["true", "correct horse", "tank"])
        assert lines == ["+ true [hidden] tank"]

    def test_the_way_to_make_mounts_and_the_callers_umask_stay(self, wrapper):
        kernel = object()
        job = Job("restomic", command=(wrapper, "backup"))
        for trace in (None, print):
            door = make_ready(job, Door(trace, kernel, 0o027), {}).door
            assert (door.kernel, door.umask) == (kernel, 0o027)

    def test_the_text_of_a_wrapper_comes_with_it(self, wrapper):
        job = Job("restomic", command=(wrapper, "backup"))
        with open(wrapper) as file:
            assert make_ready(job, Door(), {}).script == file.read()
        assert make_ready(job, Door(), {}, installed=False).script == ""

    def test_the_client_must_be_there(self):
        job = Job("restomic", command=("/no/such", "backup"))
        with pytest.raises(Refusal, match="'/no/such' is not installed"):
            make_ready(job, Door(), {})

    def test_the_client_need_not_be_there_to_read_how_it_is_called(self):
        job = Job("restomic", command=("/no/such", "backup"), options=("--password=battery",))
        task = make_ready(job, Door(), {}, installed=False)
        assert task.program == ""
        assert task.hide("a battery") == "a [hidden]"


@pytest.mark.parametrize(("client", "kept"), [
    (Restic(), {"reg", "dir", "lnk", "fifo", "blk", "chr"}), (Kopia(), {"reg", "dir", "lnk"}),
])  # fmt: skip
def test_what_a_client_keeps(client, kept: set[str]):
    kinds = {"reg": stat.S_IFREG, "dir": stat.S_IFDIR, "lnk": stat.S_IFLNK, "fifo": stat.S_IFIFO,
             "blk": stat.S_IFBLK, "chr": stat.S_IFCHR, "sock": stat.S_IFSOCK}  # fmt: skip
    assert {name for name, mode in kinds.items() if client.keeps(mode | 0o4755)} == kept


def test_entries_of_a_directory(tmp_path: Path):
    client = Kopia()
    assert not client.has_entries(str(tmp_path))
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "nested").mkdir()
    assert not client.has_entries(str(tmp_path), {"nested"})
    assert client.has_entries(str(tmp_path))
    with pytest.raises(OSError, match="nonexistent"):
        client.has_entries("/nonexistent")


class TestComplaints:
    def test_restic(self):
        said = b"""repository 1234abcd opened (version 2)
unable to open cache: mkdir /x: permission denied
{"message_type":"error","error":{"message":"open /a: denied"},"during":"scan","item":"/a"}
{"message_type":"status","percent_done":1}
rclone: 2026/01/02 ERROR : failed to save config
unable to open cache: mkdir /x: permission denied
{"message_type":"exit_error","code":1,"message":"Fatal: no"}
"""
        assert Restic().complaints(said).split("\n") == [
            "unable to open cache: mkdir /x: permission denied", "/a: open /a: denied",
            "rclone: 2026/01/02 ERROR : failed to save config", "Fatal: no",
        ]  # fmt: skip

    def test_kopia(self):
        said = b"""Snapshotting root@vm:/a ...
\r | 1 hashing, 0 hashed (2 B), 0 cached (0 B), uploaded 0 B, estimating...\r * 0 hashing, 6 hashed
 ! Error when processing "x": permission denied
\x1b[33mIgnored 1 error(s) while snapshotting root@vm:/a.\x1b[0m
Created snapshot with root k0e51fde504b7 and ID 81028b02f5f98a5e6f54a5322f6338c6 in 0s
Running full maintenance...
GC found 0 unused contents (0 B)
Finished full maintenance.
"""
        assert Kopia().complaints(said).split("\n") == [
            '! Error when processing "x": permission denied',
            "Ignored 1 error(s) while snapshotting root@vm:/a.",
        ]

    @pytest.mark.parametrize("client", [Restic(), Kopia()])
    def test_nobody_reads_thousands_of_lines(self, client):
        said = "".join(f"error {number}: {'x' * 999}\n" for number in range(1000))
        lines = client.complaints(said.encode()).split("\n")
        assert len(lines) == 21
        assert max(map(len, lines)) == 300
        assert lines[-1] == "... and 980 lines more"

    @pytest.mark.parametrize("client", [Restic(), Kopia()])
    def test_nothing_to_tell(self, client):
        assert client.complaints(b"") == ""
        assert client.complaints(b"\n\r\n  \n") == ""
        assert client.complaints(b"bad \xff\x1b\n") == "bad \\xff\\x1b"


def test_modes_as_go_counts_them():
    assert permissions(0o644) == 0o644
    assert permissions((1 << 23) | (1 << 22) | (1 << 20) | 0o777) == 0o7777
    assert permissions((1 << 31) | 0o755) == 0o755


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("-vr /backup/other", "-r /backup/other"),
        ("-vr/backup/other", "-r/backup/other"),
        ("-xvr /backup/other --tag t", "-r /backup/other"),
        ("-er /backup/other", ""),  # -e takes a word, which is r
        ("-v -x", ""),
    ],
)
def test_the_repository_in_a_bundle_of_short_options(options, words):
    """Or upkeep would remove the snapshots of another repository than the backup's."""
    job = Job("restomic", options=tuple(options.split()))
    assert " ".join(Restic().base_command(job)) == f"restic {words}".strip()
