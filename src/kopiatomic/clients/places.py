"""The places that a job speaks of: absolute paths in its words, variables and wrapper."""

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress

# An absolute path begins a word, or follows what joins it to one: KEY=/path, -i/path, a:/b.
# It ends before what cannot be part of a path unless quoted.
_PATH = r"(?m)(?:(?:^|[\s\"'=:,;|&<>(!@])(?:-\w)?)(/(?:[^\s\"'=:,;|&<>()$`\\]|\\.)*)"

# Quoted, it may hold blanks and the rest as well.
_QUOTED = r"(?m)\"(/[^\"$`\n]*)\"|'(/[^'\n]*)'|=(/[^\n]*)$"

# A pattern, which names no place.
_GLOB = r"[*?\[\]{}]"


def home(known: Mapping[str, str]) -> str:
    """Return the home directory of a program with these variables."""
    return known.get("HOME") or "/"


def caches(known: Mapping[str, str]) -> str:
    """Return where a program with these variables has its cache, among others'."""
    return known.get("XDG_CACHE_HOME") or f"{home(known)}/.cache"


def configuration(known: Mapping[str, str]) -> str:
    """Return where a program with these variables has its configuration, among others'."""
    return known.get("XDG_CONFIG_HOME") or f"{home(known)}/.config"


def paths_in(texts: Iterable[str]) -> list[str]:
    """Return the absolute paths in texts, in their order, each once; no patterns, not ``/``."""
    found: dict[str, None] = {}
    for text in texts:
        # A word of a command line is a path as a whole, blanks and all.
        whole = [text] if text.startswith("/") and "\n" not in text else []
        quoted = ["".join(groups) for groups in re.findall(_QUOTED, text)]
        for path in [*whole, *quoted, *re.findall(_PATH, text)]:
            # "//" is in the middle of a URL.
            if not path.startswith("//") and not re.search(_GLOB, path) and path.strip("/"):
                found[os.path.normpath(path.replace("\\ ", " "))] = None
    return list(found)


def with_real(paths: Iterable[str]) -> tuple[str, ...]:
    """Return paths each as it stands and without its symbolic links, each once."""
    found: dict[str, None] = {}
    for path in paths:
        if path.startswith("/") and "\0" not in path:
            found[os.path.normpath(path)] = None
            found[os.path.realpath(path)] = None
    return tuple(found)


def real_directories(paths: Iterable[str]) -> tuple[str, ...]:
    """Return those of the paths that are directories, without symbolic links, each once."""
    there = (path for path in paths if path.startswith("/") and os.path.isdir(path))
    return tuple(dict.fromkeys(map(os.path.realpath, there)))


def is_cache(path: str) -> bool:
    """Say whether a directory is a cache by its mark, or has nothing in it, or is not there."""
    try:
        held = os.listdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return not held or "CACHEDIR.TAG" in held


def with_children(directories: Iterable[str]) -> list[str]:
    """Return directories and those right in them, as far as they can be read."""
    found = []
    for directory in directories:
        found.append(directory)
        with suppress(OSError), os.scandir(directory) as entries:
            found += [each.path for each in entries if each.is_dir(follow_symlinks=False)]
    return found
