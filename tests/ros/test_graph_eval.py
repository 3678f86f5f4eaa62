"""Episodes through the whole graph, real nodes in processes of their own: the same scenes and figures as eval."""

from functools import partial

import pytest

from vla_rl import build
from vla_rl.rollout.evaluate import EvalConfig, evaluate
from vla_rl.ros.evaluate import make_player

POLICY = build.check_policy("tabletop")
ENV = build.fit_env(build.EnvConfig(), POLICY)
CONFIG = EvalConfig(("lift", "button"), 1, films=1)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """One episode of two tasks: folder, result, player, messages of progress."""
    out, players, seen = tmp_path_factory.mktemp("graph") / "eval", [], []

    def player():
        players.append(make_player(ENV, POLICY))
        return players[0]

    result = evaluate(CONFIG, {"policy": "tabletop"}, player, 0, out, lambda done, _: seen.append(done))
    return out, result, players[0], seen


def test_episodes_are_those_of_one_process(played):
    keys = ("task", "seed", "choice", "variant", "instruction", "target")
    here = partial(build.make_player, ENV, build.PolicyConfig("random"))
    twin = evaluate(CONFIG, {}, here)
    _, result, _, seen = played
    assert [[r[k] for k in keys] for r in result["per_episode"]] == [[r[k] for k in keys] for r in twin["per_episode"]]
    assert seen == [0, 1, 2]


def test_the_result_has_the_keys_of_eval_and_the_films(played):
    out, result, _, _ = played
    assert {"success_rate", "ci95", "cycle_time_s", "language", "tasks", "per_episode"} <= result.keys()
    assert sorted(p.suffix for p in (out / "videos").iterdir()) == [".mp4", ".mp4"]


def test_no_chunk_of_one_episode_moves_the_arm_in_the_next(played):
    assert played[2].pace.periods > 0
    assert played[2].pace.old_chunks == 0


def test_what_the_graph_cannot_play_is_refused_before_anything_starts():
    with pytest.raises(ValueError, match="leave out --graph"):
        make_player(ENV, "expert")
    with pytest.raises(ValueError, match="leave out --graph"):
        make_player(build.EnvConfig(env="gymnasium:toy_env:toy/Reach-v0"), POLICY)
