"""A tiny LeRobotDataset and the plug-in, installed where a subprocess finds it, to run LeRobot's own tools on."""

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
JOINTS = [
    f"{name}.pos" for name in ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
]


def write_dataset(root: Path, episodes: int = 2, frames: int = 20, robot_type: str = "so101") -> None:
    """Two cameras, joints that wander, absolute targets a little ahead of them."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    vector = {"dtype": "float32", "shape": (6,), "names": JOINTS}
    image = {"dtype": "image", "shape": (96, 96, 3), "names": ["height", "width", "channels"]}
    features = {"observation.state": vector, "action": vector}
    features |= {f"observation.images.{camera}": image for camera in ("front", "wrist")}
    data = LeRobotDataset.create("local/tiny", 30, features, root=root, robot_type=robot_type, use_videos=False)
    rng = np.random.default_rng(0)
    for episode in range(episodes):
        state = np.cumsum(rng.normal(0, 2, (frames + 1, 6)), axis=0).astype(np.float32)
        for now, ahead in pairwise(state):
            pixels = {
                f"observation.images.{c}": rng.integers(0, 255, (96, 96, 3), np.uint8) for c in ("front", "wrist")
            }
            data.add_frame({"observation.state": now, "action": ahead, "task": f"lift cube {episode}", **pixels})
        data.save_episode()
    data.finalize()


def install_plugin(folder: Path) -> Path:
    """Build the plug-in's wheel from a copy of its sources and install it into a folder of its own."""
    source, target = folder / "source", folder / "site"
    shutil.copytree(ROOT / "plugins/lerobot_policy_vla_rl", source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True)
    return target


def run_tool(module: str, plugin: Path, *arguments: str) -> str:
    """Run one of LeRobot's command-line tools offline, with the plug-in to be discovered; return what it printed."""
    path = os.pathsep.join([str(plugin), str(ROOT)])
    env = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "MUJOCO_GL": "egl"}
    done = subprocess.run([sys.executable, "-m", module, *arguments], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr
