"""`lssvwm info`."""


def info() -> None:
    """Versions, devices, and which backends are used and why, as Markdown for a bug report."""
    from lssvwm_core.environment import describe

    print(describe())
