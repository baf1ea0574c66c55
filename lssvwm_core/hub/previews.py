"""Short videos of a prepared folder's episodes: the hub's viewer shows these, and not HDF5."""

import json
from itertools import islice
from pathlib import Path

from lssvwm_core.export.episodes import recorded
from lssvwm_core.video import upscale, video_writer
from lssvwm_datasets.index import read_index

FOLDER = "preview"
EPISODES, FRAMES = 4, 200  # of each split, and of each episode
WIDTH = 256  # pixels, at least


def write_previews(shards: Path, work: Path) -> dict[str, Path | str]:
    """Make the videos in the folder `work`; returns them and their metadata under their names on the hub.

    Raises: LssvwmError; OSError.
    """
    files: dict[str, Path | str] = {}
    lines: list[str] = []
    for split in read_index(shards).splits:
        for number, exported in enumerate(islice(recorded(shards, split).episodes, EPISODES)):
            episode = exported.episode
            name = f"{split}-{number:03d}.mp4"
            left = FRAMES
            with video_writer(work / name, episode.fps) as video:
                for frames in episode.frames:
                    video.append(upscale(frames[:left], -(-WIDTH // episode.frame_size[1])))
                    left -= len(frames[:left])
                    if not left:
                        break
            files[f"{FOLDER}/{name}"] = work / name
            row = {
                "file_name": name,
                "split": split,
                "episode": episode.id,
                "frames": episode.length,
                "fps": episode.fps,
            }
            lines.append(json.dumps(row))
    return {**files, f"{FOLDER}/metadata.jsonl": "\n".join(lines) + "\n"}
