"""An instruction is data: one short printable line, whatever was sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vla_rl.observe.instruction import MAX_CHARACTERS, clean


@given(st.text(max_size=3000))
def test_one_printable_line_of_bounded_length_that_cleaning_again_does_not_change(text):
    line = clean(text)
    assert line.isprintable()
    assert len(line) <= MAX_CHARACTERS
    assert line == line.strip()
    assert clean(line) == line


def test_words_are_kept_and_control_characters_are_not():
    assert clean("lift\tthe\x00 red\r\ncube\x1b[2J") == "lift the red cube [2J"
    assert clean("  stapelt den grünen Würfel ") == "stapelt den grünen Würfel"
    assert len(clean("x" * 1_000_000)) == MAX_CHARACTERS
