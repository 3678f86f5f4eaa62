"""Episodes to batches: LeRobotDataset v3 in and out, the decoded cache, chunk windows."""
