"""Several machines and one repository, behind the real rest-server and the real kopia server.

The servers run on this machine, for the sandbox hosts share its network.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support import clients
from support.machine import PROGRAMS, Sandbox, shell
from support.patience import PATIENCE

from host.conftest import POOL, TOP, clean

pytestmark = pytest.mark.linux(reason="needs several machines, each with its own clients")

PASSWORD = "correct horse"
LIMIT = 60.0


def until(happened: Callable[[], object], what: str) -> None:
    """Wait for something that other processes do."""
    deadline = time.monotonic() + LIMIT * PATIENCE
    while not happened():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.003)


# The machines


class Member(Sandbox):
    """A machine of the fleet, with a pool, one dataset, and a file that says whose it is."""

    def __init__(self, directory: Path, name: str) -> None:
        # Not on FreeBSD: the sandbox host is made of Linux.
        from sandbox.host import Host

        self.name = name
        self.logs = directory.with_suffix(".logs")
        self.logs.mkdir()
        self.host = Host.create(directory, hostname=name)
        self.install()
        self.make_pool(POOL)
        shell(self, f"zfs create {POOL}/src; mkfifo /gate; mkdir /backup")
        self.path(f"{TOP}/src/whose").write_text(f"of {name}\n")
        script(self, "/gatekeeper", "exec cat /gate\n")

    def fill(self, mebibytes: int) -> None:
        """Write a file that takes a while to back up, as it does not compress."""
        data = random.Random(self.name).randbytes(mebibytes << 20)
        self.path(f"{TOP}/src/noise").write_bytes(data)

    def start(self, *words: str) -> Run:
        """Start a command in the background."""
        log = self.logs / str(len(list(self.logs.iterdir())))
        with open(log, "w") as output:
            process = self.popen(words, stdout=output, stderr=output, new_group=True)
        return Run(self, words[0], process, log)

    def call(self, *words: str, status: int = 0) -> str:
        """Run a command to its end; see Run.end()."""
        return self.start(*words).end(status)


@dataclass
class Run:
    """A command that runs on a machine."""

    machine: Member
    program: str
    process: subprocess.Popen[str]
    log: Path

    def said(self) -> str:
        return self.log.read_text()

    def says(self, text: str) -> None:
        """Wait until the command says so."""
        until(lambda: text in self.said() or self.process.poll() is not None, text)
        assert text in self.said()

    def end(self, status: int = 0) -> str:
        """Expect a status, and that nothing of a run of ours is left; return its output."""
        assert self.process.wait(LIMIT) == status, self.said()
        if self.program in PROGRAMS:
            clean(self.machine)
        return self.said()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Wait until the client reads the machine's gate; there it stays for this block."""
        descriptors: list[int] = []

        def at_the_gate() -> bool:
            assert self.process.poll() is None, self.said()
            # Without a reader a fifo cannot be opened so: ENXIO.
            with contextlib.suppress(OSError):
                gate = self.machine.path("/gate")
                descriptors.append(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
            return bool(descriptors)

        until(at_the_gate, "the client at the gate")
        try:
            yield
        finally:
            os.close(descriptors[0])


Fleet = tuple[Member, Member]


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two machines, ada.test and bob.test."""
    directory = tmp_path_factory.mktemp("fleet")
    with contextlib.ExitStack() as stack:
        members = []
        for name in ("ada", "bob"):
            members.append(Member(directory / name, f"{name}.test"))
            stack.callback(members[-1].close)
        yield members[0], members[1]


@pytest.fixture
def fleet(machines: Fleet) -> Fleet:
    """The two machines, without what other tests have left."""
    for machine in machines:
        if not machine.host.running:
            machine.host.boot()
        shell(machine, f"rm -rf /backup/out {TOP}/src/noise")
    return machines


def script(machine: Member, path: str, text: str) -> None:
    machine.path(path).write_text(f"#!/bin/sh\n{text}")
    machine.path(path).chmod(0o700)


def wrapper(machine: Member, client: str, variables: dict[str, str]) -> None:
    """Write a wrapper, such as restic-fleet, that knows the repository and its password."""
    exports = "".join(f"export {name}='{value}'\n" for name, value in variables.items())
    script(machine, f"/usr/local/sbin/{client}-fleet", f'{exports}exec {client} "$@"\n')


# The servers


@dataclass
class Server:
    """A server on this machine; as it comes back, it has the same address."""

    directory: Path
    address: str = "127.0.0.1:0"
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def begin(self, argv: list[str], ready: str) -> None:
        """Start it and wait until it has said its address after ``ready``."""
        log = self.directory / "log"
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                argv, env={**os.environ, **self.environment}, cwd=self.directory,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        pattern = re.compile(ready + r"(127\.0\.0\.1:\d+)")
        until(lambda: pattern.search(log.read_text()) or self.ended(), "a server")
        found = pattern.search(log.read_text())
        assert found, log.read_text()
        self.address = found[1]

    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def kill(self) -> None:
        """Let it die as by a power cut."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def packs(self) -> int:
        """Return how many files of data its repository has."""
        raise NotImplementedError

    def dies_as_it_stores(self, run: Run) -> None:
        """Kill it in the middle of a backup: after the first file of data."""
        before = self.packs()
        until(lambda: self.packs() > before or run.process.poll() is not None, "data")
        self.kill()
        assert run.process.poll() is None, run.said()


class RestServer(Server):
    """rest-server with one account, and one repository in it."""

    def start(self, *options: str) -> None:
        digest = base64.b64encode(hashlib.sha1(b"garden gate").digest()).decode()
        (self.directory / ".htpasswd").write_text(f"fleet:{{SHA}}{digest}\n")
        where = ["--path", str(self.directory), "--listen", self.address, "--private-repos"]
        self.begin([str(clients.rest_server()), *where, *options], "start server on ")

    @property
    def variables(self) -> dict[str, str]:
        """What a machine needs to know."""
        return {
            "RESTIC_REPOSITORY": f"rest:http://{self.address}/fleet",
            "RESTIC_REST_USERNAME": "fleet",
            "RESTIC_REST_PASSWORD": "garden gate",
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_PROGRESS_FPS": "0.1",
        }

    def packs(self) -> int:
        return len(list((self.directory / "fleet/data").glob("??/" + "?" * 64)))

    def locks(self) -> int:
        return len(list((self.directory / "fleet/locks").iterdir()))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty restic repository, to be copied."""
    directory = tmp_path_factory.mktemp("empty") / "fleet"
    variables = {"RESTIC_PASSWORD": PASSWORD, "RESTIC_REPOSITORY": str(directory)}
    words = [str(clients.restic()), "--no-cache", "init"]
    subprocess.run(words, env={**os.environ, **variables}, check=True, capture_output=True)
    return directory


@pytest.fixture
def rest(fleet: Fleet, empty: Path, tmp_path: Path) -> Iterator[RestServer]:
    """A rest-server with a restic repository; both machines have the wrapper restic-fleet."""
    server = RestServer(tmp_path)
    shutil.copytree(empty, tmp_path / "fleet")
    try:
        server.start()
        for machine in fleet:
            wrapper(machine, "restic", server.variables)
        yield server
    finally:
        server.kill()


RESTOMIC = ("restomic", "-c", "restic-fleet backup")
GATE = ("-o", "--exclude-file=/gate")  # restic reads it when it has its lock
PRUNE = ("--upkeep", "--forget", "--keep-last 1", "--prune")
SLOWLY = ("-o", "--pack-size=4 --limit-upload=8192")


def hosts(machine: Member) -> list[str]:
    """Return the host name of each backup in the restic repository."""
    found = json.loads(machine.call("restic-fleet", "snapshots", "--json"))
    return sorted(each["hostname"] for each in found)


def remedy(said: str, owner: str) -> str:
    """Return the command by which a message says to remove a dead machine's lock."""
    found = re.search(
        rf"locked by PID \d+ on {owner} by root \(UID 0, GID 0\) for \d+m?s; if that restic still "
        rf"runs, .*; if it is dead: (.*), on {owner} at once, elsewhere when", said
    )  # fmt: skip
    assert found, said
    return found[1]


@pytest.mark.restic
@pytest.mark.skipif(not clients.rest_server(), reason=str(clients.missing("rest-server")))
class TestRestic:
    def test_two_machines_at_once(self, fleet, rest):
        ada, bob = fleet
        env_file = ada.path("/root/fleet.env")
        env_file.write_text("".join(f"{k}={v}\n" for k, v in rest.variables.items()))
        env_file.chmod(0o600)
        first = ada.start("restomic", "-e", "/root/fleet.env", *GATE, "kta/src")
        second = bob.start(*RESTOMIC, *GATE, "kta/src")
        with first.held(), second.held():
            assert rest.locks() == 2
        assert "the backup succeeded" in first.end()
        assert "the backup succeeded" in second.end()
        assert rest.locks() == 0
        assert hosts(ada) == ["ada.test", "bob.test"]
        for reader, writer in ((ada, bob), (bob, ada)):
            where = ("--host", writer.name, "--target", "/backup/out")
            reader.call("restic-fleet", "restore", "latest", *where)
            text = reader.path(f"/backup/out{TOP}/src/whose").read_text()
            assert text == f"of {writer.name}\n"

    def test_a_prune_while_another_machine_backs_up(self, fleet, rest):
        ada, bob = fleet
        for _ in range(2):
            ada.call(*RESTOMIC, "kta/src")
        backup = bob.start(*RESTOMIC, *GATE, "kta/src")
        with backup.held():
            refused = ada.call(*RESTOMIC, *PRUNE, status=11)
            assert remedy(refused, "bob.test") == "restic-fleet unlock"
            assert hosts(ada) == ["ada.test"] * 2
            patient = ada.start(*RESTOMIC, *PRUNE, "-o", "--retry-lock=15s")
            patient.says("repo already locked, waiting up to 15s")
        backup.end()
        patient.end()
        assert hosts(ada) == ["ada.test", "bob.test"]
        ada.call("restic-fleet", "check", "--read-data")

    def test_the_lock_of_a_dead_machine(self, fleet, rest):
        ada, bob = fleet
        with bob.start(*RESTOMIC, *GATE, "kta/src").held():
            bob.host.power_cut()
        command = remedy(ada.call(*RESTOMIC, *PRUNE, status=11), "bob.test")
        ada.call("/bin/sh", "-c", command)
        assert rest.locks() == 1
        bob.host.boot()
        shell(bob, command)
        assert rest.locks() == 0
        assert "Removed, left behind by an earlier run" in bob.call(*RESTOMIC, "kta/src")
        ada.call(*RESTOMIC, *PRUNE)

    def test_a_dead_prune_keeps_the_others_from_their_backups(self, fleet, rest):
        ada, bob = fleet
        bob.call(*RESTOMIC, "kta/src")
        # As prune does, it holds the repository for itself, and it can be held up.
        rewrite = bob.start("restic-fleet", "rewrite", "--forget", "--exclude-file=/gate", "latest")
        with rewrite.held():
            rewrite.process.kill()
            rewrite.process.wait()
        said = ada.call(*RESTOMIC, "kta/src", status=11)
        assert "restomic: the backup FAILED" in said
        assert remedy(said, "bob.test") == "restic-fleet unlock"
        shell(bob, "restic-fleet unlock")
        ada.call(*RESTOMIC, "kta/src")

    def test_a_server_that_dies_and_comes_back(self, fleet, rest):
        ada, _ = fleet
        ada.fill(12)
        backup = ada.start(*RESTOMIC, *SLOWLY, "kta/src")
        rest.dies_as_it_stores(backup)
        rest.start("--max-size=1")
        said = backup.end(1)
        assert "restomic: the backup FAILED" in said
        # A file that was stored without an answer is refused when it is sent again.
        assert re.search("507 Insufficient Storage|403 Forbidden", said)
        rest.kill()
        rest.start()
        assert hosts(ada) == []
        ada.call(*RESTOMIC, "kta/src")
        ada.call("restic-fleet", "check", "--read-data")

    def test_a_server_that_comes_back_before_restic_gives_up(self, fleet, rest):
        ada, _ = fleet
        backup = ada.start(*RESTOMIC, *GATE, "kta/src")
        with backup.held():
            rest.kill()
        backup.says("connection refused")
        rest.start()
        assert "the backup succeeded" in backup.end()
        assert hosts(ada) == ["ada.test"]

    def test_append_only(self, fleet, rest):
        ada, vault = fleet
        rest.kill()
        rest.start("--append-only")
        for machine in (ada, ada, vault):
            machine.call(*RESTOMIC, "kta/src")
        said = ada.call(*RESTOMIC, *PRUNE, status=69)
        assert "leave --forget and --prune to one that may remove" in said
        assert hosts(ada) == ["ada.test", "ada.test", "bob.test"]
        assert rest.locks() == 0
        # The server's own machine has the repository as files.
        local = {"RESTIC_REPOSITORY": f"/compat/linux{rest.directory}/fleet"}
        wrapper(vault, "restic", {**rest.variables, **local})
        policy = "--host ada.test --host bob.test --keep-last 1"
        vault.call(*RESTOMIC, "--upkeep", "--forget", policy, "--prune")
        assert hosts(ada) == ["ada.test", "bob.test"]


# kopia


@dataclass
class KopiaServer(Server):
    """A kopia server that knows both machines; ``call`` is kopia on the server's machine."""

    def __post_init__(self) -> None:
        self.environment = {
            "HOME": str(self.directory),
            "KOPIA_PASSWORD": "the server's alone",
            "KOPIA_SERVER_CONTROL_PASSWORD": "control",
            "KOPIA_CHECK_FOR_UPDATES": "false",
        }

    def call(self, *words: str) -> str:
        """Run kopia on the server's machine, with the storage itself."""
        result = subprocess.run(
            [str(clients.kopia()), *words], env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout
        return result.stdout

    def start(self) -> None:
        files = ["--tls-cert-file=cert.pem", "--tls-key-file=key.pem"]
        if not (self.directory / "cert.pem").exists():
            files += ["--tls-generate-cert", "--tls-generate-rsa-key-size=2048"]
        words = ["server", "start", "--no-ui", f"--address={self.address}", *files]
        self.begin([str(clients.kopia()), *words], "SERVER ADDRESS: https://")

    @property
    def fingerprint(self) -> str:
        """Return what the server said of its certificate when it made it."""
        found = re.search(r"CERT SHA256: (\w+)", (self.directory / "log").read_text())
        assert found
        return found[1]

    def packs(self) -> int:
        return len(list((self.directory / "repository").glob("p*/**/*.f")))


KOPIA = {"KOPIA_PASSWORD": PASSWORD, "KOPIA_CHECK_FOR_UPDATES": "false"}
KOPIATOMIC = ("kopiatomic", "-c", "kopia-fleet snapshot create")
MAINTENANCE = ("--upkeep", "--maintenance")
ACTIONS = ("-o", "--force-enable-actions")


@pytest.fixture(scope="class")
def vault(
    machines: Fleet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KopiaServer]:
    """A kopia server; both machines are connected and have the wrapper kopia-fleet."""
    server = KopiaServer(tmp_path_factory.mktemp("vault"))
    try:
        server.call("repository", "create", "filesystem", f"--path={server.directory}/repository")
        for user in ("root@ada", "root@bob"):
            server.call("server", "users", "add", user, f"--user-password={PASSWORD}")
        server.start()
        for machine in machines:
            wrapper(machine, "kopia", KOPIA)
            machine.call(
                "kopia-fleet", "repository", "connect", "server", f"--url=https://{server.address}",
                f"--server-cert-fingerprint={server.fingerprint}",
            )  # fmt: skip
        yield server
    finally:
        server.kill()


def gated(machine: Member) -> Run:
    """Start a backup that kopia holds up at the machine's gate."""
    action = "--before-snapshot-root-action=/gatekeeper"
    machine.call("kopia-fleet", "policy", "set", f"{TOP}/src", action)
    return machine.start(*KOPIATOMIC, *ACTIONS, "kta/src")


def sources(listing: str) -> set[str]:
    """Return whose backups `kopia snapshot list --json` has."""
    found = [each["source"] for each in json.loads(listing)]
    return {f"{each['userName']}@{each['host']}:{each['path']}" for each in found}


@pytest.mark.kopia
class TestKopiaServer:
    def test_two_machines_at_once(self, fleet, vault):
        runs = [gated(machine) for machine in fleet]
        with runs[0].held(), runs[1].held():
            pass
        for run in runs:
            assert "the backup succeeded" in run.end()
        every = vault.call("snapshot", "list", "--all", "--json")
        assert sources(every) == {f"root@ada:{TOP}/src", f"root@bob:{TOP}/src"}
        for machine in fleet:
            own = machine.call("kopia-fleet", "snapshot", "list", "--all", "--json")
            assert sources(own) == {f"root@{machine.name.removesuffix('.test')}:{TOP}/src"}
            machine.call("kopia-fleet", "restore", f"{TOP}/src", "/backup/out")
            assert machine.path("/backup/out/whose").read_text() == f"of {machine.name}\n"

    def test_maintenance_is_the_servers(self, fleet, vault):
        ada, bob = fleet
        backup = gated(bob)
        with backup.held():
            said = ada.call(*KOPIATOMIC, *MAINTENANCE, status=1)
            assert "through a kopia server" in said
            assert "Finished full maintenance" in vault.call("maintenance", "run", "--full")
        backup.end()
        bob.call(*KOPIATOMIC, "--upkeep", "--verify", "100")

    def test_a_server_that_dies_and_comes_back(self, fleet, vault):
        ada, _ = fleet
        ada.fill(48)
        before = vault.call("snapshot", "list", "--all", "--json")
        backup = ada.start(*KOPIATOMIC, "kta/src")
        vault.dies_as_it_stores(backup)
        vault.start()
        assert "kopiatomic: the backup FAILED" in backup.end(1)
        assert vault.call("snapshot", "list", "--all", "--json") == before
        ada.call(*KOPIATOMIC, "kta/src")
        vault.call("snapshot", "verify", "--verify-files-percent=100")

    def test_a_server_that_is_away_is_tried_again(self, fleet, vault):
        ada, _ = fleet
        vault.kill()
        backup = ada.start(*KOPIATOMIC, "--retries", "99", "--retry-pause", "1s", "kta/src")
        backup.says("trying again in 1 s (1 of 99)")
        vault.start()
        said = backup.end()
        assert "kopiatomic: the backup succeeded" in said
        assert "connection refused" in said.partition("could not be reached:\n")[2]


@pytest.mark.kopia
def test_kopias_maintenance_has_one_owner(fleet, tmp_path):
    ada, bob = fleet
    (tmp_path / "shared").mkdir()
    for machine, how in ((ada, "create"), (bob, "connect")):
        wrapper(machine, "kopia", KOPIA)
        path = f"--path=/compat/linux{tmp_path}/shared"
        machine.call("kopia-fleet", "repository", how, "filesystem", path)
    backup = gated(bob)
    with backup.held():
        assert "Finished full maintenance" in ada.call(*KOPIATOMIC, *MAINTENANCE)
    backup.end()
    said = bob.call(*KOPIATOMIC, *MAINTENANCE, status=1)
    found = re.search(r"belongs to root@ada alone: .* take it over for good: (.*)", said)
    assert found, said
    shell(bob, found[1])
    bob.call(*KOPIATOMIC, *MAINTENANCE, "--verify", "100")
    assert "belongs to root@bob alone" in ada.call(*KOPIATOMIC, *MAINTENANCE, status=1)
