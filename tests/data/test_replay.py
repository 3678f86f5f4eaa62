"""The ring against the transitions of the same rows, and against lerobot's own buffer."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lerobot.rl.buffer import ReplayBuffer as TheirBuffer

from vla_rl.data.cache import build
from vla_rl.data.dataset import open_dataset
from vla_rl.data.replay import ReplayBuffer
from vla_rl.data.transitions import ChunkTransitions, TransitionConfig


def observation(row):
    """An observation that tells its row, in the picture too."""
    return {"observation.image": np.full((6, 6, 3), row % 256, np.uint8), "observation.state": np.float32([row])}


def fill(buffer, steps):
    """Steps are (done, truncated, human); each row's numbers are its own."""
    for row, (done, truncated, human) in enumerate(steps):
        action = np.float32([row])
        buffer.add(observation(row), action, float(row % 5), done=done, truncated=truncated, intervention=human)
    return buffer


steps = st.lists(
    st.tuples(st.sampled_from(["", "", "", "", "done", "cut"]), st.booleans()), min_size=3, max_size=30
).map(lambda drawn: [(how == "done", how == "cut", human) for how, human in drawn])


@settings(max_examples=100, deadline=None)
@given(steps, st.integers(1, 3), st.integers(5, 40), st.sampled_from(["exact", "pad"]))
def test_the_ring_holds_the_transitions_of_its_rows_and_no_other(added, window, capacity, ends):
    config = TransitionConfig(window, 0.9, ends=ends)
    buffer = fill(ReplayBuffer(capacity, config, observation(0), 1), added)
    first = max(0, len(added) - capacity)
    kept = added[first:]
    row = np.arange(first, len(added), dtype=np.float32)
    arrays = {
        "features": row[:, None],
        "action": row[:, None],
        "reward": row % 5,
        "done": [d for d, _, _ in kept],
        "truncated": [t for _, t, _ in kept],
        "intervention": [h for _, _, h in kept],
    }
    try:
        expected = ChunkTransitions.from_arrays(window=window, gamma=0.9, ends=ends, **arrays)
    except ValueError:
        with pytest.raises(ValueError, match="hold no transition"):
            buffer.sample(np.random.default_rng(0), 8)
        return
    drawn = buffer.sample(np.random.default_rng(0), 400)
    assert set(drawn.index.tolist()) <= set((expected.starts + first).tolist())
    where = np.searchsorted(expected.starts + first, drawn.index.numpy())
    truth = expected.batch(where)
    assert torch.equal(drawn.chunk, truth.chunk)
    assert torch.equal(drawn.valid, truth.valid)
    torch.testing.assert_close(drawn.reward, truth.reward)
    torch.testing.assert_close(drawn.discount, truth.discount)
    assert torch.equal(drawn.observation["observation.state"], truth.features)
    assert torch.equal(drawn.next_observation["observation.state"], truth.next_features)
    assert (drawn.observation["observation.image"][:, 0, 0, 0] == drawn.index % 256).all()


def test_drawing_is_uniform_over_what_there_is():
    buffer = fill(
        ReplayBuffer(20, TransitionConfig(2, 0.9), observation(0), 1), [(r == 11, False, False) for r in range(33)]
    )
    counts = np.bincount(buffer.sample(np.random.default_rng(0), 20_000).index.numpy() - 13)
    assert len(counts) == 18
    assert counts.min() > 0.9 * 20_000 / 18


def test_the_observation_behind_a_time_limit_is_kept_as_one_and_never_acted_from():
    buffer = ReplayBuffer(8, TransitionConfig(1, 0.9), observation(0), 1)
    for row in range(3):
        last = observation(99) if row == 2 else None
        buffer.add(observation(row), np.float32([row]), 1.0, truncated=row == 2, last=last)
    drawn = buffer.sample(np.random.default_rng(0), 100)
    assert set(drawn.index.tolist()) == {0, 1, 2}
    assert (drawn.discount == np.float32(0.9)).all()
    behind = drawn.next_observation["observation.state"][drawn.index == 2]
    assert (behind == 99).all()


def theirs(added, capacity):
    """State to next state as lerobot's buffer draws them, set as its learner sets it, where it was not done."""
    torch.manual_seed(0)
    buffer = TheirBuffer(capacity, "cpu", ["observation.state"], use_drq=False, optimize_memory=True)
    for row, (done, truncated, _) in enumerate(added):
        state, following = ({"observation.state": torch.tensor([[float(r)]])} for r in (row, row + 1))
        buffer.add(state, torch.tensor([[float(row)]]), 0.0, following, done=done, truncated=truncated)
    found = {}
    for _ in range(60):
        batch = buffer.sample(16)
        pairs = zip(batch["state"]["observation.state"], batch["next_state"]["observation.state"], strict=True)
        found |= {int(a): int(b) for (a, b), done in zip(pairs, batch["done"], strict=True) if not done}
    return found


def test_defect_1_lerobots_time_limit_leads_into_the_next_episode_and_ours_does_not():
    added = [(False, row == 4, False) for row in range(10)]
    assert theirs(added, 16)[4] == 5, "the defect, as lerobot 0.6.1 has it"
    ours = fill(ReplayBuffer(16, TransitionConfig(1, 0.9), observation(0), 1), added).sample(
        np.random.default_rng(0), 200
    )
    assert 4 not in ours.index
    assert (ours.next_observation["observation.state"][:, 0] == ours.index + 1).all()


def test_defect_1_lerobots_newest_row_leads_to_the_oldest_one_and_ours_does_not():
    added = [(False, False, False)] * 21
    assert theirs(added, 16)[20] == 5, "the defect, as lerobot 0.6.1 has it"
    ours = fill(ReplayBuffer(16, TransitionConfig(1, 0.9), observation(0), 1), added).sample(
        np.random.default_rng(0), 400
    )
    assert (ours.next_observation["observation.state"][:, 0] == ours.index + 1).all()
    assert set(ours.index.tolist()) == set(range(5, 20))


def test_defect_2_a_correction_does_not_lead_into_what_was_added_behind_it():
    added = [(False, False, row in (3, 4, 5)) for row in range(12)]
    drawn = fill(ReplayBuffer(16, TransitionConfig(1, 0.9), observation(0), 1), added).sample(
        np.random.default_rng(0), 200
    )
    assert {2, 5}.isdisjoint(drawn.index.tolist())
    assert (drawn.intervention == torch.isin(drawn.index, torch.tensor([3, 4, 5]))).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3))
def test_shifted_images_are_the_image_moved_with_its_edges_repeated(seed, shift):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (9, 7, 3), np.uint8)
    buffer = ReplayBuffer(4, TransitionConfig(1, 0.9), {"observation.image": image}, 1)
    for _ in range(3):
        buffer.add({"observation.image": image}, np.zeros(1, np.float32), 0.0)
    padded = np.pad(image, ((shift, shift), (shift, shift), (0, 0)), "edge")
    possible = {
        padded[y : y + 9, x : x + 7].tobytes() for y in range(2 * shift + 1) for x in range(2 * shift + 1)
    }  # fmt: skip
    seen = buffer.sample(rng, 8, shift=shift).observation["observation.image"].movedim(1, -1)
    assert {np.ascontiguousarray(each).tobytes() for each in seen.numpy()} <= possible


def test_images_are_kept_once_and_as_bytes():
    buffer = ReplayBuffer(100, TransitionConfig(1, 0.9), observation(0), 1)
    assert buffer.nbytes == 100 * (6 * 6 * 3 + 4)
    assert fill(buffer, [(False, False, False)] * 9).sample(np.random.default_rng(0), 2).observation[
        "observation.image"
    ].dtype == torch.uint8  # fmt: skip


def test_a_data_set_goes_in_and_comes_out_as_it_was(png_set, tmp_path):
    cache = build(png_set, tmp_path / "cache", None)
    buffer = ReplayBuffer.from_cache(cache, TransitionConfig(1, 0.9))
    out = buffer.to_dataset(tmp_path / "out", cache.fps, "as before")
    again = build(out, tmp_path / "cache", None)
    assert again.starts.tolist() == cache.starts.tolist()
    for name in ("action", "observation.state", "next.reward", "next.done", "next.truncated", "intervention"):
        np.testing.assert_array_equal(again.columns[name], cache.columns[name])
    for camera in cache.images:
        np.testing.assert_array_equal(again.images[camera], cache.images[camera])


def test_an_observation_behind_a_time_limit_leaves_the_ring_as_no_step(tmp_path):
    """Nobody acted in it: as a step it would teach that every episode ends with an action of zeros."""
    buffer = ReplayBuffer(8, TransitionConfig(1, 0.9), observation(0), 1)
    for row in range(1, 4):
        last = observation(99) if row == 3 else None
        buffer.add(observation(row), np.float32([row]), 1.0, truncated=row == 3, last=last)
    out = open_dataset(buffer.to_dataset(tmp_path / "out", 10.0, "lift"))
    columns = out.columns(["action", "next.truncated"])
    assert columns["action"].ravel().tolist() == [1, 2, 3]
    assert columns["next.truncated"].ravel().tolist() == [False, False, True]


def test_a_ring_with_no_room_for_one_transition_is_refused():
    with pytest.raises(ValueError, match="capacity of 4 rows has no room for a transition of 4 steps"):
        ReplayBuffer(4, TransitionConfig(4, 0.9), observation(0), 1)
    with pytest.raises(ValueError, match="0 rows hold no transition"):
        ReplayBuffer(9, TransitionConfig(4, 0.9), observation(0), 1).sample(np.random.default_rng(0), 1)
