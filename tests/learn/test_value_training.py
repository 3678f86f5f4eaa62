"""The critics' learner in the training loop: what is held out, saved, resumed and drawn."""

import shutil

import numpy as np
import pytest
import torch
from mdps import CARD, GAMMA, World, learn, settings_of, transitions
from safetensors.torch import load_file

from vla_rl.data.sidecars import write_column
from vla_rl.data.transitions import ChunkTransitions
from vla_rl.learn.algorithms import ALGORITHMS
from vla_rl.learn.bc import newest
from vla_rl.learn.checkpoint import resolve
from vla_rl.learn.critic_shape import value_support
from vla_rl.learn.shares import episode_of, sampling_weights
from vla_rl.learn.value import (
    CriticLearner,
    Source,
    train_value,
)
from vla_rl.value.checkpoint import load_critic
from vla_rl.value.support import Support

LINE = World((6,), window=2)


def data(**changes):
    return transitions(LINE.record(30), 2, LINE.goal, LINE.chunks, **changes)


@pytest.mark.parametrize("algo", list(ALGORITHMS))
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, algo):
    """Targets, delayed actors, statistics and the ensemble's chance all come back."""
    options = {"algo": algo, "steps": 12, "checkpoint_interval": 5, "ensemble": 3, "width": 16, "lr": 1e-2}
    options |= {"aggregate": "random-subset-min", "holdout": 0.2}
    learn(data(), tmp_path / "whole", **options)
    shutil.copytree(tmp_path / "whole", tmp_path / "again", symlinks=True)
    for later in ("step-000010", "step-000012"):
        shutil.rmtree(tmp_path / "again/checkpoints" / later)
    learn(data(), tmp_path / "again", **options, resume=True)
    one, two = (newest(tmp_path / name).path for name in ("whole", "again"))
    assert one.name == two.name == "step-000012"
    for name in ("critic.safetensors", "training_state.safetensors"):
        first, second = load_file(one / name), load_file(two / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[k].nan_to_num(), second[k].nan_to_num()) for k in first)


def test_what_is_saved_is_the_target_network_with_all_that_serving_needs(tmp_path):
    trained = learn(data(), tmp_path / "run", algo="iql", steps=20, holdout=0.2)
    folder = resolve(tmp_path / "run")
    found = load_critic(folder)
    assert (found.card["algorithm"], found.card["steps"], found.card["policy_type"]) == ("iql", 20, "vla_rl")
    assert found.card["training"]["expectile"] == 0.7
    features, state = torch.eye(LINE.goal), torch.zeros(LINE.goal, 0)
    chunks = torch.from_numpy(LINE.chunks).expand(LINE.goal, -1, -1, -1)
    with torch.no_grad():
        served = found.critic.value(found.critic.embed(features, state), chunks)
        target = trained.target.value(trained.target.embed(features, state), chunks)
        online = trained.critic.value(trained.critic.embed(features, state), chunks)
        assert torch.equal(found.value(features, state), trained.value(features, state))
    assert torch.equal(served, target)
    assert not torch.equal(served, online)


def test_held_out_episodes_are_never_drawn_and_score_the_ranking(tmp_path):
    learner = CriticLearner(settings_of(tmp_path, algo="monte_carlo", holdout=0.3), Source(data(), CARD))
    drawn = np.concatenate([learner._indices(step) for step in range(40)])
    owner = episode_of(learner.data)
    assert not set(owner[drawn]) & set(owner[learner.held])
    assert len(set(owner[learner.held])) == 9
    assert 0.0 <= learner.score() <= 2.0


def test_a_good_critic_scores_better_than_an_untrained_one(tmp_path):
    fresh = CriticLearner(settings_of(tmp_path, algo="monte_carlo", holdout=0.3), Source(data(), CARD)).score()
    learn(data(), tmp_path / "run", algo="monte_carlo", holdout=0.3, steps=200)
    assert newest(tmp_path / "run").record["score"] < min(fresh, 0.7)  # of noisy returns


def test_a_batch_is_a_pure_function_of_its_step_and_processes_share_it(tmp_path):
    config = settings_of(tmp_path, algo="iql", batch=8)
    one = CriticLearner(config, Source(data(), CARD))
    assert torch.equal(one.batch(3).index, one.batch(3).index)
    assert not torch.equal(one.batch(3).index, one.batch(4).index)
    halves = [CriticLearner(config, Source(data(), CARD), rank=r, world=2)._indices(3) for r in (0, 1)]
    assert [len(h) for h in halves] == [8, 8]


def test_sets_have_the_share_of_every_batch_that_the_mix_gives_them(tmp_path):
    few, many = data().sets[0], transitions(LINE.record(90, seed=1), 2, LINE.goal, LINE.chunks).sets[0]
    both = ChunkTransitions([few, many], data().config)
    learner = CriticLearner(settings_of(tmp_path, algo="iql", batch=64, mix=(1.0, 1.0)), Source(both, CARD))
    for step in range(5):
        assert (learner.batch(step).index < len(few)).sum() == 32  # RLPD's half and half, however large the sets


def test_held_out_episodes_take_nothing_of_a_sets_share(tmp_path):
    """A few long episodes are held out of one set or the other: its share is of what is left all the same."""
    few, many = (transitions(LINE.record(n, seed=n), 2, LINE.goal, LINE.chunks).sets[0] for n in (3, 40))
    both = ChunkTransitions([few, many], data().config)
    for seed in range(20):
        config = settings_of(tmp_path, algo="iql", batch=64, mix=(1.0, 1.0), holdout=0.2, seed=seed)
        learner = CriticLearner(config, Source(both, CARD))
        of_few = learner.held[both.owner == 0]
        if of_few.any() and not of_few.all():
            break
    assert of_few.any()
    for step in range(5):
        assert (learner.batch(step).index < len(few)).sum() == 32


def test_a_set_that_is_held_out_as_a_whole_has_no_share_to_give(tmp_path):
    few, many = (transitions(LINE.record(n, seed=n), 2, LINE.goal, LINE.chunks).sets[0] for n in (1, 9))
    both = ChunkTransitions([few, many], data().config)
    rows = np.flatnonzero(both.owner == 1)
    with pytest.raises(ValueError, match="--mix gives data set 0 a share of 1, but no transition of it is left"):
        sampling_weights(both, settings_of(tmp_path, mix=(1.0, 1.0)), rows)
    assert sampling_weights(both, settings_of(tmp_path, mix=(0.0, 1.0)), rows).sum() == pytest.approx(1.0)
    with pytest.raises(ValueError, match=r"no transition is left of the sessions: .* held out"):
        sampling_weights(both, settings_of(tmp_path, sessions=1), np.flatnonzero(both.owner == 0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"head": "hl_gauss"}, "unknown value head 'hl_gauss'; there are: mse, two-hot, hl-gauss"),
        ({"chunk_encoder": "rnn"}, "unknown chunk_encoder 'rnn'; there are: mlp, transformer"),
        ({"aggregate": "max"}, "unknown aggregate 'max'; there are: min"),
        ({"aggregate": "lcb", "ensemble": 1}, "lcb needs an ensemble of 2 or more"),
        ({"layer": "last"}, "unknown layer 'last'; there are: pooled"),
        ({"bins": 1}, "2 bins or more, not 1"),
        ({"gamma": 1.5}, "gamma lies in"),
        ({"algo": "calql"}, "calql needs Monte-Carlo returns: .*dataset reward`, and give their --reward TAG"),
    ],
)
def test_a_critic_that_cannot_be_is_refused_before_any_data_is_read(tmp_path, monkeypatch, changes, said):
    monkeypatch.setattr("vla_rl.learn.value.load_source", lambda *asked: pytest.fail("data was read"))
    with pytest.raises(ValueError, match=said):
        train_value(settings_of(tmp_path / "run", data=("set",), policy="policy", **changes))


@pytest.mark.parametrize("value", [-1, float("nan")])
@pytest.mark.parametrize("name", ["rank", "alpha", "uniform", "stride", "n_step", "actor_noise", "edit"])
def test_what_would_be_turned_around_by_its_sign_is_refused(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name} must not be negative, got {value}"):
        settings_of(tmp_path, **{name: value})


@pytest.mark.parametrize(("value", "said"), [(float("nan"), "positive"), (0, "positive"), (5, "at most 1")])
def test_a_target_that_would_not_follow_is_refused(tmp_path, value, said):
    """Beyond 1 the target is as far on the other side: it ran off to infinity in fifty steps."""
    with pytest.raises(ValueError, match=f"tau must be {said}, got {value}"):
        settings_of(tmp_path, tau=value)


def test_support_follows_rewards_and_discount_and_what_was_seen(tmp_path):
    config = settings_of(tmp_path, bins=51)
    sparse = value_support(config, data())
    assert sparse.low == pytest.approx(-3 / 45, abs=1e-3)
    assert sparse.high == pytest.approx(1 + 3 / 45, abs=1e-3)
    rows = LINE.record(30)
    rows["reward"] = [-1.0] * len(rows["reward"])
    steps = value_support(config, transitions(rows, 2, LINE.goal, mc_return=None))
    assert steps.low < -1 / (1 - GAMMA) < steps.low + 2.0
    assert value_support(settings_of(tmp_path, low=-7.0, high=3.0), data()).low == -7.0


def test_returns_of_another_discount_do_not_narrow_the_support(tmp_path):
    """A cost of 1 a step is -100 for ever at 0.99, and -2 at 0.5."""
    rows = LINE.record(30)
    rows["reward"] = [-1.0] * len(rows["reward"])
    steps = transitions(rows, 2, LINE.goal, mc_return=np.full(len(rows["reward"]), -2.0))
    (tmp_path / "meta").mkdir()
    asked = {"data": (str(tmp_path),), "reward": "steps", "gamma": 0.99}
    for gamma, low in ((0.5, -100.0), (0.99, -2.0)):
        write_column(tmp_path, "return", "steps", np.zeros(3, np.float32), np.array([0, 3]), {"gamma": gamma})
        support = value_support(settings_of(tmp_path / "run", **asked), steps)
        assert 1.1 * low - 1.0 < support.low < low


def test_a_support_that_is_given_may_have_few_bins_and_rewards_that_never_differ(tmp_path):
    """Margins are for ends that are worked out: five quantiles are a head like any other."""
    nothing = LINE.record(30)
    nothing["reward"] = [0.0] * len(nothing["reward"])
    given = settings_of(tmp_path, low=0.0, high=1.0, bins=2, head="quantile")
    assert value_support(given, transitions(nothing, 2, LINE.goal, mc_return=None)) == Support(0.0, 1.0, 2)
    with pytest.raises(ValueError, match="more than 6 bins, not 2"):
        value_support(settings_of(tmp_path, bins=2), data())


def test_mixed_precision_ends_at_the_same_ranking(tmp_path):
    trained = learn(data(), tmp_path / "run", algo="monte_carlo", bf16="on", holdout=0.3, steps=150)
    assert all(torch.isfinite(p).all() for p in trained.parameters())
    assert newest(tmp_path / "run").record["score"] < 0.7
