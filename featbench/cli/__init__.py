"""The command line, one file a command: it parses options, calls the library and prints.

A command's module has `configure(parser)` and `run(options)`. Heavy modules are imported inside functions, when they
are needed, so that `featbench --help` and mistakes in options are answered within a fraction of a second. Several
commands share `options` (options and what they mean), `running` (lines about a run) and `console` (progress).
"""
