"""ChunkDataset against a slow loop, the sampler, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_episodes import TASKS, memory_cache

from vla_rl.data.cache import FrameCache
from vla_rl.data.chunks import ChunkDataset
from vla_rl.data.dataset import DatasetError
from vla_rl.data.sampler import ChunkSampler

lengths = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def oracle(cache: FrameCache, row: int, horizon: int, past: int, column: str) -> dict[str, np.ndarray]:
    """One item by the definition, step by step."""
    episode = next(e for e in range(len(cache.starts) - 1) if cache.starts[e] <= row < cache.starts[e + 1])
    start, end = int(cache.starts[episode]), int(cache.starts[episode + 1])
    actions, pad = [], []
    for k in range(horizon):
        inside = row + k < end
        source = row + k if inside else end - 1
        clean = column == "policy_action" and cache.columns["policy_action_valid"][source]
        actions.append(cache.columns["policy_action" if clean else "action"][source])
        pad.append(not inside)
    seen = [max(start, row - k) for k in reversed(range(past))]
    seen_or_one = seen if past > 1 else row
    return {
        "action": np.stack(actions),
        "action_is_pad": np.array(pad),
        "observation.state": cache.columns["observation.state"][seen_or_one],
        "observation.images.front": np.moveaxis(cache.images["observation.images.front"][seen_or_one], -1, -3),
        "labels.points": cache.columns["labels.points"][row],
        "next.reward": cache.columns["next.reward"][row],
    }


@settings(max_examples=60, deadline=None)
@given(
    lengths=lengths,
    horizon=st.integers(1, 12),
    past=st.integers(1, 4),
    column=st.sampled_from(["action", "policy_action"]),
)
def test_a_batch_is_what_a_slow_loop_gives(lengths: list[int], horizon: int, past: int, column: str) -> None:
    cache = memory_cache(lengths)
    dataset = ChunkDataset(cache, horizon, past, column, extra=("next.reward",))
    order = np.random.default_rng(1).permutation(len(dataset))
    batch = dataset.batch(order)
    for i, row in enumerate(order):
        for key, value in oracle(cache, int(row), horizon, past, column).items():
            assert np.array_equal(batch[key][i].numpy(), value), key
    assert batch["task"] == [TASKS[e % 2] for e in dataset.episode_of(order)]
    assert batch["observation.images.front"].dtype == torch.uint8
    assert batch["weight"].tolist() == [1.0] * len(order)


@settings(max_examples=30, deadline=None)
@given(first=lengths, second=lengths)
def test_several_caches_are_one_after_the_other(first: list[int], second: list[int]) -> None:
    caches = [memory_cache(first, 1), memory_cache(second, 2, ("open the drawer", *TASKS))]
    both, parts = ChunkDataset(caches, 5), [ChunkDataset(c, 5) for c in caches]
    together = both.batch(np.arange(len(both)))
    apart = [part.batch(np.arange(len(part))) for part in parts]
    for key, value in together.items():
        joined = apart[0][key] + apart[1][key] if key == "task" else torch.cat([a[key] for a in apart])
        assert value == joined if key == "task" else torch.equal(value, joined), key
    assert both.tasks == (*TASKS, "open the drawer")


@pytest.mark.parametrize("order", [1, -1], ids=["demonstrations first", "session first"])
def test_where_one_data_set_lacks_labels_they_are_unknown(order: int) -> None:
    labelled, session = memory_cache([5], 1), memory_cache([4], 2)
    del session.columns["labels.points"]
    caches = [labelled, session][::order]
    both = ChunkDataset(caches, 4)
    points = both.batch(np.arange(len(both)))["labels.points"].numpy()
    given = np.repeat([cache is labelled for cache in caches], [len(cache) for cache in caches])
    assert np.array_equal(points[given], labelled.columns["labels.points"])
    assert np.isnan(points[~given]).all()
    assert both.weights().sum() == pytest.approx(1.0)
    labelled.columns["labels.points"][2] = np.nan  # but not where they were recorded
    with pytest.raises(DatasetError, match=r"'labels.points' has a value that is not finite in episode 0, frame 2"):
        ChunkDataset(caches, 4)


@settings(max_examples=60, deadline=None)
@given(lengths=lengths, horizon=st.integers(1, 12), pace=st.floats(0.3, 4.0))
def test_at_a_pace_a_chunk_is_the_recorded_movement_in_less_time(lengths: list[int], horizon: int, pace: float) -> None:
    cache = memory_cache(lengths)
    dataset = ChunkDataset(cache, horizon, pace=pace)
    batch = dataset.batch(np.arange(len(dataset)))
    for row in range(len(dataset)):
        episode = int(np.searchsorted(cache.starts, row, side="right")) - 1
        times = np.arange(cache.starts[episode], cache.starts[episode + 1])
        asked, recorded = row + pace * np.arange(horizon), cache.columns["action"][times]
        wanted = np.stack([np.interp(asked, times, joint) for joint in recorded.T], axis=1)
        np.testing.assert_allclose(batch["action"][row], wanted, atol=1e-4)
        assert batch["action_is_pad"][row].tolist() == (asked > times[-1]).tolist()


def test_each_data_set_has_its_pace() -> None:
    caches = [memory_cache([8], 1), memory_cache([9], 2)]
    both = ChunkDataset(caches, 4, pace=[2.0, 1.0]).batch(np.array([1, 9]))["action"].numpy()
    assert np.array_equal(both[0], caches[0].columns["action"][[1, 3, 5, 7]])
    assert np.array_equal(both[1], caches[1].columns["action"][[1, 2, 3, 4]])
    for wrong in (0.0, float("nan"), [1.0]):
        with pytest.raises(ValueError, match="pace must be positive, one for all data sets or one for each of 2"):
            ChunkDataset(caches, 4, pace=wrong)


def test_a_resident_data_set_gives_the_same_batches() -> None:
    cache = memory_cache([5, 7, 3])
    order = np.array([14, 0, 7, 7, 4])
    disk, memory = ChunkDataset(cache, 4, 2).batch(order), ChunkDataset(cache, 4, 2, device="cpu").batch(order)
    assert all(torch.equal(disk[k], memory[k]) for k in disk if k != "task")


def test_episodes_can_be_held_out() -> None:
    cache = memory_cache([5, 7, 3, 4])
    dataset = ChunkDataset(cache, 4, keep=lambda e: not e["instruction"].startswith("push"))
    assert len(dataset) == 5 + 3
    assert set(dataset.batch(np.arange(len(dataset)))["task"]) == {TASKS[0]}
    assert dataset.column("action").shape == (8, 3)
    assert dataset.describe(5) == "episode 2, frame 0 of set0"
    with pytest.raises(DatasetError, match="keeps none of 4 episodes"):
        ChunkDataset(cache, 4, keep=lambda e: False)


def test_decision_frames_get_their_share_of_every_batch() -> None:
    dataset = ChunkDataset(memory_cache([100, 60, 140]), 8)
    sampler = ChunkSampler(dataset.weights(decision_s=0.5, decision_fraction=0.5), 64, seed=3)
    early = np.concatenate([np.arange(n) < 15 for n in (100, 60, 140)])
    for step in range(20):
        assert abs(early[sampler.indices(step)].mean() - 0.5) <= 4 / 64
    uniform = dataset.weights(decision_fraction=None)
    assert np.allclose(uniform, 1 / len(dataset))


def test_balanced_groups_get_equal_shares() -> None:
    dataset = ChunkDataset(memory_cache([100, 10]), 8)
    weights = dataset.weights(decision_fraction=0.5, balance="instruction")
    assert weights[:100].sum() == pytest.approx(0.5)
    assert weights[:15].sum() == pytest.approx(0.25)


def test_frames_after_a_grasp_count_as_decisions_where_there_is_a_goal() -> None:
    cache = memory_cache([60, 60, 60])
    gripper = np.tile(np.concatenate([np.full(30, 40.0), np.linspace(40, 6, 5), np.full(25, 6.0)]), 3)
    gripper[120:] = 6.0  # the last episode never opens its gripper
    cache.columns["action"][:, 2] = gripper
    cache.columns["labels.points"][:60, 3:] = cache.columns["labels.points"][:60, :3]  # the first one has no goal
    dataset = ChunkDataset(replace(cache, names={"action": ["a", "b", "gripper.pos"]}))
    heavy = dataset.weights(0.5, 0.5) > 1 / 180
    expected = np.tile(np.arange(60) < 15, 3)
    expected[60 + 34 : 60 + 34 + 15] = True
    assert np.array_equal(heavy, expected)
    assert dataset.weights(0.5, 0.5)[heavy].sum() == pytest.approx(0.5)


@settings(max_examples=40, deadline=None)
@given(weights=st.lists(st.floats(0, 1), min_size=1, max_size=50), seed=st.integers(0, 9), step=st.integers(0, 10**6))
def test_a_batch_depends_on_seed_and_step_alone(weights: list[float], seed: int, step: int) -> None:
    if sum(weights) <= 0:
        with pytest.raises(ValueError, match="at least one above 0"):
            ChunkSampler(np.array(weights), 16, seed)
        return
    drawn = ChunkSampler(np.array(weights), 16, seed).indices(step)
    other = ChunkSampler(np.array(weights), 16, seed)
    other.indices(step + 1)
    assert np.array_equal(drawn, other.indices(step))
    assert (np.array(weights)[drawn] > 0).all()


def test_different_steps_give_different_batches() -> None:
    sampler = ChunkSampler(np.ones(1000), 64)
    assert not np.array_equal(sampler.indices(0), sampler.indices(1))
    assert np.unique(np.concatenate([sampler.indices(k) for k in range(200)])).size == 1000


def test_missing_features_are_named_with_those_that_exist() -> None:
    with pytest.raises(DatasetError, match=r"lacks observation\.images\.top; it has: .*observation\.images\.front"):
        ChunkDataset(memory_cache([4]), cameras=["observation.images.top"])
    cache = memory_cache([4])
    without = replace(cache, columns={k: v for k, v in cache.columns.items() if k != "action"})
    with pytest.raises(DatasetError, match="lacks action"):
        ChunkDataset(without)


def test_a_value_that_is_not_finite_is_named_by_column_episode_and_frame() -> None:
    cache = memory_cache([4, 6])
    cache.columns["action"][7, 1] = np.nan
    with pytest.raises(DatasetError, match=r"'action' .* episode 1, frame 3 of set0"):
        ChunkDataset(cache)
    with pytest.raises(DatasetError, match=r"'action' .* episode 1, frame 3 of set0"):
        ChunkDataset([memory_cache([5]), cache])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 15.0}, "fps: 30.0 in set0, 15.0 in set1"),
        ({"names": {"action": ["b", "a", "c"]}}, "the names of 'action': .*'a', 'b', 'c'.* in set0, .*'b', 'a', 'c'"),
        ({"images": {}}, r"'observation.images.front': \[4, 4, 3\] in set0, none in set1"),
    ],
)
def test_data_sets_that_do_not_fit_together_are_refused(change: dict, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        ChunkDataset([memory_cache([4]), replace(memory_cache([4], 1), **change)])
