"""Headless rendering, whichever test imports the engine first."""

import os

os.environ.setdefault("MUJOCO_GL", "egl")
