"""Arms behind their real interfaces: a ROS domain of this test run's own."""

from ros_domain import use_own_domain

use_own_domain()

from vla_rl.ros import dds  # noqa: E402

dds.use_profile()
