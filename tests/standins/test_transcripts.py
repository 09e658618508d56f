"""What FreeBSD answered, word for word, is what the stand-ins answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sandbox.host import PACKAGE, Host

from standins.prelude import PRELUDE

DATA = PACKAGE / "transcripts"
LONG = "a" * 300

# `call WHAT ...` of the third recording: a system call, and what it answered in FreeBSD's words.
CALL = "#!/usr/local/bin/python3 -I\n" + PRELUDE + r"""
def told(answer):
    if answer == "ok":
        return answer
    number = getattr(errno, answer)
    return f"{number} " + ("Device busy" if answer == "EBUSY" else os.strerror(number))

what, *words = sys.argv[1:]
if what == "flags":
    for word in words:
        for m in at(word):
            print(m.fstype.decode(), m.mntfrom, m.mnton, f"{m.flags:#x}")
elif what == "byid":
    fsid = at(words[0])[0].fsid if words[0][0] == "/" else [int(n) for n in words[0].split(":")]
    print(told(by_id(fsid, FORCE if words[1:] else 0)))
elif what == "bypath":
    print(told(by_path(words[0])))
elif what == "dev":
    print(told(nmount(fstype="devfs", fspath=words[0], from_="devfs", ruleset=words[1])))
else:
    print(told({"zmount": zmount, "nul": nul}[what](*words)))
"""


@dataclass(frozen=True)
class Step:
    """A command of a recording; answer is None for a preparation."""

    section: str
    command: str
    answer: str | None
    status: int


def read(path: Path) -> list[Step]:
    """The steps of a recording."""
    text = path.read_text().replace("<300 a>", LONG)
    steps: list[Step] = []
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        title, _, body = section.partition("\n")
        for found in re.finditer(r"^([#!]) (.*)\n((?:(?![#!] ).*\n)*)", body, flags=re.M):
            kind, command, answer = found.groups()
            exit_line = re.search(r"^\[exit (\d+)\]\n", answer, flags=re.M)
            if exit_line:
                answer = answer[: exit_line.start()]
            status = int(exit_line[1]) if exit_line else 0
            steps.append(Step(title, command, None if kind == "!" else answer.rstrip("\n"), status))
    return steps


def normal(text: str) -> str:
    """Without what differs from machine to machine and from moment to moment."""
    text = re.sub(r"(?m)^/dev/vtbd1.*\n?", "", text)
    text = re.sub(r"\b[0-9a-f]{16}\b", "FSID", text)
    text = re.sub(r'(count"?[: ]+)\d+', r"\1N", text)
    text = re.sub(r"\b[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d [\d:]{5} \d{4}", "DATE", text)
    text = re.sub(r"(?m)(^|\t)\d{5,}(?=\t|$)", r"\1N", text)
    # Transaction groups: only which are the same matters.
    groups: dict[str, str] = {}

    def group(found: re.Match[str]) -> str:
        return found[1] + groups.setdefault(found[2], f"T{len(groups) + 1}")

    return re.sub(r"(?m)(\t)([1-9]\d{0,3})(?=\t|$)", group, text).rstrip("\n")


def turn(host: Host, word: str, *rest: str) -> bool:
    """Do one of the steps that no command stands for."""
    if word in ("full", "roomy"):
        host.pool(rest[0], full=word == "full")
    elif word == "readonly":
        host.pool(rest[0], readonly=True)
    elif word in ("room", "noroom"):
        host.room(rest[0], word == "room")
    elif word == "hangs":
        host.file_system(rest[0], answer="hangs")
    elif word == "owner":
        host.file_system(rest[1], owner=int(rest[0]))
    else:
        return False
    return True


def differences(host: Host, steps: list[Step]) -> Iterator[str]:
    """Where the sandbox answers differently."""
    for step in steps:
        if step.answer is None and turn(host, *step.command.split()):
            continue
        result = host.shell(step.command, stderr_to_stdout=True)
        if step.answer is None:
            assert result.returncode == 0, (step, result.stdout)
            assert not step.command.startswith("call") or result.stdout == "ok\n", step
        elif (normal(result.stdout), result.returncode) != (normal(step.answer), step.status):
            yield (f"[{step.section}]\n# {step.command}\n-- FreeBSD [exit {step.status}]\n"
                   f"{normal(step.answer)}\n-- sandbox [exit {result.returncode}]\n"
                   f"{normal(result.stdout)}\n")


@pytest.mark.linux(reason="the stand-ins are for Linux only")
@pytest.mark.parametrize("name", ["first", "second", "third"])
def test_stand_ins_answer_as_freebsd_did(name: str, tmp_path: Path) -> None:
    steps = read(DATA / f"{name}.txt")
    assert len([step for step in steps if step.answer is not None]) > 60
    with Host.create(tmp_path / "host") as host:
        call = host.root / "usr/local/bin/call"
        call.write_text(CALL)
        call.chmod(0o755)
        wrong = list(differences(host, steps))
        assert host.violations() == []
    assert not wrong, "\n" + "\n".join(wrong)
