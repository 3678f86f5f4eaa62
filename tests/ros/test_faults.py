"""Faults on real nodes: whoever is stopped or killed, the arm holds, keeps its grip and forgets old plans.

Times are judged by `vla-rl bench gate`, not here: a loaded machine is late with everything.
"""

import pytest

from vla_rl.ros.measure import fuzz
from vla_rl.ros.measure.faults import figures
from vla_rl.ros.measure.injector import Injector
from vla_rl.ros.measure.stalls import Fault, Verdict

FAULTS = [("policy", "stop"), ("steering", "stop"), ("control", "stop"), ("control", "kill"), ("steering", "kill")]


@pytest.fixture(scope="module")
def injector():
    """A graph under fire."""
    under_fire = Injector(seed=1)
    yield under_fire
    under_fire.close()


@pytest.mark.parametrize(("node", "how"), FAULTS)
def test_a_fault_holds_the_arm_and_leaves_nothing_behind(injector, node, how):
    verdict = injector.inject(node, how)
    assert verdict.held
    assert verdict.still
    assert verdict.grip_kept
    assert verdict.old_chunks == 0
    assert verdict.jump <= 1


def test_malformed_messages_on_every_topic_end_no_process_and_move_no_arm(injector):
    stage = injector.stage
    stage.new_episode("lift", 3_000_000)
    before = dict(stage.supervisor.progress.restarts)
    fuzzer = fuzz.Fuzzer(stage)
    topics = fuzzer.topics()
    assert {
        "/joint_states",
        "/joint_commands",
        "/steering/chunk",
        "/policy/candidates",
        "/human/command",
    } <= topics.keys()
    for topic, kind in topics.items():
        fuzzer.flood(topic, kind, 60)
    assert stage.supervisor.progress.restarts == before
    assert fuzz.violations(stage.watch.heard.ticks, stage.watch.spec) == 0


def test_a_measurement_that_heard_too_little_proves_nothing():
    found = {"violations": 0, "periods": 1593, "periods_due": 29_000, "growth_mb": {"robot": 0.1, "policy": 9.0}}
    assert fuzz.faults(found) == [
        "only 1593 of 29000 control periods were heard",
        "policy grew by 9.0 MB in the second round",
    ]
    assert not fuzz.faults({**found, "periods": 28_000, "growth_mb": {"robot": 0.1}})


def test_figures_take_the_worst_of_every_fault():
    verdicts = [
        Verdict(Fault("policy", "stop", 0, 1), True, 40.0, 300.0),
        Verdict(Fault("control", "kill", 0, 1), True, 70.0, 60.0, grip_kept=False),
        Verdict(Fault("steering", "cut", 0, 1), False),
    ]
    found = figures([{**v.to_dict(), "ok": v.ok(77.0, 500.0)} for v in verdicts], 2, [1.0, 2.0])
    assert (found["stalls"], found["stalls_kept"], found["stalls_not_held"]) == (3, 1, 1)
    assert (found["stall_to_hold_max_ms"], found["kill_to_hold_max_ms"], found["grip_lost"]) == (70.0, 60.0, 1)
    assert found["false_holds"] == 2
