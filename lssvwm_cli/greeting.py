"""What `lssvwm` says when it is called alone: three things that one can do now, each as it is to be typed."""

from importlib.util import find_spec

from lssvwm_cli.completion import runs


def greeting() -> str:
    """The lines; what has been trained here comes before the world that ships."""
    from importlib.metadata import version

    world = "the world of your latest run" if runs("") else "the world that ships"
    play, where = ("lssvwm play", "in the browser") if find_spec("starlette") else ("lssvwm play --terminal", "here")
    offers = (
        (play, f"walk around in {world}, {where}"),
        ("lssvwm rollout", "let it go on from a recording: video.mp4"),
        ("lssvwm prepare FOLDER", "make your own recordings ready for lssvwm train"),
    )
    width = max(len(command) for command, _ in offers)
    return "\n".join(
        (
            f"lssvwm {version('lssvwm')}: video world models that remember. Three things to do now:",
            "",
            *(f"  {command:<{width}}  {what}" for command, what in offers),
            "",
            "All commands: lssvwm --help    The options of one: lssvwm rollout --help",
        )
    )
