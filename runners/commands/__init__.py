"""The commands of the command line, one file each: ``add_options(parser)`` and ``run(options)``.

``run`` returns the exit code, or None for 0. Heavy imports are inside functions, so that ``--help``
of a command is quick.
"""
