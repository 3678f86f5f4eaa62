"""Arms behind their real interfaces: a ROS domain of this test run's own, and a twin that is closed after its test."""

import pytest
from ros_domain import use_own_domain

use_own_domain()

from twin_desk import Desk  # noqa: E402

from vla_rl.ros import dds  # noqa: E402

dds.use_profile()


@pytest.fixture
def desk(tmp_path):
    made = Desk(tmp_path)
    yield made
    made.close()
