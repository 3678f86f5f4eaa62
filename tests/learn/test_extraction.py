"""From a critic to a policy: which frames are imitated, how much, with which targets, and what they are told."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lerobot.policies.act.configuration_act import ACTConfig
from test_bc import EPISODES, LENGTH, NAMES, SIZE, cache

from vla_rl.data.sidecars import write_column
from vla_rl.data.trajectories import Trajectories
from vla_rl.learn import extraction
from vla_rl.learn.advantages import Judged, carried
from vla_rl.learn.awr import AdvantageWeightedCloning, advantage_weight, best_share
from vla_rl.learn.bc import BehaviourCloning
from vla_rl.learn.best_of_n import BestOfN, best_candidates
from vla_rl.learn.config import BCConfig
from vla_rl.learn.critic_config import CriticRunConfig
from vla_rl.learn.extraction_config import AWRConfig, BestOfNConfig, RecapConfig
from vla_rl.learn.recap import Recap, better_than_expected
from vla_rl.learn.value import load_source
from vla_rl.policy.modeling_vla_rl import VLAPolicy
from vla_rl.value.checkpoint import CriticFolder
from vla_rl.value.config import CriticConfig
from vla_rl.value.critic import ChunkCritic
from vla_rl.value.inputs import plain_stats
from vla_rl.value.state_value import StateValue

H, WINDOW, K = 8, 4, 5
ROWS = EPISODES * LENGTH


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A policy to go on from."""
    folder = tmp_path_factory.mktemp("start")
    BehaviourCloning(BCConfig(**small(folder)), [cache()]).save(folder)
    return folder


def small(out, **changes):
    tiny = ("width=32", "text_width=16", "queries=2", "noise_draws=1")
    settings = {"data": ("set",), "out": str(out), "batch": 12, "horizon": H, "image_size": SIZE, "policy": tiny}
    return settings | {"device": "cpu", "bf16": "off", "tensorboard": False} | changes


def trajectories(source, candidates=True, failures=True):
    """The cache as a critic's side sees it: features that say nothing, candidates at every fourth frame."""
    rng = np.random.default_rng(1)
    last = np.zeros(ROWS, bool)
    last[source.starts[1:] - 1] = True
    won = np.arange(EPISODES) % 2 == 0 if failures else np.ones(EPISODES, bool)
    drawn = np.arange(0, ROWS, WINDOW)
    offered = rng.normal(0, 1, (len(drawn), K, H, 6)).astype(np.float32)
    return Trajectories.of(
        features=np.ones((ROWS, 3), np.float32),
        state=source.columns["observation.state"],
        action=source.columns["action"],
        reward=(last & np.repeat(won, LENGTH)).astype(np.float32),
        done=last & np.repeat(won, LENGTH),
        truncated=last & ~np.repeat(won, LENGTH),
        starts=source.starts,
        success=won,
        **({"candidates": offered, "candidate_rows": drawn} if candidates else {}),
    )


class Taste(ChunkCritic):
    """Likes a chunk for the first number of its first action."""

    def value(self, context, chunks):
        return chunks[None, :, :, 0, 0].expand(2, -1, -1)


def judged(*sets):
    shape = CriticConfig(feature_dim=3, state_dim=6, action_dim=6, window=WINDOW, low=-1, high=1, width=16, head="mse")
    critic, value = Taste(shape), StateValue(shape.value())
    stats = plain_stats(features=(3,), state=(6,), chunk=(WINDOW, 6))
    critic.set_stats(stats)
    value.set_stats(stats)
    with torch.no_grad():
        value.out.weight.zero_()
        value.out.bias.zero_()  # V is 0 everywhere
    return Judged(CriticFolder(critic.eval(), value.eval(), {"algorithm": "iql"}, None), sets, WINDOW, "mean")


@pytest.fixture
def critic(monkeypatch):
    """What `judge` finds, in place of reading checkpoints and encoding frames."""

    def use(*sets):
        monkeypatch.setattr(extraction, "judge", lambda config, device, candidates, baseline: judged(*sets))

    return use


def test_best_of_n_imitates_the_argmax_only_where_it_clears_the_threshold():
    advantage = np.array([[0.1, 0.3, 0.2], [0.0, -0.1, 0.04], [-3.0, -2.0, -1.0]], np.float32)
    best, chosen = best_candidates(advantage, 0.05)
    assert best.tolist() == [1, 2, 2]
    assert chosen.tolist() == [True, False, False]
    best, chosen = best_candidates(np.array([[0.5, np.nan, 0.1], [np.nan] * 3], np.float32), 0.05)
    assert (best[0], chosen.tolist()) == (0, [True, False])


def test_where_chunks_were_ranked_the_policys_own_are_the_baseline_and_not_a_state_value():
    source = cache()
    drawn = trajectories(source)
    offered, rows = drawn.candidates[:, :, 0, 0], np.flatnonzero(drawn.slot >= 0)
    plain, ranked = judged(drawn), judged(drawn)
    ranked.folder.card["training"] = {"rank": 1.0}
    found, advantage = ranked.of_candidates()
    np.testing.assert_allclose(advantage, (offered - offered.mean(1, keepdims=True))[drawn.slot[found]], atol=1e-6)
    found, advantage = ranked.of_data()
    assert set(found) <= set(rows)
    wanted = source.columns["action"][found, 0] - offered.mean(1)[drawn.slot[found]]
    np.testing.assert_allclose(advantage, wanted, atol=1e-6)
    found, advantage = plain.of_data()
    np.testing.assert_allclose(advantage, source.columns["action"][found, 0], atol=1e-6)


def test_advantage_weights_are_exponential_up_to_their_cap():
    weight = advantage_weight(np.array([0.0, 0.1, 0.2, 9.0], np.float32), 0.1, 20.0)
    assert weight == pytest.approx([1.0, np.e, np.e**2, 20.0], rel=1e-5)


def test_ten_percent_keeps_the_best_episodes_and_their_ties():
    assert best_share(np.array([0.0, 5.0, 1.0, 5.0]), 0.25).tolist() == [False, True, False, True]
    assert best_share(np.array([0.0, 1.0]), 0.01).tolist() == [False, True]


def test_better_than_expected_is_a_share_of_every_set():
    advantage, owner = np.arange(20, dtype=np.float32), np.repeat([0, 1], 10)
    better = better_than_expected(advantage, owner, 0.3)
    assert better[:10].sum() == better[10:].sum() == 3


def test_a_frame_between_decisions_goes_with_the_last_one_of_its_own_episode():
    rows, values = np.array([0, 4, 11]), np.array([1.0, 2.0, 3.0], np.float32)
    found = carried(rows, values, np.array([0, 8, 14]), -1.0)
    assert found.tolist() == [1, 1, 1, 1, 2, 2, 2, 2, -1, -1, -1, 3, 3, 3]


def test_filtered_cloning_never_draws_a_failure(tmp_path):
    source = cache()
    for number, episode in enumerate(source.episodes):
        episode["outcome"] = "failure" if number % 3 == 0 else "success"
    learner = AdvantageWeightedCloning(AWRConfig(**small(tmp_path, rule="filtered")), [source])
    drawn = np.concatenate([learner._indices(step) for step in range(20)])
    assert set(learner.data.episode_of(drawn)) == {1, 2, 4, 5}
    assert torch.equal(learner.batch(0)["weight"], torch.ones(12))
    for episode in source.episodes:
        episode["outcome"] = "failure"
    with pytest.raises(ValueError, match="none of 6 episodes is one"):
        AdvantageWeightedCloning(AWRConfig(**small(tmp_path, rule="filtered")), [source])


def test_advantages_weigh_the_frames_of_their_chunk_and_average_to_one(tmp_path, start, critic):
    source = cache()
    critic(trajectories(source))
    settings = AWRConfig(**small(tmp_path, init=str(start), critic="c", temperature=5.0))
    learner = AdvantageWeightedCloning(settings, [source])
    liked = source.columns["action"][:, 0]
    assert learner.weight.mean() == pytest.approx(1.0, rel=1e-4)
    first = learner.weight[source.starts[:-1]]
    assert (np.argsort(first) == np.argsort(liked[source.starts[:-1]])).all()
    assert torch.equal(learner.batch(0)["weight"], torch.from_numpy(learner.weight[learner._indices(0)]))


def test_distilled_targets_are_whole_candidates_and_demonstrations_stay_as_they_are(tmp_path, start, critic):
    rollouts, demos = cache(), cache()
    seen = trajectories(rollouts)
    critic(seen, trajectories(demos, candidates=False))
    settings = BestOfNConfig(**small(tmp_path, init=str(start), critic="c", threshold=0.5, own_share=0.25))
    learner = BestOfN(settings, [rollouts, demos])
    drawn = np.concatenate([learner._indices(step) for step in range(30)])
    own = drawn >= ROWS
    assert own.mean() == pytest.approx(0.25, abs=0.01)
    items = learner._items(drawn)
    best = seen.candidates[..., 0, 0].argmax(1)
    for place, row in enumerate(drawn):
        if own[place]:
            assert torch.equal(items["action"][place], learner.data.batch(drawn[[place]])["action"][0])
            continue
        slot = seen.slot[row]
        assert slot >= 0
        assert seen.candidates[slot, best[slot], 0, 0] > 0.5
        assert np.array_equal(items["action"][place].numpy(), seen.candidates[slot, best[slot]])
        assert not items["action_is_pad"][place].any()


def test_best_of_n_without_candidates_says_how_to_record_them(tmp_path, start, critic):
    source = cache()
    critic(trajectories(source, candidates=False))
    with pytest.raises(ValueError, match="collect --candidates 8"):
        BestOfN(BestOfNConfig(**small(tmp_path, init=str(start), critic="c")), [source])


def test_candidates_that_the_policy_could_not_imitate_are_named_with_both_lengths(tmp_path, start, critic):
    source = cache()
    seen = trajectories(source)
    critic(Trajectories(**{**vars(seen), "candidates": seen.candidates[:, :, :5]}))
    with pytest.raises(ValueError, match="have 5 actions, --init's chunks 8: another policy drew them"):
        BestOfN(BestOfNConfig(**small(tmp_path, init=str(start), critic="c", threshold=0.5)), [source])


def test_recap_asks_for_the_reward_that_the_critics_values_are_of(tmp_path, start, monkeypatch):
    """Steps of next.reward against values of another reward are advantages of nothing."""
    source = cache()
    found = judged(trajectories(source))
    found.folder.card["training"] = {"reward": "sooner"}
    monkeypatch.setattr(extraction, "judge", lambda *asked: found)
    with pytest.raises(ValueError, match=r"the reward 'sooner', not of next.reward: --reward sooner"):
        Recap(RecapConfig(**small(tmp_path, init=str(start), critic="c")), [source])
    Recap(RecapConfig(**small(tmp_path, init=str(start), critic="c", reward="sooner")), [source])
    with pytest.raises(ValueError, match=r"of the reward 'sooner', not of the reward 'sparse': --reward sooner"):
        Recap(RecapConfig(**small(tmp_path, init=str(start), critic="c", reward="sparse")), [source])
    found.folder.card["training"] = {"reward": ""}
    with pytest.raises(ValueError, match=r"of next.reward, not of the reward 'sparse': leave out --reward"):
        Recap(RecapConfig(**small(tmp_path, init=str(start), critic="c", reward="sparse")), [source])
    Recap(RecapConfig(**small(tmp_path, init=str(start), critic="c")), [source])


def test_a_policy_that_is_not_ours_is_nothing_to_go_on_from(tmp_path):
    ACTConfig(push_to_hub=False).save_pretrained(tmp_path / "act")
    with pytest.raises(ValueError, match="holds a policy of type 'act', not 'vla_rl'"):
        AdvantageWeightedCloning(AWRConfig(**small(tmp_path, init=str(tmp_path / "act"), rule="filtered")), [cache()])


def test_a_critic_reads_a_policy_of_ours_and_the_same_arms_data(tmp_path, start, monkeypatch):
    ACTConfig(push_to_hub=False).save_pretrained(tmp_path / "act")
    with pytest.raises(ValueError, match=r"--policy .*act is of type 'act'.* --encoder own"):
        load_source(CriticRunConfig(data=("set",), policy=str(tmp_path / "act"), out="out"))
    about = json.loads((start / "config.json").read_text())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.json").write_text(json.dumps({**about, "action_feature_names": NAMES}))
    other = SimpleNamespace(root="elsewhere", names=lambda column: [f"finger_{i}" for i in range(6)])
    monkeypatch.setattr("vla_rl.learn.value.open_dataset", lambda root: other)
    with pytest.raises(ValueError, match=r"elsewhere has the actions finger_0, .*; --policy .*mine has joint_0.pos, "):
        load_source(CriticRunConfig(data=("set",), policy=str(tmp_path / "mine"), out="out"))


def test_a_set_that_says_nothing_of_rewards_has_not_earned_nothing(start, monkeypatch):
    """Demonstrations of LeRobot's own recorder, beside rollouts with rewards: all of them would count as failures."""
    unpaid = SimpleNamespace(root="demonstrations", names=lambda column: [], features={"action": {}})
    monkeypatch.setattr("vla_rl.learn.value.open_dataset", lambda root: unpaid)
    monkeypatch.setattr("vla_rl.learn.value.load_trajectories", lambda *asked, **more: pytest.fail("was read"))
    asked = {"data": ("set",), "policy": str(start), "out": "out"}
    with pytest.raises(ValueError, match=r"demonstrations has no next.reward: make rewards .* --reward TAG"):
        load_source(CriticRunConfig(**asked, algo="iql"))
    for told in ({"algo": "iql", "reward": "sparse"}, {"algo": "pvp"}):
        with pytest.raises(pytest.fail.Exception, match="was read"):
            load_source(CriticRunConfig(**asked, **told))


def test_returns_of_another_discount_are_refused_by_what_learns_from_them(tmp_path, start, monkeypatch):
    """Half of Cal-QL's targets would be discounted one way, and half another."""
    (tmp_path / "meta").mkdir()
    write_column(tmp_path, "return", "sparse", np.zeros(3, np.float32), np.array([0, 3]), {"gamma": 0.99})
    unnamed = SimpleNamespace(names=lambda column: [])
    monkeypatch.setattr("vla_rl.learn.value.open_dataset", lambda root: unnamed)
    monkeypatch.setattr("vla_rl.learn.value.load_trajectories", lambda *asked, **more: pytest.fail("was read"))
    asked = {"data": (str(tmp_path),), "policy": str(start), "out": "out", "reward": "sparse"}
    for algo in ("monte_carlo", "calql"):
        with pytest.raises(ValueError, match=r"have gamma 0.99, this run 0.9: .*dataset reward --gamma 0.9`, or give"):
            load_source(CriticRunConfig(**asked, algo=algo, gamma=0.9))
    for algo, gamma in (("iql", 0.9), ("calql", 0.99)):
        with pytest.raises(pytest.fail.Exception, match="was read"):
            load_source(CriticRunConfig(**asked, algo=algo, gamma=gamma))


def test_recap_tells_the_share_that_was_better_and_trusts_what_never_failed(tmp_path, start, critic):
    rollouts, demos = cache(), cache()
    critic(trajectories(rollouts), trajectories(demos, failures=False))
    learner = Recap(RecapConfig(**small(tmp_path, init=str(start), critic="c", positive=0.3)), [rollouts, demos])
    assert learner.better[ROWS:].all()
    assert 0.0 < learner.better[:ROWS].mean() < 0.5
    assert torch.equal(learner.batch(0)["advantage"], torch.from_numpy(learner.better[learner._indices(0)]))
    config = learner.policy.config
    assert (config.advantage, config.context_dropout, config.guidance_scale) == (True, 0.3, 1.5)
    with torch.no_grad():
        for weight in learner.policy.head.parameters():  # a new head ends in zeros
            weight.add_(0.05 * torch.randn_like(weight))
    loss, _ = learner.model(learner.batch(0))
    loss.backward()
    assert learner.policy.advantage.vectors.grad.abs().sum() > 0


def test_a_humans_chunk_is_better_only_as_far_as_the_human_drove(tmp_path, start, critic):
    source = cache()
    drove = np.zeros((EPISODES, LENGTH), bool)
    drove[0, 5:12] = True
    source.columns["intervention"] = drove.reshape(-1)
    critic(trajectories(source))
    learner = Recap(RecapConfig(**small(tmp_path, init=str(start), critic="c")), [source])
    items = learner._items(np.array([2, 5, 11, LENGTH - 1]))
    assert (~items["action_is_pad"]).sum(1).tolist() == [H, 7, 1, 1]


def test_a_recap_policy_starts_as_its_base_and_survives_saving(tmp_path, start, critic):
    source = cache()
    critic(trajectories(source))
    learner = Recap(RecapConfig(**small(tmp_path, init=str(start), critic="c")), [source])
    base, told = VLAPolicy.from_pretrained(start), learner.policy.eval()
    batch = learner.data.batch(np.arange(4))
    with torch.no_grad():
        assert torch.equal(base.encode(batch).pooled, told.encode(batch).pooled)  # critics read what they always did
        told.advantage.vectors.zero_()
        noise = torch.randn(4, 1, H, 6)
        assert torch.allclose(
            base.sample(base.encode(batch), noise=noise), told.sample(told.encode(batch), noise=noise), atol=1e-4
        )
    learner.save(tmp_path)
    again = VLAPolicy.from_pretrained(tmp_path)
    assert torch.equal(again.advantage.vectors, told.advantage.vectors)


def test_guidance_leads_from_untold_to_better(tmp_path, start, critic):
    source = cache()
    critic(trajectories(source))
    policy = Recap(RecapConfig(**small(tmp_path, init=str(start), critic="c", guidance=2.0)), [source]).policy.eval()
    with torch.no_grad():
        for weight in policy.head.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
        context = policy.encode(cache_batch(source))
        x, t = torch.randn(2, 3, H, 6), torch.full((1, 1), 40)
        untold = policy.head(x, t, policy.head.memory(context.features))
        better = policy.head(x, t, policy.head.memory(policy.advantage(context.features)))
        assert not torch.allclose(untold, better)
        assert torch.allclose(policy._predictor(context)(x, t), 2 * better - untold, atol=1e-5)


def cache_batch(source):
    from vla_rl.data.chunks import ChunkDataset

    return ChunkDataset(source, H).batch(np.arange(2))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: AWRConfig(rule="best"), "rule must be filtered"),
        (lambda: AWRConfig(rule="awr"), "needs a critic and init"),
        (lambda: BestOfNConfig(data=("d",), out="o"), "needs a critic and init"),
        (lambda: RecapConfig(data=("d",), out="o"), "needs a critic and init"),
        (lambda: RecapConfig(positive=1.0), "positive must lie in"),
    ],
)
def test_impossible_extractions_are_refused_in_one_line(make, said):
    with pytest.raises(ValueError, match=said) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_a_threshold_that_nothing_clears_is_named_with_the_largest_advantage(tmp_path, start, critic):
    rollouts = cache()
    critic(trajectories(rollouts))
    with pytest.raises(ValueError, match=r"no candidate clears --threshold 1e\+06; the largest advantage is"):
        BestOfN(BestOfNConfig(**small(tmp_path, init=str(start), critic="c", threshold=1e6)), [rollouts])
