"""Every critic learner against the exact values of a small problem with chunked actions, through the training loop."""

import numpy as np
import pytest
import torch
from mdps import World, expectile, learn, q_table, transitions, v_table

LINE = World((6,), window=2)
GRID = World((3, 3), window=2)
TAU = 0.9
TOLERANCE = 0.08  # of values in [0, 1]


def error(algorithm, world, wanted):
    """The largest error of Q over chunks that the data can show."""
    found = q_table(algorithm, world.goal, world.chunks)
    return np.abs(found - wanted)[world.possible()].max()


@pytest.mark.parametrize("algo", ["iql", "idql"])
@pytest.mark.parametrize("head", ["mse", "hl-gauss"])
def test_expectile_learners_land_on_the_expectile_fixed_point(tmp_path, algo, head):
    q, v = LINE.solve(lambda row: expectile(row, TAU))
    data = transitions(LINE.record(), 2, LINE.goal)
    found = learn(data, tmp_path / "run", algo=algo, head=head, expectile=TAU)
    assert error(found, LINE, q) < TOLERANCE
    assert np.abs(v_table(found, LINE.goal) - v).max() < TOLERANCE


@pytest.mark.parametrize("algo", ["qc", "cql", "calql"])
def test_best_of_n_learners_land_on_the_optimal_values(tmp_path, algo):
    q, _ = LINE.solve(np.max)
    data = transitions(LINE.record(), 2, LINE.goal, LINE.chunks)
    found = learn(data, tmp_path / "run", algo=algo, alpha=0.003)
    assert error(found, LINE, q) < TOLERANCE


def test_the_mean_backup_evaluates_the_policy_instead_of_improving_it(tmp_path):
    steps = World((6,), window=1)
    q, _ = steps.solve(np.mean)
    data = transitions(steps.record(), 1, steps.goal, steps.chunks)
    assert error(learn(data, tmp_path / "run", algo="qc", backup="mean"), steps, q) < TOLERANCE


def test_monte_carlo_lands_on_the_mean_of_the_returns_that_followed(tmp_path):
    data = transitions(LINE.record(), 2, LINE.goal)
    found = learn(data, tmp_path / "run", algo="monte_carlo")
    batch = data.batch(np.arange(len(data)))
    cell = batch.features.argmax(1).numpy()
    means = [batch.mc_return.numpy()[cell == c].mean() for c in range(LINE.goal)]
    assert np.abs(v_table(found, LINE.goal) - means).max() < TOLERANCE


@pytest.mark.parametrize("algo", ["td3bc", "rebrac"])
def test_deterministic_actors_leave_the_datas_mean_for_the_better_side(tmp_path, algo):
    data = transitions(LINE.record(), 2, LINE.goal)
    found = learn(data, tmp_path / "run", algo=algo, actor_bc=0.1, critic_bc=0.001, actor_noise=0.05)
    with torch.no_grad():
        chunk = found.actor(torch.eye(LINE.goal), torch.zeros(LINE.goal, 0))
        moves = found.critic.chunk.denormalize(chunk)
    q, _ = LINE.solve(np.max)
    assert (moves[:, 0] > 0.5).all()  # the data's mean is 0
    assert error(found, LINE, q) < 4 * TOLERANCE  # of an actor that may lie between two moves


def test_a_grid_with_sixteen_chunks_is_solved(tmp_path):
    q, _ = GRID.solve(np.max)
    data = transitions(GRID.record(400), 2, GRID.goal, GRID.chunks)
    found = q_table(learn(data, tmp_path / "run", algo="qc", samples=16), GRID.goal, GRID.chunks)
    chosen = np.where(GRID.possible(), found, -1).argmax(1)
    assert (q[np.arange(GRID.goal), chosen] > q.max(1) - 1e-6).all()


def test_a_larger_ensemble_with_redqs_pessimism_lands_there_too(tmp_path):
    q, _ = LINE.solve(np.max)
    data = transitions(LINE.record(), 2, LINE.goal, LINE.chunks)
    found = learn(data, tmp_path / "run", algo="qc", ensemble=4, aggregate="random-subset-min")
    assert error(found, LINE, q) < TOLERANCE
