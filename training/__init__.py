"""Data, models, the training loop, evaluation of what was trained."""
