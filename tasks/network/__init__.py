"""Names and reachability."""
