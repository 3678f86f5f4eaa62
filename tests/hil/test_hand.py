"""Who moves the arm, with what, and what the operator is told: desk, lease and hand together, without topics."""

from functools import partial
from threading import Event, Thread

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from vla_rl.hil.desk import HEARTBEAT_S, Desk
from vla_rl.hil.device import Command
from vla_rl.hil.devices.fed import Fed
from vla_rl.hil.hand import Hand
from vla_rl.hil.mapping import Mapping
from vla_rl.robot import arm_spec
from vla_rl.types import Mode, Outcome, Source

SPEC = arm_spec("so101")
HOME = np.array([0.0, -0.6, 0.5, 1.2, 1.57, 0.45])
DT = 1 / 60
UP = Command(velocities=np.eye(6)[1])


class Bench:
    """A desk with a control that answers as the arbiter does, and a clock of its own."""

    def __init__(self, device=None, gap=0.0):
        self.now, self.asked, self.marks, self.said = 10**9, [], [], []
        self.desk = Desk(self, clock=lambda: self.now)
        self.hand = Hand(self.desk, Mapping(SPEC), device, gap)
        self.here = HOME.copy()
        self.desk.moded(Mode.AUTONOMOUS)

    def control(self, name, on):
        self.asked.append((name, on))

    def instruct(self, text):
        self.said.append(text)

    def episode(self, mark):
        self.marks.append(mark)

    def answer(self, granted=True, why=""):
        """Control answers everything it was asked."""
        for name, on in self.asked:
            if granted and name == "take_over":
                self.desk.moded(Mode.CORRECTING if on else Mode.AUTONOMOUS)
            self.desk.answered(name, granted, why)
        self.asked.clear()

    def period(self, seconds=DT):
        self.now += round(seconds * 1e9)
        return self.hand.targets(self.here, self.now, DT)

    @property
    def told(self):
        return [message.text for message in self.desk.view().messages]


def page_drives(operator="ann"):
    bench = Bench()
    bench.desk.heartbeat(operator)
    assert bench.desk.take_over(True, operator) == (True, "")
    bench.answer()
    return bench


def test_a_page_that_is_open_says_where_a_takeover_would_begin():
    bench = Bench()
    assert bench.period() is None
    bench.desk.heartbeat("ann")
    np.testing.assert_array_equal(bench.period(), HOME)


def test_keys_move_the_arm_on_from_where_it_is_and_only_while_they_are_down():
    bench = page_drives()
    bench.desk.teleop(UP, "ann")
    first = bench.period()
    np.testing.assert_allclose(first - HOME, DT * np.eye(6)[1])
    for _ in range(12):
        bench.desk.teleop(UP, "ann")
        moved = bench.period()
    assert 0 < moved[1] - HOME[1] <= 0.15 + 1e-9  # the arm stands still: what is wanted does not run away from it
    bench.desk.heartbeat("ann")
    bench.period(0.3)
    at_rest = bench.period()
    np.testing.assert_array_equal(bench.period(), at_rest)


def test_another_operator_is_refused_and_told_who_has_the_arm():
    bench = page_drives("ann")
    granted, why = bench.desk.take_over(True, "bob")
    assert not granted
    assert "ann has the arm" in why
    assert why in bench.told
    assert not bench.desk.take_over(False, "bob")[0]
    bench.desk.teleop(UP, "bob")
    np.testing.assert_array_equal(bench.period(), HOME)
    assert bench.desk.pause("bob")[0]  # whoever sees danger may stop it
    assert bench.desk.stop("bob")[0]


def test_taking_over_twice_asks_control_once():
    bench = page_drives()
    assert bench.desk.take_over(True, "ann") == (True, "")
    assert not bench.asked


@pytest.mark.parametrize("loss", ["silence", "closed"])
def test_a_page_that_is_gone_holds_until_somebody_takes_over_or_hands_back(loss):
    bench = page_drives()
    bench.period()
    if loss == "closed":
        bench.desk.lost("ann")
    assert bench.period(2 * HEARTBEAT_S) is None
    assert any("is lost" in text for text in bench.told)
    bench.desk.heartbeat("ann")
    bench.desk.teleop(UP, "ann")
    assert bench.period() is None  # it is back, and does not drive by itself
    assert not bench.asked  # nor does the policy
    bench.desk.heartbeat("bob")
    assert bench.desk.take_over(True, "bob") == (True, "")
    bench.answer()
    assert bench.period() is not None
    assert bench.desk.view().operator == "bob"


def test_a_page_that_is_back_is_shown_as_lost_until_somebody_takes_over_and_the_arm_can_be_handed_back():
    bench = page_drives()
    bench.period(2 * HEARTBEAT_S)
    bench.desk.heartbeat("ann")
    bench.period()
    assert not bench.desk.view().device_alive
    assert bench.desk.take_over(False, "ann") == (True, "")
    bench.answer()
    assert bench.desk.view().mode is Mode.AUTONOMOUS


def test_marks_of_two_threads_are_told_one_after_the_other():
    bench, others = Bench(), []

    def draw():  # of the thumbnail, in the middle of a mark: now a second operator starts the next episode
        others.append(Thread(target=bench.desk.start, args=("bob",)))
        others[0].start()
        others[0].join(0.2)
        return b"jpeg"

    bench.desk.start("ann")
    bench.desk.saw("front", draw)
    bench.desk.success("ann")
    others[0].join()
    told = [(mark.ordinal, mark.recording, mark.outcome) for mark in bench.marks]
    assert told == [(0, True, Outcome.UNKNOWN), (0, False, Outcome.SUCCESS), (1, True, Outcome.UNKNOWN)]


def test_pictures_are_kept_of_the_episodes_that_are_shown_and_of_no_others():
    bench = Bench()
    bench.desk.saw("front", lambda: b"jpeg")
    for _ in range(250):
        bench.desk.start("ann")
        bench.desk.success("ann")
    assert [*bench.desk.thumbnails] == [mark.ordinal for mark in bench.desk.view().episodes]


def test_whether_the_arm_is_wanted_can_be_asked_while_an_answer_comes():
    bench = Bench()
    asked, waiting = Event(), Thread(target=lambda: (bench.desk.wanted, asked.set()))
    with bench.desk._lock:  # an answer is being taken in
        waiting.start()
        assert not asked.wait(0.1)
    waiting.join()
    assert asked.is_set()


def test_a_refused_takeover_leaves_the_arm_with_nobody_and_says_why():
    bench = Bench()
    bench.desk.heartbeat("ann")
    bench.desk.take_over(True, "ann")
    bench.answer(granted=False, why="stopped (asked for): reset_stop comes first")
    assert bench.desk.view().operator == ""
    assert "take_over: stopped (asked for): reset_stop comes first" in bench.told


def test_a_takeover_that_is_refused_while_another_human_drives_moves_nothing():
    bench = page_drives("ann")
    bench.period(2 * HEARTBEAT_S)  # ann's page is lost
    bench.desk.heartbeat("bob")
    bench.desk.take_over(True, "bob")
    bench.answer(granted=False, why="another human has taken over: hand back first")
    bench.desk.teleop(UP, "bob")
    assert bench.period() is None
    assert bench.desk.stranded
    bench.desk.take_over(True, "bob")
    bench.answer()
    assert bench.period() is not None


def test_a_takeover_that_was_under_way_before_us_holds_until_somebody_takes_over():
    bench = Bench()
    bench.desk = Desk(bench, clock=lambda: bench.now)
    bench.hand = Hand(bench.desk, Mapping(SPEC))
    bench.desk.moded(Mode.CORRECTING)
    bench.desk.heartbeat("ann")
    assert bench.period() is None
    assert bench.desk.take_over(True, "ann") == (True, "")
    assert bench.asked == [("take_over", True)]


@pytest.mark.parametrize("over", [Mode.STOPPED, Mode.PAUSED, Mode.AUTONOMOUS])
def test_a_takeover_that_is_over_before_its_answer_comes_leaves_the_arm_with_nobody(over):
    bench = Bench()
    bench.desk.heartbeat("ann")
    bench.desk.take_over(True, "ann")
    bench.desk.moded(over)  # of a topic that keeps the newest alone: CORRECTING was pushed out
    bench.desk.answered("take_over", True, "")
    view = bench.desk.view()
    assert (view.mode, view.operator) == (over, "")
    assert bench.desk.reset_stop("bob") == (True, "")
    assert not bench.desk.driving


def test_a_hand_back_that_is_answered_after_a_stop_does_not_hide_the_stop():
    bench = page_drives()
    bench.desk.take_over(False, "ann")
    bench.desk.moded(Mode.STOPPED)
    bench.desk.answered("take_over", True, "")
    assert bench.desk.view().mode is Mode.STOPPED


def test_whoever_hands_back_and_takes_over_at_once_has_the_arm_whichever_comes_first_of_answers_and_modes():
    for answers_first in (True, False):
        bench = page_drives()
        bench.desk.take_over(False, "ann")
        bench.desk.take_over(True, "ann")
        bench.desk.moded(Mode.AUTONOMOUS)
        heard = [partial(bench.desk.answered, "take_over", True, "")] * 2
        heard.insert(2 if answers_first else 0, partial(bench.desk.moded, Mode.CORRECTING))
        for each in heard:
            each()
        assert (bench.desk.view().mode, bench.desk.view().operator) == (Mode.CORRECTING, "ann")


def leader(at):
    device = Fed("leader arm")
    device.put(Command(targets=at), 10**9)
    return device


def test_a_device_of_the_host_drives_whoever_takes_over_and_their_page_stays_the_dead_man():
    device = leader(HOME + 0.05)
    bench = Bench(device)
    bench.desk.heartbeat("ann")
    bench.desk.take_over(True, "ann")
    bench.answer()
    np.testing.assert_allclose(bench.period(), HOME + 0.05)
    for _ in range(60):  # the device lives, the page does not
        device.put(Command(targets=HOME), bench.now)
        last = bench.period()
    assert last is None


def test_a_leader_far_away_is_refused_with_the_joints_named_where_that_is_asked_for():
    bench = Bench(leader(HOME + 0.9 * np.eye(6)[2]), gap=0.3)
    bench.period()
    granted, why = bench.desk.take_over(True, "leader arm")
    assert not granted
    assert "elbow_flex by 52 deg" in why
    bench.hand._device.put(Command(targets=HOME), bench.now)
    bench.period()
    assert bench.desk.take_over(True, "leader arm") == (True, "")


def test_buttons_that_toggle_faster_than_control_answers_are_all_asked_for():
    device = Fed("gamepad")
    bench = Bench(device)
    for _ in range(5):
        device.put(Command(buttons=("toggle",)), bench.now)
        bench.period()
    assert [on for _, on in bench.asked] == [True, False, True, False, True]
    for _ in range(3):  # all of them before anybody looks
        device.put(Command(buttons=("toggle",)), bench.now)
    bench.period()
    assert [on for _, on in bench.asked][5:] == [False, True, False]


def test_a_leader_in_degrees_moves_nothing_and_nobody_takes_over_with_it():
    bench = Bench(leader(np.degrees(HOME)))
    with pytest.raises(ValueError, match=r"elbow_flex.* far outside the limits: another unit"):
        bench.period()
    granted, why = bench.desk.take_over(True, "ann")
    assert not granted
    assert "another unit" in why


@pytest.mark.parametrize("command", [Command(targets=np.zeros(5)), Command(velocities=np.full(6, np.nan))])
def test_what_is_no_command_for_this_robot_is_refused(command):
    device = Fed("odd")
    bench = Bench(device)
    bench.desk.moded(Mode.CORRECTING)
    device.put(command, bench.now)
    with pytest.raises(ValueError, match="6 finite numbers"):
        bench.period()


def test_an_instruction_of_100_mb_is_cut_before_it_is_said():
    bench = Bench()
    bench.desk.instruct("pick <b>it</b>\n" * 7_000_000, "ann")
    assert 0 < len(bench.said[0]) <= 1000


def test_operators_without_a_name_are_refused():
    assert not Bench().desk.take_over(True, "")[0]


class Marks(RuleBasedStateMachine):
    """Episodes marked in any order, against what was asked for."""

    @initialize()
    def begin(self):
        self.bench = Bench()
        self.open, self.closed = None, []

    @rule()
    def start(self):
        granted, _ = self.bench.desk.start("ann")
        assert granted == (self.open is None)
        if granted:
            self.open = len(self.closed)

    @rule(outcome=st.sampled_from(["success", "failure", "end"]))
    def mark(self, outcome):
        granted, why = getattr(self.bench.desk, outcome)("ann")
        assert granted == (self.open is not None)
        assert why
        if granted:
            self.closed.append([Outcome.UNKNOWN if outcome == "end" else Outcome(outcome), False])
            self.open = None

    @rule()
    def discard(self):
        granted, _ = self.bench.desk.discard("ann")
        if self.open is not None:
            self.closed.append([Outcome.UNKNOWN, False])
            self.open = None
        elif not self.closed or self.closed[-1][1]:
            assert not granted
            return
        assert granted
        self.closed[-1][1] = True

    @rule()
    def rerecord(self):
        some = self.open is not None or (self.closed and not self.closed[-1][1])
        granted, _ = self.bench.desk.rerecord("ann")
        assert granted == bool(some)
        if granted:
            self.closed += [[Outcome.UNKNOWN, False]] if self.open is not None else []
            self.closed[-1][1], self.open = True, len(self.closed)
            told = [(m.ordinal, m.discarded, m.recording) for m in self.bench.marks[-2:]]
            assert told == [(self.open - 1, True, False), (self.open, False, True)]

    @rule(seconds=st.floats(0.01, 5.0))
    def drive(self, seconds):
        self.bench.now += round(seconds * 1e9)
        self.bench.desk.stepped(Source.HUMAN, "", seconds)

    @invariant()
    def what_is_told_is_what_was_marked(self):
        view = self.bench.desk.view()
        assert [[e.outcome, e.discarded] for e in view.episodes] == self.closed
        assert [e.ordinal for e in view.episodes] == list(range(len(self.closed)))
        kept = [outcome for outcome, discarded in self.closed if not discarded]
        assert view.statistics.successes == kept.count(Outcome.SUCCESS)
        assert view.statistics.episodes == len(kept)
        if self.bench.marks:
            assert self.bench.marks[-1] == view.episode or self.bench.marks[-1].ordinal == view.episode.ordinal


Marks.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestMarks = Marks.TestCase
