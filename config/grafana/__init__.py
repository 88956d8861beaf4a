"""The dashboards, written as Python: `python -m config.grafana` makes `dashboards/*.json` of them.

Only this package knows Grafana's SDK, and nothing that runs imports it: Grafana and the page of `gaia monitor` read the
JSON.
"""
