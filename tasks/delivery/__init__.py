"""What happens to a message besides being performed: cancellation and dead letters."""
