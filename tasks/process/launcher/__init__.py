"""The processes between a worker and its programs: the standard library alone, started without site-packages."""
