"""The command line: argv in, the same calls as the Python API, results on stdout, everything else on stderr.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done with failed items. A command's module imports models and stores inside the
command, so that `bindery --help` costs nothing. This room may import everything of the core but adds nothing to it.
"""
