"""Matrix factorisation where clients keep their users' events; only sums of what they computed leave them."""
