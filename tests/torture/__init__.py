"""What is done to files while calls run: swapped links, killed workers."""
