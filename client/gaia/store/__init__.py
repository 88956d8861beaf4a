"""What client and workers both touch in Redis: key names, the connection, and the scripts that both run."""
