"""The gateway: one process between users and Triton. ``serving.gateway.app`` puts it together."""
