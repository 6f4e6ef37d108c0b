"""Stub of METRIC's worktree; main's replaces it."""
