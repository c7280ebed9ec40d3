"""From what users do to events to learn from."""
