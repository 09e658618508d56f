"""The commands for what is done between backups, from the command line to what is shown."""

import pytest

from kopiatomic import cli, environment
from kopiatomic.errors import EX_USAGE


class TestCommandLine:
    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["--verify", "5"], "--verify goes with --upkeep"),
            (["--seed", "5", "--upkeep"], "--seed goes with --drill"),
            (["--upkeep", "--drill", "5"], "two things"),
            (["--upkeep", "--prune", "tank"], "name no dataset"),
            (["--drill", "5", "-a"], "name no dataset"),
            (["--drill", "5", "-n"], "-n does not go with --drill"),
            (["--upkeep", "-n"], "say what is to be done"),
            (["--upkeep", "-n", "--forget", "--tag x"], "without a --keep flag"),
        ],
    )
    def test_refuses(self, capsys, words, says):
        assert cli.main("restomic", words) == EX_USAGE
        out, err = capsys.readouterr()
        assert out == ""
        assert says in err

    def test_dry_run_with_an_env_file(self, capfd, tmp_path, monkeypatch):
        """It shows what will be run, with the host that the env file gives."""
        monkeypatch.setattr(environment, "_check_way", lambda path, owner: None)
        file = tmp_path / "env"
        file.write_text("RESTIC_HOST=web\n")
        file.chmod(0o600)
        words = ["--upkeep", "-n", "-e", str(file), "-c", "restic-x backup", "--forget=-d 7"]
        assert cli.main("restomic", words) == 0
        assert capfd.readouterr().out == "Would run:\n  restic-x forget --host web -d 7\n"

    def test_dry_run(self, capfd):
        words = ["--upkeep", "-n", "-c", "restic-x backup", "--verify=5", "--forget=-d 7 --host h"]
        assert cli.main("restomic", words) == 0
        assert capfd.readouterr().out == (
            "Would run:\n  restic-x check --read-data-subset=5%\n"
            "  restic-x forget -d 7 --host h\n"
        )


@pytest.mark.parametrize("words", [["--size-limit", "x"], ["--seed", "-1"], ["--seed", "x"]])
def test_bad_numbers(capsys, monkeypatch, words):
    monkeypatch.setattr("kopiatomic.commands.common.need_root", lambda job: None)
    assert cli.main("restomic", ["--drill", "3", *words]) == EX_USAGE
    assert cli.main("restomic", ["--drill", "0"]) == EX_USAGE
