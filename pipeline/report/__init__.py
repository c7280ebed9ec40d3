"""`conch report`: one self-contained HTML page about the newest release."""
