"""Imports torch once, then forks a training run for each line of JSON it reads: one that a test can kill in peace."""

import json
import os
import sys
import tempfile

import torch
from toy_learner import config, train_in_child, training

if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        training(config(f"{scratch}/warm", steps=1)).run()
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            train_in_child(config(**json.loads(line)))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
