"""Observation to K candidate chunks: backbones, diffusion head, normaliser. A LeRobot policy of type `vla_rl`."""
