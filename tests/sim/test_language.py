"""What the words promise: enough phrasings, held-out ones that are new sentences made of known words."""

import numpy as np
import pytest

from vla_rl.sim.language import PHRASINGS, phrase, phrasings

TASKS = ("lift", "place", "push", "stack", "button", "drawer")
SLOTS = {
    "lift": {"object": "red cube"},
    "place": {"object": "red cube", "goal": "blue bin"},
    "push": {"object": "red cube", "goal": "white zone"},
    "stack": {"object": "red cube", "goal": "green cube"},
    "button": {"object": "red button"},
    "drawer": {"object": "red drawer"},
}


def sentences(task: str, unseen: bool, seeds: int = 200) -> set[str]:
    return {phrase(task, SLOTS[task], np.random.default_rng(s), unseen) for s in range(seeds)}


def test_there_are_phrasings_for_the_six_tasks():
    assert set(PHRASINGS) == set(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_at_least_five_phrasings_train_and_three_are_held_out(task):
    assert len(set(phrasings(task))) >= 5
    assert len(set(phrasings(task, unseen=True))) >= 3


@pytest.mark.parametrize("task", TASKS)
def test_a_held_out_sentence_is_never_a_training_sentence(task):
    training = set().union(*(phrasings(t) for t in TASKS))
    assert not training & set(phrasings(task, unseen=True))
    assert not sentences(task, unseen=True) & sentences(task, unseen=False)


@pytest.mark.parametrize("task", TASKS)
def test_held_out_sentences_are_made_of_words_known_from_training(task):
    known = set(" ".join(s for t in TASKS for s in phrasings(t)).split())
    assert set(" ".join(phrasings(task, unseen=True)).split()) <= known


@pytest.mark.parametrize("unseen", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_every_sentence_names_the_object_and_the_goal(task, unseen):
    for sentence in sentences(task, unseen):
        assert all(name in sentence for name in SLOTS[task].values())
        assert "{" not in sentence


@pytest.mark.parametrize("task", TASKS)
def test_every_phrasing_is_used_and_the_same_generator_says_the_same(task):
    assert len(sentences(task, unseen=False)) == len(phrasings(task))
    first, again = (phrase(task, SLOTS[task], np.random.default_rng(7)) for _ in range(2))
    assert first == again


def test_an_unknown_task_is_refused_by_name_with_the_alternatives():
    with pytest.raises(ValueError, match="'juggle'; there are: lift, place"):
        phrase("juggle", {}, np.random.default_rng(0))
