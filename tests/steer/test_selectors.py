"""Selectors: rules of choice, and what none of them may ever choose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vla_rl.steer.selectors import SELECTORS, Choice, SelectorOptions, make_selector, medoid, select

BOUNDED = st.floats(-3, 3, width=32)
CHUNKS = hnp.arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 5), st.integers(1, 4)), elements=BOUNDED)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def worths(chunks: np.ndarray) -> np.ndarray:
    """What an ensemble of three might say of each."""
    return np.random.default_rng(1).normal(size=(3, len(chunks)))


def pick(chunks: np.ndarray) -> int:
    return medoid(chunks, None, None, rng()).index


@pytest.mark.parametrize("name", SELECTORS)
@given(CHUNKS)
@settings(max_examples=60, deadline=None)
def test_every_rule_chooses_one_of_the_candidates_and_says_why(name, chunks):
    choice = select(make_selector(name), chunks, worths(chunks), None, rng())
    assert 0 <= choice.index < len(chunks)
    assert choice.reason


@pytest.mark.parametrize("name", SELECTORS)
@given(CHUNKS, st.data())
@settings(max_examples=100, deadline=None)
def test_a_candidate_that_is_not_finite_is_left_out_and_the_others_stay(name, chunks, data):
    bad, values = data.draw(st.sets(st.integers(0, len(chunks) - 1))), worths(chunks)
    for i in bad:
        chunks[i, -1, 0] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    choice = select(make_selector(name), chunks, values, None, rng())
    if len(bad) == len(chunks):
        assert choice is None
    else:
        assert choice.index not in bad


def test_first_is_the_policys_first_sample_that_can_be_used():
    chunks = np.zeros((4, 3, 2))
    chunks[0, 0, 0] = np.nan
    assert select(make_selector("first"), chunks, None, None, rng()).index == 1


@given(st.integers(0, 2**31), st.integers(3, 12), st.booleans())
@settings(max_examples=100, deadline=None)
def test_the_medoid_does_not_depend_on_the_order_of_the_candidates(seed, count, two_modes):
    random = np.random.default_rng(seed)
    chunks = random.normal(size=(count, 4, 3)) + 8.0 * (two_modes & (np.arange(count) % 3 == 0))[:, None, None]
    order = random.permutation(count)
    np.testing.assert_array_equal(chunks[pick(chunks)], chunks[order][pick(chunks[order])])


def test_among_one_mode_the_medoid_is_the_sample_nearest_to_all_others():
    chunks = np.random.default_rng(1).normal(size=(9, 4, 3))
    chunks[5] = chunks.mean(0)
    assert pick(chunks) == 5


@pytest.mark.parametrize("seed", range(10))
def test_of_two_modes_the_larger_ones_medoid_is_taken_never_a_point_between(seed):
    random = np.random.default_rng(seed)
    left, right = random.normal(-5, 0.1, (4, 3, 2)), random.normal(5, 0.1, (7, 3, 2))
    chosen = pick(np.concatenate([left, right]))
    distances = [sum(np.linalg.norm(one - other) for other in right) for one in right]
    assert chosen - 4 == np.argmin(distances)


def test_equal_candidates_are_no_trouble():
    assert pick(np.zeros((8, 4, 3))) == 0
    assert pick(np.zeros((1, 4, 3))) == 0


def test_random_reaches_every_candidate_and_its_seed_decides():
    def draw(seed):
        return select(make_selector("random"), np.zeros((5, 2, 1)), None, None, np.random.default_rng(seed)).index

    assert {draw(seed) for seed in range(99)} == set(range(5))
    assert draw(7) == draw(7)


def test_a_rule_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ValueError, match=r"unknown selector 'best'; there are: first, random, medoid"):
        make_selector("best")


def highest(chunks, values, previous, generator):
    return Choice(int(values.mean(0).argmax()), "highest")


def test_where_a_value_is_not_finite_its_candidate_is_left_out():
    values = np.array([[1.0, np.nan, 3.0, np.inf, 2.0]])
    assert select(highest, np.zeros((5, 2, 1)), values, None, rng()).index == 2


def test_where_no_value_is_finite_the_first_candidate_is_taken():
    choice = select(highest, np.zeros((5, 2, 1)), np.full((2, 5), np.nan), None, rng())
    assert choice.index == 0
    assert "no finite value" in choice.reason


def test_where_only_some_were_scored_the_choice_is_among_them():
    assert select(highest, np.zeros((9, 2, 1)), np.array([[0.0, 5.0, 1.0]]), None, rng()).index == 1


@given(CHUNKS)
@settings(max_examples=60, deadline=None)
def test_a_blend_is_a_convex_mean_of_one_mode_and_names_its_nearest_candidate(chunks):
    for name in ("mean", "weighted_mean"):
        choice = select(make_selector(name), chunks, worths(chunks), None, rng())
        assert sum(choice.shares) == pytest.approx(1.0)
        assert min(choice.shares) >= 0.0
        blended = choice.of(chunks)
        assert (blended <= chunks.max(0) + 1e-6).all()
        assert (blended >= chunks.min(0) - 1e-6).all()
        apart = np.square(chunks - blended).sum((1, 2))
        members = np.flatnonzero(choice.shares)
        assert apart[choice.index] == pytest.approx(apart[members].min())


def test_the_mean_of_noisy_samples_is_nearer_to_the_truth_than_any_rule_that_takes_one():
    truth, noise = np.ones((6, 2)), np.random.default_rng(0).normal(size=(8, 6, 2))
    chunks = truth + noise
    blended = select(make_selector("mean"), chunks, None, None, rng()).of(chunks)
    assert np.abs(blended - truth).mean() < min(np.abs(c - truth).mean() for c in chunks)


def test_no_mean_lies_between_two_modes():
    """Left or right of an obstacle: five samples pass it on one side, three on the other."""
    chunks = np.array([1.0, 1.1, 0.9, 1.0, 1.05, -1.0, -1.1, -0.9])[:, None, None] * np.ones((1, 4, 1))
    values = np.zeros((2, 8))
    assert select(make_selector("mean"), chunks, None, None, rng()).of(chunks).min() > 0.8
    values[:, 5:] = 1.0  # the critic knows that the other side is better
    better = select(make_selector("weighted_mean"), chunks, values, None, rng())
    assert better.of(chunks).max() < -0.8


def test_a_cold_weighted_mean_is_the_best_candidate():
    chunks, values = np.random.default_rng(0).normal(size=(5, 3, 2)), np.array([[0.0, 0.3, 0.1, 0.2, 0.25]])
    rule = make_selector("weighted_mean", SelectorOptions(temperature=1e-4))
    assert select(rule, chunks, values, None, rng()).of(chunks) == pytest.approx(chunks[1])


def test_a_blend_never_touches_a_candidate_that_is_not_finite():
    chunks = np.ones((4, 3, 2))
    chunks[2] = np.nan
    choice = select(make_selector("mean"), chunks, None, None, rng())
    assert choice.shares[2] == 0.0
    assert np.isfinite(choice.of(chunks)).all()
