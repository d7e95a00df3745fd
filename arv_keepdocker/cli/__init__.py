"""The command line: arguments in, result and errors out."""
