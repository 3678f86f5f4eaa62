"""Critics that learn from corrections: HIL-SERL's halves and backup, PVP's proxy values, EXPO's edits."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import arrays
from mdps import CARD, GAMMA, World, learn, settings_of, transitions

from vla_rl.data.trajectories import Trajectories
from vla_rl.data.transitions import ChunkTransitions, TransitionConfig
from vla_rl.learn.expo import EDIT, Expo, load_edit, save_edit
from vla_rl.learn.hil_serl import half_and_half
from vla_rl.learn.qc import QC
from vla_rl.learn.value import CriticLearner, Source
from vla_rl.policy.weights import CheckpointError

LINE = World((6,), window=2)


def learner(out, data, **options):
    return CriticLearner(settings_of(out, **{"batch": 64, "width": 16, **options}), Source(data, CARD))


flags = arrays(bool, 12)


@given(flags, flags)
def test_corrections_are_in_both_halves_of_every_batch(session, human):
    human = human & session
    if not session.any():
        with pytest.raises(ValueError, match="no transition is left of the sessions"):
            half_and_half(session, human)
        return
    weight = half_and_half(session, human)
    assert weight.sum() == pytest.approx(1.0)
    shown = ~session | human
    if shown.any():
        assert weight[session].sum() == pytest.approx(0.5 + 0.5 * (human.sum() / shown.sum()))
        if human.any() and (session & ~human).any():
            assert weight[human].min() > weight[session & ~human].max()


def test_sessions_take_their_half_of_the_drawn_batches(tmp_path):
    shown, driven = (transitions(LINE.record(n, seed=n), 2, LINE.goal, LINE.chunks).sets[0] for n in (90, 10))
    driven = Trajectories(**{**vars(driven), "intervention": np.arange(len(driven)) % 20 < 6})
    data = ChunkTransitions([shown, driven], TransitionConfig(2, GAMMA, 0, "pad", "both"))
    found = learner(tmp_path, data, algo="hil_serl", ensemble=3, sessions=1)
    rows = np.concatenate([found._indices(step) for step in range(40)])
    session, human = data.owner[rows] == 1, data.human[rows]
    expected = 0.5 + 0.5 * data.human.sum() / ((data.owner == 0) | data.human).sum()
    assert session.mean() == pytest.approx(expected, abs=0.03)
    assert human.any()
    with pytest.raises(ValueError, match="and no --mix"):
        learner(tmp_path, data, algo="hil_serl", ensemble=3, sessions=1, mix=(1.0, 1.0))


def test_hil_serl_values_the_policy_that_offers_the_chunks(tmp_path):
    """One drawn chunk backs up on average what the policy earns, not what the best chunk would."""
    data = transitions(LINE.record(150), 2, LINE.goal, LINE.chunks)
    options = {"algo": "hil_serl", "aggregate": "mean", "steps": 900, "tau": 0.05, "lr": 4e-3, "head": "mse"}
    algorithm = learn(data, tmp_path / "run", **options)
    exact, _ = LINE.solve(np.mean)
    best, _ = LINE.solve(np.max)
    with torch.no_grad():
        context = algorithm.target.embed(torch.eye(LINE.goal), torch.zeros(LINE.goal, 0))
        found = algorithm.target.value(context, torch.from_numpy(LINE.chunks).expand(LINE.goal, -1, -1, -1)).mean(0)
    shown = LINE.possible()
    error = np.abs(found.numpy() - exact)[shown]
    assert error.mean() < 0.05
    assert error.mean() < np.abs(found.numpy() - best)[shown].mean()


def corrected_line():
    """Episodes that go right to the goal; a human drove in the last two cells, where the policy wanted to go left."""
    rows = {name: [] for name in ("state", "action", "reward", "done", "truncated")}
    for start in list(range(LINE.goal)) * 30:
        for cell in range(start, LINE.goal):
            over = cell == LINE.goal - 1
            for name, value in zip(rows, (cell, LINE.moves[1], float(over), over, False), strict=True):
                rows[name].append(value)
    left = np.repeat(LINE.moves[None, :1], 2, 1)
    human = np.array(rows["state"]) >= LINE.goal - 2
    return transitions(rows, 2, LINE.goal, left, intervention=human)


def test_pvp_prefers_the_human_to_the_overruled_and_carries_it_to_where_nobody_intervened(tmp_path):
    """At an episode's end the human's 1 meets a time difference of 0, half way; the overruled have the -1 alone."""
    algorithm = learn(corrected_line(), tmp_path / "run", algo="pvp", steps=500, head="mse", aggregate="mean")
    right, left = (np.repeat(LINE.moves[None, i : i + 1], 2, 1) for i in (1, 0))
    chunks = torch.from_numpy(np.concatenate([right, left])).expand(LINE.goal, -1, -1, -1)
    with torch.no_grad():
        context = algorithm.target.embed(torch.eye(LINE.goal), torch.zeros(LINE.goal, 0))
        values = algorithm.target.value(context, chunks).mean(0).numpy()
    assert values[-2:, 0] == pytest.approx(0.5, abs=0.1)
    assert values[-2:, 1] == pytest.approx(-1.0, abs=0.1)
    assert values[1, 0] == pytest.approx(GAMMA**2 * -1.0, abs=0.25)  # the policy it goes on with wants to go left
    assert algorithm.critic.config.support.low == pytest.approx(-1.2)


def test_pvp_learns_nothing_of_rewards(tmp_path):
    rich, poor = corrected_line(), corrected_line()
    rich.sets[0].reward[:] = 5.0
    rich = ChunkTransitions(rich.sets, rich.config)
    losses = [learner(tmp_path, d, algo="pvp", holdout=0.0).algorithm for d in (rich, poor)]
    torch.manual_seed(0)
    one = losses[0](rich.batch(np.arange(32)))[0]
    torch.manual_seed(0)
    assert torch.equal(one, losses[1](poor.batch(np.arange(32)))[0])


def expo(tmp_path, **options):
    data = transitions(LINE.record(60), 2, LINE.goal, LINE.chunks[:2])
    return data, learner(tmp_path, data, algo="expo", ensemble=3, edit=0.3, **options).algorithm


def test_an_edit_is_small_and_nothing_at_first_but_chance(tmp_path):
    data, algorithm = expo(tmp_path)
    batch = data.batch(np.arange(16))
    edits, density = algorithm.edit(batch.features, batch.state, torch.zeros(16, 4, 2, 1))
    assert edits.shape == (16, 4, 2, 1)
    assert edits.abs().max() <= 0.3
    assert edits.mean().abs() < 0.1
    assert density.shape == (16, 4)


def test_edits_climb_the_critic_and_leave_it_as_it_is(tmp_path):
    data, algorithm = expo(tmp_path)
    batch = data.batch(np.arange(64))
    before = [p.detach().clone() for p in algorithm.critic.parameters()]
    optimizer = torch.optim.Adam(algorithm.edit.parameters(), lr=1e-2)
    gains = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = algorithm.edit_loss(batch)
        loss.backward()
        optimizer.step()
        gains.append(float(loss.detach()))
    assert np.mean(gains[-20:]) < np.mean(gains[:20])
    assert all(p.grad is None for p in algorithm.critic.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, algorithm.critic.parameters(), strict=True))


def test_the_backup_takes_the_best_of_chunks_and_edits(tmp_path):
    data, algorithm = expo(tmp_path, aggregate="mean")
    batch = data.batch(np.arange(64))
    plain = QC(algorithm.config, algorithm.critic, None)
    plain.rule = algorithm.rule
    with torch.no_grad():
        assert (algorithm.following(batch).value >= plain.following(batch).value - 1e-5).all()


def test_edits_are_kept_beside_their_critic(tmp_path):
    data, algorithm = expo(tmp_path)
    with torch.no_grad():
        for weight in algorithm.edit.parameters():
            weight.add_(torch.randn_like(weight))
    save_edit(tmp_path, algorithm.edit)
    again = load_edit(tmp_path, algorithm.critic)
    assert again.scale == 0.3
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), algorithm.edit.parameters(), strict=True))
    assert load_edit(tmp_path / "none", algorithm.critic) is None
    other = Expo(algorithm.config, learner(tmp_path, data, algo="expo", ensemble=3, width=24).algorithm.critic, None)
    with pytest.raises(CheckpointError):
        load_edit(tmp_path, other.critic)
    whole = (tmp_path / EDIT).read_bytes()
    for damaged in (b"", whole[:20], b"no edits" * 100, whole.replace(b'"scale"', b'"scala"')):
        (tmp_path / EDIT).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"edit\.safetensors holds no edits"):
            load_edit(tmp_path, algorithm.critic)
