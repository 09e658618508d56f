"""No secret in anything that is printed."""

import shlex

import pytest

from kopiatomic.redact import everywhere, redactor
from kopiatomic.system.command import printable


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"RESTIC_PASSWORD": "hunter22"}, "wrong password hunter22!"),
        ({"AWS_SECRET_ACCESS_KEY": "abc/def+g"}, "signing with abc/def+g and abc%2Fdef%2Bg"),
        ({"RESTIC_REPOSITORY": "rest:https://u:p%40ss-wd@h/"}, "cannot reach p@ss-wd or p%40ss-wd"),
        ({}, "https://user:s3cret@host/path"),
        ({"B2_ACCOUNT_KEY": "-----BEGIN\nabcdefgh\n"}, "line abcdefgh"),
    ],
)
def test_hides(environment, text):
    hidden = redactor(environment)(text)
    assert "[hidden]" in hidden
    for secret in ("hunter22", "abc/def+g", "abc%2F", "ss-wd", "s3cret", "abcdefgh"):
        assert secret not in hidden


def test_ordinary_words_stay():
    hide = redactor({"RESTIC_PASSWORD_FILE": "/root/pw", "HOME": "/root", "KEY_X": "abc"})
    text = "reading /root/pw in /root, abc, http://host:80/x"
    assert hide(text) == text


def test_kopias_short_option_and_what_a_shell_makes_of_a_word():
    hide = redactor({}, ["-p", "hunter22", "--password", "it's-secret"])
    quoted = shlex.join(["kopia", "-p", "hunter22", "--password", "it's-secret"])
    assert hide(quoted) == "kopia -p [hidden] --password [hidden]"


def test_options(tmp_path):
    hide = redactor({}, ["--password", "hunter22", "--token=t0ken", "--password-file", "/root/x"])
    assert hide("hunter22 t0ken /root/x") == "[hidden] [hidden] /root/x"


def test_a_wrapper_script(tmp_path):
    wrapper = tmp_path / "restic-x"
    wrapper.write_text(
        "#!/bin/sh\nexport RESTIC_PASSWORD='correct horse'\nTOKEN=abcd1234; PASSWORD=$(cat /x)\n"
        'exec restic --repo https://u:pw1234@h "$@"\n'
    )
    hide = redactor({}, wrapper=str(wrapper))
    assert hide("correct horse abcd1234 pw1234 cat /x") == "[hidden] [hidden] [hidden] cat /x"


def test_a_password_that_is_no_text(tmp_path):
    """Bytes that are not UTF-8 are hidden as they come, and as they are shown in a message."""
    wrapper = tmp_path / "restic-x"
    wrapper.write_bytes(b"#!/bin/sh\nRESTIC_PASSWORD='pw\xe9\xe8\x01z' exec restic\n")
    for hide in (redactor({}, wrapper=str(wrapper)), redactor({"PASSWORD": "pw\udce9\udce8\x01z"})):
        assert hide("no pw\udce9\udce8\x01z") == "no [hidden]"
        assert hide(printable("no pw\udce9\udce8\x01z")) == "no [hidden]"
        assert hide("https://h/?p=pw%E9%E8%01z") == "https://h/?p=[hidden]"


def test_a_wrapper_that_is_none(tmp_path):
    (tmp_path / "elf").write_bytes(b"\x7fELF PASSWORD=abcdef")
    assert redactor({}, wrapper=str(tmp_path / "elf"))("abcdef") == "abcdef"
    assert redactor({}, wrapper="/nonexistent")("abcdef") == "abcdef"


def test_data():
    hide = redactor({"PASSWORD": "hunter22"})
    assert everywhere({"a": ["hunter22", 1, None, ("x hunter22",)]}, hide) == {
        "a": ["[hidden]", 1, None, ["x [hidden]"]]
    }
