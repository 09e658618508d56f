"""mail(1) and sendmail(8) as far as sending goes: appends to /var/mail/USER, as dma(8) does."""

from __future__ import annotations

import os
import sys
import time

from sandbox.standin import options, warn


def main(name: str, arguments: list[str]) -> int:
    """`mail [-E] [-s subject] user ...`, or `sendmail [-ti] [-f sender] [user ...]`."""
    data = sys.stdin.buffer.read()
    if name == "sendmail":
        given, users = options(arguments, "ti", "fFoBN")
        head, _, body = data.partition(b"\n\n")
        headers = head.decode("utf-8", "surrogateescape").splitlines()
        if "t" in given:
            users = [word.strip(" ,<>") for line in headers
                     if line.lower().startswith(("to:", "cc:")) for word in line.split()[1:]]
    else:
        given, users = options(arguments, "EHIinv", "scbuf")
        headers = [f"To: {', '.join(users)}"]
        headers += [f"Subject: {subject}" for subject in given.get("s", [])[-1:]]
        body = data
        if "E" in given and not body:
            return 0
    if not users:
        warn(f"{name}: no recipients")
        return 64
    for user in users:
        _deliver(user, headers, body)
    return 0


def _deliver(user: str, headers: list[str], body: bytes) -> None:
    host = os.uname().nodename
    sender = f"root@{host}"
    now = time.localtime()
    date = time.strftime("%a, %d %b %Y %H:%M:%S %z", now)
    queue = f"{os.getpid():x}"
    lines = [
        f"From {sender} {time.asctime(now)}", "Received: from root (uid 0)",
        f"\t(envelope-from {sender})", f"\tid {queue}",
        f"\tby {host} (DragonFly Mail Agent v0.13+ on {host});", f"\t{date}", *headers,
        f"Date: {date}", f"Message-Id: <{int(time.time()):x}.{queue}@{host}>",
        f"From: <{sender}>", "", "",
    ]
    body = b"\n" + body
    body = body.replace(b"\nFrom ", b"\n>From ")[1:]
    if not body.endswith(b"\n"):
        body += b"\n"
    text = "\n".join(lines).encode("utf-8", "surrogateescape") + body + b"\n"
    box = os.open(f"/var/mail/{user.removesuffix('@' + host)}",
                  os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(box, text)
    os.close(box)
