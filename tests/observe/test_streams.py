"""Streams: an observation is made of what sensors really sent, or there is none."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl.observe.checks import largest
from vla_rl.observe.encoded import Encoded
from vla_rl.observe.streams import Streams, StreamsConfig
from vla_rl.robot import arm_spec
from vla_rl.types import CameraSpec

SPEC = arm_spec("so101")
MS = 1_000_000
START = 10_000_000 * MS  # robot clock
OFFSET = 7_000_000 * MS  # robot clock minus monotonic clock
PERIOD = 33 * MS
HOME = np.zeros(6)
RNG = np.random.default_rng(0)


def picture(seed: int = 0, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


class Source:
    """A robot that sends joints and pictures on time, unless it is told otherwise."""

    def __init__(self, cameras: tuple[str, ...] = ("front",), **config) -> None:
        self.cameras = cameras
        specs = [CameraSpec(name, 64, 48) for name in cameras]
        self.streams = Streams(SPEC, specs, StreamsConfig(**config))
        self.streams.instruct("lift the red cube")
        self.stamp = START

    @property
    def now(self) -> int:
        return self.stamp - OFFSET

    def joints(self, values=HOME, stamp=None, names=SPEC.names) -> str:
        return self.streams.put_joints(names, values, self.stamp if stamp is None else stamp, self.now)

    def image(self, camera="front", image=None, stamp=None) -> str:
        image = picture(self.stamp // MS) if image is None else image
        return self.streams.put_image(camera, image, self.stamp if stamp is None else stamp, self.now)

    def step(self, periods: int = 1) -> None:
        for _ in range(periods):
            self.stamp += PERIOD
            self.joints()
            for camera in self.cameras:
                self.image(camera)

    def observation(self):
        return self.streams.observation(self.now)


def test_no_stream_is_ever_invented():
    source = Source(cameras=("front", "wrist"))
    source.streams.instruct("")
    puts = {
        "joint_states": source.joints, "front": source.image, "wrist": lambda: source.image("wrist"),
        "instruction": lambda: source.streams.instruct("push the blue cube"),
    }  # fmt: skip
    for name, put in puts.items():
        assert source.observation() is None
        assert name in source.streams.missing()
        put()
    seen = source.observation()
    assert source.streams.missing() == []
    assert set(seen.images) == {"front", "wrist"}
    assert seen.instruction == "push the blue cube"
    assert seen.stamp_ns == source.stamp


@pytest.mark.parametrize("dead", ["joint_states", "front", "wrist"])
def test_a_stream_that_stops_is_named_and_no_observation_is_older_than_allowed(dead):
    source = Source(cameras=("front", "wrist"))
    source.step(3)
    died = source.stamp
    for _ in range(100):
        source.stamp += 10 * MS
        if dead != "joint_states":
            source.joints()
        for camera in {"front", "wrist"} - {dead}:
            source.image(camera)
        seen, stale = source.observation(), source.streams.stale(source.now)
        assert (seen is None) == (source.stamp - died > 100 * MS)
        assert list(stale) == ([dead] if seen is None else [])
        if seen is not None:
            assert max(seen.ages.values()) <= 0.1


def test_receipt_counts_and_stamps_count():
    source = Source()
    source.step()
    assert source.streams.observation(source.now + 99 * MS) is not None
    assert source.streams.observation(source.now + 101 * MS) is None, "everything fell silent"
    source.step()
    source.stamp += 20 * MS
    source.joints()
    for _ in range(5):
        source.stamp += 20 * MS
        source.joints()
        source.image(stamp=START + 2 * PERIOD + 1)  # arrives now, was captured long ago
    assert list(source.streams.stale(source.now)) == ["front"]


def test_after_a_stall_of_this_process_the_streams_are_fresh_again():
    source = Source()
    source.step(3)
    source.stamp += 5_000 * MS
    assert source.observation() is None
    source.step(1)
    assert source.observation() is not None
    assert source.streams.report(source.now)["joint_states"].get("clock_step", 0) == 0


@given(st.permutations(range(6)), st.lists(st.floats(-1.5, 1.5), min_size=6, max_size=6))
@settings(max_examples=50, deadline=None)
def test_joints_are_ordered_by_name(order, values):
    source = Source()
    shuffled = [SPEC.names[i] for i in order]
    assert source.joints(np.clip(np.array(values)[list(order)], -0.1, 1.5), names=shuffled) == ""
    source.image()
    np.testing.assert_array_equal(source.observation().joints, np.clip(values, -0.1, 1.5))


BAD_JOINTS = {
    "a joint is missing": (SPEC.names[:-1], HOME[:-1], "names"),
    "a joint is renamed": ((*SPEC.names[:-1], "claw"), HOME, "names"),
    "a joint is there twice": ((*SPEC.names[:-1], SPEC.names[0]), HOME, "names"),
    "fewer values than names": (SPEC.names, HOME[:-1], "names"),
    "nothing at all": ((), (), "names"),
    "a table": (SPEC.names, np.zeros((6, 1)), "names"),
    "words": (SPEC.names, ["a"] * 6, None),
    "not a number": (SPEC.names, [*HOME[:-1], np.nan], "not_finite"),
    "infinite": (SPEC.names, [np.inf, *HOME[1:]], "not_finite"),
    "degrees": (SPEC.names, [45.0, *HOME[1:]], "units"),
    "gripper in percent": (SPEC.names, [*HOME[:-1], 50.0], "units"),
}


@pytest.mark.parametrize(("names", "values", "reason"), BAD_JOINTS.values(), ids=BAD_JOINTS)
def test_a_joint_state_that_is_wrong_is_refused_counted_and_never_used(names, values, reason):
    source = Source()
    source.step(2)
    source.stamp += PERIOD
    refused = source.joints(values, names=names)
    assert refused
    assert reason in (None, refused)
    assert source.streams.report(source.now)["joint_states"][refused] == 1
    assert source.observation().stamp_ns == source.stamp - PERIOD
    source.stamp += 80 * MS
    source.image()
    assert list(source.streams.stale(source.now)) == ["joint_states"]


def test_more_joints_than_the_robots_are_fine():
    source = Source()
    assert source.joints([9.0, *HOME], names=("lift_axis", *SPEC.names)) == ""


BAD_IMAGES = {
    "grey": (np.zeros((24, 32), np.uint8), "shape"),
    "with alpha": (np.zeros((24, 32, 4), np.uint8), "shape"),
    "floats": (np.full((24, 32, 3), np.nan), "shape"),
    "no rows": (np.zeros((0, 32, 3), np.uint8), "shape"),
    "larger than promised": (np.zeros((1080, 1920, 3), np.uint8), "too_large"),
    "no picture file": (Encoded(b"hello"), "encoding"),
    "an empty file": (Encoded(b""), "encoding"),
}


@pytest.mark.parametrize(("image", "reason"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_an_image_that_is_wrong_is_refused_and_never_used(image, reason):
    source = Source()
    source.step(2)
    source.stamp += 80 * MS
    source.joints()
    assert source.image(image=image) == reason
    source.stamp += 40 * MS
    source.joints()
    assert list(source.streams.stale(source.now)) == ["front"]


def test_a_stream_of_which_all_is_refused_is_told_apart_from_one_that_nobody_sends():
    source = Source()
    source.joints(names=tuple("abcdef"))
    source.image(image=picture(size=(96, 128)))
    source.image(image=picture(size=(96, 128)))
    lines = source.streams.problems(source.now)
    assert "no inference, joint_states: refused: names (1 times)" in lines
    assert "no inference, front: refused: too_large (2 times)" in lines
    assert Source().streams.problems(source.now) == [
        "no inference, joint_states: nothing has arrived yet", "no inference, front: nothing has arrived yet",
    ]  # fmt: skip


def test_a_camera_may_send_pictures_as_large_as_its_arms_description_says():
    spec = replace(SPEC, cameras=(CameraSpec("front", 1280, 720),))
    streams = Streams(spec, [largest(spec, name, 640, 480) for name in ("front", "side")])
    assert streams.put_image("front", picture(size=(720, 1280)), START, START) == ""
    assert streams.put_image("front", picture(size=(721, 1280)), START, START) == "too_large"
    assert streams.put_image("side", picture(size=(480, 640)), START, START) == ""
    assert streams.put_image("side", picture(size=(720, 1280)), START, START) == "too_large"


def test_an_image_of_a_camera_nobody_asked_for_is_refused():
    assert Source().image("ceiling") == "unknown_camera"


BAD_STAMPS = {
    "zero": (0, "stamp_zero"),
    "a second ahead": (START + 1100 * MS, "future"),
    "an hour ago": (START - 3_600_000 * MS, "out_of_order"),
}


@pytest.mark.parametrize(("stamp", "reason"), BAD_STAMPS.values(), ids=BAD_STAMPS)
@pytest.mark.parametrize("stream", ["joints", "image"])
def test_a_stamp_out_of_time_is_refused_and_counted(stream, stamp, reason):
    source = Source()
    source.step(3)
    source.stamp += PERIOD
    assert getattr(source, stream)(stamp=stamp) == reason
    source.step()
    assert source.observation().stamp_ns == source.stamp


def test_duplicates_and_late_ones_are_counted_and_change_nothing():
    source = Source()
    source.step(3)
    before = source.observation()
    assert source.image(image=picture(1)) == "duplicate"
    assert source.image(image=picture(2), stamp=source.stamp - PERIOD) == "out_of_order"
    assert source.joints(HOME + 0.1) == "duplicate"
    after = source.observation()
    np.testing.assert_array_equal(before.images["front"], after.images["front"])
    np.testing.assert_array_equal(before.joints, after.joints)


@pytest.mark.parametrize("jump", [-3_600_000, -5_000, 5_000, 3_600_000], ids=str)
def test_a_clock_step_is_believed_when_two_joint_states_agree_and_nothing_old_is_used_after_it(jump):
    source = Source()
    source.step(5)
    received, source.stamp = source.now, source.stamp + jump * MS

    def put(ms):
        stamp = source.stamp + ms * MS
        source.streams.put_image("front", picture(ms), stamp, received + ms * MS)
        return source.streams.put_joints(SPEC.names, HOME, stamp, received + ms * MS)

    assert put(33) in ("future", "out_of_order")
    assert source.streams.observation(received + 34 * MS).stamp_ns < source.stamp - jump * MS + 34 * MS
    assert put(66) == ""
    put(99)
    seen = source.streams.observation(received + 100 * MS)
    assert seen.stamp_ns == source.stamp + 99 * MS
    assert max(seen.ages.values()) == 0.0
    assert source.streams.report(received + 100 * MS)["joint_states"]["clock_step"] == 1


@pytest.mark.parametrize("images_first", [True, False])
def test_in_simulated_time_a_reset_is_believed_at_once_and_waiting_makes_nothing_stale(images_first):
    source = Source(simulated_time=True)
    source.step(5)
    old, received = source.stamp, source.now
    puts = [
        lambda: source.streams.put_image("front", picture(9), PERIOD, received + 1),
        lambda: source.streams.put_joints(SPEC.names, HOME, PERIOD, received + 2),
    ]
    for put in puts if images_first else puts[::-1]:
        put()
    assert source.streams.put_image("front", picture(8), old + MS, received + 3) == "future", "of the old scene"
    seen = source.streams.observation(received + 3_600_000 * MS)
    assert seen.stamp_ns == PERIOD
    np.testing.assert_array_equal(seen.images["front"], picture(9))


def test_in_simulated_time_it_may_run_as_fast_as_it_likes():
    source = Source(simulated_time=True)
    received = source.now
    for i in range(1, 50):
        stamp = START + i * 10 * PERIOD
        assert source.streams.put_joints(SPEC.names, HOME, stamp, received + i) == ""
        assert source.streams.put_image("front", picture(i), stamp, received + i) == ""
        assert source.streams.observation(received + i).stamp_ns == stamp


def test_streams_are_joined_by_their_stamps():
    source = Source(cameras=("front", "wrist"))
    source.step(4)
    aligned = source.stamp
    source.stamp += PERIOD
    source.joints(HOME + 0.1)
    source.image("front")  # the wrist's picture of this instant is still under way
    seen = source.observation()
    assert seen.stamp_ns == aligned
    assert set(seen.ages.values()) == {0.0}
    source.image("wrist")
    assert source.observation().stamp_ns == source.stamp


def test_history_is_spaced_by_the_policys_period_whenever_it_is_asked_for():
    source = Source(frames=3, period=2 * PERIOD / 1e9)
    source.step()
    assert [o.stamp_ns for o in source.streams.history(source.now)] == [source.stamp] * 3, "the first repeats"
    source.step(9)
    stamps = [o.stamp_ns for o in source.streams.history(source.now)]
    assert stamps == [source.stamp - 4 * PERIOD, source.stamp - 2 * PERIOD, source.stamp]


def test_a_picture_that_stays_the_same_though_the_arm_moves_is_called_frozen_but_still_seen():
    source = Source()
    source.step(2)
    still = picture(3)
    for i in range(40):
        source.stamp += PERIOD
        source.joints(HOME + 0.01 * max(0, i - 20))
        source.image(image=still)
        assert source.streams.degraded() == ({"front": "frozen"} if i > 25 else {}), "an arm at rest looks the same"
    assert source.observation() is not None
    source.step()
    assert source.streams.degraded() == {}


def test_a_black_picture_is_called_black_but_still_seen():
    source = Source()
    source.step()
    source.stamp += PERIOD
    source.joints()
    source.image(image=np.zeros((24, 32, 3), np.uint8))
    assert source.observation() is not None
    assert source.streams.degraded() == {"front": "black"}
    assert source.streams.report(source.now)["front"]["black"] == 1
    source.step()
    assert source.observation() is not None
    assert source.streams.degraded() == {}


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_encoded_images_are_decoded_when_they_are_looked_at(extension):
    source = Source()
    source.step()
    source.stamp += PERIOD
    plain = cv2.GaussianBlur(picture(5), (9, 9), 5)
    data = cv2.imencode(extension, plain[..., ::-1])[1].tobytes()
    source.joints()
    assert source.image(image=Encoded(data)) == ""
    assert np.abs(source.observation().images["front"].astype(int) - plain).mean() < 3


def test_a_damaged_file_is_dropped_when_it_is_looked_at():
    source = Source()
    source.step()
    source.stamp += PERIOD
    source.joints()
    source.image(image=Encoded(cv2.imencode(".png", picture(5))[1].tobytes()[:60]))
    assert source.observation() is None
    assert source.streams.missing() == ["front"]
    assert source.streams.report(source.now)["front"]["undecodable"] == 1
    source.step()
    assert source.observation() is not None


def test_however_long_it_runs_only_the_newest_samples_are_kept():
    source = Source()
    source.step(1000)
    assert all(len(stream.samples) < 10 for stream in source.streams._streams.values())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["joints", "image"]), st.integers(-200, 200), st.integers(0, 60),
            st.sampled_from([0.0, 0.5, np.nan, 90.0]),
        ),
        max_size=60,
    )
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_whatever_arrives_an_observation_is_finite_within_limits_and_fresh(events):
    source = Source()
    for stream, skew, wait, value in events:
        source.stamp += wait * MS
        stamp = max(0, source.stamp + skew * MS)
        source.joints(HOME + value, stamp=stamp) if stream == "joints" else source.image(stamp=stamp)
        seen = source.observation()
        if seen is not None:
            assert np.isfinite(seen.joints).all()
            assert (np.abs(seen.joints) < 4).all()
            assert 0 <= max(seen.ages.values()) <= 0.1
            assert seen.images["front"].dtype == np.uint8
