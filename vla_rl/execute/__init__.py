"""Chunks to safe commands: which action is due, who may act, and a filter whose every command can be stopped."""
