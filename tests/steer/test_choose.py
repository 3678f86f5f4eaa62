"""Choosing by value: with a critic that knows the truth the best is taken, and one that is not sure is not followed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vla_rl.steer.abstain import abstention
from vla_rl.steer.choose import Chooser, ChooserConfig
from vla_rl.steer.medoid import weighted_medoid
from vla_rl.steer.selectors import BLIND, SELECTORS, SelectorOptions, make_selector, select, worth
from vla_rl.value import aggregate

BY_VALUE = ("argmax", "softmax", "lcb", "quantile", "weighted")
VALUES = hnp.arrays(np.float64, st.tuples(st.integers(2, 5), st.integers(1, 9)), elements=st.floats(-2, 2, width=32))


class Ensemble:
    def __init__(self, members: int = 3, distribution: bool = True):
        self.members, self.distribution = members, distribution


def chooser(selector: str, members: int = 3, **options) -> Chooser:
    return Chooser(ChooserConfig(selector=selector, **options), Ensemble(members))


def spread_out(count: int) -> np.ndarray:
    """Chunks that lie apart: no two alike."""
    return np.random.default_rng(2).normal(size=(count, 4, 3))


def chosen(selector: str, values: np.ndarray, **options) -> int:
    rng = np.random.default_rng(0)
    return chooser(selector, len(values), **options).choose(spread_out(values.shape[1]), values, None, rng).index


@pytest.mark.parametrize("selector", BY_VALUE)
@given(st.integers(1, 12), st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_a_critic_that_knows_the_truth_has_the_best_taken(selector, count, seed):
    truth = np.random.default_rng(seed).permutation(count).astype(float)
    assert chosen(selector, np.stack([truth, truth]), temperature=0.01) == truth.argmax()


@given(VALUES)
@settings(max_examples=60, deadline=None)
def test_the_ensemble_is_joined_by_the_very_rules_that_targets_are_made_with(values):
    np.testing.assert_array_equal(worth(values, "mean"), aggregate.mean(values))
    np.testing.assert_array_equal(worth(values, "min"), aggregate.minimum(values))
    np.testing.assert_array_equal(worth(values, "lcb", 1.5), aggregate.lcb(values, 1.5))


def test_lcb_prefers_what_all_agree_on_and_argmax_does_not_care():
    values = np.array([[0.0, 2.0, 0.9], [0.0, 0.2, 0.9]])
    assert chosen("argmax", values) == 1
    assert chosen("lcb", values, k=1.0) == 2
    assert chosen("lcb", values, k=0.0) == 1
    assert chosen("argmax", values, aggregate="min") == 2


def test_softmax_draws_in_proportion_to_the_exponential_of_the_values():
    values, rng = np.log(np.array([[1.0, 2.0, 5.0]])), np.random.default_rng(0)
    rule = make_selector("softmax", SelectorOptions(temperature=1.0))
    drawn = np.bincount([select(rule, spread_out(3), values, None, rng).index for _ in range(4000)]) / 4000
    np.testing.assert_allclose(drawn, [1 / 8, 2 / 8, 5 / 8], atol=0.03)


def test_weighted_goes_from_the_best_to_the_medoid_of_all_and_never_leaves_the_samples():
    chunks, values = spread_out(7), np.random.default_rng(0).normal(size=(2, 7))
    central = weighted_medoid(chunks, np.ones(7))
    assert central != values.mean(0).argmax()
    assert chosen("weighted", values, temperature=1e-3) == values.mean(0).argmax()
    assert chosen("weighted", values, temperature=1e6) == central


def test_quantiles_are_asked_for_by_the_one_rule_that_compares_them():
    assert {name: chooser(name, tau=0.2).tau for name in BY_VALUE} == dict.fromkeys(BY_VALUE) | {"quantile": 0.2}


@pytest.mark.parametrize("selector", BY_VALUE)
def test_candidates_or_values_that_are_not_finite_are_never_chosen(selector):
    chunks, values = spread_out(6), np.tile(np.arange(6.0), (3, 1))
    chunks[5, 2, 1] = np.nan
    values[1, 4] = np.inf
    choice = chooser(selector, temperature=0.01).choose(chunks, values, None, np.random.default_rng(0))
    assert choice.index == 3


@pytest.mark.parametrize("selector", SELECTORS)
def test_where_nothing_is_finite_nothing_is_chosen(selector):
    chunks = np.full((3, 4, 2), np.nan)
    assert chooser(selector).choose(chunks, np.zeros((3, 3)), None, np.random.default_rng(0)) is None


@pytest.mark.parametrize("selector", BLIND)
def test_rules_that_read_no_values_choose_the_same_whatever_a_critic_says_and_when(selector):
    """A control arm is one only where the critic beside it has no say: neither by being late nor by its nonsense."""
    chunks, alone = spread_out(8), Chooser(ChooserConfig(selector=selector))
    wanted = alone.choose(chunks, None, None, np.random.default_rng(0))
    for values in (np.zeros((3, 8)), np.zeros((3, 3)), np.full((3, 8), np.nan)):
        assert chooser(selector).choose(chunks, values, None, np.random.default_rng(0)) == wanted


@pytest.mark.parametrize("selector", BY_VALUE)
def test_without_a_word_in_time_the_first_usable_candidate_is_taken(selector):
    chunks = spread_out(3)
    chunks[0] = np.nan
    choice = chooser(selector).choose(chunks, None, None, np.random.default_rng(0))
    assert (choice.index, choice.reason) == (1, "first: no value")


REFUSED = {
    "argmax without a critic": ({"selector": "argmax"}, None, "'argmax' needs a critic; without one there are: first"),
    "lcb with one critic": (
        {"selector": "lcb"},
        Ensemble(1),
        "'lcb' needs an ensemble of at least 2 critics, this one",
    ),
    "a margin with one critic": ({"selector": "argmax", "margin": 1.0}, Ensemble(1), "margin needs an ensemble of"),
    "quantiles of an mse head": ({"selector": "quantile"}, Ensemble(2, False), "'quantile' needs a critic that knows"),
    "no such rule": ({"selector": "best"}, None, "unknown selector 'best'; there are: first, random, medoid, argmax"),
    "no such aggregate": ({"aggregate": "max"}, None, "unknown aggregate 'max'; there are: mean, min"),
    "a temperature of 0": ({"temperature": 0.0}, None, "temperature must be positive"),
    "a negative margin": ({"margin": -1.0}, None, "margin and novelty must not be negative"),
}


@pytest.mark.parametrize(("options", "critic", "line"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_followed_is_refused_in_one_line(options, critic, line):
    with pytest.raises(ValueError, match=line) as refused:
        Chooser(ChooserConfig(**options), critic)
    assert len(str(refused.value).splitlines()) == 1


def test_the_rule_itself_refuses_one_critic_and_none():
    with pytest.raises(ValueError, match="lcb needs an ensemble of 2 or more, this one has 1"):
        select(make_selector("lcb"), spread_out(3), np.zeros((1, 3)), None, np.random.default_rng(0))
    with pytest.raises(ValueError, match="needs a critic's values"):
        select(make_selector("argmax"), spread_out(3), None, None, np.random.default_rng(0))


def kept(gap: float, noise: float, margin: float, members: int = 5, trials: int = 400) -> float:
    """How often the first of two candidates `gap` apart is kept, where the members err independently by `noise`."""
    rng, first = np.random.default_rng(0), 0
    rule = chooser("argmax", members, margin=margin)
    for _ in range(trials):
        values = np.array([0.0, gap]) + rng.normal(0, noise, (members, 2))
        first += rule.choose(spread_out(2), values, None, rng).index == 0
    return first / trials


def test_abstention_follows_how_much_the_ensemble_knows():
    assert kept(gap=10.0, noise=0.1, margin=1.0) == 0.0
    assert kept(gap=10.0, noise=0.1, margin=0.0) == 0.0
    often = [kept(gap, 1.0, margin=1.0) for gap in (0.0, 1.0, 2.0, 4.0)]
    assert often == sorted(often, reverse=True)
    assert often[0] > 0.9 > 0.1 > often[-1]
    assert kept(1.0, 1.0, margin=2.0) > kept(1.0, 1.0, margin=1.0) > kept(1.0, 1.0, margin=0.25)


def test_what_the_members_agree_to_disagree_on_is_no_reason_to_abstain():
    values = np.array([[0.0, 1.0], [50.0, 51.0], [-50.0, -49.0]])
    assert chooser("argmax", margin=2.0).choose(spread_out(2), values, None, np.random.default_rng(0)).index == 1


def test_abstention_means_the_first_usable_candidate_and_says_why():
    chunks, values = spread_out(3), np.array([[0.0, 0.0, 0.5], [0.0, 0.4, -0.4]])
    chunks[0] = np.nan
    choice = chooser("lcb", 2, margin=3.0, k=0.0).choose(chunks, values, None, np.random.default_rng(0))
    assert choice.index == 1
    values = np.array([[0.0, 0.0, 2.0], [0.0, 0.4, -0.1]])
    choice = chooser("lcb", 2, margin=3.0, k=0.0).choose(chunks, values, None, np.random.default_rng(0))
    assert (choice.index, choice.abstained) == (1, "margin")
    assert "within the ensemble's spread" in choice.reason


def test_far_from_the_training_data_the_critic_is_not_followed():
    values = np.array([[0.0, 1.0]] * 3)
    rule, rng = chooser("argmax", novelty=1.5), np.random.default_rng(0)
    assert rule.choose(spread_out(2), values, None, rng, distance=1.4).index == 1
    far = rule.choose(spread_out(2), values, None, rng, distance=1.6)
    assert (far.index, far.abstained) == (0, "novel")
    assert rule.choose(spread_out(2), values, None, rng).index == 1, "an unknown distance is no distance"
    blind = chooser("medoid", novelty=1.0).choose(spread_out(5), np.zeros((3, 5)), None, rng, distance=99.0)
    assert not blind.abstained


def test_abstention_is_off_by_default():
    assert abstention(ChooserConfig(), np.array([[0.0, 1e-9], [0.0, -1e-9]]), 1, 0, distance=1e9) == ""
