"""The commands of the command line, one file each: its options and its function."""
