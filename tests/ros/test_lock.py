"""HostLock: one holder of each name on this host."""

import pytest

from vla_rl.ros.lock import HostLock


def test_a_name_has_one_holder_and_is_free_again_once_that_lets_go():
    first = HostLock("test of /arm/joint_commands")
    with pytest.raises(ValueError, match=r"process \d+ of this host holds test of /arm/joint_commands"):
        HostLock("test of /arm/joint_commands")
    first.close()
    HostLock("test of /arm/joint_commands").close()


def test_arms_of_different_namespaces_are_not_mistaken_for_each_other():
    locks = [HostLock(f"test of /{space}/joint_commands") for space in ("left_arm", "left/arm", "left")]
    for lock in locks:
        lock.close()
