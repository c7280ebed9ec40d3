"""What a user would pick in place of Triton: the same five steps behind FastAPI, in one process each."""
