"""The command of --notify on a machine: what it is told of each end and each refusal."""

from __future__ import annotations

import json
import subprocess
import time

import pytest
from support.machine import BASE, PROGRAMS, Machine, wait_for

from host.conftest import Repository, clean

NAMES = "PROGRAM JOB ACTION OUTCOME STATUS MESSAGE".split()

both = pytest.mark.parametrize("program", PROGRAMS)


@pytest.fixture
def told(filled: Machine) -> str:
    """The path of a command that keeps what it is told: a report, and variables, of each call."""
    shown = "".join(f'printf "{name}=%s\\n" "$KOPIATOMIC_{name}"; ' for name in NAMES)
    filled.path(f"{BASE}/told").mkdir()
    path = filled.path(f"{BASE}/tell")
    path.write_text(
        f"#!/bin/sh\nn=$(ls {BASE}/told | wc -l | tr -d ' ')\n"
        f"{{ {shown}echo; cat; }} > {BASE}/told/$n\n"
    )
    path.chmod(0o700)
    return f"{BASE}/tell"


def heard(machine: Machine) -> list[tuple[dict[str, str], str]]:
    """Return what the command was told, and forget it: the variables, and the text, of each."""
    found = []
    for path in sorted(machine.path(f"{BASE}/told").iterdir(), key=lambda each: int(each.name)):
        head, _, text = path.read_text().partition("\n\n")
        found.append((dict(line.split("=", 1) for line in head.splitlines()), text))
        path.unlink()
    return found


def run(machine: Machine, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    result = machine.run([f"/usr/local/sbin/{program}", *words])
    clean(machine)
    return result


@both
def test_of_a_good_backup_and_of_one_that_fails(filled: Machine, told: str, program: str):
    words = ["--plain", "-j", "night", "--notify", told, "-c"]
    result = run(filled, program, *words, "true", "kta/src")
    assert result.returncode == 0, result.stderr
    [(variables, text)] = heard(filled)
    assert variables == {
        "PROGRAM": program, "JOB": "night", "ACTION": "backup", "OUTCOME": "success",
        "STATUS": "0", "MESSAGE": "",
    }  # fmt: skip
    assert f"\n{text}" == result.stdout
    result = run(filled, program, *words, "sh -c 'echo PASSWORD=battery; exit 7'", "kta/src")
    assert result.returncode == 7
    [(variables, text)] = heard(filled)
    assert variables["OUTCOME"] == "failed"
    assert variables["STATUS"] == "7"
    assert variables["MESSAGE"] == "sh: exit status 7"
    assert text.startswith(f"{program} (job night): the backup FAILED, ")
    assert "PASSWORD=[hidden]" in text


REFUSED = [
    (["kta/nosuch"], 66, "no dataset is called 'kta/nosuch'"),
    ([], 64, "nothing to back up"),
    (["--nosuch", "kta/src"], 64, "option --nosuch not recognized"),
    (["-c", "no-such-client", "kta/src"], 69, "'no-such-client' is not installed"),
    (["-p", "/no/hook", "kta/src"], 69, "/no/hook does not exist"),
    (["-e", "/no/env", "kta/src"], 66, "cannot read the env file /no/env"),
]


@both
@pytest.mark.parametrize("options", [[], ["--periodic"]], ids=["by hand", "periodic"])
def test_of_refusals(filled: Machine, told: str, program: str, options: list[str]):
    for words, status, says in REFUSED:
        start = [*options, "--plain", "-c", "true", "--notify", told]
        result = run(filled, program, *start, *words)
        assert result.returncode == (3 if options else status)
        [(variables, text)] = heard(filled)
        assert says in variables["MESSAGE"]
        assert {**variables, "MESSAGE": ""} == {
            "PROGRAM": program, "JOB": "default", "ACTION": "backup", "OUTCOME": "refused",
            "STATUS": str(status), "MESSAGE": "",
        }  # fmt: skip
        assert text == f"{program}: NO BACKUP: {variables['MESSAGE']}\n"


@both
def test_of_another_run_of_the_job(filled: Machine, told: str, program: str):
    hook = f": > {BASE}/on; while [ ! -e {BASE}/go ]; do sleep 0.1; done"
    words = [f"/usr/local/sbin/{program}", "--plain", "-c", "true", "--notify", told]
    first = filled.popen(
        [*words, "-p", hook, "kta/src"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    wait_for(lambda: filled.path(f"{BASE}/on").exists())
    assert filled.run([*words, "kta/src"]).returncode == 75
    [(variables, text)] = heard(filled)
    assert (variables["OUTCOME"], variables["STATUS"]) == ("refused", "75")
    assert "is still running" in text
    filled.path(f"{BASE}/go").touch()
    first.communicate(timeout=60)
    [(variables, _)] = heard(filled)
    assert variables["OUTCOME"] == "success"


def test_the_job_is_free_and_its_history_written_when_it_is_told(filled: Machine):
    """A command that looks at the state, or hangs, is in nobody's way."""
    again = "restomic --plain -c true -q 'echo inner' kta/src"
    if not filled.is_sandbox:
        again = again.replace("restomic", str(filled.programs / "restomic"), 1)
    result = run(
        filled, "restomic", "--plain", "-c", "true", "--notify", f"exec {again}", "kta/src"
    )
    assert result.returncode == 0
    assert "inner" in result.stderr
    lines = filled.path("/var/db/kopiatomic/restomic.default.history").read_text().splitlines()
    assert len(lines) == 2


@both
def test_one_that_fails_makes_no_backup_worse(filled: Machine, program: str):
    words = ["--plain", "-c", "true", "--notify", "echo no route; exit 22"]
    result = run(filled, program, *words, "kta/src")
    assert result.returncode == 0
    assert f"{program}: the command of --notify failed, exit status 22\n" in result.stderr
    assert "no route" not in result.stdout
    result = run(filled, program, "--periodic", *words, "kta/src")
    assert result.returncode == 1
    assert "--notify failed, exit status 22\n\nWhat it said:\n  no route\n" in result.stdout
    told = json.loads(run(filled, program, "--status", "--json").stdout)
    assert told["jobs"][0]["newest_success"]["outcome"] == "success"
    assert told["jobs"][0]["newest_failure"] is None


def test_an_interrupted_one_ends_in_order(filled: Machine, told: str):
    child = filled.popen(
        ["/usr/local/sbin/restomic", "--plain", "-c", f"sh -c ': > {BASE}/on; sleep 1000'",
         "--notify", f"{told}; : > {BASE}/second; sleep 1000", "kta/src"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    wait_for(lambda: filled.path(f"{BASE}/on").exists() or child.poll() is not None)
    child.terminate()
    wait_for(lambda: filled.path(f"{BASE}/second").exists() or child.poll() is not None)
    [(variables, text)] = heard(filled)
    assert variables["OUTCOME"] == "interrupted"
    assert variables["STATUS"] == "143"
    assert "was INTERRUPTED" in text
    time.sleep(0.2)
    child.terminate()
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 143
    assert "the command of --notify failed, killed by SIGTERM" in out
    clean(filled)


class TestRepository:
    """Upkeep and drills tell of themselves, with the real clients."""

    def tell(self, repository: Repository, told: str, *words: str, status: int = 0):
        program, command = {
            "restic": ("restomic", "restic backup"),
            "kopia": ("kopiatomic", "kopia snapshot create"),
        }[repository.client]  # fmt: skip
        result = repository.machine.run(
            [f"/usr/local/sbin/{program}", "-c", command, "--notify", told, *words],
            env=repository.environment,
        )
        assert result.returncode == status, result.stdout + result.stderr
        [(variables, text)] = heard(repository.machine)
        assert (variables["PROGRAM"], variables["STATUS"]) == (program, str(status))
        assert "correct horse" not in text
        return variables, text

    @pytest.mark.restic
    def test_restic(self, filled: Machine, told: str, restic: Repository):
        self.all(told, restic, ["--upkeep", "--verify", "0"], ["--upkeep", "--maintenance"])

    @pytest.mark.kopia
    def test_kopia(self, filled: Machine, told: str, kopia: Repository):
        self.all(told, kopia, ["--upkeep", "--maintenance", "--verify=0"], ["--upkeep", "--prune"])

    def all(self, told: str, repository: Repository, upkeep: list[str], refused: list[str]):
        variables, text = self.tell(repository, told, "kta/src")
        assert (variables["ACTION"], variables["OUTCOME"]) == ("backup", "success")
        assert "kta/src" in text
        variables, text = self.tell(repository, told, *upkeep)
        assert (variables["ACTION"], variables["OUTCOME"]) == ("upkeep", "success")
        assert "upkeep succeeded" in text
        variables, text = self.tell(repository, told, "--drill", "2")
        assert (variables["ACTION"], variables["OUTCOME"]) == ("drill", "success")
        assert "the restore drill succeeded" in text
        variables, text = self.tell(repository, told, *refused, status=64)
        assert (variables["ACTION"], variables["OUTCOME"]) == ("upkeep", "refused")
        assert "NO UPKEEP" in text
        program = variables["PROGRAM"]
        said = repository.machine.run([f"/usr/local/sbin/{program}", "--status", "--metrics"])
        assert said.returncode == 0
        numbers = {
            line.split("{")[0].removeprefix("kopiatomic_"): line.split()[-1]
            for line in said.stdout.splitlines() if line[0] != "#"
        }  # fmt: skip
        for name in ("backup_last_run", "check_last_run", "drill_last_run"):
            assert numbers[f"{name}_success"] == "1"
        for name in ("backup", "check", "drill"):
            assert float(numbers[f"{name}_last_success_timestamp_seconds"]) > 1e9
        assert numbers["backup_captured_datasets"] == "1"
        assert numbers["backup_left_out_datasets"] == "0"


class TestPeriodic:
    """The rendered scripts with the real program, and what they refuse themselves."""

    @pytest.fixture(autouse=True)
    def _scripts(self, filled: Machine):
        pytest.importorskip("jinja2", reason="needs jinja2, as building the port does")
        filled.install_periodic()

    def script(self, machine: Machine, name: str, status: int, *lines: str) -> str:
        machine.path(machine.periodic_conf).write_text("".join(f"{each}\n" for each in lines))
        result = machine.run([f"{machine.prefix}/etc/periodic/{name}"])
        assert (result.returncode, result.stderr) == (status, "")
        clean(machine)
        return result.stdout

    @both
    def test_a_night(self, filled: Machine, told: str, program: str):
        name = f"daily_{program}"
        conf = [f"{name}_enable=YES", f"{name}_plain=YES", f"{name}_command=true",
                f"{name}_notify='{told}'"]  # fmt: skip
        script = f"daily/800.{program}"
        out = self.script(filled, script, 0, *conf, f"{name}_datasets=kta/src")
        [(variables, text)] = heard(filled)
        assert (variables["JOB"], variables["OUTCOME"]) == ("default", "success")
        assert out == f"\n{text}"
        out = self.script(filled, script, 3, *conf, f"{name}_datasets=kta/no")
        [(variables, text)] = heard(filled)
        assert (variables["OUTCOME"], variables["STATUS"]) == ("refused", "66")
        assert out == f"\n{text}"

    @both
    def test_what_the_script_itself_refuses(self, filled: Machine, told: str, program: str):
        name = f"daily_{program}"
        good = [f"{name}_enable=YES", f"{name}_datasets=kta/src", f"{name}_notify='{told}'"]
        cases = [
            (f"{name}_enable=YEES", "default", [f'{name}_enable="YEES" is neither YES nor NO']),
            (f"{name}_datasets=", "default", [f"{name}_datasets is empty"]),
            (f"{name}_all=YES", "default", [f"both {name}_all and {name}_datasets say"]),
            (f"{name}_proof=x {name}_plain=y", "default",
             ['_plain="y" is neither', '; daily_', '_proof="x" is neither']),
            (f"{name}_profiles='a-b'", "", [f'in {name}_profiles, "a-b" is not made of']),
            (f"{name}_profiles=home {name}_home_datasets=", "home", ["_home_datasets is empty"]),
        ]  # fmt: skip
        for line, job, says in cases:
            out = self.script(filled, f"daily/800.{program}", 3, *good, line)
            [(variables, text)] = heard(filled)
            assert {**variables, "MESSAGE": ""} == {
                "PROGRAM": program, "JOB": job, "ACTION": "backup", "OUTCOME": "refused",
                "STATUS": "78", "MESSAGE": "",
            }  # fmt: skip
            for each in says:
                assert each in variables["MESSAGE"]
            assert variables["MESSAGE"].split("; ")[0] in out
            title = f"{program} (job {job})" if job else program
            assert text == f"{title}: NO BACKUP: {variables['MESSAGE']}\n"

    def test_a_profile_of_its_own_has_a_command_of_its_own(self, filled: Machine, told: str):
        self.script(
            filled, "daily/800.restomic", 3, "daily_restomic_enable=YES",
            "daily_restomic_profiles='a b c'", f"daily_restomic_notify='{told}'",
            "daily_restomic_b_notify=", f"daily_restomic_c_notify=': > {BASE}/c; {told}'",
        )  # fmt: skip
        assert [variables["JOB"] for variables, _ in heard(filled)] == ["a", "c"]
        assert filled.path(f"{BASE}/c").exists()

    @both
    @pytest.mark.parametrize(
        ("script", "action"), [("weekly/850.upkeep", "upkeep"), ("weekly/860.drill", "drill")]
    )
    def test_upkeep_and_drill_have_the_backups(
        self, filled: Machine, told: str, program: str, script: str, action: str
    ):
        lines = [f"daily_{program}_notify='{told}'", f"daily_{program}_command=no-such-client"]
        enable = f"weekly_{action}_{program}_enable"
        self.script(filled, f"{script}-{program}", 3, *lines, f"{enable}=YES")
        [(variables, _)] = heard(filled)
        assert (variables["ACTION"], variables["OUTCOME"]) == (action, "refused")
        assert "no-such-client" in variables["MESSAGE"]
        self.script(filled, f"{script}-{program}", 3, *lines, f"{enable}=oui")
        [(variables, _)] = heard(filled)
        assert (variables["ACTION"], variables["STATUS"]) == (action, "78")
        own = f"weekly_{action}_{program}_notify="
        self.script(filled, f"{script}-{program}", 3, *lines, f"{enable}=oui", own)
        assert heard(filled) == []

    def test_a_program_that_cannot_run_or_is_killed(self, filled: Machine, told: str):
        conf = ["daily_restomic_enable=YES", "daily_restomic_datasets=kta/src",
                f"daily_restomic_notify='{told}'"]  # fmt: skip
        program = filled.path(f"{filled.prefix}/sbin/restomic")
        for text, status in (("#!/no/python\n", "127"), ("#!/bin/sh\nkill -9 $$\n", "137")):
            program.write_text(text)
            filled.path(filled.periodic_conf).write_text("\n".join(conf) + "\n")
            script = f"{filled.prefix}/etc/periodic/daily/800.restomic"
            assert filled.run([script]).returncode == 3
            [(variables, _)] = heard(filled)
            assert (variables["OUTCOME"], variables["STATUS"]) == ("failed", status)
            assert variables["MESSAGE"] == f"restomic ended with status {status}"

    def test_a_command_that_fails_is_in_the_mail(self, filled: Machine):
        out = self.script(
            filled, "daily/800.restomic", 3, "daily_restomic_enable=YES",
            "daily_restomic_notify='echo no route; exit 22'",
        )  # fmt: skip
        assert out.endswith("no route\nthe command of daily_restomic_notify failed\n")
