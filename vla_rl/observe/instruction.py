"""What a person writes into `instruction`, made safe to hand on: it is data, whatever it says."""

from __future__ import annotations

MAX_CHARACTERS = 1000


def clean(text: str) -> str:
    """One line of at most MAX_CHARACTERS printable characters; control characters and runs of blanks become a blank."""
    head = text[: 4 * MAX_CHARACTERS]  # a megabyte of text is not worth the time
    printable = "".join(c if c.isprintable() else " " for c in head)
    return " ".join(printable.split())[:MAX_CHARACTERS].rstrip()
