"""What clients and their helpers say where a network is away, and what only sounds like it."""

import json

import pytest

from kopiatomic.clients.base import Client
from kopiatomic.clients.kopia import Kopia
from kopiatomic.clients.network import is_away
from kopiatomic.clients.restic import Restic

DIAL = 'Head "http://h:8000/config": dial tcp 10.0.0.1:8000: connect: connection refused'
RPC = (
    "open repository: unable to open repository: unable to establish session for purpose=: error "
    "establishing session: Session(): rpc error: code = Unavailable desc = connection error: desc "
    '= "transport: Error while dialing: dial tcp 127.0.0.1:18997: connect: connection refused"'
)


@pytest.mark.parametrize(
    "line",
    [
        DIAL, RPC, 'Post "https://b2/x": EOF', "dial tcp: lookup b2 on 10.0.0.53:53: no such host",
        "dial tcp: lookup s3: server misbehaving", "read tcp 1:2->3:4: i/o timeout",
        "net/http: TLS handshake timeout", "connect: network is unreachable",
        "ssh: connect to host h port 22: Operation timed out",
        "ssh: Could not resolve hostname h: Name does not resolve",
        "unexpected HTTP response (502): 502 Bad Gateway",
    ],
)  # fmt: skip
def test_what_says_so(line):
    assert is_away(line)


@pytest.mark.parametrize(
    "line",
    [
        "wrong password or no key found", "no space left on device", "unexpected EOF",
        "tls: failed to verify certificate: x509: certificate signed by unknown authority",
        "403 Forbidden", "507 Insufficient Storage", "permission denied", "",
    ],
)  # fmt: skip
def test_what_does_not(line):
    assert not is_away(line)


def test_of_a_client_that_is_not_known_nothing_is():
    assert Client().network_away(1, DIAL) is None


class TestRestic:
    away = staticmethod(Restic().network_away)

    def test_its_last_words(self):
        fatal = f"Fatal: unable to open config file: {DIAL}"
        text = f"{fatal}\nIs there a repository at the following location?\nrest:http://h:8000/\n"
        assert self.away(1, text) == fatal

    def test_in_json(self):
        said = {"message_type": "exit_error", "code": 1, "message": "Fatal: i/o timeout\nIs there"}
        assert self.away(1, json.dumps(said)) == "Fatal: i/o timeout"

    def test_of_one_file(self):
        line = f"Save(<index/53c3a8105d>) failed: {DIAL}"
        assert self.away(1, f"{line}\nFatal: unable to save snapshot: context canceled\n") == line

    def test_what_ssh_says(self):
        ssh = "subprocess ssh: ssh: connect to host h port 22: Connection refused"
        fatal = "Fatal: unable to open repository at sftp:h:/x: unexpected EOF"
        assert self.away(1, f"{ssh}\n{fatal}\n") == ssh
        denied = "subprocess ssh: u@h: Permission denied (publickey)."
        closed = "subprocess ssh: Connection closed by 10.0.0.1 port 22"
        assert self.away(1, f"{denied}\n{closed}\n{fatal}\n") is None

    def test_what_ssh_says_may_be_lost(self):
        fatal = (
            "Fatal: unable to open repository at sftp:h:/x: unable to start the sftp session, "
            "error: error receiving version packet from server: read |0: file already closed"
        )
        assert self.away(1, f"{fatal}\n") == fatal
        other = "subprocess ssh: /etc/ssh/ssh_config: line 3: Bad configuration option: x"
        assert self.away(1, f"{other}\n{fatal}\n") is None

    def test_what_it_tried_again_itself_does_not_count(self):
        again = f"Stat(<config/>) returned error, retrying after 1.09s: {DIAL}"
        assert self.away(1, f"{again}\nFatal: unable to create lock: disk full\n") is None
        assert self.away(1, f"error: read /x: {DIAL}\nFatal: out of memory\n") is None

    @pytest.mark.parametrize("status", [3, 10, 11, 12, 130, 143])
    def test_what_never_goes_away_by_waiting(self, status):
        assert self.away(status, f"Fatal: {DIAL}") is None


class TestKopia:
    away = staticmethod(Kopia().network_away)

    def test_its_last_words(self):
        progress = " * 0 hashing, 294 hashed (414.9 KB), 0 cached (0 B), uploaded 457.2 KB\r"
        assert self.away(1, f"Snapshotting x\n{progress}\n\x1b[31m{RPC}\x1b[0m\n") == RPC

    def test_an_earlier_word_does_not_count(self):
        text = f"warning: {RPC}\nerror\nunable to write: no space left\nupload failed\n"
        assert self.away(1, text) is None
        assert self.away(1, "invalid repository password\n") is None

    def test_a_signal_is_none(self):
        assert self.away(130, RPC) is None
