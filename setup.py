from glob import glob

from setuptools import find_packages, setup

NODES = (
    "robot_node",
    "policy_node",
    "steering_node",
    "policy_steering",
    "control_node",
    "recorder_node",
    "hil_node",
    "teleop_node",
    "lifecycle_manager",
)

setup(
    name="vla_rl",
    version="0.1.0",
    packages=find_packages(include=["vla_rl*"]),
    package_data={
        "vla_rl": [
            *(f"**/*.{kind}" for kind in ("yaml", "json", "safetensors", "md", "xml")),
            *(f"**/*.{kind}" for kind in ("html", "css", "js", "svg")),
        ]
    },
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/vla_rl"]),
        ("share/vla_rl", ["package.xml"]),
        ("share/vla_rl/launch", glob("launch/*.launch.py")),
        ("share/vla_rl/launch/params", glob("launch/params/*.yaml")),
    ],
    python_requires=">=3.12",
    install_requires=["numpy", "pyyaml"],
    license="Apache-2.0",
    description="A robot learning stack with ROS 2 integration",
    entry_points={
        "console_scripts": [
            "vla-rl = vla_rl.cli:main",
            *(f"{name} = vla_rl.ros.start:{name}" for name in NODES),
        ]
    },
)
