"""Ratings: what value a user would give an item, and how likely the item is liked."""
