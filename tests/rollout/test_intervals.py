import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from vla_rl.rollout.statistics import mcnemar, paired, wilson

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
outcomes = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(counts)
def test_wilson_interval_is_scipys(count):
    successes, trials = count
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(counts)
def test_wilson_interval_holds_the_rate_and_mirrors_when_failures_are_counted(count):
    successes, trials = count
    low, high = wilson(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    assert wilson(trials - successes, trials) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_wilson_interval_of_no_trials_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


def test_wilson_refuses_more_successes_than_trials():
    with pytest.raises(ValueError, match="5 successes of 3 trials"):
        wilson(5, 3)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(a, b):
    expected = binomtest(a, a + b, 0.5).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected)


@given(outcomes)
def test_swapping_the_two_policies_swaps_the_comparison(pairs):
    first, second = map(list, zip(*pairs, strict=True))
    here, there = paired(first, second), paired(second, first)
    assert here.difference == -there.difference
    assert (here.only_first, here.only_second, here.both) == (there.only_second, there.only_first, there.both)
    assert here.p_value == there.p_value
    assert here.ci95[0] <= here.difference <= here.ci95[1] or here.pairs < 10


def test_bootstrap_of_counts_agrees_with_resampling_the_pairs_themselves():
    rng = np.random.default_rng(3)
    first, second = rng.random(80) < 0.7, rng.random(80) < 0.5
    picks = rng.integers(0, 80, (10_000, 80))
    differences = (first[picks].astype(float) - second[picks]).mean(axis=1)
    assert paired(first.tolist(), second.tolist()).ci95 == pytest.approx(
        np.quantile(differences, [0.025, 0.975]), abs=0.02
    )


def test_comparing_different_episodes_is_refused():
    with pytest.raises(ValueError, match="same episodes"):
        paired([True], [True, False])
