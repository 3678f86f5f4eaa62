"""An episode's file can be read by anybody, tells every damage, and loses only what is damaged."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_messages import START, chunks, picture_of, vector

from vla_rl.record import cdr
from vla_rl.record.episode_file import DamagedEpisodeError
from vla_rl.record.frames import FramesConfig, encoded, file_of, lossless
from vla_rl.record.mcap_file import Entry, EpisodeWriter, complete, read, repair, verified


def entries(count):
    return [
        Entry("joint_states", cdr.JOINT_STATE, vector({"a": float(i)}, START + i), START + 10 * i, START + i, i + 1)
        for i in range(count)
    ]


def written(given, every=3, finish=True):
    """A file's bytes with a chunk for every so many messages, and where each chunk ended."""
    file, ends = io.BytesIO(), []
    writer = EpisodeWriter(file)
    for number, entry in enumerate(given):
        writer.write(entry)
        if number % every == every - 1:
            writer.flush()
            ends.append(writer.size)
    if finish:
        writer._writer.finish()
    return file.getvalue(), ends


WHOLE, ENDS = written(entries(12))


def test_what_was_written_is_read_back(tmp_path):
    path = tmp_path / "000000.mcap"
    path.write_bytes(WHOLE)
    assert list(read(path)) == entries(12)
    assert complete(path)


def test_rosbags_and_mcap_read_it(tmp_path):
    from mcap.reader import make_reader
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    path = tmp_path / "000000.mcap"
    path.write_bytes(WHOLE)
    with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_KILTED)) as reader:
        found = [reader.deserialize(raw, c.msgtype).position[0] for c, _, raw in reader.messages()]
        assert [c.topic for c in reader.connections] == ["/joint_states"]
    assert found == list(range(12))
    with open(path, "rb") as file:
        schemas = [schema for schema, _, _ in make_reader(file, validate_crcs=True).iter_messages()]
    assert {(schema.name, schema.encoding) for schema in schemas} == {("sensor_msgs/msg/JointState", "ros2msg")}


@settings(deadline=None, max_examples=60)
@given(length=st.integers(0, len(WHOLE) - 1))
def test_cut_anywhere_it_gives_exactly_the_whole_chunks_before(tmp_path_factory, length):
    path = tmp_path_factory.mktemp("cut") / "000000.mcap"
    path.write_bytes(WHOLE[:length])
    whole_chunks = sum(end <= length for end in ENDS)
    found = list(verified(path))
    assert found == entries(12)[: len(found)]
    assert len(found) >= 3 * whole_chunks
    with pytest.raises(DamagedEpisodeError, match=r"000000\.mcap"):
        list(read(path))


@settings(deadline=None, max_examples=120)
@given(place=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_never_gives_a_message_that_was_not_written(tmp_path_factory, place, bit):
    damaged = bytearray(WHOLE)
    damaged[place] ^= 1 << bit
    path = tmp_path_factory.mktemp("flip") / "000000.mcap"
    path.write_bytes(damaged)
    found = list(verified(path))
    assert found == entries(12)[: len(found)]


@pytest.mark.parametrize("cut", [0, 5, 60, ENDS[0] - 1, ENDS[1] + 7, len(WHOLE) - 3])
def test_a_repair_gives_a_complete_file_of_the_same_messages_and_can_be_repeated(tmp_path, cut):
    path = tmp_path / "000000.mcap"
    path.write_bytes(WHOLE[:cut])
    before = list(verified(path))
    size, crc = repair(path)
    assert (size, crc) == (path.stat().st_size, zlib.crc32(path.read_bytes()))
    assert list(read(path)) == before
    once = path.read_bytes()
    repair(path)
    assert list(read(path)) == before
    assert len(path.read_bytes()) == len(once)


def test_an_announced_size_of_terabytes_allocates_nothing(tmp_path):
    path = tmp_path / "000000.mcap"
    path.write_bytes(WHOLE[:60] + b"\x06" + (2**42).to_bytes(8, "little") + b"x" * 100)
    assert list(verified(path)) == []


def test_small_raw_pictures_are_kept_without_loss_and_large_ones_as_jpeg():
    import cv2
    from session_messages import image

    for size, kept in ((96, True), (480, False)):
        data = image(picture_of(1, size), START)
        topic, kind, message = encoded("camera/front/image_raw", data, FramesConfig())
        assert (topic, kind, lossless(message, kind)) == ("camera/front/compressed", cdr.COMPRESSED, kept)
        assert cdr.stamp_ns(message) == START
        found = cv2.imdecode(np.frombuffer(file_of(message, kind), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert found.shape == (size, size, 3)
        assert np.array_equal(found, picture_of(1, size)) is kept


def test_messages_are_what_ros_itself_makes_of_them():
    from rclpy.serialization import deserialize_message, serialize_message
    from sensor_msgs.msg import JointState
    from trajectory_msgs.msg import JointTrajectory

    ours = vector({"a": 1.5, "b": -2.0}, START + 7, "said", [0.5, 0.25])
    theirs = deserialize_message(ours, JointState)
    assert (theirs.name, list(theirs.position), theirs.header.frame_id) == (["a", "b"], [1.5, -2.0], "said")
    written = serialize_message(theirs)[: len(ours)]  # ROS leaves some room behind, but not over the wire
    again = cdr.decode(written, cdr.JOINT_STATE)
    assert (again.name, again.velocity.tolist(), cdr.stamp_ns(ours)) == (["a", "b"], [0.5, 0.25], START + 7)
    actions = np.random.default_rng(0).normal(size=(2, 3, 6))
    points = deserialize_message(chunks(actions, START), JointTrajectory).points
    assert np.array_equal([p.positions for p in points], actions.reshape(6, 6))
