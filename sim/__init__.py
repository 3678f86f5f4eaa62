"""MuJoCo worlds, tasks, scripted experts and Gymnasium environments of the SO-101 tabletop."""
