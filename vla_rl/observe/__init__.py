"""Sensors to observations."""
