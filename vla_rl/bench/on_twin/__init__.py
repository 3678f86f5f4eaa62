"""Parts of `vla-rl bench twin`: each measures one thing on the twin, `run(seconds, quick) -> {metric: figure}`."""
