"""Monte-Carlo regression: Q(s, a) and V(s) are the mean of the returns that followed. The baseline of every critic."""

from __future__ import annotations

from vla_rl.data.transitions import ChunkBatch
from vla_rl.learn.critics import CriticAlgorithm, Loss, mean_value
from vla_rl.learn.td import regression


class MonteCarlo(CriticAlgorithm):
    """Q and V of the policy that recorded the data, without bootstrapping."""

    needs_returns = True
    has_value = True

    def losses(self, batch: ChunkBatch) -> Loss:
        """Both regressions at once; they share no weights."""
        assert self.value is not None
        assert batch.mc_return is not None
        out = self.outputs(batch)
        q_loss = self.fit(out, batch.mc_return, batch.weight)
        v_out = self.value.logits(batch.features, batch.state)
        v_loss = regression(self.value.head, v_out, batch.mc_return, batch.weight)
        info = {"q_loss": q_loss, "v_loss": v_loss, "q": mean_value(self.critic, out)}
        return q_loss + v_loss, {name: value.detach() for name, value in info.items()}
