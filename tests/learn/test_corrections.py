"""What is learned of a session, and what is not: stretches, weights, shares, pairs, and the papers' losses."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_bc import EPISODES, LENGTH, cache
from test_extraction import H, small

from vla_rl.data.chunks import ChunkDataset
from vla_rl.data.sidecars import CandidateTable
from vla_rl.learn import preference
from vla_rl.learn.bc import BehaviourCloning
from vla_rl.learn.config import BCConfig
from vla_rl.learn.correction_config import HGDaggerConfig, PreferenceConfig
from vla_rl.learn.corrections import Drivers, stretch_ends
from vla_rl.learn.hg_dagger import HGDagger, imitated
from vla_rl.learn.preference import Preference, dpo_loss, pairs
from vla_rl.learn.rounds import curve, summary

ROWS = EPISODES * LENGTH


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    BehaviourCloning(BCConfig(**small(folder)), [cache()]).save(folder)
    return str(folder)


def session(outcomes="success"):
    """Six episodes; in each even one a human drove frames 5 to 11, in episode 4 also the last three."""
    drove = np.zeros((EPISODES, LENGTH), bool)
    drove[::2, 5:12] = True
    drove[4, -3:] = True
    source = cache()
    for episode in source.episodes:
        episode["outcome"] = outcomes
    source.columns["intervention"] = drove.reshape(-1)
    source.columns["policy_action_valid"] = np.ones(ROWS, bool)
    return source


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.data())
def test_a_stretch_ends_where_driver_or_episode_change(flags, data):
    cuts = data.draw(st.sets(st.integers(1, max(1, len(flags) - 1)), max_size=4))
    starts = np.array(sorted({0, len(flags), *(c for c in cuts if c < len(flags))}))
    human, ends = np.array(flags), stretch_ends(np.array(flags), starts)
    for row, end in enumerate(ends):
        assert row < end <= len(flags)
        assert (human[row:end] == human[row]).all()
        assert not ((starts > row) & (starts < end)).any()
        assert end in starts or human[end] != human[row]


def test_takeovers_are_counted_once_each_also_across_an_episodes_border():
    drivers = Drivers.of([session(), session()], 1)
    assert drivers.takeovers.tolist()[:4] == [5, 45, 85, 97]
    human = np.zeros(10, bool)
    human[3:8] = True
    both = Drivers(np.array([0, 5, 10]), human, np.ones(10, bool), np.ones(10, bool))
    assert both.takeovers.tolist() == [3, 5]


def test_only_what_a_human_did_is_imitated_of_a_session():
    drivers = Drivers.of([cache(), session()], 1)
    weight = imitated(drivers, own=0.0)
    assert (weight[:ROWS] == 1).all()  # demonstrations, whole
    assert (weight[ROWS:] == drivers.human[ROWS:]).all()
    own = imitated(drivers, own=0.25)[ROWS:].reshape(EPISODES, LENGTH)
    assert (own[1::2] == 0.25).all()  # nobody touched them and they succeeded
    assert (own[::2] == weight[ROWS:].reshape(EPISODES, LENGTH)[::2]).all()
    for outcome in ("failure", "unknown"):
        assert (imitated(Drivers.of([session(outcome)], 1), own=0.25) <= drivers.human[ROWS:]).all()


def test_chunks_end_where_the_human_let_go_and_hold_what_was_executed(tmp_path, start):
    settings = HGDaggerConfig(**small(tmp_path, init=start, action="policy_action"))
    learner = HGDagger(settings, [cache(), session()])
    rows = ROWS + np.array([5, 11, 4 * LENGTH + LENGTH - 1])
    items = learner._items(rows)
    assert (~items["action_is_pad"]).sum(1).tolist() == [7, 1, 1]
    executed = learner.caches[1].columns["action"]
    assert np.array_equal(items["action"][0, :7].numpy(), executed[5:12])  # though policy_action is there and valid
    shown = learner._items(np.array([3]))
    assert np.array_equal(shown["action"][0].numpy(), learner.caches[0].columns["policy_action"][3 : 3 + H])


def test_no_chunk_reaches_over_a_pause_in_a_correction(tmp_path, start):
    paused, shown = session(), cache()
    for source in (paused, shown):  # somebody paused, set the scene anew, and went on
        source.columns["stamp_ns"] = np.arange(ROWS) * 33_333_333 + 5 * 10**9 * (np.arange(ROWS) >= 8)
    learner = HGDagger(HGDaggerConfig(**small(tmp_path, init=start)), [shown, paused])
    items = learner._items(np.array([6, 7, 8, ROWS + 5, ROWS + 7, ROWS + 8]))
    assert (~items["action_is_pad"]).sum(1).tolist() == [2, 1, H, 3, 1, 4]
    executed = paused.columns["action"]
    assert np.array_equal(items["action"][3, :3].numpy(), executed[5:8])
    assert np.array_equal(items["action"][3, 3].numpy(), executed[7])
    past = ChunkDataset(paused, H, n_obs_steps=3).batch(np.array([9]))["observation.state"]
    assert np.array_equal(past[0].numpy(), paused.columns["observation.state"][[8, 8, 9]])


def test_demonstrations_are_imitated_at_a_pace_and_the_human_at_his_own(tmp_path, start):
    learner = HGDagger(HGDaggerConfig(**small(tmp_path, init=start, pace=2.0)), [cache(), session()])
    items = learner._items(np.array([0, ROWS + 5]))
    shown, executed = (each.columns["action"] for each in learner.caches)
    assert np.array_equal(items["action"][0].numpy(), shown[0 : 2 * H : 2])
    assert np.array_equal(items["action"][1, :7].numpy(), executed[5:12])
    assert (~items["action_is_pad"][1]).sum() == 7


def test_each_batch_has_its_share_of_corrections_and_nothing_else_of_the_session(tmp_path, start):
    settings = HGDaggerConfig(**small(tmp_path, init=start, share=0.25))
    learner = HGDagger(settings, [cache(), session()])
    drawn = np.concatenate([learner._indices(step) for step in range(60)])
    corrected = drawn >= ROWS
    assert corrected.mean() == pytest.approx(0.25, abs=0.01)
    assert learner.drivers.human[drawn[corrected]].all()
    assert learner.facts()["corrections"] == 4
    alone = HGDagger(HGDaggerConfig(**small(tmp_path, init=start, share=0.25)), [session()])
    assert alone.drivers.human[alone._indices(0)].all()


def test_a_session_in_which_nobody_drove_teaches_nothing(tmp_path, start):
    with pytest.raises(ValueError, match="nobody corrected anything"):
        HGDagger(HGDaggerConfig(**small(tmp_path, init=start)), [cache(), cache()])


def test_a_pair_is_a_decision_of_the_policy_while_a_human_drove():
    drivers = Drivers.of([session()], 1)
    decisions = np.arange(0, ROWS, 4)
    found = pairs(drivers, decisions, np.arange(len(decisions), dtype=np.float32)[:, None, None])
    assert drivers.human[found.rows].all()
    assert set(found.rows) == {row for row in decisions if drivers.human[row]}
    assert (found.rejected[:, 0, 0] * 4 == found.rows).all()


def test_preference_grows_with_what_is_gained_and_starts_at_log_two():
    one, two = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.0])
    assert torch.allclose(dpo_loss(one, two, one, two, 5.0), torch.log(torch.tensor(2.0)))
    chosen = torch.tensor([0.4, 0.5], requires_grad=True)
    rejected = torch.tensor([0.5, 0.5], requires_grad=True)
    dpo_loss(chosen, rejected, torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.5]), 5.0).sum().backward()
    assert (chosen.grad > 0).all()  # smaller errors on the human's chunk, larger ones on the policy's
    assert (rejected.grad < 0).all()
    assert torch.allclose(chosen.grad, -rejected.grad)


def test_preference_moves_towards_the_human_and_away_from_the_proposal(tmp_path, start, monkeypatch):
    rng = np.random.default_rng(0)
    rows = np.arange(0, ROWS, 4)
    drawn = rng.normal(0, 3, (len(rows), 1, H, 6)).astype(np.float32)
    table = CandidateTable(rows, drawn, None, np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64))
    monkeypatch.setattr(preference, "read_candidates", lambda root: table if root.name == "session" else None)
    settings = small(tmp_path, init=start, data=("set", "session"), beta=10.0, preference=1.0, pairs=0.9)
    learner = Preference(PreferenceConfig(**settings), [cache(), session()])
    optimizer = torch.optim.Adam(learner.policy.parameters(), lr=3e-3)
    losses = []
    for step in range(60):
        optimizer.zero_grad()
        torch.manual_seed(step)
        loss, info = learner.model(learner.batch(step))
        losses.append(float(info["preference_loss"]))
        loss.backward()
        optimizer.step()
    assert losses[0] == pytest.approx(np.log(2), abs=1e-4)
    assert np.mean(losses[-10:]) < 0.8 * np.log(2)
    before = list(learner.model._before[0].parameters())
    assert not any(p.requires_grad for p in before)
    assert all(name.startswith("policy.") for name in learner.model.state_dict())


def test_preference_without_proposals_says_so(tmp_path, start, monkeypatch):
    monkeypatch.setattr(preference, "read_candidates", lambda root: None)
    with pytest.raises(ValueError, match="needs recorded candidates"):
        Preference(PreferenceConfig(**small(tmp_path, init=start)), [session()])


def test_a_round_counts_time_takeovers_and_successes_without_help():
    source = session()
    source.episodes[1]["outcome"] = "failure"
    source.episodes[3]["outcome"] = "unknown"
    said = summary([source])
    assert (said.episodes, said.unmarked) == (EPISODES, 1)
    assert said.success == pytest.approx(4 / 5)
    assert said.autonomous == pytest.approx(1 / 5)  # episode 5; 0, 2 and 4 had help
    assert said.takeovers == pytest.approx(4 / 6)
    assert said.intervention_rate == pytest.approx(24 / ROWS)
    assert said.human_minutes == pytest.approx(24 / 30 / 60)
    assert said.robot_minutes == pytest.approx(ROWS / 30 / 60)
    assert said.cycle_s == pytest.approx(LENGTH / 30)


def test_the_curve_goes_on_from_session_to_session_and_loses_no_episode():
    points = curve([session(), session()], window=5)
    assert [p["episodes"] for p in points] == [5, 7]
    assert points[-1]["human_minutes_so_far"] == pytest.approx(48 / 30 / 60)
    assert [p["episodes"] for p in curve([session()], window=50)] == [6]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: HGDaggerConfig(data=("a",), sessions=2), "between 1 and the number of data sets"),
        (lambda: HGDaggerConfig(own=-1.0), "own must be at least 0"),
        (lambda: HGDaggerConfig(share=1.0), "share must lie in"),
        (lambda: HGDaggerConfig(pace=0.0), "pace must be positive, got 0.0"),
        (lambda: PreferenceConfig(beta=0.0), "beta must be positive"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(make, said):
    with pytest.raises(ValueError, match=said) as refusal:
        make()
    assert "\n" not in str(refusal.value)
