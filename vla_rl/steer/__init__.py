"""Candidates and their values to the one chunk that is executed."""
