"""Profiles of a running process, taken from inside: without a restart, without ptrace, and shown in common formats."""
