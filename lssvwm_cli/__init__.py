"""The command line: parse, call the core, show. Heavy modules are imported inside the commands."""
