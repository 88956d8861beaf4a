"""Limits that hold for the whole cluster: rates, bandwidth, concurrency, circuit breakers."""
