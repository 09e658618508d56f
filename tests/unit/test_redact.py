"""No secret in anything that is printed."""

import shlex

import pytest

from kopiatomic.clients.wrapper import script_of
from kopiatomic.redact import holds_secret, is_secret, redactor, secrets_in
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


def test_ordinary_variables_of_a_shell_stay():
    environment = {
        "PWD": "/root", "OLDPWD": "/var", "KEYBOARD": "us.iso.kbd", "AUTHOR": "root",
        "SSH_AUTH_SOCK": "/tmp/agent", "FTP_PASSIVE_MODE": "YES!", "AWS_ACCESS_KEY_ID": "AKIA1234",
    }  # fmt: skip
    text = " ".join(environment.values())
    assert redactor(environment)(text) == text


SECRET = """
    RESTIC_PASSWORD RESTIC_PASSWORD2 RESTIC_FROM_PASSWORD KOPIA_PASSWORD PGPASSWORD PGPASS PASSWD
    AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN B2_ACCOUNT_KEY AZURE_ACCOUNT_KEY AZURE_ACCOUNT_SAS
    ST_KEY OS_AUTH_TOKEN OS_APPLICATION_CREDENTIAL_SECRET GOOGLE_ACCESS_TOKEN RCLONE_CONFIG_PASS
    RESTIC_REST_PASSWORD MYSQL_PWD REDISCLI_AUTH SSHPASS LDAP_BINDPW BORG_PASSPHRASE API_KEYS
    SECRET_KEY_BASE MY_CREDENTIALS SecretAccessKey OLD_PASSWORD restic_password
    --password --secret-access-key --storage-key --sas-token --key-data -password
"""
NO_SECRET = """
    RESTIC_PASSWORD_FILE RESTIC_PASSWORD_COMMAND RCLONE_PASSWORD_COMMAND PGPASSFILE BORG_PASSCOMMAND
    AWS_ACCESS_KEY_ID AWS_SHARED_CREDENTIALS_FILE B2_ACCOUNT_ID AZURE_ACCOUNT_NAME RESTIC_KEY_HINT
    GOOGLE_APPLICATION_CREDENTIALS OS_AUTH_URL ST_AUTH OS_APPLICATION_CREDENTIAL_ID GPG_KEY_ID
    KEYBOARD KEYMAP AUTHOR PWD pwd OLDPWD ORIG_PWD SSH_AUTH_SOCK SSH_ASKPASS XAUTHORITY PASSIVE
    FTP_PASSIVE_MODE BYPASS PUBLIC_KEY KOPIA_USE_KEYRING HOME PATH _ A 1
    --password-file --password-command --key-hint --insecure-no-password --persist-credentials
    --use-keyring --no-use-keyring --keep-daily --exclude
"""


@pytest.mark.parametrize("name", SECRET.split())
def test_is_called_as_a_secret_is(name):
    assert is_secret(name)


@pytest.mark.parametrize("name", NO_SECRET.split())
def test_is_not_called_as_a_secret_is(name):
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("RESTIC_PASSWORD=hunter2", ["RESTIC_PASSWORD=hunter2"]),
        ("export RESTIC_PASSWORD='hunter 2'", ["RESTIC_PASSWORD=hunter 2"]),
        ('A=1 KOPIA_PASSWORD="hunter2" kopia', ["KOPIA_PASSWORD=hunter2"]),
        ("export AWS_SECRET_ACCESS_KEY=hunter2", ["AWS_SECRET_ACCESS_KEY=hunter2"]),
        ("B2_ACCOUNT_KEY=a1; AZURE_ACCOUNT_KEY=b2", ["B2_ACCOUNT_KEY=a1", "AZURE_ACCOUNT_KEY=b2"]),
        ("setenv B2_TOKEN hunter2", ["B2_TOKEN=hunter2"]),
        ('exec kopia --password=hunter2 "$@"', ["password=hunter2"]),
        ('exec kopia --password hunter2 "$@"', ["password=hunter2"]),
        ("exec kopia --password \\\n\thunter2", ["password=hunter2"]),
        ("RESTIC_PASSWORD='$hunter2'", ["RESTIC_PASSWORD=$hunter2"]),
        ("PASSWORD='it'\\''s'", ["PASSWORD=it's"]),
        ('PASSWORD="a\\"b c"d\\ e', ['PASSWORD=a"b cd e']),
        ("PASSWORD='two\nlines'", ["PASSWORD=two\nlines"]),
        ("PASSWORD=a{b}", ["PASSWORD=a{b}"]),
        ('PASSWORD="pa$ word"', ["PASSWORD=pa$ word"]),
        ("PASSWORD=hunter2$SUFFIX", ["PASSWORD=hunter2"]),
        (': "${RESTIC_PASSWORD:=hunter2}"', ["RESTIC_PASSWORD=hunter2"]),
        ("sh -c 'KOPIA_PASSWORD=hunter2 kopia'", [
            "KOPIA_PASSWORD=hunter2", "KOPIA_PASSWORD=hunter2 kopia",
        ]),
        ('env "TOKEN=hunter2" restic', ["TOKEN=hunter2"]),
        ("restic --repo rest:https://u:hunter2@h/", ["password of a URL=hunter2"]),
        ("restic --repo rest:https://u:$PW@h/", []),
        ("RESTIC_PASSWORD=$(cat /etc/pw)", []),
        ('RESTIC_PASSWORD="$(cat "/etc/pw")"', []),
        ('RESTIC_PASSWORD="`cat /etc/pw`"', []),
        ('RESTIC_PASSWORD="$PW"', []),
        ("RESTIC_PASSWORD=${PW}", []),
        ("RESTIC_PASSWORD=${RESTIC_PASSWORD:-}", []),
        ("RESTIC_PASSWORD=", []),
        ("RESTIC_PASSWORD='' ", []),
        ('RESTIC_PASSWORD=""; export RESTIC_PASSWORD', []),
        ("RESTIC_PASSWORD_FILE=/etc/pw", []),
        ("RESTIC_PASSWORD_COMMAND='cat /etc/pw'", []),
        ("restic --password-file=/etc/pw", []),
        ("restic --insecure-no-password backup", []),
        ('kopia --password "$PW"', []),
        ("  # RESTIC_PASSWORD=example", []),
        ('[ -n "$RESTIC_PASSWORD" ] || exit 1', []),
        ('[ "$RESTIC_PASSWORD" = x ]', []),
    ],
)  # fmt: skip
def test_secrets_in_a_script(line, found):
    told = [f"{name}={value}" for name, value in secrets_in(f"#!/bin/sh\n{line}\n")]
    assert told == found


def test_a_script_cut_off_anywhere_is_read():
    text = "#!/bin/sh\nP='x' TOKEN=\"a\\\"b${KEY:-c}\" --password 'd' \"PW=e\" PASSWORD=$'f\\n'\n"
    for end in range(len(text)):
        list(secrets_in(text[:end]))


@pytest.mark.parametrize(
    "words", [["-p", "hunter22"], ["-phunter22"], ["-p=hunter22"], ["-v", "-p", "hunter22", "x"]]
)
def test_a_short_option_of_the_client(words):
    assert redactor({}, words, secret_options=("-p",))("no hunter22") == "no [hidden]"
    assert redactor({}, words)("no hunter22") == "no hunter22"


def test_a_short_option_without_its_word():
    assert redactor({}, ["-p"], secret_options=("-p",))("text") == "text"


def test_a_short_option_of_another_program_in_a_wrapper():
    hide = redactor({}, ["--", "/home"], "mkdir -p /var/run/x", ("-p",))
    assert hide("/var/run/x") == "/var/run/x"


def test_what_a_shell_makes_of_a_word():
    hide = redactor({}, ["-p", "hunter22", "--password", "it's-secret"], secret_options=("-p",))
    quoted = shlex.join(["kopia", "-p", "hunter22", "--password", "it's-secret"])
    assert hide(quoted) == "kopia -p [hidden] --password [hidden]"


def test_options(tmp_path):
    hide = redactor({}, ["--password", "hunter22", "--token=t0ken", "--password-file", "/root/x"])
    assert hide("hunter22 t0ken /root/x") == "[hidden] [hidden] /root/x"


def test_a_variable_that_env_sets():
    assert redactor({}, ["env", "RESTIC_PASSWORD=hunter22", "restic"])("hunter22") == "[hidden]"
    assert redactor({}, ["sh", "-c", "MYSQL_PWD='hunt er' x"])("no hunt er") == "no [hidden]"


def test_what_follows_a_switch_is_no_secret():
    hide = redactor({}, ["--insecure-no-password", "backup", "--use-keyring", "/home"])
    assert hide("backup of /home") == "backup of /home"


def test_a_wrapper_script(tmp_path):
    wrapper = tmp_path / "restic-x"
    wrapper.write_text(
        "#!/bin/sh\nexport RESTIC_PASSWORD='correct horse'\nTOKEN=abcd1234; PASSWORD=$(cat /x)\n"
        'exec restic --repo https://u:pw1234@h "$@"\n'
    )
    hide = redactor({}, script=script_of(str(wrapper)))
    assert hide("correct horse abcd1234 pw1234 cat /x") == "[hidden] [hidden] [hidden] cat /x"


def test_a_password_that_is_no_text(tmp_path):
    """Bytes that are not UTF-8 are hidden as they come, and as they are shown in a message."""
    wrapper = tmp_path / "restic-x"
    wrapper.write_bytes(b"#!/bin/sh\nRESTIC_PASSWORD='pw\xe9\xe8\x01z' exec restic\n")
    of_script = redactor({}, script=script_of(str(wrapper)))
    for hide in (of_script, redactor({"PASSWORD": "pw\udce9\udce8\x01z"})):
        assert hide("no pw\udce9\udce8\x01z") == "no [hidden]"
        assert hide(printable("no pw\udce9\udce8\x01z")) == "no [hidden]"
        assert hide("https://h/?p=pw%E9%E8%01z") == "https://h/?p=[hidden]"


def test_a_wrapper_that_is_none(tmp_path):
    (tmp_path / "elf").write_bytes(b"\x7fELF PASSWORD=abcdef")
    assert redactor({}, script=script_of(str(tmp_path / "elf")))("abcdef") == "abcdef"
    assert redactor({}, script=script_of("/nonexistent"))("abcdef") == "abcdef"


@pytest.mark.parametrize(
    "text", ["PASSWORD=geheim", "see --token geheim", "https://u:geheim@example.org/x",
             "-----BEGIN OPENSSH PRIVATE KEY-----", "AKIAIOSFODNN7EXAMPLE"],
)  # fmt: skip
def test_what_holds_a_secret_by_its_looks(text):
    assert holds_secret(text)


@pytest.mark.parametrize("text", ["the disks of 2026", "https://example.org/a@b", "key to it"])
def test_what_holds_none(text):
    assert not holds_secret(text)
