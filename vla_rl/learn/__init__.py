"""Batches to weights: one algorithm a file, one readable loop, checkpoints that a kill cannot break.

Read in this order: `train` (the loop), `bc` (an algorithm for it), `state` (what a step changes), `checkpoint` (how it
survives), then the small parts: `schedule`, `ema`, `guard`, `augment`, `feed`. Critics: `value` (their one learner),
`critics` and `td` (what they share), then one algorithm a file. From critic to policy: `extraction`, `advantages`, then
`awr`, `best_of_n`, `recap`. From corrections to policy: `improve` (all of it), `corrections` (who drove), then
`hg_dagger`, `preference`, `best_chunk` with the critics of `hil_serl`, `pvp` and `expo`; beside a graph `online`,
`versions`, `live`.
"""
