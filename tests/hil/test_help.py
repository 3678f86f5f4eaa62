"""When a human is called: at the rate that was asked for, whatever the signals are, and before it is too late."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl.hil.help import SIGNALS, WORDS, Calibration, Signals

GRIPPER = np.arange(6) == 5


def episode(rng, worse=0.0, length=20):
    """Signals (T, S) of an episode whose elapsed time and disagreement are `worse` than usual."""
    series = np.full((length, len(SIGNALS)), np.nan)
    series[:, 0] = np.arange(length) * 0.27 + worse
    series[:, 2] = rng.gamma(2.0, 0.1, length) * np.exp(rng.normal(0, 0.5)) * (1 + worse)
    return series


def rate(calibration, episodes):
    return np.mean([(calibration.trouble(series) > calibration.threshold).any() for series in episodes])


@pytest.mark.parametrize("wanted", [0.05, 0.1, 0.3])
def test_successful_episodes_call_no_more_often_than_asked_for(wanted):
    rng = np.random.default_rng(0)
    measured = []
    for _ in range(20):
        calibration = Calibration.fit([episode(rng) for _ in range(200)], wanted)
        measured.append(rate(calibration, [episode(rng) for _ in range(200)]))
    assert abs(np.mean(measured) - wanted) < 0.03


def test_an_episode_that_goes_badly_calls():
    rng = np.random.default_rng(1)
    calibration = Calibration.fit([episode(rng) for _ in range(200)], 0.1)
    assert rate(calibration, [episode(rng, worse=30.0) for _ in range(50)]) == 1.0
    assert calibration.call(episode(rng, worse=30.0)[-1]) in (WORDS["elapsed"], WORDS["disagreement"])


@given(st.integers(0, 8), st.floats(0.01, 0.5))
@settings(max_examples=50, deadline=None)
def test_too_few_episodes_for_a_rate_are_refused_with_how_many_it_takes(count, wanted):
    rng = np.random.default_rng(count)
    episodes = [episode(rng) for _ in range(count)]
    try:
        Calibration.fit(episodes, wanted)
    except ValueError as error:
        needed = int(str(error).split(" need ")[1].split()[0])
        assert needed > count
        Calibration.fit([episode(rng) for _ in range(needed)], wanted)
    else:
        assert count >= 4


def test_a_signal_that_nobody_knows_or_that_never_varies_is_left_out():
    rng = np.random.default_rng(2)
    episodes = [episode(rng) for _ in range(100)]
    for series in episodes:
        series[:, 5] = 0.0
    calibration = Calibration.fit(episodes, 0.1)
    assert calibration.signals == ("disagreement",)  # all of these take equally long
    assert calibration.call(np.full(len(SIGNALS), np.nan)) == ""


def test_a_calibration_survives_its_file_and_another_file_is_refused(tmp_path):
    rng = np.random.default_rng(3)
    calibration = Calibration.fit([episode(rng) for _ in range(60)], 0.1)
    path = tmp_path / "help.json"
    calibration.save(path)
    assert Calibration.load(path) == calibration
    good = json.loads(path.read_text())
    for bad in ("", "[]", "{}", json.dumps({**good, "signals": ["luck"]}), json.dumps({**good, "threshold": None})):
        path.write_text(bad)
        with pytest.raises(ValueError, match=r"help\.json is no calibration"):
            Calibration.load(path)


def test_signals_grow_with_trouble():
    signals = Signals(GRIPPER)
    here = np.zeros(6)
    still = [signals.look(0.25 * i, here) for i in range(8)]
    assert [row[0] for row in still] == pytest.approx([0.25 * i for i in range(8)])
    assert np.isnan(still[2][1])
    assert still[-1][1] == 0.0
    moved = signals.look(2.0, here + 0.5)
    assert moved[1] == pytest.approx(-0.5)
    agree, differ = np.zeros((4, 16, 6)), np.random.default_rng(0).normal(0, 1, (4, 16, 6))
    assert signals.look(2.1, here, agree)[2] == 0.0 < signals.look(2.2, here, differ)[2]
    falls = [signals.look(3.0 + i, here, value=v)[3] for i, v in enumerate((-5.0, -2.0, -4.0))]
    assert falls == pytest.approx([0.0, 0.0, 2.0])
    assert signals.look(9.0, here, abstained=True)[5] == pytest.approx(0.1)
    signals.begin(10.0)
    begun = signals.look(10.5, here, value=-9.0)
    assert begun[0] == pytest.approx(0.5)
    assert begun[3] == 0.0
    assert begun[5] == 0.0


def test_a_watch_that_begins_before_the_time_is_known_counts_from_its_first_look():
    signals = Signals(GRIPPER)
    assert signals.look(1.7e9, np.zeros(6))[0] == 0.0
    assert signals.look(1.7e9 + 2.0, np.zeros(6))[0] == 2.0


def test_a_new_episode_begins_anew_and_a_note_about_it_does_not():
    signals = Signals(GRIPPER)
    signals.episode(0, 2.0)
    signals.look(3.0, np.zeros(6), value=5.0)
    signals.episode(0, 4.0)
    told = signals.look(6.0, np.zeros(6), value=1.0)
    assert (told[0], told[3]) == (4.0, 4.0)
    signals.episode(1, 6.0)
    told = signals.look(7.0, np.zeros(6), value=1.0)
    assert (told[0], told[3]) == (1.0, 0.0)


def test_only_the_grippers_opinions_do_not_count_as_disagreement():
    chunks = np.zeros((4, 16, 6))
    chunks[..., 5] = np.arange(4)[:, None]
    assert Signals(GRIPPER).look(0.0, np.zeros(6), chunks)[2] == 0.0
