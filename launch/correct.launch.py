"""The tabletop with an operator: `ros2 launch vla_rl correct.launch.py task:=push session:=monday`.

Console, devices and recorder besides policy, steering and control; as `vla-rl up correct` starts them.
"""

from launch import LaunchDescription

from vla_rl.ros.bringup import ros_launch
from vla_rl.ros.bringup.options import CORRECT_OPTIONS, correct_graph


def generate_launch_description() -> LaunchDescription:
    """One argument for each option, then the nodes they ask for."""
    return ros_launch.describe(CORRECT_OPTIONS, correct_graph)
