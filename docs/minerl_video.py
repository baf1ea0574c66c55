"""From a folder of MineRL's recordings to a video of a world that was trained on them.

    python docs/minerl_video.py recordings/minerl --minutes 600

Each step is a command of `lssvwm`; given again, each goes on where it stopped. The video is driven by the recording's
actions alone: where the world is, it reckons itself (docs/minerl.md).
"""

import argparse
import sys
from collections.abc import Sequence

from lssvwm_cli.app import run

DATA, RUN = "data/minerl", "minerl"


def steps(
    source: str, minutes: float, out: str, prepare: Sequence[str] = (), train: Sequence[str] = ()
) -> list[list[str]]:
    """The commands, in their order."""
    held_out = ["--checkpoint", RUN, "--data", DATA]
    return [
        ["prepare", "minerl", source, "--skip-list", "known", "--autoencoder", "auto", "--out", DATA, *prepare],
        ["train", "--data", DATA, "--name", RUN, "--minutes", str(minutes), *train],
        ["rollout", *held_out, "--conditions", "action", "--context", "100", "--frames", "200", "--out", out],
    ]


def make_video(*arguments: object, **options: object) -> int:
    """Run `steps` one after another; the first exit code that is not 0."""
    for words in steps(*arguments, **options):  # type: ignore[arg-type]
        print("$ lssvwm", *words, file=sys.stderr)
        if code := run(words):
            return code
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="folder of streams, at any depth: recording.mp4, rendered.npz, metadata.json")
    parser.add_argument("--minutes", type=float, default=600, help="of training")
    parser.add_argument("--out", default="minerl.mp4")
    chosen = parser.parse_args()
    sys.exit(make_video(chosen.source, chosen.minutes, chosen.out))
