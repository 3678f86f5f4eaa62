"""Pictures are found again by when they were taken, exactly or not at all."""

import cv2
import numpy as np

from vla_rl.observe.encoded import Encoded
from vla_rl.observe.recall import Recall

STAMP = 7_000_000_123


def picture(value):
    return np.full((8, 8, 3), value, np.uint8)


def test_an_observation_gets_the_pictures_that_it_was_made_of():
    recall = Recall(["front", "wrist"])
    for i in range(5):
        recall.put("front", picture(i), STAMP + i * 33_333_333)
        recall.put("wrist", picture(100 + i), STAMP + i * 33_333_333 - 9_000_001)
        recall.put("side", picture(0), STAMP)
    now = STAMP + 3 * 33_333_333
    found = recall.at(now, {"front": 0.0, "wrist": 9_000_001 / 1e9, "joint_states": 0.004})
    assert {name: int(image[0, 0, 0]) for name, image in found.items()} == {"front": 3, "wrist": 103}


def test_a_picture_that_was_not_heard_is_too_old_or_damaged_is_missing_and_never_another():
    recall = Recall(["front", "wrist"], keep=4)
    for i in range(10):
        recall.put("front", picture(i), STAMP + i)
    assert recall.at(STAMP - 33_000_000, {"front": 0.0}) == {}
    recall.put("wrist", Encoded(b"no picture"), STAMP)
    assert recall.at(STAMP, {"wrist": 0.0}) == {}
    recall.put("wrist", Encoded(cv2.imencode(".png", picture(9))[1].tobytes()), STAMP + 5_000_000)
    assert recall.at(STAMP + 5_000_000, {"wrist": 0.0})["wrist"][0, 0].tolist() == [9, 9, 9]
    assert "front" not in recall.at(STAMP, {})
