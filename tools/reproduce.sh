#!/usr/bin/env bash
# Trains the shipped six-task policy from nothing: demonstrations, training, evaluation, checkpoint and model card.
# About an hour and a half on two cores: 15 minutes of collecting, MINUTES of training, 10 minutes of evaluation.
# An interrupted run goes on where it stopped. SMOKE=1 does all of it in small, in minutes, and leaves the package alone.
set -euo pipefail
if [ -n "${SMOKE:-}" ]; then
    OUT=${OUT:-outputs/smoke} MINUTES=${MINUTES:-0.5} EPISODES=${EPISODES:-4} SCENES=${SCENES:-1}
    CHECKPOINT=${CHECKPOINT:-$OUT/checkpoint}
fi
out=${OUT:-outputs/tabletop}
minutes=${MINUTES:-62}
episodes=${EPISODES:-275}
scenes=${SCENES:-50}
checkpoint=${CHECKPOINT:-vla_rl/policy/checkpoints/tabletop}
export MUJOCO_GL=${MUJOCO_GL:-egl} HF_HUB_OFFLINE=1
run() { .venv/bin/python -m vla_rl "$@"; }

data=()
for task in lift place push stack button drawer; do
    run collect --task "$task" --episodes "$episodes" --seed 10000 --out "$out/data/$task"
    data+=("$out/data/$task")
done
run train bc --data "${data[@]}" --out "$out/run" --minutes "$minutes" $([ -d "$out/run" ] && echo --resume)
run eval --policy "$out/run" --task all --episodes "$scenes" --pairs --out "$out/eval" --json "$out/eval.json"
run eval --policy "$out/run" --task all --episodes "$scenes" --phrasings unseen --json "$out/eval_unseen.json"
.venv/bin/python tools/ship.py "$out/run" "$out/eval.json" "$checkpoint"
