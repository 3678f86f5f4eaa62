"""The tabletop in MuJoCo with its policy, steering and control: `ros2 launch vla_rl sim.launch.py task:=push`.

The nodes, their processes and their parameters come from vla_rl.ros.bringup.options, as those of `vla-rl up sim` do.
"""

from launch import LaunchDescription

from vla_rl.ros.bringup import ros_launch
from vla_rl.ros.bringup.options import SIM_OPTIONS, sim_graph


def generate_launch_description() -> LaunchDescription:
    """One argument for each option, then the nodes they ask for."""
    return ros_launch.describe(SIM_OPTIONS, sim_graph)
