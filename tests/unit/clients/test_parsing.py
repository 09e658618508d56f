"""Reading command lines of clients, and what clients print."""

from __future__ import annotations

import re

import pytest

from kopiatomic.clients import parsing
from kopiatomic.clients.parsing import (
    as_marked,
    as_stored,
    has_option,
    is_switched_on,
    json_answer,
    last_value,
    marked,
    parse_options,
    without,
)
from kopiatomic.clients.reader import ClientFailed
from kopiatomic.system.command import decode, encode


class TestCommandLines:
    WORDS = ("restic", "-r", "/a", "--repo=/b", "--host")

    @pytest.mark.parametrize(
        ("options", "there"),
        [
            (("--repo",), True), (("--nosuch", "-r"), True), (("--rep",), False),
            (("/a",), True), (("--repo=/b",), False),
        ],
    )  # fmt: skip
    def test_options(self, options, there):
        assert has_option(self.WORDS, *options) is there

    @pytest.mark.parametrize(
        ("options", "value"),
        [
            (("-r",), "/a"), (("--repo",), "/b"), (("-r", "--repo"), "/b"), (("--host",), None),
            (("--tag",), None),
        ],
    )  # fmt: skip
    def test_values_the_last_counts(self, options, value):
        found = parse_options(self.WORDS, {"-r", "--repo", "--host"})
        assert last_value(found, *options) == value

    def test_an_empty_value_is_one(self):
        assert last_value(parse_options(["--repo="], {"--repo"}), "--repo") == ""

    @pytest.mark.parametrize(
        ("words", "kept"),
        [
            ([], []),
            (["--exclude", "a", "--tag", "b"], ["--tag", "b"]),
            (["--exclude=a", "--excludes", "-ea", "-e", "a", "-v"], ["--excludes", "-v"]),
            (["--exclude"], []),
            (["-", "--", "x", "--exclude"], ["-", "--", "x", "--exclude"]),
            # What belongs to another option is none itself.
            (["--tag", "--exclude", "x"], ["--tag", "--exclude", "x"]),
            (["-t", "-e", "x", "-te", "y"], ["-t", "-e", "x", "-te", "y"]),
            (["--exclude", "--tag", "x"], ["x"]),
            # The last one of a bundle takes the word.
            (["-vxe", "a", "-ve=a", "-vea", "b"], ["-vx", "-v", "-v", "b"]),
        ],
    )
    def test_some_are_left_out(self, words, kept):
        options = ("--exclude", "-e")
        with_word = {*options, "--tag", "-t"}
        assert without(words, options, with_word) == kept
        rest = parse_options(kept, with_word)
        assert rest == [each for each in parse_options(words, with_word) if each[0] not in options]


class TestUnderstood:
    @pytest.mark.parametrize(
        "error", [KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError]
    )
    def test_an_answer_of_another_form_is_the_clients_failure(self, error):
        with pytest.raises(ClientFailed, match="not understood") as caught, parsing.understood():
            raise error
        assert caught.value.status == 1

    def test_what_the_client_said_itself_passes(self):
        with pytest.raises(ClientFailed, match="no such backup"), parsing.understood():
            raise ClientFailed(3, "no such backup")

    def test_a_mistake_of_ours_passes(self):
        with pytest.raises(RuntimeError), parsing.understood():
            raise RuntimeError


class TestJson:
    def test_objects_among_other_lines(self):
        text = 'one\n{"a": 1}\n{"b":\n{"c": 2}}\n{broken\n x{"d": 3}\n[4]\n{"e": "\t"}'
        assert parsing.json_objects(text) == [{"a": 1}, {"b": {"c": 2}}, {"e": "\t"}]

    def test_a_value_of_the_kind_that_is_wanted(self):
        assert parsing.json_value(b'{"a": [1]}', dict) == {"a": [1]}
        assert parsing.json_value(b"[1]", list) == [1]

    @pytest.mark.parametrize("text", [b"", b"[1]", b"null", b"{", b'"x"', b"[" * 100_000, b"\xff"])
    def test_no_value_of_that_kind(self, text):
        with pytest.raises(ValueError):  # noqa: PT011
            parsing.json_value(text, dict)

    def test_members(self):
        data = {"a": {"b": {"c": 1}}, "x": [1]}
        assert parsing.member(data, "a", "b", "c") == 1
        assert parsing.member(data, "a", "c") is None
        assert parsing.member(data, "x", "b") is None
        assert parsing.member(data) is data

    @pytest.mark.parametrize(
        ("value", "number"),
        [
            (3, 3), (0, 0), (-1, 0), (2**63 - 1, 2**63 - 1), (2**63, 0), ("3", 0), (None, 0),
            (1.5, 0),
        ],
    )  # fmt: skip
    def test_counts(self, value, number):
        assert parsing.count(value) == number

    def test_totals(self):
        assert parsing.total([{"n": 1}, {"n": 2, "m": 9}, {}, None, {"n": "x"}, 7], "n") == 3
        assert parsing.total([], "n") == 0


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        (rb'"\ufffd"', True), (rb'"\\ufffd"', False), (rb'"\\\ufffd"', True),
        ('"\ufffd"'.encode(), False), (rb'"ufffd"', False),
    ],
)  # fmt: skip
def test_bytes_that_are_no_utf8(line, bad):
    assert bool(re.search(parsing.NOT_UTF8, line)) is bad


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("2001-09-09T01:46:40.123456789Z", 10**18 + 123456789),
        ("2001-09-09T03:46:40.5+02:00", 10**18 + 500000000),
        ("1969-12-31T23:59:59.25Z", -750000000),
        ("0001-01-01T00:00:00Z", -62135596800 * 10**9),
        ("garbage", None),
        ("20260102Z", None),
        (None, None),
        ("12026-01-01T00:00:00Z", None),
    ],
)
def test_times(text, value):
    assert parsing.nanoseconds(text) == value


class TestAnswers:
    def test_an_answer_behind_other_lines(self):
        text = b'[info] {"a": 1}\n[1]\n{"b": 2}\n[{"id": "x"}]\ndone\n'
        assert json_answer(text, list) == ([{"id": "x"}], text[:29])
        assert json_answer(text, dict) == ({"b": 2}, text[:20])
        assert json_answer(text, dict, "b")[0] == {"b": 2}
        with pytest.raises(ValueError, match="no dict"):
            json_answer(text, dict, "c")
        assert json_answer(b" [1, 2]\n", list) == ([1, 2], b"")

    def test_bytes_that_are_no_text(self):
        """As Go writes them, and as the path is that was asked for."""
        text = rb'{"bad": "x\ufffd\\ufffd\\\ufffd", "good": "' + "\ufffd".encode() + b'"}'
        value, _ = json_answer(text, dict)
        assert value == {"bad": "x\udcff\\ufffd\\\udcff", "good": "\ufffd"}
        assert as_marked(decode(b"x\xfe\\ufffd\\\x80")) == value["bad"]
        assert marked(rb"\\ufffd") == rb"\\ufffd"
        assert encode(as_marked("plain")) == b"plain"
        assert as_stored(decode(b"x\xfe\\\x80")) == as_stored(as_marked(decode(b"x\xfe\\\x80")))
        assert as_stored(decode(b"x\xfe")) == "x\ufffd"


def test_options_of_programs_in_go():
    words = "-vx -Hme --time now --json=false -e a -e=b /p - -- -z".split()
    options = parse_options(words, {"-H", "-e", "--time"})
    assert options == [
        ("-v", None), ("-x", None), ("-H", "me"), ("--time", "now"), ("--json", "false"),
        ("-e", "a"), ("-e", "b"), ("", "/p"), ("", "-"), ("", "-z"),
    ]  # fmt: skip
    assert is_switched_on(options, "-x", "--long")
    assert not is_switched_on(options, "--json")
    assert not is_switched_on(options, "-z")
    assert last_value(options, "-e") == "b"
    assert last_value(options, "-n") is None
    assert parse_options(["--time"], {"--time"}) == [("--time", None)]
