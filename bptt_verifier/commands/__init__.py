"""Commands: the command line `bptt`. Nothing here decides anything."""
