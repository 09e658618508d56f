"""Lists of what to back up, in files: the program's own, and those of the client's options."""

import errno
import os
import stat
import sys

from kopiatomic.errors import EX_CONFIG, EX_NOINPUT, Refusal
from kopiatomic.job import Job
from kopiatomic.record import Record

# What a list can be: TARGETS as on the command line, a line each; PATHS as they are, a line
# each; PATHS_TO_NUL, each ended by a NUL; or PATTERNS of paths, a line each.
TARGETS, PATHS, PATHS_TO_NUL, PATTERNS = "targets", "paths", "paths to NUL", "patterns"

# In bytes. More is no list, but a device or a file that was meant for something else.
SIZE_LIMIT = 16 * 1024 * 1024


class Listing(Record):
    """A list that the user has named: its file, ``-`` for standard input, and its form."""

    file: str
    form: str = TARGETS


class _Entry(Record):
    text: str
    origin: str


def with_targets_of(job: Job, listings: "tuple[Listing, ...]") -> Job:
    """Return a job with what the lists name among its targets, and where each comes from.

    A pattern that matches nothing, and a list with nothing in it, is a remark. Raises Refusal
    if a list cannot be read, or if the lists name nothing at all.
    """
    targets, origins, remarks = list(job.targets), dict(job.origins), list(job.remarks)
    links, patterns = set(job.links), False
    for listing in listings:
        entries = _entries(listing)
        remarks += [] if entries else [f"{_name(listing.file)}: nothing is listed there"]
        for entry in entries:
            matching = _paths_of(entry, listing.form)
            patterns = patterns or _is_pattern(entry, listing.form)
            odd = [each for each in matching if listing.form == PATTERNS and _is_special(each)]
            found = [each for each in matching if each not in odd]
            if listing.form != TARGETS:
                # The client's own: a link in them is kept as it is, and not followed.
                found = [_with_real_parent(each) for each in found]
                links |= {each for each in found if os.path.islink(each)}
            targets += found
            origins |= {each: entry.origin for each in found if each not in origins}
            remarks += [f"{entry.origin}: '{each}' is no file, and is left out" for each in odd]
            if not matching:
                remarks.append(f"{entry.origin}: nothing matches the pattern '{entry.text}'")
    targets = list(dict.fromkeys(targets))
    if listings and not targets:
        names = ", ".join(_name(each.file) for each in listings)
        raise Refusal(f"{names}: nothing to back up is in it; a line for each path is wanted")
    return job._replace(
        targets=tuple(targets), origins=origins, links=frozenset(links), remarks=tuple(remarks),
        lists=tuple(_name(each.file) for each in listings if not _is_handed(each.file)),
        patterns=patterns,
    )  # fmt: skip


def _is_special(path: str) -> bool:
    """Say whether a path is a socket, a fifo or a device."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISDIR(mode) or stat.S_ISREG(mode) or stat.S_ISLNK(mode))


def _with_real_parent(path: str) -> str:
    """Return a path without symbolic links on its way, where it may be one itself."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _name(file: str) -> str:
    return "standard input" if file == "-" else os.path.abspath(file)


def _entries(listing: Listing) -> list[_Entry]:
    """Return what stands in a list, without blank lines and, where it has them, comments."""
    if not listing.file:
        raise Refusal("an option that names a list is without its file; put both into one -o")
    name = _name(listing.file)
    text = os.fsdecode(_read(listing.file, name).removeprefix(b"\xef\xbb\xbf"))
    to_nul = listing.form == PATHS_TO_NUL
    if to_nul and text and not text.endswith("\0"):
        raise Refusal(f"{name}: the last of its paths is not ended by a NUL", EX_CONFIG)
    found = []
    for number, line in enumerate(text.split("\0" if to_nul else "\n"), 1):
        if listing.form in (PATTERNS, PATHS):
            line = line.removesuffix("\r")
        if listing.form == PATTERNS:
            line = line.strip()
        if not line or (line.startswith("#") and listing.form in (TARGETS, PATTERNS)):
            continue
        origin = f"{name}, {'path' if to_nul else 'line'} {number}"
        if listing.form == TARGETS and line.endswith("\r"):
            raise Refusal(f"{origin}: it ends with a carriage return, as in DOS", EX_CONFIG)
        if "\0" in line:
            raise Refusal(f"{origin}: there is a NUL in it, which no path has", EX_CONFIG)
        found.append(_Entry(line, origin))
    return found


def _read(file: str, name: str) -> bytes:
    try:
        if file == "-":
            data = sys.stdin.buffer.read(SIZE_LIMIT + 1)
        else:
            with open(_opened(file, name), "rb") as opened:
                data = opened.read(SIZE_LIMIT + 1)
    except (OSError, ValueError) as error:
        reason = os.strerror(getattr(error, "errno", None) or errno.EINVAL)
        raise Refusal(f"cannot read the list {name}: {reason}", EX_NOINPUT) from error
    if len(data) > SIZE_LIMIT:
        raise Refusal(f"{name} is no list of paths: it is too long for one", EX_CONFIG)
    return data


def _opened(file: str, name: str) -> int:
    """Open a list that is a plain file; raises Refusal if it is none, OSError.

    Not blocking: a fifo that nobody writes to would be waited for. What the caller has opened
    already, such as a pipe of its shell's, is taken as it is.
    """
    handed = _is_handed(file)
    flags = os.O_RDONLY | os.O_CLOEXEC
    descriptor = os.open(file, flags if handed else flags | os.O_NONBLOCK)
    if handed or stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise Refusal(f"the list {name} is not a plain file; for standard input say -", EX_CONFIG)


def _is_handed(file: str) -> bool:
    """Say whether a list is what the caller has opened: standard input, or a descriptor."""
    return file in ("-", "/dev/stdin") or os.path.abspath(file).startswith("/dev/fd/")


def _paths_of(entry: _Entry, form: str) -> list[str]:
    """Return the targets that an entry stands for; several, or none, if it is a pattern."""
    if form == TARGETS:
        return [entry.text]
    if not _is_pattern(entry, form):
        return [os.path.abspath(entry.text)]
    from glob import glob  # which few lists need

    return sorted(map(os.path.abspath, glob(_as_python_has_it(entry.text), include_hidden=True)))


def _is_pattern(entry: _Entry, form: str) -> bool:
    return form == PATTERNS and any(sign in entry.text for sign in "*?[\\")


def _as_python_has_it(pattern: str) -> str:
    """Return a pattern of Go's filepath.Match, in which a backslash quotes, for glob()."""
    words, rest, late = [], iter(pattern), ""
    inside = False
    for sign in rest:
        if sign == "\\":
            quoted = next(rest, "")
            words.append(quoted if inside or quoted not in "*?[" else f"[{quoted}]")
        elif sign == "!" and words[-1:] == ["["] and inside:
            late = sign  # which for Go is any sign; at the end it is one here as well
        else:
            begins = not inside and sign == "["
            inside = begins or (inside and sign != "]")
            if not inside:
                words, late = [*words, late], ""
            words.append("!" if sign == "^" and words[-1:] == ["["] else sign)
    return "".join(words)
