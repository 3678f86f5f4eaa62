import itertools
import threading

import pytest
import torch
from torch import nn

from vla_rl.learn.feed import ahead, step_seed
from vla_rl.learn.guard import FiniteGuard


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_batches_come_in_order_from_the_step_asked_for(depth):
    feed = ahead(lambda step: step * 10, 5, depth)
    assert list(itertools.islice(feed, 4)) == [50, 60, 70, 80]
    feed.close()


def test_batches_are_made_in_another_thread_and_it_ends_with_the_feed():
    feed = ahead(lambda step: threading.current_thread().name, 0, 2)
    assert next(feed).startswith("batches")
    feed.close()
    for thread in threading.enumerate():
        if thread.name.startswith("batches"):
            thread.join(timeout=5)
            assert not thread.is_alive()


def test_an_error_comes_out_where_its_batch_was_due():
    def make(step):
        if step == 2:
            raise KeyError("frame")
        return step

    feed = ahead(make, 0, 2)
    assert [next(feed), next(feed)] == [0, 1]
    with pytest.raises(KeyError, match="frame"):
        next(feed)


def test_seeds_are_stable_and_all_different():
    seeds = [step_seed(s, t, r, u) for s in range(3) for t in range(20) for r in range(2) for u in range(2)]
    assert len(set(seeds)) == len(seeds)
    assert step_seed(1, 2, 3, 4) == step_seed(1, 2, 3, 4) < 2**63


def guarded(**settings):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    return model, optimizer, FiniteGuard(optimizer, torch.device("cpu"), **settings)


def step(model, optimizer, guard, number, scale=1.0):
    loss = model(torch.ones(2, 3)).square().mean() * scale
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    guard.check(number, loss, norm)
    optimizer.step()


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_bad_step_leaves_weights_and_moments_bit_for_bit_as_they_were(poison):
    model, optimizer, guard = guarded()
    step(model, optimizer, guard, 0)
    weights = [p.detach().clone() for p in model.parameters()]
    moments = [{k: v.clone() for k, v in optimizer.state[p].items()} for p in model.parameters()]
    step(model, optimizer, guard, 1, poison)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    for saved, p in zip(moments, model.parameters(), strict=True):
        assert all(torch.equal(saved[k], v) for k, v in optimizer.state[p].items())
    step(model, optimizer, guard, 2)
    assert not torch.equal(weights[0], model.weight)


def test_rows_of_bad_steps_are_counted_on():
    model, optimizer, guard = guarded(skipped=5, streak=2)
    for number, scale in enumerate([float("nan"), 1.0, float("nan"), float("nan"), 1.0]):
        step(model, optimizer, guard, number, scale)
    assert int(guard.skipped) == 8
    assert int(guard.longest) == 3
    assert int(guard.streak) == 0
    assert int(guard.last_bad) == 3
