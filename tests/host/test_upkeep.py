"""Upkeep of real repositories, through wrappers as users have them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from support.machine import Machine, shell

from host.conftest import TOP, Repository, clean


def wrapped(repository: Repository) -> str:
    """Write a wrapper that knows the repository and the password; return its path."""
    script = f"{repository.directory}/{repository.client}-myrepo"
    exports = "".join(f"export {k}='{v}'\n" for k, v in repository.environment.items())
    path = repository.machine.path(script)
    path.write_text(f'#!/bin/sh\n{exports}exec {repository.client} "$@"\n')
    path.chmod(0o700)
    return script


def call(repository: Repository, *words: str, status: int = 0) -> tuple[str, str]:
    """Run restomic or kopiatomic by the wrapper, without any secret in the environment."""
    program, backup = {
        "restic": ("restomic", "backup"), "kopia": ("kopiatomic", "snapshot create"),
    }[repository.client]  # fmt: skip
    command = f"{wrapped(repository)} {backup}"
    result = repository.machine.run([f"/usr/local/sbin/{program}", "-c", command, *words])
    assert result.returncode == status, result.stdout + result.stderr
    assert "correct horse" not in result.stdout + result.stderr
    clean(repository.machine)
    return result.stdout, result.stderr


def packs(repository: Repository) -> list[Path]:
    """Return the files that hold data of a repository, the largest last."""
    top = repository.machine.path(f"{repository.directory}/{repository.client}")
    found = top.glob("data/*/*") if repository.client == "restic" else top.glob("p*/**/*.f")
    return sorted((each for each in found if each.is_file()), key=lambda each: each.stat().st_size)


def damage(repository: Repository) -> None:
    """Flip bytes in the middle of the largest pack."""
    pack = packs(repository)[-1]
    data = bytearray(pack.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 16] = bytes(each ^ 0xFF for each in data[middle : middle + 16])
    pack.chmod(0o600)
    pack.write_bytes(data)


def noise(machine: Machine, path: str) -> None:
    """Write a file that does not compress."""
    machine.path(path).write_bytes(random.Random(1).randbytes(2 << 20))


@pytest.mark.restic
class TestRestic:
    def test_check_forget_and_prune(self, filled: Machine, restic: Repository):
        for word in ("one", "two"):
            noise(filled, f"{TOP}/src/{word}")
            call(restic, "kta/src")
            shell(filled, f"rm {TOP}/src/{word}")
        restic("backup", "--host", "elsewhere", f"{TOP}/src")
        out, _ = call(
            restic, "--upkeep", "--verify", "100", "--forget", "--keep-last 1", "--prune"
        )
        assert "no errors were found" in out
        assert "restomic: upkeep succeeded, " in out
        left = json.loads(restic("snapshots", "--json"))
        assert len(left) == 2
        assert {each["hostname"] for each in left} > {"elsewhere"}
        restic("check", "--read-data")

    def test_forget_without_keep_flags_is_refused(self, filled: Machine, restic: Repository):
        call(restic, "kta/src")
        _, err = call(restic, "--upkeep", "--forget", "--group-by host", "--prune", status=64)
        assert "every backup could go" in err
        assert len(json.loads(restic("snapshots", "--json"))) == 1

    def test_damage_is_found_and_nothing_is_pruned(self, filled: Machine, restic: Repository):
        noise(filled, f"{TOP}/src/noise")
        call(restic, "kta/src")
        damage(restic)
        before = packs(restic)
        out, err = call(
            restic, "--upkeep", "--verify", "100", "--forget", "--keep-last 1", "--prune", status=1
        )
        assert "restomic: upkeep FAILED, " in out
        assert "forget and prune              not run" in out
        assert "prune nothing" in err
        assert packs(restic) == before

    def test_json(self, filled: Machine, restic: Repository):
        call(restic, "kta/src")
        out, err = call(restic, "--upkeep", "--verify", "0", "--json")
        assert json.loads(out)["steps"][0]["name"] == "check"
        assert "no errors were found" in err

    def test_the_history_of_backups_stays_apart(self, filled: Machine, restic: Repository):
        call(restic, "kta/src")
        call(restic, "--upkeep", "--verify", "0")
        state = filled.path("/var/db/kopiatomic")
        (entry,) = map(json.loads, (state / "restomic.default.upkeep").read_text().splitlines())
        assert (entry["kind"], entry["outcome"]) == ("upkeep", "success")
        assert len((state / "restomic.default.history").read_text().splitlines()) == 1

    def test_a_wrong_password_is_explained(self, filled: Machine, restic: Repository):
        restic.environment["RESTIC_PASSWORD"] = "battery staple"
        _, err = call(restic, "--upkeep", "--verify", "0", status=12)
        assert "password is wrong" in err


@pytest.mark.kopia
class TestKopia:
    def test_verify_and_maintenance(self, filled: Machine, kopia: Repository):
        call(kopia, "kta/src")
        out, err = call(kopia, "--upkeep", "--verify", "100", "--maintenance")
        assert "Finished full maintenance" in out + err
        assert "kopiatomic: upkeep succeeded, " in out

    def test_damage_is_found_and_nothing_is_cleaned(self, filled: Machine, kopia: Repository):
        noise(filled, f"{TOP}/src/noise")
        call(kopia, "kta/src")
        damage(kopia)
        out, _ = call(kopia, "--upkeep", "--verify", "100", "--maintenance", status=1)
        assert "kopiatomic: upkeep FAILED, " in out
        assert "full maintenance                         not run" in out

    def test_the_maintenance_of_somebody_else(self, filled: Machine, kopia: Repository):
        kopia("maintenance", "set", "--owner=ada@elsewhere")
        _, err = call(kopia, "--upkeep", "--maintenance", status=1)
        assert "kopia-myrepo maintenance set --owner=me" in err
