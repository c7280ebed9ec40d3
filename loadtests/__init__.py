"""Load tests: Locust users, scenarios with objectives, and an open-loop driver. Loopback only."""
