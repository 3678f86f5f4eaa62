import contextlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vla_rl.learn.ema import Ema
from vla_rl.learn.schedule import Budget, learning_rate

fractions = st.floats(0, 1)


@given(st.integers(0, 10**6), fractions, st.integers(0, 1000))
def test_rate_is_positive_and_never_above_the_peak(step, fraction, warmup):
    assert 0 < learning_rate(step, fraction, 3e-4, warmup) <= 3e-4


def test_warm_up_rises_linearly_to_the_peak():
    rates = [learning_rate(step, 0.0, 1.0, 10) for step in range(12)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10:] == [1.0, 1.0]


@given(fractions, fractions)
def test_after_warm_up_the_rate_only_falls(a, b):
    early, late = sorted((a, b))
    assert learning_rate(10**6, early, 1.0, 100) >= learning_rate(10**6, late, 1.0, 100)


def test_rate_ends_at_the_floor_and_is_half_way_in_the_middle():
    assert learning_rate(100, 1.0, 1.0, 0, floor=0.1) == pytest.approx(0.1)
    assert learning_rate(100, 0.5, 1.0, 0, floor=0.1) == pytest.approx(0.55)


def test_a_budget_ends_with_whichever_limit_comes_first():
    assert Budget(100, None).fraction(50, 1e9) == 0.5
    assert Budget(None, 60).fraction(10**9, 30) == 0.5
    both = Budget(100, 60)
    assert both.fraction(50, 6) == 0.5
    assert both.fraction(5, 54) == 0.9
    assert both.fraction(500, 0) == 1.0


def test_ema_is_the_weighted_sum_of_all_past_weights():
    model = nn.Linear(1, 1, bias=False)
    ema, expected = Ema(model, 0.5), float(model.weight)
    for step in range(10):
        with torch.no_grad():
            model.weight.fill_(float(step))
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert float(ema.shadow[0]) == pytest.approx(expected)


def test_ema_of_constant_weights_is_those_weights():
    model = nn.Linear(3, 3)
    ema = Ema(model, 0.999)
    for step in range(100):
        ema.update(step)
    assert torch.equal(ema.shadow[0], model.weight)


def test_ema_without_decay_follows_exactly():
    model = nn.Linear(2, 2)
    ema = Ema(model, 0.0)
    nn.init.ones_(model.weight)
    ema.update(0)
    assert torch.equal(ema.shadow[0], model.weight)


def test_averaged_weights_are_applied_and_taken_back_even_after_an_error():
    model = nn.Linear(2, 2)
    ema, raw = Ema(model, 0.9), model.weight.detach().clone()
    ema.shadow[0] = torch.zeros(2, 2)
    with ema.applied():
        assert not model.weight.any()
    with contextlib.suppress(OSError), ema.applied():
        raise OSError("disk full")
    assert torch.equal(model.weight, raw)
    assert not ema.shadow[0].any()


def test_frozen_weights_are_left_out_of_the_average():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    assert len(Ema(model, 0.9).shadow) == 2


@pytest.mark.parametrize("decay", [-0.1, 1.0, math.inf])
def test_an_impossible_decay_is_refused(decay):
    with pytest.raises(ValueError, match="ema decay"):
        Ema(nn.Linear(1, 1), decay)
