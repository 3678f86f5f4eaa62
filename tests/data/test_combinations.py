import pytest

from vla_rl.data.combinations import Combination, spelled

SHOVED = {"task": "push", "target": "yellow cube", "instruction": "shove the yellow cube to the zone"}
PRESSED = {"task": "button", "target": "yellow button", "instruction": "push the yellow button down"}


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ("push:yellow", [SHOVED]),
        ("push:cube yellow", [SHOVED]),
        ("button:", [PRESSED]),
        ("yellow", [SHOVED, PRESSED]),
        ("Push:Yellow", [SHOVED]),
        ("lift:yellow", []),
        ("push:yell", []),
        ("push", []),
    ],
)
def test_a_combination_goes_by_task_and_named_object_not_by_the_sentence(rule, matches):
    assert [e for e in (SHOVED, PRESSED) if Combination.parse(rule).matches(e)] == matches


def test_episodes_that_say_nothing_of_their_object_match_no_object():
    assert not Combination.parse("push:yellow").matches({"instruction": "push the yellow cube"})


@pytest.mark.parametrize("text", ["", ":", " : ", ":yellow"])
def test_a_rule_that_says_nothing_is_refused(text):
    with pytest.raises(ValueError, match="write TASK:OBJECT"):
        Combination.parse(text)


def test_combinations_are_spelled_as_rules_are():
    assert spelled([SHOVED, PRESSED, SHOVED]) == "button:yellow button, push:yellow cube"
    assert all(Combination.parse(text).matches(e) for text, e in (("push:yellow cube", SHOVED),))
