"""Fast DDS as images need it: UDPv4 and 32 MB of shared memory, which default participants understand too.

With the default 512 KB of shared memory a 640x480 picture does not fit and is lost. The profile must be named in the
environment before the first participant is made; `VLA_RL_DDS_PROFILE=off` leaves it out, and a profile that the user
names in `FASTDDS_DEFAULT_PROFILES_FILE` (Jazzy: `FASTRTPS_DEFAULT_PROFILES_FILE`) wins. A node that was killed is
forgotten after 3 s instead of 20.

Memory of a message is given back with the message (DYNAMIC). ROS's own choice recycles it: each place of a reader's
history grows to the largest message that ever came and stays so, and ten of 10 MB keep 100 MB of every topic for good.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import MutableMapping
from importlib.util import find_spec
from pathlib import Path

SWITCH = "VLA_RL_DDS_PROFILE"
CURRENT, DEPRECATED = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
QOS_FROM_PROFILE = "RMW_FASTRTPS_USE_QOS_FROM_XML"  # without it ROS overrules the profile's choice of memory
LEASE_S, _FILE = 3, "vla_rl_fastdds.xml"
SHARED_MEMORY = 32 * 1024 * 1024
_LOCKS = f"fastdds_{'[0-9a-f]' * 16}_el"  # beside each segment, held as long as its process lives
_YOUNG_S = 60.0  # a segment that is being made is not locked yet
PROFILE = f"""<?xml version="1.0" encoding="UTF-8" ?>
<dds xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles">
  <profiles>
    <transport_descriptors>
      <transport_descriptor>
        <transport_id>vla_rl_shm</transport_id>
        <type>SHM</type>
        <segment_size>{SHARED_MEMORY}</segment_size>
      </transport_descriptor>
      <transport_descriptor>
        <transport_id>vla_rl_udp</transport_id>
        <type>UDPv4</type>
      </transport_descriptor>
    </transport_descriptors>
    <participant profile_name="vla_rl" is_default_profile="true">
      <rtps>
        <userTransports>
          <transport_id>vla_rl_shm</transport_id>
          <transport_id>vla_rl_udp</transport_id>
        </userTransports>
        <useBuiltinTransports>false</useBuiltinTransports>
        <builtin>
          <discovery_config>
            <leaseDuration><sec>{LEASE_S}</sec></leaseDuration>
            <leaseAnnouncement><sec>1</sec></leaseAnnouncement>
          </discovery_config>
        </builtin>
      </rtps>
    </participant>
    <data_writer profile_name="vla_rl_writer" is_default_profile="true">
      <qos><data_sharing><kind>OFF</kind></data_sharing></qos>
      <historyMemoryPolicy>DYNAMIC</historyMemoryPolicy>
    </data_writer>
    <data_reader profile_name="vla_rl_reader" is_default_profile="true">
      <qos><data_sharing><kind>OFF</kind></data_sharing></qos>
      <historyMemoryPolicy>DYNAMIC</historyMemoryPolicy>
    </data_reader>
  </profiles>
</dds>
"""


def use_profile(environment: MutableMapping[str, str] = os.environ) -> str:
    """Name the profile in the environment, unless it is off or the user has one.

    Returns:
        Path of the profile in force, "" for none.

    Raises:
        ValueError: the switch is neither `on` nor `off`.
    """
    switch = environment.get(SWITCH, "on")
    if switch not in ("on", "off"):
        raise ValueError(f"{SWITCH}={switch} must be on or off")
    chosen = environment.get(CURRENT) or environment.get(DEPRECATED)
    if chosen or switch == "off":
        return chosen or ""
    environment[_variable(environment)] = path = str(_write())
    environment[QOS_FROM_PROFILE] = "1"
    return path


def _variable(environment: MutableMapping[str, str]) -> str:
    """Jazzy's Fast DDS 2 reads the old name only; later ones warn about it."""
    return DEPRECATED if environment.get("ROS_DISTRO") == "jazzy" and find_spec("fastdds") is None else CURRENT


def _write() -> Path:
    """The profile as a file of this user's, written whole."""
    folder = Path(tempfile.gettempdir()) / f"vla_rl_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user; set {SWITCH}=off or {CURRENT}")
    path = folder / _FILE
    if not path.is_file() or path.read_text() != PROFILE:
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
            file.write(PROFILE)
        os.replace(file.name, path)
    return path


def lease_s(environment: MutableMapping[str, str] = os.environ) -> float:
    """How long a node that was killed stays listed [s]."""
    chosen = environment.get(CURRENT) or environment.get(DEPRECATED)
    return LEASE_S if chosen and Path(chosen).name == _FILE else 20.0


def sweep(folder: Path = Path("/dev/shm")) -> int:
    """Remove the segments of shared memory, 35 MB each, that killed processes of this user left; returns how many."""
    left = [lock for lock in folder.glob(_LOCKS) if _abandoned(lock)]
    for lock in left:
        lock.with_name(lock.name.removesuffix("_el")).unlink(missing_ok=True)
        lock.unlink(missing_ok=True)
    return len(left)


def _abandoned(lock: Path) -> bool:
    """Whether no living process holds the lock of a segment of this user."""
    try:
        with lock.open() as file:
            found = os.fstat(file.fileno())
            if found.st_uid != os.getuid() or time.time() - found.st_mtime < _YOUNG_S:
                return False
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or removed meanwhile
        return False
    return True
