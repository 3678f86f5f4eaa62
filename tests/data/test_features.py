"""Features of a data set: computed once, the same however they were computed, and of this checkpoint only."""

import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature

from vla_rl.data import features as module
from vla_rl.data.features import FeatureStore
from vla_rl.data.rollouts import RolloutConfig, load_trajectories
from vla_rl.data.sidecars import write_column
from vla_rl.data.transitions import ChunkTransitions, TransitionConfig
from vla_rl.policy.configuration_vla_rl import VLAConfig
from vla_rl.policy.modeling_vla_rl import VLAPolicy
from vla_rl.policy.normalize import compute_stats

CAMERAS = ("observation.images.front", "observation.images.wrist")


def save_policy(folder, seed=0, **changes):
    torch.manual_seed(seed)
    inputs = {name: PolicyFeature(FeatureType.VISUAL, (3, 32, 32)) for name in CAMERAS}
    config = VLAConfig(
        input_features={**inputs, "observation.state": PolicyFeature(FeatureType.STATE, (6,))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (6,))},
        device="cpu", fps=30, horizon=8, n_action_steps=4, width=32, inference_steps=2, **changes,
    )  # fmt: skip
    states, actions = torch.randn(50, 6), torch.randn(50, 8, 6)
    stats = compute_stats(states, actions, torch.zeros(50, 8, dtype=torch.bool), config.relative_mask)
    policy = VLAPolicy(config, stats=stats)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    policy.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def encoded(png_set, policy, tmp_path):
    return FeatureStore.open(png_set, policy, cache_root=tmp_path, device="cpu")


def test_features_are_what_the_policy_shows_of_each_frame(encoded, policy):
    table = encoded.features()
    assert table.rows.tolist() == list(range(len(encoded.cache)))
    model = VLAPolicy.from_pretrained(policy)
    row = 31
    episode = int(np.searchsorted(encoded.cache.starts, row, side="right")) - 1
    frame = {name: torch.from_numpy(encoded.cache.images[name][row].copy()).movedim(-1, 0) for name in CAMERAS}
    frame |= {"observation.state": torch.from_numpy(encoded.cache.columns["observation.state"][row].copy())}
    with torch.inference_mode():
        context = model.encode({**frame, "task": encoded.cache.episodes[episode]["instruction"]})
    np.testing.assert_allclose(table.values[row], context.pooled[0].numpy(), atol=1e-5)


def test_some_frames_have_the_features_that_they_have_among_all(encoded):
    every, some = encoded.features(), encoded.features(stride=4)
    assert some.rows.tolist() == [
        r for a, b in zip(encoded.cache.starts, encoded.cache.starts[1:], strict=False) for r in range(a, b, 4)
    ]
    np.testing.assert_allclose(some.values, every.values[some.rows], atol=1e-5)


def test_an_interrupted_store_goes_on_and_a_finished_one_encodes_nothing(encoded, monkeypatch):
    monkeypatch.setattr(module, "_BATCH", 10)
    monkeypatch.setattr(module, "_SAVE_EVERY", 1)
    calls = []
    encode = VLAPolicy.encode

    def count(self, batch):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode(self, batch)

    monkeypatch.setattr(VLAPolicy, "encode", count)
    with pytest.raises(KeyboardInterrupt):
        encoded.features()
    again = FeatureStore.open(encoded.cache.source, encoded.encoder, cache_root=encoded.place.parent, device="cpu")
    parts = again.features().values
    batches = -(-len(encoded.cache) // 10)
    assert len(calls) == 4 + batches - 3
    again.features()
    assert len(calls) == 4 + batches - 3
    np.testing.assert_allclose(parts, encoded.features().values)
    monkeypatch.setattr(module, "_BATCH", 256)
    monkeypatch.setattr(VLAPolicy, "encode", encode)
    whole = (
        FeatureStore.open(encoded.cache.source, encoded.encoder, "looks", encoded.place.parent, "cpu").features().values
    )
    np.testing.assert_allclose(whole[:, : parts.shape[1]], parts, atol=1e-5)


def test_other_weights_are_another_store(encoded, png_set, tmp_path):
    other = save_policy(tmp_path / "other", seed=1)
    theirs = FeatureStore.open(png_set, other, cache_root=tmp_path, device="cpu").features()
    assert np.abs(theirs.values - encoded.features().values).max() > 0.01


def test_what_is_drawn_at_a_row_depends_on_the_row_and_the_seed_alone(encoded, monkeypatch):
    first = encoded.candidates(3, stride=5)
    assert first.chunks.shape == (len(first.rows), 3, 8, 6)
    assert np.isfinite(first.chunks).all()
    assert len(np.unique(first.seed)) == len(first.rows)
    sparse = encoded.candidates(3, stride=10)
    shared = np.isin(first.rows, sparse.rows)
    np.testing.assert_allclose(first.chunks[shared], sparse.chunks[np.isin(sparse.rows, first.rows)], atol=1e-4)
    assert np.abs(encoded.candidates(3, stride=5, seed=1).chunks - first.chunks).max() > 0.01
    assert np.abs(first.chunks[:, 0] - first.chunks[:, 1]).max() > 0.01


def test_a_data_set_becomes_transitions_with_everything(png_set, policy, tmp_path, encoded):
    cache = encoded.cache
    reward = np.arange(len(cache), dtype=np.float32)
    paths = [write_column(png_set, c, "rows", reward, cache.starts, {}) for c in ("reward", "return")]
    try:
        config = RolloutConfig(reward="rows", candidates=2)
        keep = lambda meta: meta["outcome"] == "success"  # noqa: E731
        sets = load_trajectories(png_set, policy, config, keep=keep, cache_root=tmp_path, device="cpu")
    finally:
        [path.unlink() for path in paths]
    transitions = ChunkTransitions(sets, TransitionConfig(1, 0.9, ends="pad"))
    batch = transitions.batch(np.arange(len(transitions)))
    assert torch.equal(batch.reward, batch.index.float())
    assert torch.equal(batch.mc_return, batch.index.float())
    assert batch.success.all()
    assert torch.equal(batch.chunk[:, 0], torch.from_numpy(cache.columns["action"][batch.index]))
    assert torch.equal(batch.state, torch.from_numpy(cache.columns["observation.state"][batch.index]))
    with_candidates = ChunkTransitions(sets, TransitionConfig(1, 0.9, candidates="here"))
    assert (with_candidates.batch(np.arange(3)).candidates.shape) == (3, 2, 8, 6)


def test_proposals_stand_for_actions_only_where_a_valid_one_was_followed(png_set, policy, tmp_path, encoded):
    columns = encoded.cache.columns
    config = RolloutConfig(proposed=True)
    sets = load_trajectories(png_set, policy, config, cache_root=tmp_path, device="cpu")
    mine = columns["policy_action_valid"] & ~columns["intervention"]
    assert 0 < mine.sum() < len(mine)
    np.testing.assert_array_equal(sets.action[mine], columns["policy_action"][mine])
    np.testing.assert_array_equal(sets.action[~mine], columns["action"][~mine])


def test_what_cannot_give_features_is_refused(png_set, policy, tmp_path):
    (tmp_path / "config.json").write_text('{"type": "act"}')
    with pytest.raises(ValueError, match="is of type 'act'; features come from a policy of type 'vla_rl'"):
        FeatureStore.open(png_set, tmp_path)
    with pytest.raises(ValueError, match="unknown layer 'soul'; there are: pooled"):
        FeatureStore.open(png_set, policy, "soul", tmp_path, "cpu").features()
