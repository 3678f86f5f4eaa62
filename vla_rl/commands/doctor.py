"""Check this machine: one line a part, ok, warn or FAIL, and how to mend it.

  vla-rl doctor                                            Python, ROS, rendering, ...
  vla-rl doctor --arm so101 --port /dev/ttyACM0            an arm: port, servos, calibration, pose; nothing moves
  vla-rl doctor --arm so101 --self-test                    then each joint by 5 degrees, after asking

Status 1 where something that is needed does not work. What is optional (a GPU, ROS for those without) only warns.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from vla_rl.commands import Result, doctor_arm
from vla_rl.commands.finding import FAIL, OK, WARN, Finding

NEEDED_GB = 10  # the environment takes 6, data and checkpoints the rest
PACKAGES = ("numpy", "torch", "lerobot", "mujoco", "gymnasium", "mink", "diffusers", "transformers")
_PATIENCE_S = 120.0
_LAST_SAFE_DOMAIN = 101  # above, DDS ports reach into those that Linux gives to any program

_RENDER = """
import mujoco, numpy
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><light pos="0 0 3"/><geom type="sphere" size=".5" rgba="1 0 0 1"/>'
    '<camera name="c" pos="0 -3 0" xyaxes="1 0 0 0 0 1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 32, 32) as renderer:
    renderer.update_scene(data, camera="c")
    image = renderer.render().astype(int)
centre, corner = image[16, 16], image[0, 0]
assert centre[0] > 60 and centre[0] > 2 * centre[1] and corner[0] < 60, f"wrong pixels: {centre}, {corner}"
"""

_ROUND_TRIP = """
import time, rclpy
from rclpy.qos import QoSProfile
from std_msgs.msg import String
rclpy.init()
here, there = rclpy.create_node("doctor_here"), rclpy.create_node("doctor_there")
heard = []
there.create_subscription(String, "doctor/ping", lambda m: heard.append(m.data), QoSProfile(depth=1))
publisher = here.create_publisher(String, "doctor/ping", QoSProfile(depth=1))
end = time.monotonic() + 20
while not heard and time.monotonic() < end:
    publisher.publish(String(data="ping"))
    rclpy.spin_once(there, timeout_sec=0.1)
assert heard == ["ping"] * len(heard) and heard, "nothing was heard for 20 s"
here.destroy_node(); there.destroy_node(); rclpy.shutdown()
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of a real arm; without --arm the doctor looks at this machine."""
    doctor_arm.add_arguments(parser)


def run(args: argparse.Namespace) -> Result:
    """Run every check, one line each.

    Raises:
        ValueError: no such arm.
    """
    findings = []
    for finding in doctor_arm.findings(args) if args.arm else (check() for check in CHECKS):
        print(finding, flush=True)
        findings.append(finding)
    failed = [f.part for f in findings if f.state == FAIL]
    return Result({"ok": not failed, "failed": failed, "checks": [asdict(f) for f in findings]}, 1 if failed else 0)


def check_python() -> Finding:
    """Python 3.12: what ROS 2 Jazzy and Kilted use and LeRobot needs."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == (3, 12):
        return Finding("python", OK, found)
    return Finding("python", FAIL, found, "install python3.12 and run: make install")


def check_packages() -> Finding:
    """The libraries of the lock."""
    found, missing = [], []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if missing:
        return Finding("packages", FAIL, f"missing: {', '.join(missing)}", "run: make install")
    return Finding("packages", OK, ", ".join(found))


def check_rendering() -> Finding:
    """MuJoCo really draws a red ball, off screen."""
    error = _probe(_RENDER, {"MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl")})
    if not error:
        return Finding("rendering", OK, f"{os.environ.get('MUJOCO_GL', 'egl')} draws the right pixels")
    return Finding("rendering", FAIL, error, "run: apt-get install libegl1 libgl1-mesa-dri (or set MUJOCO_GL=osmesa)")


def check_ros_copies() -> Finding:
    """One rclpy and no more."""
    copies = ros_copies(sys.path)
    if not copies and any(d.metadata["Name"] == "ros-rclpy" for d in distributions()):
        return Finding(
            "ros", FAIL, "ros-rclpy is recorded as installed, but its files are gone", "rm -r .venv; make install"
        )
    if not copies:
        return Finding(
            "ros", WARN, "no rclpy", "to use ROS: make install (wheels), or make install ROS=apt after ROS's setup.bash"
        )
    if len(copies) == 1:
        return Finding("ros", OK, f"one rclpy, in {copies[0]}")
    wheels = [c for c in copies if any(Path(c).glob("ros_rclpy-*.dist-info"))]
    others = ", ".join(c for c in copies if c not in wheels)
    remove = f"pip uninstall ros-rclpy ros-common-interfaces to keep {others}, or" if wheels and others else "either"
    keep = f"{remove} open a shell without ROS's setup.bash and PYTHONPATH to keep {', '.join(wheels) or 'another'}"
    return Finding("ros", FAIL, f"{len(copies)} rclpys: {' and '.join(copies)}", keep)


def ros_copies(path: list[str]) -> list[str]:
    """Folders of an import path that hold an rclpy, each once."""
    folders = {
        str(Path(entry).resolve()) for entry in path if entry and (Path(entry) / "rclpy" / "__init__.py").is_file()
    }
    return sorted(folders)


def check_ros_domain() -> Finding:
    """ROS_DOMAIN_ID is a number that DDS has ports for."""
    from vla_rl.ros.bringup.names import check_domain

    text = os.environ.get("ROS_DOMAIN_ID")
    try:
        domain = check_domain(text)
    except ValueError as error:
        return Finding("domain", FAIL, str(error), "unset ROS_DOMAIN_ID, or set it to your own number")
    if domain > _LAST_SAFE_DOMAIN:
        return Finding("domain", WARN, f"{domain}: its ports may belong to other programs", "use one from 0 to 101")
    return Finding("domain", OK, f"ROS domain {domain}" + ("" if text else ", the default: shared with the network"))


def check_launch() -> Finding:
    """ROS's own launch, which `vla-rl up` does without."""
    if importlib.util.find_spec("launch_ros") is None:
        return Finding("launch", OK, "no launch_ros: start the graph with vla-rl up sim")
    return Finding("launch", OK, "ros2 launch vla_rl sim.launch.py, or vla-rl up sim")


def check_dds() -> Finding:
    """Two nodes exchange a message over loopback."""
    if importlib.util.find_spec("rclpy") is None:
        return Finding("dds", WARN, "not checked: no rclpy")
    domain = str(1 + os.getpid() % 100)
    error = _probe(_ROUND_TRIP, {"ROS_DOMAIN_ID": domain, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"})
    if not error:
        return Finding("dds", OK, "a message went from node to node over loopback")
    return Finding("dds", FAIL, error, "is multicast on lo? ip link set lo multicast on; and /dev/shm must have room")


def check_gpu() -> Finding:
    """CUDA, if any; everything runs without."""
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return Finding("gpu", OK, f"{torch.cuda.get_device_name()}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free")
    return Finding("gpu", WARN, "none; everything runs on the CPU, hf: backbones slowly")


def check_disk() -> Finding:
    """Room here and in the temporary folder."""
    here, temporary = shutil.disk_usage("."), shutil.disk_usage(tempfile.gettempdir())
    found = f"{here.free / 1e9:.0f} GB free here, {temporary.free / 1e9:.0f} GB in {tempfile.gettempdir()}"
    if here.free < NEEDED_GB * 1e9:
        return Finding("disk", WARN, found, f"data and checkpoints want {NEEDED_GB} GB: free some or use another --out")
    return Finding("disk", OK, found)


def check_opencv() -> Finding:
    """One OpenCV: two builds overwrite each other's files."""
    wanted = ("opencv-python", "opencv-python-headless", "opencv-contrib-python")
    names = sorted({d.metadata["Name"].lower() for d in distributions() if d.metadata["Name"]} & set(wanted))
    if len(names) <= 1:
        return Finding("opencv", OK, names[0] if names else "none")
    return Finding(
        "opencv", WARN, f"{' and '.join(names)} share one folder", "pip uninstall all but opencv-python-headless"
    )


def _probe(code: str, environment: dict[str, str]) -> str:
    """Run a small program apart, since what it tries may crash; empty, or one line of what went wrong."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {_PATIENCE_S:.0f} s"
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        return f"crashed with signal {-done.returncode}"
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith(" ")]
    errors = [line for line in lines if "Error" in line.split(":")[0]]
    return " ".join((errors or lines or ["failed without a word"])[0].split())[:200]


CHECKS: tuple[Callable[[], Finding], ...] = (
    check_python,
    check_packages,
    check_rendering,
    check_ros_copies,
    check_ros_domain,
    check_launch,
    check_dds,
    check_gpu,
    check_disk,
    check_opencv,
)
