"""Instructions as hashes: stable, forgiving, and disturbed without losing a word."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from vla_rl.policy.words import MAX_WORDS, PAD, disturb, tokenize, word_hashes


def test_hashes_are_the_same_on_every_machine() -> None:
    assert word_hashes("red cube") == (4200685455, 821998008)


def test_case_and_punctuation_do_not_count() -> None:
    assert word_hashes("Lift the RED cube, please!") == word_hashes("lift the red cube please")


@given(st.lists(st.text(max_size=80), min_size=1, max_size=4))
def test_any_text_becomes_tokens_of_one_size(texts: list[str]) -> None:
    tokens = tokenize(texts)
    assert tokens.shape[0] == len(texts)
    assert tokens.shape[1] % 8 == 0
    assert tokens.shape[1] <= MAX_WORDS


def test_disturbing_adds_noise_words_but_keeps_the_order_of_known_ones() -> None:
    torch.manual_seed(0)
    tokens = tokenize(["put the red cube on the blue one"] * 200)
    known = set(tokens[0].tolist()) - {PAD}
    noisy = disturb(tokens, 0.1)
    assert any(len(set(row) - known - {PAD}) for row in noisy.tolist())
    original = [t for t in tokens[0].tolist() if t != PAD]
    for row in noisy.tolist():
        kept = iter(original)
        assert all(any(word == other for other in kept) for word in row if word in known)
        assert PAD not in row[: sum(t != PAD for t in row)], "padding stays at the end"


def test_no_noise_changes_nothing() -> None:
    tokens = tokenize(["lift the red cube", "push"])
    assert torch.equal(disturb(tokens, 0.0)[:, : tokens.shape[1]], tokens)
