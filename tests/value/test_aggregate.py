"""Pessimism: the same functions on tensors (TD targets) and arrays (steering), and no bound from an ensemble of one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vla_rl.value.aggregate import AGGREGATES, lcb, make_aggregate, mean, minimum, random_subset_min, std

VALUES = arrays(np.float64, st.tuples(st.integers(2, 5), st.integers(1, 6)), elements=st.floats(-50, 50))


@settings(max_examples=40, deadline=None)
@given(VALUES, st.sampled_from(AGGREGATES))
def test_tensors_and_arrays_get_the_same_answer(values: np.ndarray, name: str) -> None:
    ours, theirs = (make_aggregate(name, len(values), k=0.7, rng=np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_allclose(ours(torch.tensor(values)).numpy(), theirs(values), rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(VALUES)
def test_pessimism_has_its_order(values: np.ndarray) -> None:
    drawn = random_subset_min(values, np.random.default_rng(0))
    assert (minimum(values) <= drawn).all()
    assert (drawn <= values.max(0)).all()
    assert (lcb(values, 1.0) <= mean(values) + 1e-9).all()
    np.testing.assert_allclose(lcb(values, 0.0), mean(values))
    np.testing.assert_array_equal(random_subset_min(values, np.random.default_rng(0), len(values)), minimum(values))


def test_the_bound_of_two_critics_is_their_minimum() -> None:
    values = np.array([[1.0, -3.0], [4.0, 2.0]])
    np.testing.assert_allclose(lcb(values, 1.0), values.min(0))
    np.testing.assert_allclose(std(values), [1.5, 2.5])


def test_every_pair_of_members_is_drawn_sooner_or_later() -> None:
    values, rng = np.arange(4.0)[:, None], np.random.default_rng(0)
    assert {float(random_subset_min(values, rng)[0]) for _ in range(60)} == {0.0, 1.0, 2.0}


@pytest.mark.parametrize("name", ["lcb", "random-subset-min"])
def test_an_ensemble_of_one_has_no_spread_and_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} needs an ensemble of 2 or more, this one has 1: take min or mean"):
        make_aggregate(name, 1)
    with pytest.raises(ValueError, match="needs an ensemble of 2 or more, this one has 1"):
        lcb(np.zeros((1, 8)))


def test_an_unknown_aggregate_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match="unknown aggregate 'max'; there are: min, mean, lcb, random-subset-min"):
        make_aggregate("max", 2)
