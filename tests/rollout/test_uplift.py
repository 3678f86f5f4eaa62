"""Promises of the uplift benchmark's figures."""

import json

import numpy as np
import pytest

from vla_rl import bench
from vla_rl.bench import uplift as benchmark
from vla_rl.rollout.evaluate import summarise
from vla_rl.rollout.statistics import mean_of_tasks
from vla_rl.rollout.uplift import CURVE, Setup, gain, metrics, rates, table

SETUP = Setup("weak", "critic", {"selector": "lcb", "k": 0.5}, distilled="distilled", third_party="act")


def result(rates, seeds=40, notes=None):
    """Success of the first `rate` share of the seeds, task by task."""
    records = [
        {
            "task": task, "seed": seed, "choice": 0, "success": seed < rate * seeds, "target": "", "touched": "",
            "cycle_time_s": 1.0 if seed < rate * seeds else None, "invalid": "",
        }
        for task, rate in rates.items()
        for seed in range(seeds)
    ]  # fmt: skip
    return summarise(records)


def test_a_gain_is_the_mean_of_the_tasks_with_an_interval_around_it():
    said = gain(result({"lift": 0.75, "push": 0.5}), result({"lift": 0.25, "push": 0.5}))
    assert said["points"] == pytest.approx(25.0)
    assert said["lo"] < 25.0 < said["hi"]
    assert said["tasks"]["push"] == (0.0, 0.0, 0.0)
    assert said["tasks"]["lift"][1] > 30


def test_arms_are_compared_on_the_episodes_that_both_played():
    many, few = result({"lift": 1.0, "push": 1.0}), result({"lift": 0.5, "push": 0.5}, seeds=10)
    assert gain(many, few)["points"] == pytest.approx(50.0)
    with pytest.raises(ValueError, match="share no episode"):
        gain(result({"lift": 1.0, "push": 1.0}), result({"stack": 1.0, "place": 1.0}))


def test_pairs_that_go_together_make_the_interval_narrow():
    rng = np.random.default_rng(0)
    base = rng.random(400) < 0.5
    better = base | (rng.random(400) < 0.2)
    _, low, high = mean_of_tasks([100.0 * (better.astype(float) - base)])
    _, wide_low, wide_high = mean_of_tasks([100.0 * (better.astype(float) - rng.permutation(base))])
    assert high - low < 0.7 * (wide_high - wide_low)


def test_the_figures_have_the_keys_that_were_asked_for():
    tasks = ("lift", "push")
    arms = {
        name: result(dict.fromkeys(tasks, rate))
        for name, rate in {
            "first": 0.4, "steered": 0.7, "random": 0.4, "medoid": 0.5, "distilled": 0.6, "filtered_bc": 0.5,
            "third_party": 0.3, "third_party_steered": 0.5, "oracle": 0.9, "steered_4": 0.6, "steered_16": 0.65,
        }.items()
    }  # fmt: skip
    found = metrics(arms)
    expected = {
        "gain_points": 30, "vs_random_points": 30, "vs_medoid_points": 20, "third_party_gain_points": 20,
        "distilled_gain_points": 20, "vs_filtered_bc_points": 20, "oracle_gain_points": 50,
    }  # fmt: skip
    assert {key: pytest.approx(value) for key, value in expected.items()} == {key: found[key] for key in expected}
    assert {"gain_points_lo", "worst_task_points_hi", "vs_random_points_lo", "vs_medoid_points_lo"} <= found.keys()
    assert found["n_curve"] == "1: 40.0, 4: 60.0, 8: 70.0, 16: 65.0"
    assert found["n_curve_best"] == 8
    assert "| steered | 70.0% | 70.0% | 70.0% |" in table(rates(arms))


def test_a_task_that_gets_surely_worse_shows_in_the_worst_tasks_upper_end():
    worse = metrics({"first": result({"a": 0.1, "b": 0.9}), "steered": result({"a": 1.0, "b": 0.2})})
    assert worse["worst_task_points_hi"] < 0 < worse["gain_points_hi"]


def test_every_arm_draws_the_same_number_but_the_policy_alone_and_the_curve():
    arms = SETUP.arms()
    assert {arms[name].candidates for name in ("steered", "random", "medoid", "audit", "oracle")} == {8}
    assert arms["first"].candidates == arms["distilled"].candidates == 1
    assert [arms[f"steered_{k}"].candidates for k in CURVE if k not in (1, 8)] == [2, 4, 16, 32]
    assert "filtered_bc" not in arms, "there is none in this setup"
    assert not arms["random"].critic


def test_a_setup_that_is_none_is_refused_in_one_line(tmp_path):
    path = tmp_path / "setup.json"
    for text, message in (
        ('{"policy": "a", "critic": "b", "rule": {}, "selector": "lcb"}', "it has selector; known are candidates"),
        ('{"policy": "a"}', "is not the setup of an uplift: .*missing"),
        ("[", "is not the setup of an uplift"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            Setup.load(path)
    path.write_text(json.dumps({"policy": "a", "critic": "b", "rule": {"selector": "lcb"}, "about": "a note"}))
    assert Setup.load(path).candidates == 8
    with pytest.raises(ValueError, match="no arm 'best'; there are: first, steered, random, medoid"):
        benchmark.run(setup=str(path), only="best")


def test_options_of_one_benchmark_are_refused_by_others_and_all_leaves_it_out():
    with pytest.raises(ValueError, match="benchmark 'startup' takes no --episodes"):
        bench.run("startup", episodes=3)
    assert set(bench.LONG) <= set(bench.names())
