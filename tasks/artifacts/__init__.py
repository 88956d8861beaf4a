"""The worker's part of the claim check: expired bodies leave the shared directory."""
