"""The command line: verbs, their flags, progress and exit codes."""
