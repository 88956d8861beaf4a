"""Hypothesis without a clock or a memory of its own: a slow machine and an earlier run change nothing."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "gaia",
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=40,  # of each of ninety contracts
)
settings.load_profile("gaia")
