"""The verbs of the `conch` command, a file per group; each imports what it needs when it is called."""
