"""Lease: one operator at a time has the arm; a second one is refused and told who has it."""

from __future__ import annotations

Answer = tuple[bool, str]


class Lease:
    """Who has the arm, of those who ask for it by name.

    ::

        free --claim--> held --lose--> lost --claim, by anybody--> held
          ^--release-----|--------------|

    Attributes:
        holder: the operator's name, "" where nobody has it.
        lost: whether that operator's device was lost: the arm holds until somebody claims it anew, or hands it back.
    """

    def __init__(self) -> None:
        self.holder, self.lost = "", False

    def claim(self, operator: str) -> Answer:
        """Take the arm, where nobody else has it."""
        if not operator:
            return False, "an operator needs a name"
        answer = self.allows(operator)
        if answer[0]:
            self.holder, self.lost = operator, False
        return answer

    def allows(self, operator: str) -> Answer:
        """Whether an operator may act: whoever has the arm, or anybody where nobody has it or its device is lost."""
        if self.lost or self.holder in ("", operator):
            return True, ""
        return False, f"{self.holder} has the arm: {operator or 'you'} can act once it is handed back"

    def lose(self) -> None:
        """The holder's device is lost."""
        self.lost = bool(self.holder)

    def release(self) -> None:
        """Nobody has the arm any more."""
        self.holder, self.lost = "", False
