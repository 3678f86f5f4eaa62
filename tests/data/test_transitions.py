"""Chunk transitions against a slow oracle, and against the rules that other code gets wrong."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl.data.trajectories import Trajectories
from vla_rl.data.transitions import ChunkTransitions, TransitionConfig

GAMMA = 0.9


def recorded(lengths, terminal, human=(), rng=None, **more):
    """Episodes whose every number tells the row that it is from."""
    rng = rng or np.random.default_rng(0)
    rows, starts = sum(lengths), np.cumsum([0, *lengths])
    done = np.zeros(rows, bool)
    done[starts[1:][list(terminal)] - 1] = True
    truncated = np.zeros(rows, bool)
    truncated[starts[1:] - 1] = True
    drove = np.zeros(rows, bool)
    drove[list(human)] = True
    row = np.arange(rows, dtype=np.float32)
    return {
        "features": np.stack([row, -row], 1),
        "state": row[:, None],
        "action": np.stack([row, row + 0.5], 1),
        "reward": rng.integers(-3, 4, rows).astype(np.float32),
        "done": done,
        "truncated": truncated & ~done,
        "intervention": drove,
        "starts": starts,
        **more,
    }


@st.composite
def episodes(draw):
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    terminal = [i for i in range(len(lengths)) if draw(st.booleans())]
    human = [row for row in range(sum(lengths)) if draw(st.integers(0, 3)) == 0]
    return recorded(lengths, terminal, human, np.random.default_rng(draw(st.integers(0, 99))))


def oracle(data, window, n_step, exact):
    """Every transition by walking from its start, one step at a time: start -> (reward, discount, next, steps)."""
    n, rows, found = n_step or window, len(data["reward"]), {}
    for start in range(rows):
        total, steps, row = 0.0, 0, start
        while True:
            over = data["done"][row] or data["truncated"][row] or row + 1 in data["starts"]
            closed = over or data["intervention"][row + 1] != data["intervention"][row]
            if closed and not data["done"][row]:
                break  # what this action led to is not known here
            total += GAMMA**steps * data["reward"][row]
            steps += 1
            if data["done"][row] or steps == n:
                break
            row += 1
        last = start + steps - 1
        if steps and data["done"][last]:
            outcome = (total, 0.0, None, steps)
        else:
            outcome = (total, GAMMA**steps, start + steps, steps)
        if steps >= (window if exact else 1):
            found[start] = outcome
    return found


@settings(max_examples=150, deadline=None)
@given(episodes(), st.integers(1, 5), st.integers(0, 3), st.sampled_from(["exact", "pad"]))
def test_every_transition_is_what_walking_from_its_start_gives(data, window, more, ends):
    n_step = window + more if more else 0
    expected = oracle(data, window, n_step, ends == "exact")
    if not expected:
        with pytest.raises(ValueError, match="starts a transition"):
            ChunkTransitions.from_arrays(window=window, gamma=GAMMA, n_step=n_step, ends=ends, **data)
        return
    transitions = ChunkTransitions.from_arrays(window=window, gamma=GAMMA, n_step=n_step, ends=ends, **data)
    assert transitions.starts.tolist() == list(expected)
    batch = transitions.batch(np.arange(len(transitions)))
    for i, (start, (total, discount, following, steps)) in enumerate(expected.items()):
        assert batch.reward[i] == pytest.approx(total, abs=1e-5)
        assert batch.discount[i] == pytest.approx(discount)
        assert batch.features[i, 0] == start
        assert batch.index[i] == start
        assert batch.next_state[i, 0] == (start if following is None else following)
        assert batch.valid[i].tolist() == [j < steps for j in range(window)]
        executed = batch.chunk[i, :, 0][batch.valid[i]]
        assert executed.tolist() == [start + j for j in range(min(window, steps))]


@settings(max_examples=100, deadline=None)
@given(episodes(), st.integers(1, 4), st.sampled_from(["exact", "pad"]))
def test_nothing_in_a_transition_is_from_another_episode_or_another_driver(data, window, ends):
    episode = np.repeat(np.arange(len(data["starts"]) - 1), np.diff(data["starts"]))
    try:
        transitions = ChunkTransitions.from_arrays(window=window, gamma=GAMMA, ends=ends, **data)
    except ValueError:
        return
    batch = transitions.sample(np.random.default_rng(0), 64)
    start = batch.index.numpy()
    for rows in (batch.chunk[..., 0], batch.next_chunk[..., 0], batch.next_state, batch.next_features[:, :1]):
        there = rows.numpy().astype(int)
        assert (episode[there] == episode[start][:, None]).all()
        assert (data["intervention"][there] == data["intervention"][start][:, None]).all()


def test_a_terminal_ends_the_sum_and_a_time_limit_bootstraps():
    data = recorded([6, 6], terminal=[0], reward=np.ones(12, np.float32))
    batch = ChunkTransitions.from_arrays(window=2, gamma=0.5, **data).batch(np.arange(9))
    assert batch.index.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert batch.discount.tolist() == [0.25] * 4 + [0.0] + [0.25] * 4
    assert set(batch.reward.tolist()) == {1.5}


def test_padding_trains_the_states_that_others_bootstrap_from():
    data = recorded([8], terminal=[0])
    exact = ChunkTransitions.from_arrays(window=4, gamma=GAMMA, **data)
    pad = ChunkTransitions.from_arrays(window=4, gamma=GAMMA, ends="pad", **data)
    batch = exact.batch(np.arange(len(exact)))
    reached = set(batch.next_state[batch.discount > 0].flatten().int().tolist())
    assert not reached <= set(exact.starts.tolist())
    assert reached <= set(pad.starts.tolist())


# Defects of lerobot 0.6.1's ReplayBuffer: the rule that has them crosses, ours does not.


def crossings(following, data):
    """How many transitions have a next observation of another episode or another driver."""
    episode = np.repeat(np.arange(len(data["starts"]) - 1), np.diff(data["starts"]))
    return sum(
        n is not None and (episode[n] != episode[s] or data["intervention"][n] != data["intervention"][s])
        for s, n in following.items()
    )


def ours(data):
    transitions = ChunkTransitions.from_arrays(window=1, gamma=GAMMA, **data)
    batch = transitions.batch(np.arange(len(transitions)))
    return {int(s): None if d == 0 else int(n) for s, d, n in zip(batch.index, batch.discount, batch.next_state[:, 0])}  # noqa: B905


def test_defect_1_the_row_behind_is_no_next_observation_where_an_episode_was_cut():
    data = recorded([4, 5, 3], terminal=[1])
    defective = {s: None if data["done"][s] else s + 1 for s in range(11)}
    assert crossings(defective, data) == 1
    assert crossings(ours(data), data) == 0


def test_defect_2_a_correction_does_not_bootstrap_from_the_next_correction():
    """Corrections alone, as an offline buffer keeps them: each one's last step has no next observation there."""
    whole = recorded([12], terminal=[], human=[2, 3, 4, 8, 9])
    kept = np.flatnonzero(whole["intervention"])
    parts = {k: whole[k][kept] for k in ("features", "state", "action", "reward", "done", "truncated", "intervention")}
    transitions = ChunkTransitions.from_arrays(window=1, gamma=GAMMA, starts=[0, 3], **parts)
    batch = transitions.batch(np.arange(len(transitions)))
    assert [(int(s), int(n)) for s, n in zip(batch.state, batch.next_state, strict=True)] == [(2, 3), (3, 4), (8, 9)]
    together = ours(whole)
    assert crossings(together, whole) == 0
    assert {4, 9, 11}.isdisjoint(together), "and in the whole recording a takeover's edge is an edge"


def test_defect_5_sets_with_and_without_interventions_mix_in_columns_of_one_length():
    plain = recorded([9], terminal=[0])
    del plain["intervention"]
    both = [Trajectories.of(**plain), Trajectories.of(**recorded([9], terminal=[0], human=[3, 4]))]
    batch = ChunkTransitions(both, TransitionConfig(1, GAMMA), mix=(1, 1)).sample(np.random.default_rng(0), 32)
    assert {len(v) for v in vars(batch).values() if isinstance(v, torch.Tensor)} == {32}


# Mixing, candidates, features of some frames only, and what is refused.


@pytest.mark.parametrize("mix", [(1, 1), (3, 1), (0, 1)])
def test_every_batch_has_each_sets_share(mix):
    sets = [Trajectories.of(**recorded([40], [0])), Trajectories.of(**recorded([10, 10], [0]))]
    transitions = ChunkTransitions(sets, TransitionConfig(2, GAMMA), mix=mix)
    rng = np.random.default_rng(0)
    for _ in range(20):
        counted = int((transitions.sample(rng, 32).index < 40).sum())
        assert counted == 32 * mix[0] // sum(mix)


def test_a_share_that_is_no_whole_number_holds_on_average():
    sets = [Trajectories.of(**recorded([20], [0])) for _ in range(3)]
    transitions = ChunkTransitions(sets, TransitionConfig(1, GAMMA), mix=(1, 1, 1))
    rng = np.random.default_rng(0)
    counts = np.array([np.bincount(transitions.sample(rng, 10).index // 20, minlength=3) for _ in range(600)])
    assert counts.min() >= 3
    np.testing.assert_allclose(counts.mean(0), 10 / 3, atol=0.1)


def test_rows_count_through_all_sets():
    sets = [Trajectories.of(**recorded([7], [0])), Trajectories.of(**recorded([5, 4], [1]))]
    transitions = ChunkTransitions(sets, TransitionConfig(2, GAMMA, ends="pad"))
    batch = transitions.batch(np.arange(len(transitions)))
    offset = np.where(batch.index.numpy() < 7, 0, 7)
    assert (batch.state[:, 0].numpy() + offset == batch.index.numpy()).all()
    assert batch.success.tolist() == [bool(sets[i >= 7].success[0 if i < 12 else 1]) for i in batch.index.tolist()]


@pytest.mark.parametrize("need", ["here", "next", "both"])
def test_candidates_are_those_of_their_row_and_starts_without_them_are_left_out(need):
    where = np.arange(0, 20, 3)
    chunks = np.tile(where[:, None, None, None], (1, 4, 6, 2)).astype(np.float32)
    data = recorded([11, 9], terminal=[0], candidates=chunks, candidate_rows=where)
    transitions = ChunkTransitions.from_arrays(window=3, gamma=GAMMA, need=need, **data)
    batch = transitions.batch(np.arange(len(transitions)))
    if need != "next":
        assert (batch.candidates[:, 0, 0, 0] == batch.index).all()
    if need != "here":
        alive = batch.discount > 0
        assert (batch.next_candidates[alive, 0, 0, 0] == batch.next_state[alive, 0]).all()
        assert (batch.next_candidates[~alive] == 0).all()
        assert (~alive).any() == (need == "next"), "a terminal needs no next candidates"
    assert (batch.candidates is None) == (need == "next")


def test_with_features_of_some_frames_transitions_go_from_one_of_them_to_another():
    data = recorded([12, 12], terminal=[1])
    known = np.arange(0, 24, 4)
    data |= {"features": data["features"][known], "feature_rows": known}
    transitions = ChunkTransitions.from_arrays(window=4, gamma=GAMMA, **data)
    batch = transitions.batch(np.arange(len(transitions)))
    assert batch.index.tolist() == [0, 4, 12, 16, 20]
    assert (batch.features[:, 0] == batch.index).all()
    assert batch.next_features[:, 0].tolist() == [4, 8, 16, 20, 20]


def test_episodes_that_are_not_kept_start_no_transition():
    data = recorded([6, 6], terminal=[0, 1], kept=np.repeat([False, True], 6))
    assert ChunkTransitions.from_arrays(window=1, gamma=GAMMA, **data).starts.min() == 6


def test_drawing_is_uniform_over_the_transitions_and_a_function_of_the_generator():
    transitions = ChunkTransitions.from_arrays(window=2, gamma=GAMMA, **recorded([6, 5], [0]))
    counts = np.bincount(transitions.sample(np.random.default_rng(0), 9000).index, minlength=11)[transitions.starts]
    assert counts.min() > 0.9 * 9000 / len(transitions)
    first, second = (transitions.sample(np.random.default_rng(3), 8).index for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 0}, "window must be at least 1"),
        ({"gamma": 1.5}, "gamma in"),
        ({"n_step": 1}, "n_step 1 is shorter than the window of 3"),
        ({"ends": "wrap"}, "ends is exact or pad"),
        ({"window": 9}, "none of 6 rows starts a transition of 9"),
        ({"need": "next"}, "no candidates were recorded or drawn"),
        ({"reward": np.zeros(5)}, "'reward' has 5 rows, 6 are needed"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        ChunkTransitions.from_arrays(**{"window": 3, "gamma": GAMMA, **recorded([6], [0]), **changes})
    assert "\n" not in str(error.value)


def test_sets_that_differ_in_width_are_refused():
    narrow = recorded([6], [0])
    narrow["action"] = narrow["action"][:, :1]
    sets = [Trajectories.of(**recorded([6], [0])), Trajectories.of(**narrow)]
    with pytest.raises(ValueError, match="differ in the width of 'action': 2, 1"):
        ChunkTransitions(sets, TransitionConfig(1, GAMMA))
    with pytest.raises(ValueError, match="one share of at least 0 for each of 1 sets"):
        ChunkTransitions(sets[:1], TransitionConfig(1, GAMMA), mix=(1, 1))


def test_a_gymnasium_episode_with_its_last_observation_loses_no_step():
    """The observation behind a time limit is a row of its own, with an action that is never used."""
    data = recorded([5], terminal=[])
    batch = ChunkTransitions.from_arrays(window=1, gamma=GAMMA, **data).batch(np.arange(4))
    assert list(itertools.chain(*batch.next_state.tolist())) == [1, 2, 3, 4]


def test_candidates_that_no_transition_leads_to_are_named_and_not_left_to_terminals():
    """Drawn at every 8th step, and a window of 4: only the last chunk of every episode would count, and nobody knew."""
    drawn = np.array([0, 8, 16, 20, 28, 36])
    data = recorded([20, 20], terminal=[0, 1], candidates=np.zeros((6, 2, 8, 2)), candidate_rows=drawn)
    with pytest.raises(ValueError, match="no two observations that lie 4 steps apart, terminals at most are left"):
        ChunkTransitions.from_arrays(window=4, gamma=GAMMA, ends="pad", need="both", **data)
    assert len(ChunkTransitions.from_arrays(window=8, gamma=GAMMA, ends="pad", need="both", **data)) == 6


def test_a_stride_that_does_not_divide_the_window_is_named_and_does_not_leave_terminals_alone():
    """Encoded at every 5th step, and a window of 4: TD would learn from the last chunk of successes, and no other."""
    known = np.arange(0, 40, 5)
    data = recorded([20, 20], terminal=[0, 1], feature_rows=known)
    data["features"] = data["features"][known]
    with pytest.raises(ValueError, match="features are known at no two observations that lie 4 steps apart"):
        ChunkTransitions.from_arrays(window=4, gamma=GAMMA, ends="pad", **data)
    assert len(ChunkTransitions.from_arrays(window=5, gamma=GAMMA, ends="pad", **data)) == 8


def test_candidates_of_several_policies_are_cut_to_what_all_have_and_not_below_the_window():
    """Chunks of one policy have 8 actions, of the other 5: a critic reads the first of them."""
    sets = [
        Trajectories.of(**recorded([6], [0], candidates=np.full((6, k, h, 2), h), candidate_rows=np.arange(6)))
        for k, h in ((4, 8), (3, 5))
    ]
    transitions = ChunkTransitions(sets, TransitionConfig(5, GAMMA, ends="pad", candidates="here"))
    batch = transitions.batch(np.arange(len(transitions)))
    assert batch.candidates.shape == (12, 3, 5, 2)
    assert (batch.candidates[:, 0, 0, 0] == torch.tensor([8.0] * 6 + [5.0] * 6)).all()
    with pytest.raises(ValueError, match="candidates of 5 actions are shorter than the window, 6"):
        ChunkTransitions(sets, TransitionConfig(6, GAMMA, ends="pad", candidates="here"))
