"""Files beneath named roots."""
