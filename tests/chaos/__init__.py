"""Chaos: faults are injected under load, and every call is accounted for. `python -m tests.chaos` prints the table."""
