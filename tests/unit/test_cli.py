"""Arguments: what they become, and what is refused with which status."""

import subprocess
import sys

import pytest

from kopiatomic import __version__, cli
from kopiatomic.errors import EX_DATAERR, EX_USAGE


def job(*arguments):
    options, targets = cli._parse(arguments)
    return cli.job_from("restomic", options, targets)


def test_short_and_long_forms_mean_the_same():
    short = job(
        "-r", "-a", "-c", "restic-x backup", "-o", "--tag 'a b'", "-o", "-v", "-x", "*/tmp",
        "-x", "y",
        "-p", "true", "-s", "false", "-q", "echo", "-j", "night", "-e", "/env", "--live", "/l",
        "t/a",
    )  # fmt: skip
    long = job(
        "t/a", "--recursive", "--all", "--command=restic-x backup", "--options=--tag 'a b'",
        "--options", "-v", "--exclude", "*/tmp", "--exclude=y", "--before", "true",
        "--after-snapshot", "false", "--after=echo", "--job", "night", "--env-file=/env",
        "--live=/l",
    )  # fmt: skip
    assert short == long
    assert short.command == ("restic-x", "backup")
    assert short.options == ("--tag", "a b", "-v")
    assert short.exclude == ("*/tmp", "y")
    assert short.targets == ("t/a",)


def test_env_files_are_one_for_each_repository(tmp_path):
    """periodic(8)'s are a list, in which a path with blanks that is there need not be quoted."""
    assert job("-e", "/a", "--env-file", "/b", "t").env_files == ("/a", "/b")
    assert job("--env-files", "/a '/b c'\n/d", "t").env_files == ("/a", "/b c", "/d")
    blanks = tmp_path / "with blanks"
    blanks.touch()
    assert job("--env-files", str(blanks), "t").env_files == (str(blanks),)
    assert job("t").env_files == ()


def test_what_is_not_mounted_and_where_it_is_shown():
    made = job("--jailed", "--at", "/mnt/", "-r", "t")
    assert (made.jailed, made.at) == (True, "/mnt")
    assert (job("t").jailed, job("t").at) == (False, None)
    assert job("--at", "", "t").at is None


@pytest.mark.parametrize(
    "words", [["--sweep"], ["--status"], ["--check"], ["--drill", "3"], ["--layout"]]
)
def test_a_dry_run_is_not_of_everything(capsys, words):
    assert cli.main("restomic", ["-n", *words]) == EX_USAGE
    assert f"-n does not go with {words[0]}" in capsys.readouterr().err


def test_an_option_whose_value_begins_with_a_dash():
    assert job("-o", "--exclude=/home/ben/.cache", "t").options == ("--exclude=/home/ben/.cache",)


def test_options_may_follow_targets():
    assert job("t/a", "-r", "t/b").targets == ("t/a", "t/b")


def test_a_target_that_begins_with_a_dash():
    assert job("--", "-r").targets == ("-r",)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing to back up"),
        (["-Z"], "option -Z not recognized"),
        (["-c"], "option -c requires argument"),
        (["--nosuch"], "option --nosuch not recognized"),
        (["-a", "t"], "leave out -a, or 't'"),
        (["-j", "a/b", "t"], "cannot be a job's name"),
        (["-c", "kopia 'x", "t"], "no closing quotation"),
    ],
)
def test_bad_arguments(capsys, arguments, says):
    assert cli.main("kopiatomic", arguments) == EX_USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("kopiatomic: ")
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--status", "t"], ["--check", "-a"], ["--check", "--status"], ["--check", "-j", "x"],
        ["--max-age", "3", "t"], ["--expect", "restomic/x", "t"], ["--check", "--max-age=x"],
        ["--layout", "-a"], ["--layout", "--sweep"],
    ],
)  # fmt: skip
def test_what_does_not_go_together(capsys, arguments):
    assert cli.main("restomic", arguments) == EX_USAGE
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("arguments", "saved"), [((), True), (("--no-layout",), False)])
def test_the_layout_comes_along_unless_it_is_not_wanted(arguments, saved):
    assert job("t", *arguments).layout is saved


def test_a_layout_may_be_of_a_file(capsys, tmp_path):
    path = tmp_path / "other"
    path.write_text("something else")
    assert cli.main("restomic", ["--layout", str(path)]) == EX_DATAERR
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"restomic: {path} is no layout")
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [["."], ["tank"], ["-e", "a.env", "tank"], ["--status"]])
def test_where_it_was_started_must_be_there(capsys, monkeypatch, tmp_path, words):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert cli.main("restomic", words) == 66
    assert "is there no more: change to another one" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["-v"], ["--version"]])
def test_version(capsys, arguments):
    assert cli.main("restomic", arguments) == 0
    assert capsys.readouterr().out == f"restomic {__version__}\n"


def test_version_imports_next_to_nothing():
    code = (
        "import sys; sys.path.insert(0, 'src'); sys.argv = ['restomic', '-v'];"
        "from kopiatomic import cli; cli.restomic();"
        "print(*sorted(m for m in ('argparse', 'subprocess', 'json', 'dataclasses', 'typing')"
        " if m in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[1].split() == []


class TestSnapshot:
    def test_in_a_job(self):
        job = cli.job_from("restomic", [("--snapshot", "auto_*")], ["tank"])
        assert job.snapshot == "auto_*"
        assert cli.job_from("restomic", [], ["tank"]).snapshot is None

    def test_it_is_none_of_the_hooks(self):
        """-s is one: neither is short for the other."""
        options, _ = cli._parse(["--snap", "a", "-s", "b"])
        assert options == [("--snapshot", "a"), ("-s", "b")]

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            ("--snapshot a@b tank", "--snapshot 'a@b': a pattern for what stands after the @"),
            ("--snapshot a/b tank", "--snapshot 'a/b': a pattern for what stands after the @"),
            ("--snapshot x --drill 1", "--snapshot does not go with --drill"),
            ("--paths-from x --check", "--paths-from does not go with --check"),
            ("--snapshot x --check", "--snapshot does not go with --check"),
        ],
    )
    def test_what_does_not_go(self, words, says, capsys):
        assert cli.main("restomic", words.split()) == EX_USAGE
        assert says in capsys.readouterr().err


class TestVolumes:
    @pytest.mark.parametrize("words", [["-a"], ["-r", "tank"]])
    def test_in_a_job(self, words):
        assert job("--volumes", *words).volumes
        assert not job(*words).volumes

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            ("--volumes tank", "--volumes goes with -a or -r; a single volume is backed up by"),
            ("--volumes", "--volumes goes with -a or -r"),
            ("--volumes --drill 1", "--volumes does not go with --drill, which is not about"),
            ("--volumes --check", "--volumes does not go with --check"),
        ],
    )
    def test_what_does_not_go(self, words, says, capsys):
        assert cli.main("restomic", words.split()) == EX_USAGE
        assert says in capsys.readouterr().err


class TestRetries:
    def test_in_a_job(self):
        options = [("--retries", "3"), ("--retry-pause", "30s")]
        job = cli.job_from("restomic", options, ["tank"])
        assert (job.retries, job.pause) == (3, 30.0)
        job = cli.job_from("restomic", [], ["tank"])
        assert (job.retries, job.pause) == (0, 300.0)

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            ("--retry-pause 5m --drill 1", "--retry-pause does not go with --drill"),
            ("--retries 2 --plain -c x tank", "--retries does not go with --plain: what"),
            ("--retries 2 --upkeep --verify 0", "--upkeep: only a backup is tried again"),
            ("--retries 2 --drill 1", "--drill: only a backup is tried again"),
            ("--retries two tank", "a whole number is wanted"),
            ("--retries 2 --retry-pause late tank", "a time is wanted"),
        ],
    )
    def test_what_does_not_go(self, words, says, capsys):
        assert cli.main("restomic", words.split()) == EX_USAGE
        assert says in capsys.readouterr().err
