"""Fast DDS as images need it: UDPv4 and 32 MB of shared memory, which default participants understand too.

With the default 512 KB of shared memory a 640x480 picture does not fit and is lost. The profile must be named in the
environment before the first participant is made; `VLA_RL_DDS_PROFILE=off` leaves it out, and a profile that the user
names in `FASTDDS_DEFAULT_PROFILES_FILE` (Jazzy: `FASTRTPS_DEFAULT_PROFILES_FILE`) wins. A node that was killed is
forgotten after 3 s instead of 20.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import MutableMapping
from importlib.util import find_spec
from pathlib import Path

SWITCH = "VLA_RL_DDS_PROFILE"
CURRENT, DEPRECATED = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
LEASE_S, _FILE = 3, "vla_rl_fastdds.xml"
SHARED_MEMORY = 32 * 1024 * 1024
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
