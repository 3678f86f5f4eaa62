"""Critics' learners by the names that `vla-rl train value --algo` takes."""

from __future__ import annotations

from vla_rl.learn.calql import CQL, CalQL
from vla_rl.learn.critics import CriticAlgorithm
from vla_rl.learn.expo import Expo
from vla_rl.learn.hil_serl import HilSerl
from vla_rl.learn.idql import IDQL
from vla_rl.learn.iql import IQL
from vla_rl.learn.monte_carlo import MonteCarlo
from vla_rl.learn.pvp import PVP
from vla_rl.learn.qc import QC
from vla_rl.learn.rebrac import TD3BC, ReBRAC

ALGORITHMS: dict[str, type[CriticAlgorithm]] = {
    "monte_carlo": MonteCarlo,
    "iql": IQL,
    "idql": IDQL,
    "cql": CQL,
    "calql": CalQL,
    "qc": QC,
    "td3bc": TD3BC,
    "rebrac": ReBRAC,
    "hil_serl": HilSerl,
    "pvp": PVP,
    "expo": Expo,
}
