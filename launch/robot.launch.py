"""A real arm with its policy: `ros2 launch vla_rl robot.launch.py arm:=so101 port:=/dev/ttyACM0 policy:=DIR`.

With `operator:=true` also console, devices and recorder; as `vla-rl up robot` starts them.
"""

from launch import LaunchDescription

from vla_rl.ros.bringup import ros_launch
from vla_rl.ros.bringup.robot_options import ROBOT_OPTIONS, robot_graph


def generate_launch_description() -> LaunchDescription:
    """One argument for each option, then the nodes they ask for."""
    return ros_launch.describe(ROBOT_OPTIONS, robot_graph)
