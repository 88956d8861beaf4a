"""A leak gate: a steady load on a real cluster, and whether anything grows with the calls."""
