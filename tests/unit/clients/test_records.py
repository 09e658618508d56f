"""Values that the program and its clients exchange."""

from __future__ import annotations

from kopiatomic.clients.records import (
    ByHand,
    Missing,
    Needs,
    Proof,
    compared,
    missing_in,
    together,
)


def test_the_needs_of_several_repositories_are_those_of_the_first_and_what_the_others_add():
    first = Needs("/bin/restic", writable=("/a",), live=("/l",), repository="/r1", texts=("x",))
    other = Needs(
        "/bin/other", "/var/tmp", ("/a", "/b"), ("/m",), "/r2", ("/s",), ("/r2",), ("/p",), ("y",)
    )
    assert together([first, other]) == Needs(
        "/bin/restic", "/tmp", ("/a", "/b"), ("/l", "/m"), "/r1", ("/s",), ("/r2",), ("/p",),
        ("x", "y"),
    )  # fmt: skip


def test_a_point_is_missing_if_it_is_not_held_or_is_empty_though_its_snapshot_is_not():
    points = {"/a": True, "/b": True, "/c": True, "/d": False, "/e": False}
    held = {"/a": True, "/b": False, "/d": False}
    assert missing_in(held, points) == (
        Missing("/b", empty=True), Missing("/c"), Missing("/e"),
    )  # fmt: skip


def test_a_proof_of_what_is_compared():
    points, held = {"/a": True, "/b": True}, {"/a": True}
    proof = compared(points, held, ["1", "2"], [None, 4.0, 3.0])
    assert proof == Proof(("1", "2"), ("/a",), (Missing("/b"),), None, 4.0)
    assert compared({}, {}, [], [None]).moment is None


def test_a_call_by_hand_names_the_variables_that_it_needs():
    assert ByHand("restic")("unlock") == "restic unlock"
    told = ByHand("restic", "/root/my env")("unlock")
    assert told == "restic unlock (with the variables of '/root/my env')"
