"""Context and chunks to values: chunk critics, state values, heads, pessimism, checkpoints."""
