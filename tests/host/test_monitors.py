"""The samples in share/examples: each against a server on loopback that keeps what it is sent."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.machine import BASE, CHECKOUT, PROGRAMS, Machine

from host.conftest import clean

EXAMPLES = CHECKOUT / "files/examples"
NAMES = ("healthchecks", "ntfy", "textfile", "webhook")

needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")


class Server:
    """A server: the requests that came, and what it answers."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 200
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                server.requests.append((self.path, dict(self.headers), body))
                self.send_response(server.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def taken(self) -> tuple[str, dict[str, str], str]:
        """Return the one request that came: its path, its headers, its text; and forget it."""
        [(path, headers, body)] = self.requests
        self.requests.clear()
        return path, headers, body.decode()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def install(machine: Machine, name: str, **settings: str) -> str:
    """Copy a sample as an administrator does, with settings of its own; return its path."""
    text = (EXAMPLES / f"{name}.sh").read_text()
    for key, value in settings.items():
        text, count = re.subn(rf"(?m)^{key}=.*$", f"{key}={value}", text)
        assert count == 1, key
    path = machine.path(f"{BASE}/{name}")
    if machine.is_sandbox:
        # A package's.
        curl = machine.path("/usr/local/bin/curl")
        if not curl.is_symlink():
            curl.symlink_to(f"/compat/linux{Path(shutil.which('curl') or '').resolve()}")
    else:
        text = text.replace("\nPATH=$PATH:", f"\nPATH={machine.programs}:$PATH:")
    path.write_text(text)
    path.chmod(0o700)
    return f"{BASE}/{name}"


def run(machine: Machine, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    result = machine.run(["/usr/local/sbin/restomic", "--plain", "-j", "My.job", *words])
    assert result.returncode == status, result.stdout + result.stderr
    clean(machine)
    return result


def sent(machine: Machine, sample: str, *words: str, status: int = 0) -> str:
    """Run a backup that the sample is to tell of, and well; return what restomic printed."""
    result = run(machine, "--notify", sample, *words, status=status)
    assert "--notify" not in result.stderr, result.stderr
    return result.stdout


GOOD = ("-c", "true", "kta/src")
BAD = ("-c", "false", "kta/src")
REFUSED = ("-c", "true", "kta/nosuch")


@pytest.mark.parametrize("name", NAMES)
def test_it_is_clean_shell(name: str):
    if not shutil.which("shellcheck"):
        pytest.skip("needs shellcheck")
    path = EXAMPLES / f"{name}.sh"
    assert path.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["shellcheck", path], check=True)


def test_these_are_all():
    assert sorted(path.name for path in EXAMPLES.iterdir()) == [f"{name}.sh" for name in NAMES]


@needs_curl
class TestHealthchecks:
    @pytest.fixture
    def sample(self, filled: Machine, server: Server) -> str:
        return install(filled, "healthchecks", url=f"{server.url}/KEY")

    def test_success_failure_and_refusal(self, filled: Machine, server: Server, sample: str):
        for words, status, what in ((GOOD, 0, ""), (BAD, 1, "/fail"), (REFUSED, 66, "/fail")):
            out = sent(filled, sample, *words, status=status)
            path, _, text = server.taken()
            assert re.fullmatch(
                rf"/KEY/[a-z0-9_-]+-restomic-my-job-backup{what}\?create=1", path
            ), path
            if out:
                assert out.startswith(f"\n{text[:60]}")
            assert text.startswith("restomic (job My.job): ")

    def test_start(self, filled: Machine, server: Server, sample: str):
        run(filled, "-p", f"{sample} start", *GOOD)
        path, _, text = server.taken()
        assert path.endswith("-restomic-my-job-backup/start?create=1")
        assert text == ""

    def test_a_start_that_cannot_be_told_is_no_reason_for_no_backup(
        self, filled: Machine, server: Server, sample: str
    ):
        server.status = 404
        run(filled, "-p", f"{sample} start", *GOOD)
        result = run(filled, "--notify", sample, *GOOD)
        assert "the command of --notify failed" in result.stderr
        assert len(server.requests) == 2

    def test_upkeep_and_drill_have_checks_of_their_own(
        self, filled: Machine, server: Server, sample: str
    ):
        run(filled, "--notify", sample, "-c", "restic-x", "--upkeep", "--prune", status=69)
        assert "-restomic-my-job-upkeep/fail" in server.taken()[0]
        run(filled, "--notify", sample, "-c", "restic-x", "--drill", "2", status=69)
        assert "-restomic-my-job-drill/fail" in server.taken()[0]


@needs_curl
class TestNtfy:
    def test_only_what_did_not_end_well(self, filled: Machine, server: Server):
        sample = install(filled, "ntfy", url=f"{server.url}/TOPIC", token="tk_secret")
        sent(filled, sample, *GOOD)
        assert server.requests == []
        sent(filled, sample, *BAD, status=1)
        path, headers, text = server.taken()
        assert path == "/TOPIC"
        assert headers["Title"].endswith(": restomic My.job: backup failed")
        assert (headers["Priority"], headers["Tags"]) == ("high", "warning")
        assert headers["Authorization"] == "Bearer tk_secret"
        assert text.startswith("restomic (job My.job): the backup FAILED")
        sent(filled, sample, *REFUSED, status=66)
        assert server.taken()[1]["Title"].endswith(": backup refused")

    def test_or_everything(self, filled: Machine, server: Server):
        sample = install(filled, "ntfy", url=f"{server.url}/TOPIC", always="YES")
        sent(filled, sample, *GOOD)
        _, headers, text = server.taken()
        assert headers["Title"].endswith(": restomic My.job: backup success")
        assert "Authorization" not in headers
        assert "the backup succeeded" in text

    def test_no_more_than_a_message_holds(self, filled: Machine, server: Server):
        sample = install(filled, "ntfy", url=f"{server.url}/TOPIC")
        many = ["-x", *[f"kta/{'x' * 100}"] * 80]
        sent(filled, sample, "-c", f"sh -c 'seq 1 9999; echo {'y' * 5000}; exit 1'", "kta/src",
             *many[:2], status=1)  # fmt: skip
        assert len(server.taken()[2].encode()) <= 4096


STRANGE = 'quote" back\\slash \\n tab\there ü € 𝄞 $HOME `id` %s {}'


@needs_curl
class TestWebhook:
    @pytest.fixture
    def sample(self, filled: Machine, server: Server) -> str:
        return install(filled, "webhook", url=f"{server.url}/hooks/SECRET")

    def test_what_is_posted(self, filled: Machine, server: Server, sample: str):
        out = sent(filled, sample, *GOOD)
        path, headers, text = server.taken()
        assert path == "/hooks/SECRET"
        assert headers["Content-Type"] == "application/json"
        told = json.loads(text)
        assert list(told) == [
            "report", "host", "program", "job", "run", "action", "outcome", "message", "status",
        ]  # fmt: skip
        assert f"\n{told['report']}\n" == out
        assert told["run"]
        assert {key: told[key] for key in list(told)[2:] if key != "run"} == {
            "program": "restomic", "job": "My.job", "action": "backup", "outcome": "success",
            "message": "", "status": 0,
        }  # fmt: skip

    def test_valid_whatever_the_names(self, filled: Machine, server: Server, sample: str):
        strange = f"{BASE}/{STRANGE}".encode() + b" \xff\xfe\x01"
        words = ["-c", "true", strange.decode("utf-8", "surrogateescape")]
        sent(filled, sample, *words, status=66)
        told = json.loads(server.taken()[2])
        assert told["outcome"] == "refused"
        for each in ('quote" back\\slash \\n tab', "ü € 𝄞 $HOME `id` %s {}", "\\xff\\xfe\\x01"):
            assert each in told["message"]
            assert each in told["report"]

    def test_valid_whatever_it_is_given(self, filled: Machine, server: Server, sample: str):
        """As by a script that does not show what is no text, or by hand."""
        report = "".join(map(chr, range(1, 256))) + STRANGE
        file = filled.path(f"{BASE}/report")
        file.write_bytes(report.encode() + b"\xff\xc3\n\xed\xa0\x80 end\r\n\n")
        variables = {f"KOPIATOMIC_{name}": STRANGE for name in
                     ("PROGRAM", "JOB", "RUN", "ACTION", "OUTCOME", "MESSAGE")}  # fmt: skip
        result = filled.run(
            ["/bin/sh", "-c", f"{sample} < {BASE}/report"],
            env={**variables, "KOPIATOMIC_STATUS": "75"},
        )
        assert result.returncode == 0, result.stderr
        told = json.loads(server.taken()[2])
        assert told["message"] == told["job"] == STRANGE
        assert told["status"] == 75
        assert STRANGE in told["report"]
        assert told["report"].endswith(" end\n")

    def test_a_server_that_refuses(self, filled: Machine, server: Server, sample: str):
        server.status = 403
        result = run(filled, "--notify", sample, *GOOD)
        assert "403" in result.stderr
        assert "the command of --notify failed, exit status 22" in result.stderr


@needs_curl
@pytest.mark.parametrize("name", ["healthchecks", "ntfy", "webhook"])
def test_no_secret_is_on_a_command_line_and_nothing_stays(
    filled: Machine, server: Server, name: str
):
    sample = install(filled, name, url=f"{server.url}/SECRET")
    stub = filled.path(f"{BASE}/bin")
    stub.mkdir()
    curl = stub / "curl"
    curl.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {BASE}/words\ncat > {BASE}/config\n')
    curl.chmod(0o755)
    filled.path(f"{BASE}/tmp").mkdir()
    text = filled.path(sample).read_text()
    filled.path(sample).write_text(text.replace("\n", f"\nPATH={BASE}/bin:$PATH\n", 1))
    result = filled.run(
        ["/usr/local/sbin/restomic", "--plain", "--notify", sample, *BAD],
        env={"TMPDIR": f"{BASE}/tmp"},
    )
    assert "--notify" not in result.stderr
    words = filled.path(f"{BASE}/words").read_text()
    assert "--config\n-\n" in words
    assert "SECRET" not in words
    assert "/SECRET" in filled.path(f"{BASE}/config").read_text()
    assert list(filled.path(f"{BASE}/tmp").iterdir()) == []


class TestTextfile:
    @pytest.fixture
    def directory(self, filled: Machine) -> Path:
        made = filled.path(f"{BASE}/prom")
        made.mkdir(mode=0o755)
        return made

    @pytest.fixture
    def sample(self, filled: Machine, directory: Path) -> str:
        return install(filled, "textfile", directory=f"{BASE}/prom")

    def test_both_programs_when_a_job_has_ended(
        self, filled: Machine, directory: Path, sample: str
    ):
        sent(filled, sample, *GOOD)
        assert sorted(path.name for path in directory.iterdir()) == [
            f"{program}.prom" for program in PROGRAMS
        ]
        for path in directory.iterdir():
            assert path.stat().st_mode & 0o777 == 0o644
        text = (directory / "restomic.prom").read_text()
        assert 'kopiatomic_backup_last_run_success{program="restomic",job="My.job"} 1\n' in text
        assert "backup" not in (directory / "kopiatomic.prom").read_text()
        sent(filled, sample, *BAD, status=1)
        text = (directory / "restomic.prom").read_text()
        assert 'kopiatomic_backup_last_run_success{program="restomic",job="My.job"} 0\n' in text

    def test_what_was_there_is_replaced_as_a_whole_or_stays(
        self, filled: Machine, directory: Path, sample: str
    ):
        """A reader that has the old one open reads it to its end."""
        assert filled.run([sample]).returncode == 0
        old = (directory / "restomic.prom").stat().st_ino
        with open(directory / "restomic.prom") as reader:
            sent(filled, sample, *GOOD)
            assert "My.job" not in reader.read()
        assert (directory / "restomic.prom").stat().st_ino != old
        state = filled.path("/var/db/kopiatomic")
        before = {path.name: path.read_text() for path in directory.iterdir()}
        state.rename(state.with_name("aside"))
        state.touch()
        try:
            assert filled.run([sample]).returncode == 1
        finally:
            state.unlink()
            state.with_name("aside").rename(state)
        assert {path.name: path.read_text() for path in directory.iterdir()} == before

    def test_a_directory_that_others_can_write_is_refused(
        self, filled: Machine, directory: Path, sample: str
    ):
        directory.chmod(0o777)
        result = filled.run([sample])
        assert result.returncode == 1
        assert "no directory that only root can write" in result.stderr
        assert list(directory.iterdir()) == []
