"""The Fast DDS profile: pictures arrive, and strangers with default transports are understood."""

import fcntl
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from vla_rl.ros import dds

COUNT = 30
TALK = """
import array, os, sys, time
from vla_rl.ros import dds
assert bool(dds.use_profile()) == (os.environ.get("VLA_RL_DDS_PROFILE") != "off")
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
side, other = sys.argv[1:]
rclpy.init()
node = rclpy.create_node(side)
best = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
heard, done = set(), set()
node.create_subscription(Image, f"from_{other}", lambda m: heard.add(m.header.stamp.sec), best)
node.create_subscription(Image, f"done_{other}", lambda m: done.add(1), best)
pictures = node.create_publisher(Image, f"from_{side}", best)
finished = node.create_publisher(Image, f"done_{side}", best)
message = Image(height=480, width=640, encoding="rgb8", step=1920, data=array.array("B", bytes(640 * 480 * 3)))
count, end = 0, time.monotonic() + 60
while (len(heard) < COUNT or not done) and time.monotonic() < end:
    if pictures.get_subscription_count():
        count += 1
        message.header.stamp.sec = count
        pictures.publish(message)
    if len(heard) >= COUNT:
        finished.publish(Image())
    for _ in range(10):
        rclpy.spin_once(node, timeout_sec=0.005)
for _ in range(10):
    finished.publish(Image())
    time.sleep(0.05)
print(len(heard), count)
sys.exit(len(heard) < COUNT)
""".replace("COUNT", str(COUNT))

LARGE = """
import subprocess, sys, time
from pathlib import Path
from vla_rl.ros import dds, qos
dds.use_profile()
import rclpy
from std_msgs.msg import String
rclpy.init()
node = rclpy.create_node("large")
if sys.argv[1:]:
    publisher, message = node.create_publisher(String, "text", qos.EVERY), String(data="a" * 4_000_000)
    while not publisher.get_subscription_count():
        time.sleep(0.01)
    for _ in range(30):
        publisher.publish(message)
        time.sleep(0.05)
    sys.exit()
def resident():
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) / 1e3
heard = []
node.create_subscription(String, "text", lambda data: heard.append(len(data)), qos.EVERY, raw=True)
before = resident()
subprocess.run([sys.executable, "-c", Path("/proc/self/cmdline").read_text().split(chr(0))[2], "publish"], check=True)
for _ in range(50):
    rclpy.spin_once(node, timeout_sec=0.02)
print(len(heard), before, resident())
sys.exit(len(heard) < 5 or resident() - before > 14.0)
"""


def side(name, other, prefix=(), **env):
    variables = {k: v for k, v in os.environ.items() if k not in (dds.CURRENT, dds.DEPRECATED)}
    command = [*prefix, sys.executable, "-c", TALK, name, other]
    return subprocess.Popen(
        command, env={**variables, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def both_hear(*sides):
    said = [process.communicate(timeout=100)[0] for process in sides]
    assert [process.returncode for process in sides] == [0, 0], said


@pytest.mark.parametrize("peer", ["off", "on"])
def test_raw_pictures_go_both_ways_between_ours_and_a_peer(peer):
    both_hear(side("ours", "theirs"), side("theirs", "ours", VLA_RL_DDS_PROFILE=peer))


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run(["unshare", "-rn", "true"], check=False).returncode != 0,
    reason="NETWORK NAMESPACES ARE FORBIDDEN ON THIS MACHINE: nothing is known about two hosts",
)
def test_raw_pictures_go_both_ways_between_two_network_namespaces():
    script = textwrap.dedent(f"""
        import subprocess, sys
        from vla_rl.ros.measure.netns import FarSide
        far, talk = FarSide(), {TALK!r}
        run = lambda a, b: subprocess.Popen([sys.executable, "-c", talk, a, b])
        here = run("here", "there")
        with far.inside():
            there = run("there", "here")
        status = here.wait(100), there.wait(100)
        far.close()
        sys.exit(status != (0, 0))
    """)
    variables = {**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", script], env=variables, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_profile_is_on_unless_it_is_off_or_the_user_has_one():
    environment = {}
    path = dds.use_profile(environment)
    assert environment == {dds.CURRENT: path, dds.QOS_FROM_PROFILE: "1"}
    assert "33554432" in Path(path).read_text()
    assert dds.use_profile({dds.SWITCH: "off"}) == ""
    assert dds.use_profile({dds.CURRENT: "/my/own.xml"}) == "/my/own.xml"
    assert dds.use_profile({dds.DEPRECATED: "/my/own.xml"}) == "/my/own.xml"
    with pytest.raises(ValueError, match="on or off"):
        dds.use_profile({dds.SWITCH: "maybe"})


def test_a_killed_node_is_forgotten_sooner_with_our_profile_and_nobody_guesses_about_others():
    environment = {}
    dds.use_profile(environment)
    assert dds.lease_s(environment) == dds.LEASE_S
    assert dds.lease_s({}) == dds.lease_s({dds.CURRENT: "/my/own.xml"}) == 20.0


def test_only_segments_of_processes_that_are_gone_are_removed(tmp_path):
    def segment(digit, age_s):
        files = [tmp_path / f"fastdds_{digit * 16}{end}" for end in ("", "_el")]
        for file in files:
            file.touch()
            os.utime(file, (os.stat(file).st_atime, os.stat(file).st_mtime - age_s))
        return files

    gone, alive, young = segment("a", 3600), segment("b", 3600), segment("c", 0)
    port = tmp_path / "fastdds_port7412_el"
    port.touch()
    os.utime(port, (0, 0))
    with alive[1].open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert dds.sweep(tmp_path) == 1
    assert not any(file.exists() for file in gone)
    assert all(file.exists() for file in (*alive, *young, port))


def test_large_messages_that_waited_leave_nothing_behind_in_their_reader():
    environment = {key: value for key, value in os.environ.items() if key not in (dds.CURRENT, dds.DEPRECATED)}
    done = subprocess.run([sys.executable, "-c", LARGE], env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
