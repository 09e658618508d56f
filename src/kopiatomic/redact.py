"""The one rule of what is a secret, and how secrets are kept out of what is printed.

Two use it: what is printed, mailed or kept has each secret hidden in it, and
``--check`` tells of a script that other users can read and that holds one.
Where a name leaves a doubt it is taken for a secret's: one value too many that
is hidden does little harm, and ``chmod 700`` answers one warning too many.
"""

import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial

from kopiatomic.system.command import printable

HIDDEN = "[hidden]"

# Shorter values are too likely to be a part of ordinary words.
SHORTEST = 4

# In characters. A private key of 4096 bits has 3300 of them.
LONGEST = 8192

# What a name is made of: RESTIC_PASSWORD2, --secret-access-key, PGPASSWORD.
_WORD = r"[^\W\d_]+"

# A word that ends so, or is so, is a secret's; these others are not.
_SECRET_END = (
    r".*(?:pass(?:word|wd|phrase|code)?|pwd?|secret|token|key|credential|auth)s?|sas|creds"
)
_OTHER_WORDS = frozenset("askpass bypass compass hotkey monkey oldpwd pubkey turkey".split())

# Called after a secret, and none: the last word says what the value is instead.
_LAST_WORDS = frozenset(
    "agent algorithm cmd command count dir directory file files hint host id ids info length "
    "method mode name path port program server size sock socket type uri url user username".split()
)
# With one of these, the value is yes or no, or everybody may know it.
_HARMLESS_WORDS = frozenset("embed no persist public use".split())

# With nothing or one of these before it, PWD is a directory and not a password.
_DIRECTORIES = frozenset("cur current initial last old orig original prev saved start".split())

# Called as secrets are, but they are the name of a file, and a URL (restic's, for Swift).
_NOT_SECRET = frozenset({"GOOGLE_APPLICATION_CREDENTIALS", "ST_AUTH"})

_IN_URL = r"(\w://[^/\s:@]*):([^/\s@]+)@"

# How a private key begins, and the keys of some services.
_KEY = r"-----BEGIN |\bAGE-SECRET-KEY-|\bAKIA[0-9A-Z]{16}\b|\bgh[opsu]_[0-9A-Za-z]{36}"

# What a shell passes over: whole lines of comment, and the ends of lines that go on.
_NOTHING = r"(?m)^[ \t]*#.*$|\\\n"

# Where a script gives a name a value: sh, perhaps with a quote around both; the
# default in an expansion; csh; an option with its word behind it.
_ASSIGNMENT = (
    r"""(?a)(?<![\w$-])(?P<quote>["']?)-{0,2}(?P<sh>\w[\w-]*)="""
    r"""|\$\{(?P<default>\w+):?[=-]"""
    r"""|\bsetenv[ \t]+(?P<csh>\w+)[ \t]+"""
    r"""|(?<![^\s"'])--?(?P<option>\w[\w-]*)[ \t]+(?!-)"""
)

# One part of a shell word: '...', "..." as far as its first expansion, or bare text.
_PART = (
    r"""(?s)\$?'(?P<single>[^']*)'"""
    r"""|"(?P<double>(?:[^"\\$`]|\\.|\$(?![\w{(@*#?!$-]))*)(?P<end>"?)"""
    r"""|(?P<bare>(?:[^\s;&|()<>"'\\$`]|\\.)+)"""
)


def is_secret(name: str) -> bool:
    """Say whether a variable or an option of this name has a secret for its value."""
    words = [word.lower() for word in re.findall(_WORD, name)]
    if not words or name in _NOT_SECRET:
        return False
    if words[-1] in _LAST_WORDS or not _HARMLESS_WORDS.isdisjoint(words):
        return False
    if words[-1] == "pwd" and (len(words) == 1 or words[0] in _DIRECTORIES):
        return False
    return any(re.fullmatch(_SECRET_END, word) and word not in _OTHER_WORDS for word in words)


def secrets_in(script: str) -> Iterator[tuple[str, str]]:
    """Yield the secrets that stand in the text of a shell script: name and value.

    A value that the script gets from elsewhere (a command, another variable) is
    none; of one that begins with text of its own, that text counts. Lines of
    comment are passed over.
    """
    text = re.sub(_NOTHING, "", script)
    for match in re.finditer(_ASSIGNMENT, text):
        name = match["sh"] or match["default"] or match["csh"] or match["option"]
        if is_secret(name):
            yield from ((name, value) for value in _values(text, match) if value)
    for _, password in re.findall(_IN_URL, text):
        if not password.startswith(("$", "`")):
            yield "password of a URL", password


def holds_secret(text: str) -> bool:
    """Say whether free text holds a secret, as far as its looks tell: under a name, or a key."""
    return re.search(_KEY, text) is not None or any(secrets_in(text))


def _values(text: str, match: re.Match[str]) -> list[str]:
    """Return what a script may give to the name of an assignment, unquoted."""
    rest = text[match.end() : match.end() + LONGEST]
    end = "}" if match["default"] else match["quote"]
    if not end:
        return [_literal(rest)]
    # In sh -c 'PASSWORD=a b' the value is "a", and in env 'PASSWORD=a b' it is "a b".
    whole = rest.partition(end)[0]
    word = _literal(whole)
    return [word] if word == whole or set(whole) & set("$`\n") else [word, whole]


def _literal(text: str) -> str:
    """Return the shell word that a text begins with, unquoted, up to its first expansion."""
    part_at = re.compile(_PART).match
    value, start = "", 0
    while part := part_at(text, start):
        if part["single"] is not None:
            value += part["single"]
        else:
            value += re.sub(r"\\(.)", r"\1", part["double"] or part["bare"] or "", flags=re.DOTALL)
        start = part.end()
        if part["double"] is not None and not part["end"]:
            break
    return value


def redactor(
    environment: Mapping[str, str],
    words: Sequence[str] = (),
    script: str = "",
    secret_options: Collection[str] = (),
    further: Sequence[Mapping[str, str]] = (),
) -> Callable[[str], str]:
    """Return a function that hides secrets in a text.

    Secret are the values of variables and options that are called so, what the
    text of a wrapper, ``script``, gives to such, and passwords in URLs. Of the
    ``words`` those are, too, that the short ``secret_options``, as in -p, take.
    ``further`` are environments for which the same holds.
    """
    variables = [item for each in (environment, *further) for item in each.items()]
    texts = [*(value for _, value in variables), *words, script]
    values = {
        *(value for name, value in variables if is_secret(name)),
        *_in_words(words, secret_options),
        *(value for _, value in secrets_in(script)),
        *(password for text in texts for _, password in re.findall(_IN_URL, text)),
    }
    pattern = _pattern(values)

    def hide(text: str) -> str:
        if pattern is not None:
            text = pattern.sub(HIDDEN, text)
        return re.sub(_IN_URL, rf"\1:{HIDDEN}@", text)

    return hide


def _in_words(words: Sequence[str], secret_options: Collection[str]) -> Iterator[str]:
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if word[:2] in secret_options and len(word) > 2:
            yield word[2:].removeprefix("=")
        elif equals and is_secret(name):
            yield value
        elif name in secret_options or (name.startswith("-") and is_secret(name)):
            yield value if equals else next(iter(words[index + 1 : index + 2]), "")
        yield from (value for _, value in secrets_in(word))


def _pattern(values: Iterable[str]) -> re.Pattern[str] | None:
    """Return a pattern for the values in all their spellings, the longest first."""
    lines = {line.strip() for value in values for line in value.splitlines()}
    if not lines:
        return None
    # Only here: it takes a while to import.
    from urllib.parse import quote, unquote

    in_url = partial(quote, safe="", errors="surrogateescape")
    spellings = (str, in_url, unquote, shlex.quote, printable)
    spelled = {spell(line) for line in lines for spell in spellings}
    long = sorted((each for each in spelled if len(each) >= SHORTEST), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, long))) if long else None
