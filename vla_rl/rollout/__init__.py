"""Environment, policy and execution in one process: seeded episodes, collection, evaluation and its report."""
