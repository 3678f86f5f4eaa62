"""Promises of the critic report: what it says of critics of known quality."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy_critics import save_toy_critic

from vla_rl.commands.critic import turned_down
from vla_rl.data.transitions import ChunkTransitions
from vla_rl.learn.critic_config import CriticRunConfig
from vla_rl.rollout import critic_page, critic_report
from vla_rl.rollout.critic_figures import Held, advantages, calibration, figures
from vla_rl.rollout.critic_report import Gate, conclude, held_decisions
from vla_rl.rollout.statistics import auc
from vla_rl.steer.critic import LoadedCritic
from vla_rl.value.checkpoint import read_card

STATES, WINDOW = 60, 3


def best(state):
    """(B, h, 2)."""
    return (state[:, None] * np.arange(1, WINDOW + 1)[:, None]).astype(np.float32)


def held(rng):
    """Decisions whose best chunk leads away from the origin, and whose return falls with the distance from it."""
    state = rng.uniform(-1, 1, (STATES, 2)).astype(np.float32)
    error = rng.uniform(0, 0.3, STATES)
    chunk = best(state) + error[:, None, None].astype(np.float32)
    data = ChunkTransitions.from_arrays(
        window=1, gamma=0.99, ends="pad", features=state, state=state, action=chunk[:, 0],
        reward=1.0 - error, done=np.ones(STATES, bool), success=error < 0.15,
    )  # fmt: skip
    batch = data.batch(np.arange(STATES))
    policy = (best(state)[:, None] + rng.uniform(0, 0.3, (STATES, 4, 1, 1))).astype(np.float32)
    shown = {"chunk": torch.from_numpy(chunk), "valid": torch.ones(STATES, WINDOW, dtype=torch.bool)}
    batch = SimpleNamespace(**{**vars(batch), **shown})
    return Held(batch, 1.0 - error, np.arange(STATES) // 3, policy, policy)


class Known:
    """A critic that says what a function of states (B, S) and chunks (B, K, h, A) says."""

    card = {"config": {"relative": []}}  # noqa: RUF012
    spread = torch.ones(2)

    def __init__(self, says):
        self.says = says

    def score(self, features, state, chunks, tau=None):
        return np.asarray(self.says(np.asarray(state), chunks), dtype=float)[None]


def right(state, chunks):
    return 1.0 - np.abs(chunks - best(state)[:, None]).mean((2, 3))


def blind(state, chunks):
    return np.full(chunks.shape[:2], 0.4)


def backwards(state, chunks):
    return -right(state, chunks)


def judge(says):
    rng = np.random.default_rng(0)
    return figures(Known(says), held(rng), rng)


def shown(says):
    """The figures with a demonstration of the best beside the policy's chunks."""
    rng = np.random.default_rng(0)
    seen = held(rng)
    facts = {"chunk": torch.from_numpy(best(seen.batch.state.numpy())), "candidates": torch.from_numpy(seen.policy)}
    batch = SimpleNamespace(**{**vars(seen.batch), **facts, "demonstrated": torch.ones(STATES, dtype=torch.bool)})
    return figures(Known(says), Held(batch, seen.returns, seen.episode, seen.policy, seen.next_policy), rng)


def test_beside_demonstrations_it_shows_whether_nearer_chunks_are_valued_higher():
    assert shown(right)["candidate_rank"] == pytest.approx(1.0)
    assert shown(blind)["candidate_rank"] == 0.0
    assert shown(backwards)["candidate_rank"] == pytest.approx(-1.0)
    assert "candidate_rank" not in judge(right), "nobody showed anything"


def test_one_of_both_looks_at_actions_is_enough():
    report = {**judge(right), "advantage_rank": 0.02}
    assert [reason for reason in Gate().failures(report) if "actions 0.02, wanted at least 0.1" in reason]
    assert not Gate().failures({**report, "candidate_rank": 0.4})


def test_a_critic_that_knows_passes():
    said = judge(right)
    assert said["rank_correlation"] == pytest.approx(1.0)
    assert said["calibration_error"] < 0.05
    assert said["success_auc"] == 1.0
    assert said["actions"]["random"]["wins"] > 0.95
    assert said["actions"]["shuffled"]["wins"] > 0.6
    assert said["advantage_rank"] > 0.5, "both sides have noise of their own"
    assert not Gate().failures(said)


def test_a_critic_that_says_one_thing_of_all_fails_and_is_told_why():
    said = judge(blind)
    assert said["rank_correlation"] == 0.0
    assert said["actions"]["policy"]["wins"] == 0.5
    assert said["advantage_rank"] == 0.0
    assert any(reason.startswith("rank correlation 0.00, wanted at least 0.3") for reason in Gate().failures(said))


def test_a_critic_that_has_it_backwards_fails_everything():
    said = judge(backwards)
    assert said["rank_correlation"] == pytest.approx(-1.0)
    assert len(Gate().failures(said)) == 5


def test_a_figure_that_is_no_number_reaches_no_gate():
    said = {**judge(right), "calibration_error": float("nan")}
    assert Gate().failures(said) == ["calibration error nan, wanted at most 0.2"]


def test_where_the_policy_drew_nothing_nothing_is_said_of_its_chunks():
    rng = np.random.default_rng(0)
    seen = held(rng)
    nothing = np.full_like(seen.policy, np.nan)
    said = figures(Known(right), Held(seen.batch, seen.returns, seen.episode, nothing, nothing), rng)
    assert set(said["actions"]) == {"random", "shuffled"}
    assert "candidate_spread" not in said


@pytest.fixture
def trained_elsewhere(tmp_path, monkeypatch):
    """A critic's card, of a training on another machine's GPU; what is read to judge it ends up in the list."""
    training = CriticRunConfig(data=(str(tmp_path),), policy="policy", device="cuda").to_dict()
    card = {"training": training, "data": ["as it was"], "config": {"encoder": "policy"}}
    asked = []

    def read(config):
        asked.append(config)
        raise ValueError("read")

    monkeypatch.setattr(critic_report, "read_card", lambda folder: card)
    monkeypatch.setattr(critic_report, "open_dataset", lambda root: root)
    monkeypatch.setattr(critic_report, "load_source", read)
    return asked


def test_data_that_have_changed_since_the_training_hold_nothing_out(trained_elsewhere, monkeypatch):
    """Of other episodes others are held out: a critic would be judged on what it was trained on."""
    monkeypatch.setattr(critic_report, "fingerprint_of", lambda dataset: "with more episodes")
    with pytest.raises(ValueError, match=r"has changed since the critic was trained on it.*give others with --data"):
        held_decisions("critic", (), "", 10, np.random.default_rng(0))


def test_a_critic_that_does_not_say_how_it_was_trained_is_named(tmp_path):
    (tmp_path / "policy").mkdir()
    folder = save_toy_critic(tmp_path / "critic", tmp_path / "policy")
    with pytest.raises(
        ValueError, match="critic does not say how it was trained: only critics of `vla-rl train value`"
    ):
        held_decisions(folder, (), "", 10, np.random.default_rng(0))


def test_a_critic_is_judged_where_it_is_asked_to_be_and_not_where_it_was_trained(trained_elsewhere, monkeypatch):
    monkeypatch.setattr(critic_report, "fingerprint_of", lambda dataset: "as it was")
    with pytest.raises(ValueError, match=r"^read$"):
        held_decisions("critic", (), "", 10, np.random.default_rng(0), "cpu")
    assert [config.device for config in trained_elsewhere] == ["cpu"]


@pytest.mark.parametrize(("recorded", "asked"), [(4, (1.0, 4)), (1, (0.0, 8)), (16, (1.0, 8))])
def test_rollouts_with_few_candidates_are_judged_by_those_they_have(trained_elsewhere, monkeypatch, recorded, asked):
    """One chunk a decision is nothing to compare; eight are what a training asks for, and a report by default."""
    table = SimpleNamespace(chunks=np.zeros((5, recorded, 8, 2), np.float32))
    monkeypatch.setattr(critic_report, "fingerprint_of", lambda dataset: "as it was")
    monkeypatch.setattr(critic_report, "read_candidates", lambda root: table)
    with pytest.raises(ValueError, match=r"^read$"):
        held_decisions("critic", (), "", 10, np.random.default_rng(0))
    assert [(config.rank, config.candidates) for config in trained_elsewhere] == [asked]


def test_a_calibrated_critic_has_no_error_and_a_shifted_one_its_shift():
    returns = np.linspace(0, 2, 100)
    assert calibration(returns, returns)["calibration_error"] == pytest.approx(0.0)
    shifted = calibration(returns + 0.5, returns)
    assert shifted["calibration_error"] == pytest.approx(0.25)
    assert shifted["bias"] == pytest.approx(0.5)
    assert sum(b["decisions"] for b in shifted["calibration"]) == 100


def test_an_auc_is_the_chance_of_the_right_order():
    assert auc(np.array([1.0, 2.0, 3.0]), np.array([False, False, True])) == 1.0
    assert auc(np.array([1.0, 1.0]), np.array([False, True])) == 0.5
    assert auc(np.array([1.0]), np.array([True])) is None


def test_the_verdict_is_kept_with_the_critic_and_a_failed_one_does_not_steer(tmp_path):
    (tmp_path / "policy").mkdir()
    folder = save_toy_critic(tmp_path / "critic", tmp_path / "policy")
    said = conclude(folder, judge(backwards), Gate())
    assert (said["verdict"], read_card(folder)["report"]["reason"]) == ("fail", said["reason"])
    with pytest.raises(ValueError, match=r"failed its report \(rank correlation -1.00, wanted at least 0.3"):
        LoadedCritic.load(folder)
    conclude(folder, judge(right), Gate())
    assert LoadedCritic.load(folder).members == 2


def test_a_curve_that_surely_falls_speaks_against_the_critic():
    def point(n, low, high):
        return {"candidates": n, "compare": {"ci95": [low, high]}}

    assert turned_down([point(1, 0, 0), point(8, -0.1, 0.1)]) == []
    assert turned_down([point(1, 0, 0), point(32, -0.3, -0.1)]) == ["success falls with 32 candidates"]


def test_the_page_shows_the_verdict_and_stays_text():
    compared = {"difference": 0.25, "ci95": [0.1, 0.4]}
    points = [
        {"candidates": n, "success_rate": 0.5, "ci95": [0.4, 0.6], "value": v, "compare": compared}
        for n, v in ((1, None), (8, 0.7))
    ]
    report = {**judge(right), "verdict": "pass", "reason": "<script>", "n_curve": points}
    page = critic_page.render(report, "<b>mine</b>")
    assert "pass" in page
    assert "+25.0 (+10.0 to +40.0)" in page
    assert "<script>" not in page
    assert "<b>mine" not in page


def drawn(rng, knows, rows=600, k=6):
    """What happened in decisions of known advantage, and a critic that says `knows` times that."""
    state, following = rng.normal(size=(2, rows))
    worth = rng.normal(size=rows)  # of what was done, over what the policy does
    reward = state + worth - 0.9 * following  # so that the outcome's advantage is worth
    value = state + knows * worth
    return reward, np.full(rows, 0.9), value, np.repeat(state[:, None], k, 1), np.repeat(following[:, None], k, 1)


def test_the_advantage_that_came_out_is_that_of_the_action_and_not_of_the_state():
    said, found = advantages(*drawn(np.random.default_rng(0), knows=1.0))
    np.testing.assert_allclose(said, found)
    said, _ = advantages(*drawn(np.random.default_rng(0), knows=0.0))
    np.testing.assert_allclose(said, 0.0, atol=1e-12)


def test_both_advantages_share_no_noise_of_the_policys_chunks():
    rng = np.random.default_rng(0)
    reward, discount, value, sampled, following = drawn(rng, knows=0.0)
    noisy = sampled + rng.normal(size=sampled.shape)
    said, found = advantages(reward, discount, value, noisy, following)
    assert abs(np.corrcoef(said, found)[0, 1]) < 0.1
    shared = np.corrcoef(value - noisy.mean(1), reward + discount * following.mean(1) - noisy.mean(1))[0, 1]
    assert shared > 0.15, "what the halves are for"


def test_nothing_follows_a_terminal():
    reward, discount, value, sampled, _ = drawn(np.random.default_rng(0), knows=1.0)
    unknown = np.full_like(sampled, np.nan)
    _, found = advantages(reward, 0 * discount, value, sampled, unknown)
    np.testing.assert_allclose(found, reward - sampled[:, 0])
    assert np.isnan(advantages(reward, discount, value, sampled, unknown)[1]).all()
