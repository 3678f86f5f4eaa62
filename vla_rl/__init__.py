"""vla_rl: a robot learning stack with ROS 2 integration; ARCHITECTURE.md has the rooms and their arrows."""

__version__ = "0.1.0"
