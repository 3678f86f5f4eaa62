"""A ROS domain of this test run's own, loopback only, for every process that it starts."""

import fcntl
import os
import tempfile
from pathlib import Path

_kept = []


def use_own_domain():
    """Take a ROS domain that no other test run on this host has, once, and keep it until the process ends."""
    if _kept:
        return
    domain, lock = _free_domain()
    _kept.append(lock)
    os.environ["ROS_DOMAIN_ID"] = str(domain)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["RCUTILS_LOGGING_BUFFERED_STREAM"] = "0"


def _free_domain():
    for domain in range(1, 100):  # higher ones share ports with other programs
        lock = (Path(tempfile.gettempdir()) / f"vla_rl_test_domain_{domain}.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
        else:
            return domain, lock
    raise RuntimeError("every ROS domain is taken by a test run")
