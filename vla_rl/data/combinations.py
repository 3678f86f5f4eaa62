"""Combinations of a task and the object that an instruction names: what training leaves out and evaluation picks.

Instructions say neither reliably ("shove", "slide" and "move" are all `push`, and a button can be pushed too), so rules
are held against the task and the target that every episode's meta has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Combination:
    """`push:yellow`: the task push with an object that is called yellow something; `yellow`: in any task.

    Attributes:
        task: name of the task, empty for any.
        words: words of the named object, in any order; none for any object.
    """

    task: str
    words: frozenset[str]

    @classmethod
    def parse(cls, text: str) -> Combination:
        """Read TASK:WORDS, TASK: or WORDS.

        Raises:
            ValueError: it says neither a task nor an object.
        """
        task, colon, words = text.rpartition(":")
        rule = cls(task.strip().lower(), frozenset(words.lower().split()))
        if not rule.task and (colon or not rule.words):
            raise ValueError(f"'{text}' is no combination; write TASK:OBJECT, for instance push:yellow, or just yellow")
        return rule

    def matches(self, episode: Mapping[str, Any]) -> bool:
        """Whether the meta of an episode is of this task and its target's name holds all the words."""
        same_task = self.task in ("", str(episode.get("task", "")).lower())
        return same_task and self.words <= set(str(episode.get("target", "")).lower().split())


def spelled(episodes: Iterable[Mapping[str, Any]]) -> str:
    """The combinations that some episodes have, for an error message: `lift:blue cube, push:red cube`."""
    found = sorted({f"{e.get('task') or '?'}:{e.get('target') or '?'}" for e in episodes})
    return ", ".join(found[:24]) + (f", and {len(found) - 24} more" if len(found) > 24 else "")
