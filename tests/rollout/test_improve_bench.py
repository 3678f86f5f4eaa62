"""The benchmark of corrections: its setup, how episodes are shared among rounds, and what its figures mean."""

import json
import math

import pytest

from vla_rl.bench import online
from vla_rl.bench.improve import Setup, _share, cycle_ratio, metrics, run
from vla_rl.rollout.evaluate import summarise
from vla_rl.rollout.improve_page import lines, render
from vla_rl.rollout.report import DASH

SESSION = {
    "episodes": 60, "success": 0.9, "autonomous": 0.4, "unmarked": 0, "cycle_s": 4.0, "takeovers": 0.6,
    "intervention_rate": 0.4, "human_minutes": 2.0, "robot_minutes": 5.0,
}  # fmt: skip


def result(wins, seconds=4.0):
    """Two tasks, the scenes in `wins` succeed in each."""
    records = [
        {"task": task, "seed": seed, "choice": 0, "variant": 0, "instruction": "", "target": "", "touched": "",
         "outcome": "success" if seed in wins else "failure", "termination": "success", "steps": 10, "return": 0.0,
         "cycle_time_s": seconds if seed in wins else None, "invalid": "", "actions": "", "success": seed in wins}
        for task in ("lift", "push") for seed in range(10)
    ]  # fmt: skip
    return summarise(records)


def test_episodes_of_all_rounds_add_up():
    for total, parts in ((60, 3), (61, 3), (5, 4)):
        shares = [_share(total, parts, number) for number in range(1, parts + 1)]
        assert sum(shares) == total
        assert max(shares) - min(shares) <= 1


def test_cycle_times_are_compared_where_both_succeed():
    assert cycle_ratio(result({1, 2, 3}, 3.0), result({2, 3, 4}, 4.0)) == pytest.approx(0.75)
    assert math.isnan(cycle_ratio(result({1}), result({2})))


def test_the_figures_are_those_of_the_issue():
    later = {**SESSION, "intervention_rate": 0.1, "human_minutes": 0.5}
    arms = {"base": result({0, 1}), "improved": result({0, 1, 2, 3, 4}, 3.0), "plain": result({0, 1, 2})}
    said = metrics(arms, [{"session": SESSION}, {"session": later}])
    assert (said["base_success"], said["success"], said["plain_success"]) == (20.0, 50.0, 30.0)
    assert said["gain_points"] == pytest.approx(30.0)
    assert said["vs_plain_demos_points"] == pytest.approx(20.0)
    assert said["vs_plain_demos_points_lo"] < 20.0 < said["vs_plain_demos_points_hi"]
    assert said["cycle_ratio"] == pytest.approx(0.75)
    assert (said["human_minutes"], said["robot_minutes"]) == (2.5, 10.0)
    assert (said["intervention_rate_first"], said["intervention_rate_last"]) == (0.4, 0.1)


def test_a_setup_says_what_it_does_not_know(tmp_path):
    path = tmp_path / "setup.json"
    path.write_text(json.dumps({"policy": "p", "data": ["d"], "rounds": 2, "about": {"chosen": "on validation"}}))
    assert (Setup.load(path).rounds, Setup.load(path).method) == (2, "hg_dagger")
    for content, said in (('{"mood": 1}', "it has mood; known are"), ("[]", "not the setup"), ("{}", "not the setup")):
        path.write_text(content)
        with pytest.raises(ValueError, match=said):
            Setup.load(path)
    with pytest.raises(ValueError, match="needs --setup FILE and --work DIR"):
        run()


def test_a_page_escapes_what_it_is_given_and_tells_of_unmarked_episodes():
    curve = [
        {**SESSION, "human_minutes_so_far": 2.0},
        {**SESSION, "human_minutes_so_far": 4.0, "intervention_rate": 0.1},
    ]
    told = {"method": "<script>", "session": {**SESSION, "unmarked": 3}, "curve": curve}
    assert "<script>" not in render(told)
    assert any("3 episodes were never marked" in line for line in lines(told))
    assert "intervention rate 40% at first, 10% in the end" in lines(told)


def test_shares_of_episodes_that_nobody_marked_are_dashes_and_not_failures():
    said = {**SESSION, "success": None, "autonomous": None, "cycle_s": None, "unmarked": SESSION["episodes"]}
    told = {"method": "hg_dagger", "session": said, "curve": [{**said, "human_minutes_so_far": 2.0}]}
    assert f"{DASH} succeeded without and {DASH} with help" in lines(told)[0]
    assert ">0%<" not in render(told)


def test_an_online_sessions_figures_are_those_of_its_first_and_last_window():
    points = [{**SESSION, "intervention_rate": rate, "human_minutes_so_far": 2.0} for rate in (0.4, 0.3, 0.1)]
    said = online.metrics(points)
    assert (said["intervention_rate_first"], said["intervention_rate_last"]) == (0.4, 0.1)
    assert (said["episodes"], said["human_minutes"], said["robot_minutes"]) == (180, 6.0, 15.0)


def test_an_online_session_needs_a_setup_and_a_folder():
    with pytest.raises(ValueError, match="needs --setup FILE and --work DIR"):
        online.run()
