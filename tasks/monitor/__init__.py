"""The monitor of a machine: the cluster's metrics for Prometheus, its health, and the workers' own pages."""
