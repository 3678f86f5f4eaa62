"""Ensembles of overlapping chunks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vla_rl.execute.ensemble import adaptive_ensemble, predictions_for, temporal_ensemble

PREDICTIONS = arrays(np.float64, st.tuples(st.integers(1, 6), st.just(3)), elements=st.floats(-10, 10))


@given(PREDICTIONS, st.floats(0, 1))
def test_an_ensemble_lies_within_its_members(predictions: np.ndarray, weight: float) -> None:
    for action in (temporal_ensemble(predictions, weight), adaptive_ensemble(predictions, weight)):
        assert (action >= predictions.min(0) - 1e-9).all()
        assert (action <= predictions.max(0) + 1e-9).all()


def test_the_temporal_ensemble_trusts_the_oldest_most() -> None:
    weights = np.exp(-0.5 * np.arange(3))
    action = temporal_ensemble(np.eye(3), decay=0.5)
    np.testing.assert_allclose(action, weights / weights.sum())


def test_the_adaptive_ensemble_trusts_those_that_agree_with_the_newest() -> None:
    newest, same, opposite = np.array([1.0, 0]), np.array([1.0, 0]), np.array([-1.0, 0])
    action = adaptive_ensemble(np.stack([opposite, same, newest]), alpha=1.0)
    w = np.exp([-1.0, 1, 1])
    np.testing.assert_allclose(action[0], (w * [-1, 1, 1]).sum() / w.sum(), rtol=1e-5)


def test_only_chunks_that_cover_a_step_speak_about_it() -> None:
    chunks = [np.arange(4.0)[:, None], 10 + np.arange(4.0)[:, None], 20 + np.arange(4.0)[:, None]]
    assert predictions_for(4, [0, 2, 4], chunks)[:, 0].tolist() == [12, 20]
    with pytest.raises(ValueError, match="no chunk covers step 9"):
        predictions_for(9, [0, 2, 4], chunks)
