"""Event store over real NATS and Redis servers."""
