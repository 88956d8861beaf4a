"""One frozen dataclass per operation, and one per result: the words that producers and workers share."""
