"""A script sits in the operator's place: it takes the arm where progress stalls, its hand is the scripted leader."""

import numpy as np
import pytest

from vla_rl import build
from vla_rl.hil.scripted import OperatorConfig
from vla_rl.robot import arm_spec
from vla_rl.ros.bringup.options import correct_graph
from vla_rl.ros.measure.corrected_session import CorrectedSession, leader_parameters
from vla_rl.ros.measure.stage import Stage

EAGER = OperatorConfig.parse(["patience=0.3", "hope=0.3", "regain=2"])  # takes over soon, drives to the end
EPISODES = 3


@pytest.mark.alone
def test_the_weak_policy_succeeds_with_help_and_the_help_is_recorded(tmp_path):
    from vla_rl.data.cache import open_numbers
    from vla_rl.data.sessions import dataset_of
    from vla_rl.learn.rounds import summary

    policy = build.check_policy("weak")
    env = build.fit_env(build.EnvConfig(), policy)
    asked = {"policy": policy, "session": str(tmp_path / "session"), "console": "false"}
    asked |= {"cameras": ",".join(env.cameras), "image_size": str(env.image_size)}
    stage = Stage(correct_graph(asked, leader_parameters(EAGER)), arm_spec("so101"))
    try:
        session = CorrectedSession(stage, EAGER)
        played = [session.play("place", 44_500 + number) for number in range(EPISODES)]
    finally:
        stage.close()
    assert sum(each.success for each in played) >= EPISODES - 1
    assert sum(each.takeovers for each in played) >= EPISODES - 1
    found = summary([open_numbers(dataset_of(tmp_path / "session"))])
    assert found.episodes == EPISODES
    assert found.unmarked == 0
    assert found.success == np.mean([each.success for each in played])
    assert 0.2 < found.intervention_rate < 1.0


def test_a_trembling_hand_is_refused():
    with pytest.raises(ValueError, match=r"steady hand, got noise=0\.1"):
        leader_parameters(OperatorConfig(noise=0.1))


def test_skill_and_pace_are_the_leaders():
    graph = correct_graph({}, leader_parameters(OperatorConfig(skill="clumsy", pace=1.4)))
    robot = next(node.parameters for node in graph.nodes if node.name == "robot")
    assert (robot["leader"], robot["leader_pace"]) == ("clumsy", 1.4)
