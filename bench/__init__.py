"""Measurements against others' programs. Bench imports every room; no room imports bench."""
