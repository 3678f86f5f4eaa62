"""Ranking a policy's chunks beside a demonstration: what the term measures, and that a critic learns from it."""

import numpy as np
import pytest
import torch

from vla_rl.data.trajectories import Trajectories
from vla_rl.data.transitions import ChunkTransitions, TransitionConfig
from vla_rl.learn.critic_config import CriticRunConfig
from vla_rl.learn.ranking import chunk_errors, ranking_accuracy, ranking_loss
from vla_rl.learn.value import make_algorithm

ROWS, K, WINDOW = 400, 6, 2


def episodes(demonstrated, rng, goal):
    """One-step problems: the shown chunk is a function of the features, the policy's are noise around it."""
    features = rng.normal(size=(ROWS, 2)).astype(np.float32)
    action = goal(features)[:, None].astype(np.float32)
    candidates = action[:, None, None] + rng.normal(size=(ROWS, K, WINDOW, 1)).astype(np.float32)
    made = {"features": features, "action": action, "reward": rng.integers(2, size=ROWS), "done": np.ones(ROWS, bool)}
    return Trajectories.of(**made, candidates=candidates, demonstrated=np.full(ROWS, demonstrated))


def learned(sets, steps=300, **options):
    torch.manual_seed(0)
    config = CriticRunConfig(algo="iql", rank=1.0, width=64, ensemble=1, low=-1.0, high=1.0, batch=64, **options)
    data = ChunkTransitions(sets, TransitionConfig(WINDOW, 0.9, ends="pad", candidates="some"))
    algorithm = make_algorithm(config, data, np.arange(len(data)))
    optimizer = torch.optim.Adam([p for p in algorithm.parameters() if p.requires_grad], lr=3e-3)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        optimizer.zero_grad()
        algorithm(data.batch(rng.integers(len(data), size=64)))[0].backward()
        optimizer.step()
    return algorithm, data


def test_errors_count_what_was_executed_in_units_of_its_spread():
    chunk, candidates = torch.zeros(1, 3, 2), torch.zeros(1, 2, 4, 2)
    candidates[0, 1] = torch.tensor([[2.0, 0.0], [2.0, 0.0], [90.0, 90.0], [90.0, 90.0]])
    valid = torch.tensor([[True, True, False]])
    assert chunk_errors(candidates, chunk, valid, torch.tensor([2.0, 1.0])).tolist() == [[0.0, 0.5]]


def test_the_loss_is_least_where_values_differ_as_the_logarithms_of_the_errors_do():
    errors = torch.tensor([[0.1, 0.2, 0.4, 0.8]])
    best = -0.05 * (errors + 1e-3).log()
    weight = torch.ones(1)
    assert float(ranking_loss(best[None] + 3.0, errors, 0.05, weight)) == pytest.approx(0.0, abs=1e-8)
    assert float(ranking_loss(-best[None], errors, 0.05, weight)) > float(
        ranking_loss(torch.zeros(1, 1, 4), errors, 0.05, weight)
    )


def test_rows_without_weight_say_nothing_not_even_by_values_that_are_not_finite_in_size():
    errors, weight = torch.rand(2, 3), torch.tensor([1.0, 0.0])
    values = torch.rand(1, 2, 3)
    loud = values.clone()
    loud[:, 1] *= 1e6
    assert ranking_loss(values, errors, 0.1, weight) == ranking_loss(loud, errors, 0.1, weight)
    assert float(ranking_loss(values, errors, 0.1, torch.zeros(2))) == 0.0
    assert float(ranking_accuracy(values, errors, torch.zeros(2))) == 0.0


def test_a_critic_orders_chunks_it_never_saw_by_their_distance_to_what_would_be_shown():
    """Without the term nothing tells the chunks of these episodes apart: what they earn is chance."""
    goal = lambda features: features[:, 0] - features[:, 1]  # noqa: E731
    algorithm, _ = learned([episodes(True, np.random.default_rng(1), goal)])
    fresh = ChunkTransitions(
        [episodes(True, np.random.default_rng(2), goal)], TransitionConfig(WINDOW, 0.9, ends="pad", candidates="some")
    )
    batch = fresh.batch(np.arange(len(fresh)))
    values = algorithm.critic.value(algorithm.critic.embed(batch.features, batch.state), batch.candidates)
    errors = chunk_errors(batch.candidates, batch.chunk, batch.valid, torch.ones(1))
    assert float(ranking_accuracy(values, errors, torch.ones(len(batch)))) > 0.9


def test_rows_that_the_policy_drove_are_not_ranked():
    goal = lambda features: features[:, 0]  # noqa: E731
    rng = np.random.default_rng(3)
    shown, driven = episodes(True, rng, goal), episodes(False, rng, goal)
    algorithm, data = learned([shown, driven], steps=1)
    batch = data.batch(np.arange(len(data)))
    assert batch.demonstrated.tolist() == [True] * ROWS + [False] * ROWS
    own = data.batch(np.arange(ROWS))
    algorithm.eval()
    torch.testing.assert_close(algorithm.ranking(batch)[0], algorithm.ranking(own)[0])


def test_ranking_without_demonstrations_is_refused():
    with pytest.raises(ValueError, match="--rank needs demonstrations or corrections"):
        learned([episodes(False, np.random.default_rng(4), lambda f: f[:, 0])], steps=0)
