"""A Space of the hub in which anyone walks around in a world: the page of `lssvwm play`, on a free CPU.

README.md  Dockerfile
<world>/   config.json  model.safetensors  autoencoder/
start/     a shard of some recorded episodes, from which walks start, and its index
"""

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lssvwm_core.episodes import EncodedEpisode, episode_count, load_episode
from lssvwm_core.hub.client import CARD_FILE, SAMPLE_FILE
from lssvwm_core.hub.folders import Files, own_shards
from lssvwm_core.prepare.index import write_index
from lssvwm_core.prepare.plan import shard_name
from lssvwm_core.world import World
from lssvwm_datasets.episode import Episode
from lssvwm_datasets.files import written_whole
from lssvwm_datasets.frames import PART_FRAMES, FrameParts
from lssvwm_datasets.index import INDEX_FILE, ShardHeader, read_index
from lssvwm_datasets.shard_writer import ShardWriter
from lssvwm_datasets.sources import VALIDATION

START = "start"
EPISODES, FRAMES = 4, 400
PORT = 7860  # where the hub looks for the page
SLOTS = "/tmp/play"


def space_files(world: World, model: Files, repo: str, source: Path, work: Path) -> dict[str, Path | str]:
    """The Space of a world: `model` are its files on the hub as `repo`; walks start from episodes of `source`.

    The start is made in the folder `work`. Raises: LssvwmError; OSError.
    """
    name = repo.partition("/")[2]
    write_start(world, source, work)
    return {
        **{f"{name}/{file}": content for file, content in model.items() if file not in (CARD_FILE, SAMPLE_FILE)},
        **{f"{START}/{path.name}": path for path in sorted(work.iterdir())},
        "Dockerfile": dockerfile(name),
        CARD_FILE: card(repo, world.header),
    }


def write_start(world: World, source: Path, folder: Path) -> None:
    """Write the beginnings of some validation episodes, as latents of the world, into one shard and its index.

    Raises: LssvwmError, also for shards that the folder `source` does not hold itself; OSError.
    """
    if (source / INDEX_FILE).exists():
        own_shards(source, read_index(source), VALIDATION)
    path = folder / shard_name(VALIDATION, 0, 1)
    with written_whole(path) as partial, ShardWriter(partial, world.header, VALIDATION, "", False) as writer:
        writer.file.attrs["shards"] = json.dumps([(VALIDATION, 1)])
        for number in range(min(EPISODES, episode_count(source, world))):
            episode = load_episode(world, source, number)
            parts = _parts(episode.latents[:FRAMES])
            writer.add(_beginning(world.header, episode), lambda _, parts=parts: next(parts))  # type: ignore[misc]
    write_index(folder)


def command(name: str) -> list[str]:
    """How the Space starts, in its folder."""
    served = ["--public", "--host", "0.0.0.0", "--port", str(PORT), "--slots", SLOTS]
    return ["lssvwm", "play", name, "--data", START, *served]


def dockerfile(name: str) -> str:
    return f"""FROM python:3.12-slim
RUN useradd --create-home --uid 1000 user
USER user
ENV PATH=/home/user/.local/bin:$PATH
WORKDIR /home/user/app
RUN pip install --no-cache-dir torch --index-url https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir "lssvwm[play]=={version("lssvwm")}"
COPY --chown=user . .
EXPOSE {PORT}
CMD {json.dumps(command(name))}
"""


def card(repo: str, header: ShardHeader) -> str:
    return f"""---
title: Walk around in {repo.partition("/")[2]}
emoji: 🧭
colorFrom: blue
colorTo: gray
sdk: docker
app_port: {PORT}
models: [{repo}]
tags: [world-model, lssvwm]
short_description: A world model of {header.dataset} that you walk around in
---
Press W, A, S, D or the arrow keys, or the buttons below the picture. Every frame is generated; all who have the page
open share one walk. The world: [{repo}](https://huggingface.co/{repo}), made with
[lssvwm](https://huggingface.co/models?library=lssvwm).
"""


def _beginning(header: ShardHeader, episode: EncodedEpisode) -> Episode:
    """Its first frames: black ones, since the shard keeps their latents alone."""
    length = min(FRAMES, len(episode))
    black = np.broadcast_to(np.zeros(3, np.uint8), (length, *header.frame_size, 3))
    return Episode(
        id=episode.id,
        frames=FrameParts.of(black),
        frame_size=header.frame_size,
        actions=episode.actions[:length],
        action_names=header.action_names,
        action_units=header.action_units or ("number",) * len(header.action_names),
        source_alignment=header.source_alignment,
        fps=header.fps,
        poses=episode.poses[:length] if episode.poses is not None and header.pose_names else None,
        pose_names=header.pose_names,
        pose_kinds=header.pose_kinds,
        stream_rows={name: rows[:length] for name, rows in episode.stream_rows.items()},
        stream_names=dict(header.stream_names),
        layout=episode.layout,
    )


def _parts(latents: NDArray[np.float16]) -> Iterator[NDArray[np.float16]]:
    """The latents in parts, as frames come."""
    yield from (latents[start : start + PART_FRAMES] for start in range(0, len(latents), PART_FRAMES))
