"""Faults in a real cluster, and which alerts fire: `python -m tests.faults`, see docs/monitoring.md."""
