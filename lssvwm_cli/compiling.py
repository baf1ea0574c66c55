"""What commands do before they compile a model."""

from lssvwm_cli.console import say


def keep_what_is_compiled() -> None:
    """Keep it from one start to the next, and say where."""
    from lssvwm_core.process import keep_compiled_code

    folder = keep_compiled_code()
    start = "what was compiled before is taken from" if folder.is_dir() else "this takes minutes once; it is kept in"
    say(f"compiling: {start} {folder}")
