"""`lssvwm info`."""

from lssvwm_cli.console import show


def info() -> None:
    """Versions, devices, and which backends are used and why, as Markdown for a bug report."""
    from lssvwm_core.installation import describe

    show(describe())
