"""Draw image statistics of a long rollout: do a world's frames stay within the range of its data?

    python docs/stability.py docs/world/stability.png maze-world 4000

The world sees 240 frames of the first sample, follows the recording to its end, then explores. Grey: from the 1st to
the 99th percentile of all frames of the samples.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lssvwm_core import Conditions, EncodedEpisode, World, load_episode, load_world
from lssvwm_core.controls import RECORDED, Controls, plan_controls
from lssvwm_core.episodes import episode_count
from lssvwm_core.video import Frames
from lssvwm_datasets.sources import sample_recordings

CONTEXT = 240
STRETCHES = 8
STATISTICS = ("brightness", "contrast", "saturation", "sharpness")


def main(out: Path, checkpoint: str, count: int) -> None:
    world, source = load_world(checkpoint), sample_recordings()
    episodes = [load_episode(world, source, number) for number in range(episode_count(source, world))]
    truth = np.concatenate([statistics(episode.frames) for episode in episodes if episode.frames is not None])
    generated = np.concatenate([statistics(frames) for frames in roll_out(world, episodes[0], count)])[:count]
    figure = Figure(figsize=(12, 6), layout="constrained")
    for column, name in enumerate(STATISTICS):
        axes = figure.add_subplot(2, 2, column + 1)
        low, high = np.percentile(truth[:, column], [1, 99])
        axes.axhspan(low, high, color="0.9")
        axes.plot(generated[:, column], linewidth=0.5)
        axes.set(title=name, xlabel="frames generated")
        outside = np.mean((generated[:, column] < low) | (generated[:, column] > high))
        print(f"{name:<11} {outside:.1%} of the frames outside")
    sharpness = [part.mean() / truth[:, -1].mean() for part in np.array_split(generated[:, -1], STRETCHES)]
    print("sharpness against the data's, by stretch:", " ".join(f"{share:.2f}" for share in sharpness))
    figure.savefig(out, dpi=80)


def roll_out(world: World, episode: EncodedEpisode, count: int) -> list[Frames]:
    rollout = world.rollout()
    rollout.observe(episode.latents[:CONTEXT], episode.conditions[:CONTEXT])
    assert episode.poses is not None
    recorded = Controls(episode.actions[CONTEXT:], episode.poses[CONTEXT:])
    led = plan_controls(RECORDED, count, world.header, recorded.poses[0], episode.layout, 0, recorded)
    return [chunk.frames for chunk in rollout.run(Conditions(action=led.actions, pose=led.poses))]


def statistics(frames: Frames) -> NDArray[np.float32]:
    """(T, H, W, 3) uint8 -> (T, 4): mean, deviation, mean colourfulness and mean gradient, in grey levels."""
    pixels = frames.astype(np.float32)
    grey = pixels.mean(axis=3)
    gradient = np.hypot(np.diff(grey, axis=1)[:, :, :-1], np.diff(grey, axis=2)[:, :-1])
    colour = pixels.max(axis=3) - pixels.min(axis=3)
    columns = (grey.mean(axis=(1, 2)), grey.std(axis=(1, 2)), colour.mean(axis=(1, 2)), gradient.mean(axis=(1, 2)))
    return np.stack(columns, axis=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
