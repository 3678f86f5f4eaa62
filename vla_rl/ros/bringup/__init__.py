"""Bringing a graph up: what it consists of, what can be asked for, and what starts, watches and stops it."""
