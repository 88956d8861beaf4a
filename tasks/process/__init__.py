"""Programs under limits."""
