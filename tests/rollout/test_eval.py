from functools import partial

import pytest

from vla_rl import build
from vla_rl.rollout.evaluate import (
    EvalConfig,
    compare,
    counterfactual,
    evaluate,
    jobs,
    language,
    summarise,
)

ENV = build.EnvConfig(env="gymnasium:toy_env:toy/Reach-v0")
TASK = "toy/Reach-v0"


def measure(policy="clumsy", workers=0, out=None, on_progress=lambda done, successes: None, **changes):
    config = EvalConfig(**{"tasks": (TASK,), "episodes": 6, "films": 1, **changes})
    player = partial(build.make_player, ENV, build.PolicyConfig(policy))
    return evaluate(config, {"policy": policy}, player, workers, out, on_progress, partial(build.make_world, ENV))


def episode(success=True, target="cube", touched="cube", task="lift", seed=0, choice=0, time=1.0):
    return {
        "task": task, "seed": seed, "choice": choice, "target": target, "touched": touched,
        "success": success, "cycle_time_s": time if success else None, "invalid": "",
    }  # fmt: skip


def test_the_same_seeds_give_the_same_result_whatever_the_workers():
    assert measure() == measure() == measure(workers=2)
    assert measure() != measure(seed_base=5)


def test_two_policies_play_the_same_scenes():
    keys = ("task", "seed", "variant", "instruction", "target")
    scenes = [[tuple(e[k] for k in keys) for e in measure(p)["per_episode"]] for p in ("clumsy", "expert")]
    assert scenes[0] == scenes[1]


def test_the_result_has_every_key_of_the_command_line_contract():
    result = measure("expert")
    assert {"task", "policy", "episodes", "successes", "success_rate", "ci95", "cycle_time_s", "seeds"} <= result.keys()
    assert (result["episodes"], result["successes"], result["success_rate"]) == (6, 6, 1.0)
    assert result["seeds"] == [1_000_000 + i for i in range(6)]
    assert len(result["per_episode"]) == 6
    assert result["language"]["accuracy"] == 1.0


def test_an_interrupted_evaluation_goes_on_to_the_same_result(tmp_path):
    class StopError(Exception):
        pass

    def stop(done, successes):
        if done == 3:
            raise StopError

    with pytest.raises(StopError):
        measure(out=tmp_path / "e", on_progress=stop)
    seen = []
    result = measure(out=tmp_path / "e", on_progress=lambda done, successes: seen.append(done))
    assert seen[0] == 3
    assert result == measure()
    assert [p.name for p in (tmp_path / "e" / "videos").iterdir()] == ["toy_Reach-v0-1000000-0.mp4"]


def test_a_log_cut_short_by_a_kill_loses_only_its_last_line(tmp_path):
    measure(out=tmp_path / "e")
    log = tmp_path / "e" / "episodes.jsonl"
    log.write_text(log.read_text()[:-20])
    seen = []
    assert measure(out=tmp_path / "e", on_progress=lambda done, _: seen.append(done)) == measure()
    assert seen[0] == 5


def test_another_request_in_the_same_folder_is_refused_by_what_differs(tmp_path):
    measure(out=tmp_path / "e")
    with pytest.raises(ValueError, match="policy was 'clumsy', now 'expert'"):
        measure("expert", out=tmp_path / "e")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        measure(out=tmp_path / "other")


def test_no_touch_counts_as_wrong():
    said = language([episode(), episode(touched=""), episode(touched="ball"), episode(target="", touched="x")])
    assert (said["episodes"], said["right"], said["untouched"]) == (3, 1, 1)


def test_where_nothing_is_named_there_is_no_language_figure():
    assert language([episode(target="")]) is None


def test_a_pair_counts_only_where_both_go_to_their_own_object():
    right = [episode(seed=1), episode(seed=1, choice=1, target="ball", touched="ball", success=False)]
    wrong = [episode(seed=2), episode(seed=2, choice=1, target="ball", touched="cube")]
    alone = [episode(seed=3)]
    found = counterfactual([*right, *wrong, *alone])
    assert (found["pairs"], found["right"], found["both_succeed"]) == (2, 1, 1)
    assert counterfactual(alone) is None


def test_pairs_play_every_scene_with_two_targets():
    result = measure("expert", pairs=True)
    assert (result["episodes"], result["pairs"]["pairs"], result["pairs"]["accuracy"]) == (12, 6, 1.0)


def test_only_what_names_a_combination_is_played():
    result = measure("expert", only=(f"{TASK}:left",))
    assert [e["target"] for e in result["per_episode"]] == ["left corner"] * 6
    assert result["seeds"] == [1_000_000 + i for i in range(6)]


def test_scenes_without_the_named_object_are_passed_over():
    scout = partial(build.make_world, build.EnvConfig(cameras=()))
    played = jobs(EvalConfig(("push",), 8, only=("push:yellow",)), scout)
    world = scout("push")
    assert {world.reset(job.seed, job.choice).info["target"] for job in played} == {"yellow cube"}
    assert len({job.seed for job in played}) == 8
    assert max(job.seed for job in played) > 1_000_007


def test_a_combination_that_no_scene_has_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match=r"not enough scenes name that; there are: .*:left corner, .*:right corner"):
        measure(only=("lift:left",), episodes=1)
    with pytest.raises(ValueError, match="--pairs names two objects"):
        measure(only=("left",), pairs=True)


def test_cycle_time_is_of_successes_alone():
    summary = summarise([episode(time=2.0), episode(time=4.0), episode(success=False)])
    assert (summary["cycle_time_s"], summary["cycle_time_p50_s"]) == (3.0, 3.0)
    assert summarise([episode(success=False)])["cycle_time_s"] is None


def test_several_tasks_are_summed_up_each_and_as_a_mean_of_tasks():
    summary = summarise([episode(), episode(seed=1, success=False), episode(task="push", success=False)])
    assert summary["tasks"]["lift"]["success_rate"] == 0.5
    assert summary["tasks"]["push"]["success_rate"] == 0.0
    assert summary["mean_task_success_rate"] == 0.25


def test_results_are_compared_on_the_episodes_that_both_have():
    first, second = measure("expert"), measure("random", episodes=4)
    compared = compare(first, second)
    assert (compared["other"], compared["pairs"], compared["difference"]) == ("random", 4, 1.0)
    with pytest.raises(ValueError, match="share no episode"):
        compare(first, measure("random", seed_base=5))
