"""What did not carry over, told once each, in the order of the lines."""

from __future__ import annotations

from gateway.importing.notes import Notes


def test_notes_are_in_the_order_of_lines_and_one_for_several() -> None:
    notes = Notes()
    for line, message in ((9, "b"), (3, "a"), (7, "b"), (7, "b"), (8, "b"), (0, "all"), (4, "c"), (5, "c")):
        notes.add(line, message)
    assert notes.told("f.yaml") == [
        "f.yaml: all",
        "f.yaml:3: a",
        "f.yaml:4: c (also line 5)",
        "f.yaml:7: b (also lines 8, 9)",
    ]


def test_a_name_with_an_escape_sequence_does_not_reach_the_terminal() -> None:
    notes = Notes()
    notes.add(1, "model \x1b[2J")
    assert notes.told("f") == ["f:1: model \N{REPLACEMENT CHARACTER}[2J"]
