"""The moment that a backup of restic bears, as its --time wants it."""

import time

from kopiatomic.record import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import tzinfo

# Where Go, in which restic is written, looks for the zones that TZ names.
_ZONES = ("/usr/share/zoneinfo/", "/usr/share/lib/zoneinfo/", "/usr/lib/locale/TZ/",
          "/etc/zoneinfo/")  # fmt: skip


def when(seconds: float | None, zone: str | None = None) -> str:
    """Return a moment as restic's --time wants it: in local time, which is that of TZ.

    Of the hour that comes twice when summer time ends restic takes the second one in
    zones east of Greenwich and the first in those west of it: the backup may then
    bear a time that is one hour off, which cannot be said better.
    """
    if seconds is None:
        return "TIME-OF-SNAPSHOT"
    form = "%Y-%m-%d %H:%M:%S"
    if zone is None:  # the system's
        return time.strftime(form, time.localtime(seconds))
    # Not for every run: most have no TZ.
    from datetime import datetime

    return datetime.fromtimestamp(seconds, _zone(zone)).strftime(form)


def _zone(name: str) -> "tzinfo":
    """Return the zone that Go takes TZ for.

    It wants the name of a zone's file. What is none, as the forms of POSIX, "JST-9",
    it takes for universal time (initLocal() in its time/zoneinfo_unix.go).
    """
    from datetime import UTC
    from zoneinfo import ZoneInfo

    name = name.removeprefix(":")
    named = [name] if name.startswith("/") else [place + name for place in _ZONES]
    for path in named if name not in ("", "UTC") else ():
        try:
            with open(path, "rb") as file:
                return ZoneInfo.from_file(file)
        except (OSError, ValueError):
            continue
    return UTC
