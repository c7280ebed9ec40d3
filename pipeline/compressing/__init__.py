"""`conch compress`: searches, saves what was chosen, measures it as it is served, and reports."""
