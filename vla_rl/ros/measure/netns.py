"""A second network namespace, joined to this one by a cable that can be pulled: what a cut network does to the graph.

Works without privileges inside `unshare -rn`, where it changes nothing of the host's own network.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_HERE, _THERE, _CABLE = "10.77.0.1/24", "10.77.0.2/24", ("vla_here", "vla_there")


class FarSide:
    """A network namespace at the other end of a cable.

    Raises:
        PermissionError: not allowed here; inside `unshare -rn` it is.
    """

    def __init__(self) -> None:
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY)
        os.unshare(os.CLONE_NEWNET)
        self._far = os.open("/proc/self/ns/net", os.O_RDONLY)
        _ip("link set lo up multicast on")
        os.setns(self._home, os.CLONE_NEWNET)
        here, there = _CABLE
        _ip("link set lo up multicast on")
        _ip(f"link add {here} type veth peer name {there} netns /proc/{os.getpid()}/fd/{self._far}")
        self._plug_in(here, _HERE)
        with self.inside():
            self._plug_in(there, _THERE)

    @staticmethod
    def _plug_in(end: str, address: str) -> None:
        _ip(f"addr add {address} dev {end}")
        _ip(f"link set {end} up multicast on")
        _ip(f"route add default dev {end}")

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Processes started by this thread in here live on the far side."""
        os.setns(self._far, os.CLONE_NEWNET)
        try:
            yield
        finally:
            os.setns(self._home, os.CLONE_NEWNET)

    def pull(self) -> None:
        """Cut the network."""
        _ip(f"link set {_CABLE[0]} down")

    def plug(self) -> None:
        """Join it again."""
        _ip(f"link set {_CABLE[0]} up")
        _ip(f"route replace default dev {_CABLE[0]}")

    def close(self) -> None:
        """Take the cable away; the namespace goes with its last process."""
        _ip(f"link del {_CABLE[0]}")
        os.close(self._far)
        os.close(self._home)


def _ip(arguments: str) -> None:
    done = subprocess.run(["ip", *arguments.split()], capture_output=True, text=True)
    if done.returncode:
        raise PermissionError(f"ip {arguments}: {done.stderr.strip()}")
