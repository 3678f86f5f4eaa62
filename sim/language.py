"""How the tasks are put into words: training phrasings, and held-out ones that recombine the same words.

Slots: `object` is the named thing with its colour ("red cube"), `goal` where it goes ("blue bin"). Every word of a
held-out phrasing occurs in the training ones: a text encoder trained from scratch knows the words, not the sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Phrasings:
    """Sentences of one task with slots in braces: those for training and those held out."""

    train: tuple[str, ...]
    unseen: tuple[str, ...]


PHRASINGS: Mapping[str, Phrasings] = {
    "lift": Phrasings(
        train=(
            "lift the {object}",
            "pick up the {object}",
            "grab the {object} and lift it",
            "raise the {object} off the table",
            "take the {object} and hold it up",
            "please pick the {object} up",
            "now lift the {object} up",
        ),
        unseen=(
            "please grab the {object} and raise it off the table",
            "now take the {object} and lift it up",
            "could you pick the {object} up from the table",
            "please hold up the {object}",
        ),
    ),
    "place": Phrasings(
        train=(
            "put the {object} into the {goal}",
            "place the {object} in the {goal}",
            "pick up the {object} and drop it into the {goal}",
            "move the {object} from the table to the {goal}",
            "could you put the {object} in the {goal}",
            "please place the {object} inside the {goal}",
        ),
        unseen=(
            "please take the {object} and put it in the {goal}",
            "could you move the {object} into the {goal}",
            "now drop the {object} into the {goal}",
            "grab the {object} and place it inside the {goal}",
        ),
    ),
    "push": Phrasings(
        train=(
            "push the {object} to the {goal}",
            "slide the {object} onto the {goal}",
            "shove the {object} to the {goal}",
            "push the {object} over the table onto the {goal}",
            "could you push the {object} into the {goal}",
            "now slide the {object} over to the {goal}",
        ),
        unseen=(
            "please push the {object} over to the {goal}",
            "could you slide the {object} to the {goal}",
            "now shove the {object} onto the {goal}",
        ),
    ),
    "stack": Phrasings(
        train=(
            "stack the {object} on the {goal}",
            "put the {object} on top of the {goal}",
            "place the {object} onto the {goal}",
            "pick up the {object} and stack it on top of the {goal}",
            "set the {object} down on the {goal}",
            "please stack the {object} on top of the {goal}",
        ),
        unseen=(
            "could you stack the {object} onto the {goal}",
            "now take the {object} and put it on the {goal}",
            "please pick up the {object} and set it on top of the {goal}",
        ),
    ),
    "button": Phrasings(
        train=(
            "press the {object}",
            "press the {object} down",
            "push the {object} down",
            "hit the {object}",
            "could you press the {object}",
            "now press down on the {object}",
        ),
        unseen=(
            "please press the {object} down",
            "could you push down the {object}",
            "now hit the {object}",
        ),
    ),
    "drawer": Phrasings(
        train=(
            "open the {object}",
            "pull the {object} open",
            "pull out the {object}",
            "slide the {object} open",
            "please open the {object}",
            "take the handle and open the {object}",
        ),
        unseen=(
            "could you pull the {object} open",
            "now open the {object}",
            "grab the handle of the {object} and pull it out",
        ),
    ),
}


def phrasings(task: str, unseen: bool = False) -> tuple[str, ...]:
    """The sentences of a task, slots still open.

    Raises:
        ValueError: no such task; the message lists those that exist.
    """
    if task not in PHRASINGS:
        raise ValueError(f"no phrasings for task '{task}'; there are: {', '.join(PHRASINGS)}")
    return PHRASINGS[task].unseen if unseen else PHRASINGS[task].train


def phrase(task: str, slots: Mapping[str, str], rng: np.random.Generator, unseen: bool = False) -> str:
    """One instruction in words, its phrasing drawn from `rng`.

    Args:
        task: which task.
        slots: what to name: `object`, and `goal` where the task has one.
        rng: where the choice of sentence comes from.
        unseen: draw from the phrasings held out of training.

    Raises:
        ValueError: no such task.
        KeyError: a slot of the sentence is not filled.
    """
    sentences = phrasings(task, unseen)
    return sentences[int(rng.integers(len(sentences)))].format_map(slots)
