"""The `conch` command and the stages behind it: the only room that knows all the others."""
