"""Finding: one line of what a check found."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "FAIL"


@dataclass(frozen=True)
class Finding:
    """What a check found: `state` is ok, warn or FAIL; `mend` says what to do about it."""

    part: str
    state: str
    found: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.state:<5} {self.part:<9} {self.found}" + (f"; {self.mend}" if self.mend else "")
