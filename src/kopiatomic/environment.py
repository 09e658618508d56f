"""The client's environment: what it inherits, and env files, kept from everyone else."""

import os
import pwd
import re
import stat
from collections.abc import Mapping

from kopiatomic.errors import EX_CONFIG, EX_NOINPUT, EX_NOPERM, Refusal
from kopiatomic.system.command import PATH

# Of the caller's environment the client gets all but what could make a
# program that runs as root load something else.
_NOT_INHERITED = (
    r"^(LD_|PYTHON|PERL|RUBY|BASH_FUNC_)"
    r"|^(PATH|IFS|ENV|BASH_ENV|BASHOPTS|SHELLOPTS|ZDOTDIR|FPATH|CDPATH|PS4)$"
)

# That of UTF-8, and those of UTF-16 as bytes that are no UTF-8.
_BYTE_ORDER_MARKS = ("\ufeff", "\udcff\udcfe", "\udcfe\udcff")

# Directories that are not taken over where they are another user's, as after ``su -m``.
_OWN_DIRECTORIES = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")


def inherit(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the caller's environment less what endangers root, with our PATH and a HOME."""
    base = {name: value for name, value in inherited.items() if not re.search(_NOT_INHERITED, name)}
    for name in _OWN_DIRECTORIES:
        if _is_anothers(base.get(name, "")):
            del base[name]
    return base | {"PATH": PATH, "HOME": base.get("HOME") or _home()}


def _is_anothers(directory: str) -> bool:
    """Say whether a directory is there and is another user's, who can put things into it."""
    try:
        return os.stat(directory).st_uid not in (0, os.geteuid())
    except (OSError, ValueError):
        return False


def _home() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"


def read(path: str, owner: int = 0) -> dict[str, str]:
    """Return the variables of an env file: KEY=VALUE lines, read and never executed.

    Blank lines and lines that begin with # are passed over, ``export`` before a
    name too, and quotes around a whole value are taken off. What sh(1) would
    read in another way, such as a comment behind a value, is refused: it would
    become part of a password. The file must be root's (or ``owner``'s) and
    closed to others, for it holds passwords, and so must be the way of its
    absolute ``path``. Raises Refusal; the message never shows a value.
    """
    try:
        # Not blocking: a fifo in its place must be refused, not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, encoding="utf-8", errors="surrogateescape", newline="") as file:
            _check_secret(path, os.fstat(descriptor), owner)
            _check_way(path, owner)
            lines = file.read().split("\n")
    except OSError as error:
        raise Refusal(f"cannot read the env file {path}: {error.strerror}", EX_NOINPUT) from error
    variables = {}
    for number, line in enumerate(lines, 1):
        try:
            variables.update(_variable(line))
        except ValueError as error:
            raise Refusal(f"{path}, line {number}: {error}", EX_CONFIG) from None
    return variables


def _check_secret(path: str, found: os.stat_result, owner: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise Refusal(f"the env file {path} is not a plain file", EX_CONFIG)
    if found.st_uid not in (0, owner):
        raise Refusal(f"the env file {path} does not belong to root; chown root {path}", EX_NOPERM)
    if found.st_mode & 0o077:
        raise Refusal(f"others can read the env file {path}; chmod 600 {path}", EX_NOPERM)


def _check_way(path: str, owner: int) -> None:
    """Refuse a way on which others could put a link or a file of their choice.

    It is followed from / on, so what has been looked at nobody else can change.
    """
    here, rest = "/", path.split("/")
    while rest:
        step = os.path.normpath(os.path.join(here, rest.pop(0)))
        found = os.lstat(step)
        if found.st_uid not in (0, owner):
            raise Refusal(
                f"{step}, which leads to the env file {path}, does not belong to root; "
                "move the file to a directory that only root can write",
                EX_NOPERM,
            )
        if stat.S_ISLNK(found.st_mode):
            target = os.readlink(step)
            here, rest = "/" if target.startswith("/") else here, [*target.split("/"), *rest]
            continue
        if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
            raise Refusal(
                f"others can write {step}, which leads to the env file {path}; chmod go-w {step}",
                EX_NOPERM,
            )
        here = step


def _variable(line: str) -> dict[str, str]:
    """Return the variable that a line sets, or nothing; raises ValueError.

    The error says what is wrong and what to do, without showing the value.
    """
    if line.startswith(_BYTE_ORDER_MARKS):
        raise ValueError("begins with a byte order mark; save the file as UTF-8 without it")
    if "\r" in line:
        raise ValueError("holds a carriage return; save the file with Unix line ends (LF alone)")
    line = line.strip()
    if not line or line.startswith("#"):
        return {}
    name, equals, value = line.removeprefix("export ").partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name.strip()):
        raise ValueError("not of the form NAME=VALUE")
    return {name.strip(): _unquoted(value)}


def _unquoted(text: str) -> str:
    """Return the value that stands behind the equals sign; raises ValueError."""
    value = text.strip()
    quote = value[:1]
    if "\0" in value:
        raise ValueError("holds a NUL character; remove it")
    if quote not in ("'", '"'):
        # Of the text, where a blank between the equals sign and # still stands.
        if re.search(r"\s#", text):
            raise ValueError(
                "a comment behind a value would become part of it; put the comment on a line "
                "of its own, or quotes around a value that has # in it"
            )
        return value
    if re.search(rf"{quote}\s", value[1:]):
        raise ValueError(
            f"something follows the closing {quote}; put a comment on a line of its own, and "
            f"a value that holds {quote} into the other kind of quotes"
        )
    if len(value) < 2 or value[-1] != quote:
        raise ValueError(f"the quote {quote} is not closed; put one at the end of the value")
    return value[1:-1]
