"""A worker process: its identity, logs, messages as Celery hands them over, and its end."""
