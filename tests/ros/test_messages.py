import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image, JointState

from vla_rl.execute.control import Tick
from vla_rl.robot import arm_spec
from vla_rl.ros import messages
from vla_rl.types import ActionChunk, CameraSpec, Candidates, Mode, Source

SPEC = arm_spec("so101")
ACTIONS = SPEC.action_spec
STAMPS = st.integers(1, 2**31 * 10**9 - 1)


def over_the_wire(message):
    return deserialize_message(serialize_message(message), type(message))


@given(arrays(np.float64, 6, elements=st.floats(-4, 4)), STAMPS)
@settings(deadline=None)
def test_joints_come_back_bit_for_bit_whatever_their_order(joints, stamp):
    message = over_the_wire(messages.joint_state(SPEC.names, joints, stamp))
    assert np.array_equal(messages.joints_of(message, SPEC.names), joints)
    assert messages.stamp_ns(message.header.stamp) == stamp
    turned = messages.joint_state(SPEC.names[::-1], joints[::-1], stamp)
    assert np.array_equal(messages.joints_of(turned, SPEC.names), joints)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.position.__setitem__(2, float("nan")), "not finite"),
        (lambda m: m.position.__setitem__(0, float("inf")), "not finite"),
        (lambda m: m.name.__setitem__(1, "elbow"), "'elbow'"),
        (lambda m: m.name.__setitem__(1, m.name[0]), "joints"),
        (lambda m: m.name.pop(), "5 names"),
        (lambda m: m.position.pop(), "5 positions"),
        (lambda m: (m.name.append("more"), m.position.append(0.0)), "7 names"),
    ],
)
def test_a_joint_state_that_is_not_the_robots_is_refused_and_says_why(change, reason):
    message = messages.joint_state(SPEC.names, np.zeros(6), 1)
    change(message)
    with pytest.raises(ValueError, match=reason) as refusal:
        messages.joints_of(message, SPEC.names)
    assert "\n" not in str(refusal.value)


@given(st.integers(1, 5), st.integers(1, 20), st.sampled_from([1 / 30, 0.1, 1 / 7]), STAMPS, st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_candidates_come_back_whole(count, horizon, dt, stamp, seed):
    chunks = np.random.default_rng(seed).normal(size=(count, horizon, 6))
    message = over_the_wire(messages.candidates(Candidates(chunks, ACTIONS, dt, stamp)))
    found = messages.candidates_of(message, ACTIONS)
    assert np.array_equal(found.chunks, chunks)
    assert found.dt == pytest.approx(dt, abs=1e-9)
    assert found.stamp_ns == stamp


def test_a_chunk_stands_on_the_wire_as_a_trajectory_controller_wants_it():
    chunk = ActionChunk(np.arange(18.0).reshape(3, 6), ACTIONS, 0.1, 5_000_000_007)
    message = messages.chunk(chunk, "4")
    assert (message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id) == (5, 7, "4")
    assert [p.time_from_start.nanosec for p in message.points] == [10**8, 2 * 10**8, 3 * 10**8]
    assert all(not len(p.velocities) for p in message.points)
    assert np.array_equal(messages.chunk_of(message, ACTIONS).actions, chunk.actions)


def test_a_candidate_that_is_not_finite_is_told_apart_later_so_that_it_alone_is_left_out():
    chunks = np.zeros((3, 4, 6))
    chunks[1, 2, 3] = np.nan
    found = messages.candidates_of(messages.candidates(Candidates(chunks, ACTIONS, 0.1, 1)), ACTIONS)
    assert np.isfinite(found.chunks).all(axis=(1, 2)).tolist() == [True, False, True]


def uneven(message):
    message.points[2].time_from_start.nanosec += 5_000_000


def shorter(message):
    message.points.pop()


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.points.clear(),
        lambda m: m.joint_names.pop(),
        lambda m: m.joint_names.__setitem__(0, "wrist"),
        lambda m: m.points[0].positions.pop(),
        lambda m: setattr(m.points[0].time_from_start, "nanosec", 0),
        lambda m: setattr(m.points[0].time_from_start, "sec", -1),
        lambda m: m.points.extend(m.points * (messages.MAX_POINTS // 5)),
        uneven,
        shorter,
    ],
)
def test_a_malformed_trajectory_is_refused(change):
    message = messages.candidates(Candidates(np.zeros((2, 5, 6)), ACTIONS, 0.1, 1))
    change(message)
    with pytest.raises(ValueError, match=r".+") as refusal:
        messages.candidates_of(message, ACTIONS)
    assert "\n" not in str(refusal.value)


def test_as_many_candidates_as_a_policy_may_draw_are_understood_however_long_they_are():
    chunks = np.random.default_rng(0).normal(size=(256, 100, len(SPEC.names)))
    message = over_the_wire(messages.candidates(Candidates(chunks, ACTIONS, 1 / 30, 7)))
    np.testing.assert_array_equal(messages.candidates_of(message, ACTIONS).chunks, chunks)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_a_raw_picture_comes_back_pixel_for_pixel(height, width, seed):
    picture = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    message = over_the_wire(messages.image(picture, 7, "front"))
    assert np.array_equal(messages.image_of(message), picture)
    message.encoding = "bgr8"
    assert np.array_equal(messages.image_of(message), picture[..., ::-1])


def test_padded_rows_of_a_picture_are_understood():
    message = Image(height=2, width=1, step=5, encoding="rgb8", data=bytes([1, 2, 3, 0, 0, 4, 5, 6, 0, 0]))
    assert messages.image_of(message).tolist() == [[[1, 2, 3]], [[4, 5, 6]]]


@pytest.mark.parametrize(
    "wrong", [{"encoding": "mono8"}, {"height": 3}, {"step": 5}, {"width": 9}, {"data": b"abc"}, {"height": 2**32 - 1}]
)
def test_a_picture_whose_sizes_contradict_each_other_is_refused(wrong):
    good = {"height": 2, "width": 2, "step": 6, "encoding": "rgb8", "data": bytes(12)}
    with pytest.raises(ValueError, match="image"):
        messages.image_of(Image(**{**good, **wrong}))


def test_a_compressed_picture_looks_the_same_and_another_size_is_refused_before_it_is_decoded():
    rows, columns = np.mgrid[0:48, 0:64]
    picture = np.stack([rows * 4, columns * 3, rows + columns], axis=-1).astype(np.uint8)
    message = over_the_wire(messages.compressed(picture, 7, "front"))
    assert np.abs(messages.compressed_of(message, (48, 64)).astype(int) - picture).mean() < 3
    with pytest.raises(ValueError, match="48, 64"):
        messages.compressed_of(message, (480, 640))
    with pytest.raises(ValueError, match="image"):
        messages.compressed_of(CompressedImage(data=b"no picture"))


def test_camera_info_projects_as_the_simulated_camera_does():
    info = messages.camera_info(CameraSpec("front", 640, 480, 60.0), 1, "front")
    k = np.array(info.k).reshape(3, 3)
    top = np.array([0.0, -np.tan(np.radians(30.0)), 1.0])  # the upper edge of the field of view
    assert (k @ top)[1] == pytest.approx(-0.5, abs=0.01)
    assert (k @ [0, 0, 1])[:2] == pytest.approx([319.5, 239.5])


def test_a_step_says_who_acted_and_why_not():
    tick = Tick(np.arange(6.0), np.ones(6), Source.HUMAN, Mode.CORRECTING, 3_000_000_004, 2, 0.1, 5, ("jerk",))
    message = over_the_wire(messages.step(tick, SPEC.names, 9))
    values = messages.vector_of(message)
    assert [values[f"executed/{n}"] for n in SPEC.names] == list(range(6))
    assert (values["source"], values["mode"], values["candidate"], values["clamped"]) == (1, 2, 5, 1)
    assert (values["chunk_stamp_s"], values["chunk_stamp_ns"], values["index"]) == (3, 4, 2)
    assert message.header.frame_id == "jerk"
    silent = Tick(None, None, Source.HOLD, Mode.PAUSED, hold="paused")
    values = messages.vector_of(messages.step(silent, SPEC.names, 9))
    assert np.isnan([values[f"{w}/{n}"] for w in ("executed", "proposed") for n in SPEC.names]).all()
    assert values["chunk_stamp_s"] == -1


@pytest.mark.parametrize("message", [JointState(name=["a"]), JointState(name=["a", "a"], position=[1.0, 2.0])])
def test_a_vector_whose_names_and_numbers_do_not_fit_is_refused(message):
    with pytest.raises(ValueError, match="names"):
        messages.vector_of(message)


def test_no_message_of_ours_needs_a_list_for_pixels():
    picture = np.zeros((4, 4, 3), np.uint8)
    assert not isinstance(messages.image(picture, 1, "c").data, list)
    assert not isinstance(messages.compressed(picture, 1, "c").data, list)
