"""Times, sizes and tables as people read them, and as programs do."""

import json
from datetime import UTC, datetime

import pytest

from kopiatomic import formatting

NOW = 1_795_420_800.0  # 2026-11-23 08:00:00 UTC
HOUR, DAY = 3600.0, 86400.0


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (-DAY, "in the future"), (-5, "just now"), (59, "just now"), (60, "1 min"),
        (3599, "59 min"), (7.5 * HOUR, "7 h"), (24 * HOUR, "1 d"), (51 * HOUR, "2 d 3 h"),
    ],
)  # fmt: skip
def test_age(seconds, says):
    assert formatting.age(seconds) == says


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (62, "1 min 2 s"),
        (3599.4, "59 min 59 s"), (3599.6, "1 h 0 min"), (30 * HOUR, "30 h 0 min"),
    ],
)  # fmt: skip
def test_duration(seconds, says):
    assert formatting.duration(seconds) == says


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "0.977 KiB"), (1024, "1 KiB"), (1536, "1.5 KiB"),
        (500 << 20, "500 MiB"), (1 << 40, "1 TiB"), (5000 << 40, "5000 TiB"),
    ],
)  # fmt: skip
def test_size(count, says):
    assert formatting.size(count) == says


@pytest.mark.usefixtures("utc")
def test_moments():
    assert formatting.iso(NOW) == "2026-11-23T08:00:00+0000"
    assert formatting.clock(NOW) == "2026-11-23 08:00:00 UTC"
    assert formatting.when(NOW) == "2026-11-23 08:00"
    assert formatting.when(None) == "unknown"


def test_the_form_for_programs_is_a_moment_in_every_zone():
    read = datetime.fromisoformat(formatting.iso(NOW))
    assert read.astimezone(UTC).timestamp() == NOW


class TestTable:
    def test_the_second_column_is_aligned(self):
        rows = [("tank", "/data"), ("zroot/home", "/home")]
        assert formatting.table(rows) == ["  tank        /data", "  zroot/home  /home"]

    def test_one_long_name_does_not_move_all_others_out_of_sight(self):
        short, long = formatting.table([("tank", "/data"), ("x" * 200, "/x")])
        assert short.index("/data") < 50
        assert long == f"  {'x' * 200}  /x"

    def test_of_nothing(self):
        assert formatting.table([]) == []

    def test_a_name_cannot_write_into_the_mail(self):
        (line,) = formatting.table([("t", "/a\nSubject: all is well\x1b[2J")])
        assert "\n" not in line
        assert "\x1b" not in line


class TestSection:
    def test_has_a_title(self):
        assert formatting.section("Note:", ["a", "b\nc"]) == ["", "Note:", "  a", "  b\\x0ac"]

    def test_of_nothing_is_none(self):
        assert formatting.section("Note:", []) == []


class TestHeadline:
    def test_says_first_whether_all_is_well(self):
        told = formatting.headline("restomic", "default", "the backup", "success", 62)
        assert told == "restomic: the backup succeeded, 1 min 2 s"

    def test_names_a_job_that_has_a_name(self):
        told = formatting.headline("restomic", "home", "the backup", "failed", 1)
        assert told == "restomic (job home): the backup FAILED, 1 s"

    @pytest.mark.parametrize("outcome", sorted(formatting.OUTCOMES.keys() - {"success"}))
    def test_anything_but_success_cannot_be_overlooked(self, outcome):
        told = formatting.headline("restomic", "default", "the backup", outcome, 1)
        assert any(word.isalpha() and word.isupper() for word in told.replace(",", "").split())


class TestWhatWasSaid:
    def test_is_indented_below_a_title(self):
        assert formatting.what_was_said("restic", "a\nb\n") == "\nWhat restic said:\n  a\n  b\n"

    def test_of_much_the_end_is_shown_and_that_is_said(self):
        lines = [f"line {number}" for number in range(formatting.MAIL_LINES + 1)]
        told = formatting.what_was_said("restic", "\n".join(lines))
        assert f"its last {formatting.MAIL_LINES} lines" in told
        assert "line 0\n" not in told
        assert told.endswith(f"  {lines[-1]}\n")

    @pytest.mark.parametrize("said", ["", "\n", "\n\n"])
    def test_nothing(self, said):
        assert formatting.what_was_said("restic", said) == ""


def test_json_ends_its_line():
    text = formatting.as_json({"b": [1, None]})
    assert json.loads(text) == {"b": [1, None]}
    assert text.endswith("}\n")


def test_nothing_is_told_of_no_wait():
    assert formatting.waited(0) == []


def test_a_hook_is_told_so_much_that_it_can_be_started():
    told = formatting.for_environment("a\nb" + "x" * 9999)
    assert told.startswith(r"a\x0ab")
    assert len(told) < 5000
