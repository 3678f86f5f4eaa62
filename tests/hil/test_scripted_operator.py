"""What the scripted operator promises: when it takes the arm, when it gives it back, and that it is the same again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_rl.hil.scripted import OperatorConfig, ScriptedOperator

DT = 0.1
progress = st.floats(0.0, 1.0, allow_nan=False)
configs = st.builds(
    OperatorConfig,
    patience=st.floats(0.2, 2.0),
    hope=st.floats(0.2, 3.0),
    fall=st.floats(0.05, 0.9),
    regain=st.floats(0.05, 2.0),
    least=st.floats(0.1, 1.0),
)


def watched(config, values, may_hand_back=(True,) * 10_000):
    """(drives, edge, reason) of every step."""
    operator = ScriptedOperator(config, DT)
    return [
        (operator.watch(value, allowed), operator.edge, operator.reason)
        for value, allowed in zip(values, may_hand_back, strict=False)
    ]


def test_who_gets_on_is_left_alone_and_who_stalls_is_helped_after_patience():
    config = OperatorConfig(patience=0.5)
    rising = [0.03 * i for i in range(30)]
    assert not any(drives for drives, _, _ in watched(config, rising))
    stalled = watched(config, [0.3] * 20)
    assert [drives for drives, _, _ in stalled].index(True) == 5  # the first look counts as progress
    assert stalled[5][1:] == ("take_over", "progress stalled at 0.30 for 0.5 s")


def test_what_is_nearly_done_is_hoped_for_longer():
    config = OperatorConfig(patience=0.5, hope=1.5, nearly=0.7)
    assert [drives for drives, _, _ in watched(config, [0.8] * 20)].index(True) == 15


def test_a_fall_is_answered_at_once():
    steps = watched(OperatorConfig(fall=0.2), [0.5, 0.55, 0.34])
    assert [edge for _, edge, _ in steps] == ["", "", "take_over"]
    assert "fell from 0.55 to 0.34" in steps[2][2]


def test_the_arm_comes_back_when_enough_is_made_good_and_the_policy_is_ready():
    config = OperatorConfig(patience=0.2, regain=0.3, least=0.3)
    values = [0.1, 0.1, 0.1, 0.2, 0.45, 0.5, 0.5, 0.5]
    allowed = [True] * 5 + [False, True, True]
    edges = [edge for _, edge, _ in watched(config, values, allowed)]
    assert edges == ["", "", "take_over", "", "", "", "hand_back", ""]  # 0.3 s are over, but not allowed, in step 5


def test_an_operator_with_no_goal_below_one_drives_to_the_end():
    steps = watched(OperatorConfig(patience=0.2, regain=1.5), [0.0, 0.0, 0.0, 0.5, 0.9, 1.0, 1.0])
    assert [drives for drives, _, _ in steps] == [False, False, True, True, True, True, True]


@given(configs, st.lists(progress, min_size=1, max_size=60), st.lists(st.booleans(), min_size=60, max_size=60))
def test_edges_alternate_say_why_and_are_the_only_changes(config, values, allowed):
    before, last = False, "hand_back"
    for (drives, edge, reason), may in zip(watched(config, values, allowed), allowed, strict=False):
        assert (edge != "") == (drives != before) == (reason != "")
        if edge:
            assert edge != last
            assert may or edge == "take_over"
            last = edge
        before = drives


@given(configs, st.lists(progress, min_size=1, max_size=40))
def test_no_correction_is_shorter_than_its_least(config, values):
    begun = None
    for step, (_, edge, _) in enumerate(watched(config, values)):
        if edge == "take_over":
            begun = step
        elif edge == "hand_back":
            assert (step - begun) * DT >= config.least - 1e-9


@given(configs, st.lists(progress, min_size=1, max_size=40))
def test_a_new_episode_forgets_the_last_one(config, values):
    operator = ScriptedOperator(config, DT)
    first = [operator.watch(value) for value in values]
    operator.begin()
    assert [operator.watch(value) for value in values] == first


def test_an_operator_in_words():
    assert OperatorConfig.parse(["patience=1.5", "skill=clumsy"]) == OperatorConfig(patience=1.5, skill="clumsy")
    assert OperatorConfig.parse([]) == OperatorConfig()


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["mood=bad"], "a name of: patience, hope"),
        (["patience"], "name=value"),
        (["patience=soon"], "patience is a number, got 'soon'"),
        (["patience=0"], "patience must be above 0"),
        (["pace=nan"], "pace must be above 0"),
        (["noise=-1"], "noise must be at least 0"),
        (["skill=drunk"], "there are: careful, clumsy"),
    ],
)
def test_impossible_operators_are_refused_in_one_line(texts, said):
    with pytest.raises(ValueError, match=said) as refusal:
        OperatorConfig.parse(texts)
    assert "\n" not in str(refusal.value)


def test_progress_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="finite"):
        ScriptedOperator(OperatorConfig(), DT).watch(float("nan"))
