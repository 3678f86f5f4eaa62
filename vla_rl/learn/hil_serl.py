"""HIL-SERL (arXiv:2410.21845) with chunks for actions: RLPD's critic (arXiv:2302.02948) on demonstrations and sessions.

::

    demonstrations      d d d d d d d          half of each batch from d and h,
    sessions            p p p h h h p p        half from p and h: corrections are in both halves
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from vla_rl.data.transitions import ChunkBatch
from vla_rl.learn.qc import QC
from vla_rl.learn.td import Following


def half_and_half(session: NDArray[np.bool_], human: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Sampling weights of transitions, (N,), that sum to one: half demonstrations and corrections, half sessions.

    Args:
        session: it comes from a session, (N,).
        human: a human drove, (N,).

    Raises:
        ValueError: nothing is in a session.
    """
    shown = ~session | human
    if not session.any():
        raise ValueError("no transition is left of the sessions: their episodes are too short, or held out")
    halves = [half / half.sum() for half in (shown, session) if half.any()]
    return np.mean(halves, axis=0)


class HilSerl(QC):
    """y = r + gamma^n min_2 Qbar(s', a'), a' one chunk of the policy; no entropy in the backup, as in HIL-SERL.

    The minimum is over two members of the ensemble, drawn anew at each step (RLPD, REDQ).
    """

    pessimism: ClassVar[str] = "random-subset-min"

    @torch.no_grad()
    def following(self, batch: ChunkBatch) -> Following:
        """What the target says of the next observation under one chunk of the policy there."""
        chunks = batch.next_candidates
        assert chunks is not None
        rows = torch.arange(len(chunks), device=chunks.device)
        drawn = chunks[rows, torch.randint(chunks.shape[1], (len(chunks),), device=chunks.device)]
        context = self.target.embed(batch.next_features, batch.next_state)
        out = self.target.logits(context, drawn.unsqueeze(1)).squeeze(2)
        return Following(out, self.aggregate(self.target.head.mean(out)))
