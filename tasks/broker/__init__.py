"""Our Redis transport on kombu's."""
