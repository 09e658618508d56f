"""What --status --metrics prints, held against the rules of Prometheus.

The rules are those that `promtool check metrics` applies, as far as they matter here: its
parser's, and the names of promlint.
"""

from __future__ import annotations

import json
import re

import pytest

from kopiatomic import __version__, cli, state
from kopiatomic.monitoring import history, metrics
from kopiatomic.monitoring.history import JobHistory
from kopiatomic.state import Place
from unit.monitoring.runs import DAY, HOUR, NOW, PLACE, ago, entry, run

LEFT_OUT = [{"name": "t/c", "kind": "excluded", "reason": "excluded by 't/c'"}]
BASE_UNITS = ("seconds", "bytes", "datasets", "info", "success", "running")
OTHER_UNITS = """
    minutes hours days weeks milliseconds ms nanoseconds sec secs s min h
    kilobytes megabytes kib mib gib kb mb gb byte b percent bits
""".split()


class Sample:
    """One line of the text format: its metric, its labels, its value."""

    LINE = re.compile(
        r'(?P<name>[a-z][a-z0-9_]*)\{(?P<labels>(?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)+)\}'
        r" (?P<value>-?[0-9]+(?:\.[0-9]+)?)"
    )

    def __init__(self, line: str) -> None:
        found = self.LINE.fullmatch(line)
        assert found, line
        self.name, self.value = found["name"], float(found["value"])
        labels = re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', found["labels"])
        self.labels = dict(labels)
        assert len(self.labels) == len(labels), line


def parse(text: str) -> dict[str, list[Sample]]:
    """Read the text format as strictly as its parser: HELP and TYPE first, once, then samples."""
    assert text.endswith("\n")
    families: dict[str, list[Sample]] = {}
    lines = text.splitlines()
    while lines:
        help_, type_ = lines.pop(0).split(" ", 3), lines.pop(0).split(" ")
        name = help_[2]
        assert help_[:2] == ["#", "HELP"]
        assert help_[3].strip()
        assert type_ == ["#", "TYPE", name, "gauge"]
        assert name not in families
        families[name] = []
        while lines and not lines[0].startswith("#"):
            sample = Sample(lines.pop(0))
            assert sample.name == name
            families[name].append(sample)
        assert families[name]
        series = [tuple(sorted(each.labels.items())) for each in families[name]]
        assert len(set(series)) == len(series)
    return families


def lint(name: str) -> None:
    """Hold a name against promlint."""
    words = name.split("_")
    assert name == name.lower()
    assert words[0] == "kopiatomic"
    assert words[-1] in BASE_UNITS
    assert not set(words) & set(OTHER_UNITS)
    assert not set(words) & {"gauge", "counter", "histogram", "summary", "metric"}
    # What only a counter, a histogram or a summary may have.
    assert words[-1] not in ("total", "bucket", "count", "sum")


def upkeep(seconds: float, outcome: str = "success", kind: str = "upkeep", **steps: str):
    return {
        "kind": kind, "outcome": outcome, "ended": ago(seconds),
        "steps": [{"name": each, "kind": each, "outcome": how} for each, how in steps.items()],
    }  # fmt: skip


def job(*runs, upkeeps=(), running=False, place=PLACE) -> JobHistory:
    read = tuple(history.care_of(each) for each in upkeeps)
    return JobHistory(place, tuple(runs), running, care=read)


def values(*jobs: JobHistory) -> dict[str, float]:
    """Return the numbers of the last of some jobs, by the ends of their names."""
    families = parse(metrics.as_text("restomic", jobs))
    return {
        name.removeprefix("kopiatomic_"): samples[-1].value for name, samples in families.items()
    }


GOOD = job(
    run(3 * DAY), run(2 * HOUR, left_out=LEFT_OUT),
    upkeeps=[
        upkeep(DAY, check="ok", forget="ok"),
        upkeep(HOUR, "failed", check="failed", forget="not run"),
        upkeep(3 * HOUR, kind="drill"),
    ],
)  # fmt: skip


def test_a_machine_with_no_job_says_that_the_program_is_there():
    text = metrics.as_text("restomic", [])
    (name, (sample,)), *others = parse(text).items()
    assert not others
    lint(name)
    assert sample.labels == {"program": "restomic", "version": __version__}
    assert sample.value == 1


def test_every_metric_of_a_job():
    assert values(GOOD) == {
        "build_info": 1,
        "backup_last_success_timestamp_seconds": NOW - 2 * HOUR,
        "backup_last_run_timestamp_seconds": NOW - 2 * HOUR - 2,
        "backup_last_run_success": 1,
        "backup_running": 0,
        "backup_duration_seconds": 62,
        "backup_added_bytes": 4096,
        "backup_captured_datasets": 2,
        "backup_partly_captured_datasets": 0,
        "backup_left_out_datasets": 1,
        "check_last_success_timestamp_seconds": NOW - DAY,
        "check_last_run_success": 0,
        "drill_last_success_timestamp_seconds": NOW - 3 * HOUR,
        "drill_last_run_success": 1,
    }


def test_a_run_that_found_nothing_new_is_no_failure_and_no_backup():
    jobs = [JobHistory(PLACE, (run(DAY), run(HOUR, "unchanged")))]
    told = parse(metrics.as_text("restomic", jobs))
    assert told["kopiatomic_backup_last_run_success"][0].value == 1
    assert told["kopiatomic_backup_last_success_timestamp_seconds"][0].value == NOW - DAY


def test_the_names_are_as_prometheus_wants_them():
    families = parse(metrics.as_text("restomic", [GOOD]))
    assert len(families) == len(metrics.METRICS) + 1
    for name in families:
        lint(name)


def test_the_failure_of_a_night_leaves_what_was_good():
    told = values(job(run(DAY), run(HOUR, "failed")))
    assert told["backup_last_success_timestamp_seconds"] == NOW - DAY
    assert told["backup_last_run_timestamp_seconds"] == NOW - HOUR - 2
    assert told["backup_last_run_success"] == 0
    assert values(job(run(HOUR, "trouble")))["backup_last_run_success"] == 1


def test_what_has_never_been_is_older_than_any_limit_and_what_is_not_known_is_missing():
    assert values(job(running=True)) == {
        "build_info": 1, "backup_running": 1,
        **dict.fromkeys((
            "backup_last_success_timestamp_seconds", "backup_last_run_timestamp_seconds",
            "check_last_success_timestamp_seconds", "drill_last_success_timestamp_seconds",
        ), 0),
    }  # fmt: skip
    silent = values(job(run(HOUR, client={})))
    assert "backup_added_bytes" not in silent
    assert "backup_left_out_datasets" not in silent


def test_one_series_for_each_job_of_each_metric():
    places = [Place("restomic", each) for each in ("a", "b", "c")]
    jobs = [job(run(HOUR), place=place) for place in places]
    for name, samples in parse(metrics.as_text("restomic", jobs)).items():
        if name != "kopiatomic_build_info":
            assert [each.labels for each in samples] == [
                {"program": "restomic", "job": place.job} for place in places
            ]


def test_what_a_label_holds_cannot_end_it():
    """No job can be called so; but what if that changes?"""
    text = metrics.as_text("restomic", [job(run(HOUR), place=Place("restomic", 'a"\\b\nc'))])
    parse(text)
    assert r'job="a\"\\b\nc"' in text


def test_a_damaged_history_gives_valid_numbers():
    runs = [history.run_of(each) for each in (
        {}, {"outcome": []}, {"outcome": "success", "seconds": "x", "captured": 3},
        {"outcome": "success", "moment": "never", "began": 7, "seconds": -1, "left_out": {}},
        entry(HOUR, seconds=1e300, client={"added": 1e18}),
    )]  # fmt: skip
    for number in range(len(runs)):
        parse(metrics.as_text("restomic", [job(*runs[: number + 1])]))
    odd = [{}, {"kind": "upkeep", "steps": 3}, {"kind": "upkeep", "steps": [3, {"outcome": "ok"}]},
           {"kind": "drill", "outcome": 7, "ended": "x"}, {"kind": []}]  # fmt: skip
    told = parse(metrics.as_text("restomic", [job(upkeeps=odd)]))
    assert told["kopiatomic_drill_last_run_success"][0].value == 0


def test_a_step_of_an_upkeep_that_was_not_run_is_none():
    read = history.care_of(upkeep(HOUR, "failed", check="failed", forget="not run"))
    assert (read.ended, read.results()) == (NOW - HOUR, {"check": False})


class TestOnDisk:
    @pytest.fixture(autouse=True)
    def _as_root(self, places, monkeypatch):
        monkeypatch.setattr("kopiatomic.commands.common.need_root", lambda job: None)
        (places / "db").mkdir(mode=0o700)
        for program, name in (("restomic", "a"), ("restomic", "b"), ("kopiatomic", "c")):
            path = Place(program, name).history
            with open(path, "w") as file:
                file.write(json.dumps(entry(HOUR)) + "\n")

    def jobs(self, capfd, *words: str) -> set[str]:
        assert cli.main("restomic", ["--status", "--metrics", *words]) == 0
        out, err = capfd.readouterr()
        assert err == ""
        samples = parse(out)["kopiatomic_backup_running"]
        return {each.labels["job"] for each in samples}

    def test_all_jobs_of_the_program_or_one(self, capfd):
        assert self.jobs(capfd) == {"a", "b"}
        assert self.jobs(capfd, "-j", "b") == {"b"}

    def test_no_program_is_started(self, capfd, monkeypatch):
        """It is for every few minutes, whatever else is on the machine."""
        monkeypatch.setenv("PATH", "/nonexistent")
        monkeypatch.setattr(
            "kopiatomic.system.command.Door.start", lambda *_, **__: pytest.fail("started")
        )
        assert self.jobs(capfd) == {"a", "b"}

    def test_upkeep_is_read(self, capfd):
        state.remember_upkeep(Place("restomic", "a"), upkeep(HOUR, check="ok"))
        cli.main("restomic", ["--status", "--metrics"])
        told = parse(capfd.readouterr().out)["kopiatomic_check_last_success_timestamp_seconds"]
        assert [each.value for each in told] == [NOW - HOUR, 0]

    def test_state_that_cannot_be_read_prints_nothing(self, capfd, monkeypatch, places):
        monkeypatch.setattr(state, "STATE_DIRECTORY", str(places / "db/restomic.a.history"))
        assert cli.main("restomic", ["--status", "--metrics"]) == 71
        out, err = capfd.readouterr()
        assert out == ""
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--metrics"], "--metrics goes with --status"),
        (["--metrics", "tank"], "--metrics goes with --status"),
        (["--check", "--metrics"], "--metrics goes with --status"),
        (["--status", "--metrics", "--json"], "choose one"),
    ],
)
def test_where_it_is_refused(capsys, words, says):
    assert cli.main("restomic", words) == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err


def test_both_programs_tell_the_same_of_a_metric():
    """Their files lie side by side, and one metric has one HELP."""
    heads = [
        {line for line in metrics.as_text(program, [GOOD]).splitlines() if line[0] == "#"}
        for program in ("kopiatomic", "restomic")
    ]
    assert heads[0] == heads[1]
