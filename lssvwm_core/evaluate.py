"""Long memory, measured: the paper's retrieval task, with and without the memory.

The world sees a walk and is then led back along exactly the same poses: the truth is the context, reversed.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lssvwm_core.episodes import EncodedEpisode
from lssvwm_core.world import World


def retrieval_psnr(
    world: World, episodes: Sequence[EncodedEpisode], context: int, seed: int = 0, cut_memory: bool = False
) -> NDArray[np.float64]:
    """PSNR in dB of each generated frame against the exact frame, (episodes, context).

    Args:
        episodes: with poses, exact frames and at least `context` frames each.
        context: frames seen, and then generated on the way back; a multiple of the chunk.
        cut_memory: before each chunk the world forgets all but its frame window: what is left without the long memory.
    """
    walk_back = slice(context - 1, None, -1)
    poses = torch.from_numpy(np.stack([episode.poses[:context] for episode in episodes if episode.poses is not None]))
    latents = torch.from_numpy(np.stack([episode.latents[:context] for episode in episodes])).float()
    poses = torch.cat([poses, poses.flip(1)], dim=1)
    rng = torch.Generator().manual_seed(seed)
    state = world.reset(len(episodes))
    if not cut_memory:
        world.observe(state, latents, {"pose": poses[:, :context]})
    recent = world.model.config.frame_window - world.chunk
    scores = []
    for start in range(context, 2 * context, world.chunk):
        if cut_memory:
            state = world.reset(len(episodes))
            window = slice(start - recent // world.chunk * world.chunk, start)
            world.observe(state, latents[:, window], {"pose": poses[:, window]})
        chunk = world.generate(state, {"pose": poses[:, start : start + world.chunk]}, rng)
        latents = torch.cat([latents, chunk.cpu()], dim=1)
        rows = slice(start - context, start - context + world.chunk)
        for episode, dreamt in zip(episodes, chunk, strict=True):
            assert episode.frames is not None  # asked for above
            scores.append(psnr(world.decode(dreamt), episode.frames[:context][walk_back][rows]))
    return np.stack(scores).reshape(-1, len(episodes), world.chunk).transpose(1, 0, 2).reshape(len(episodes), context)


def psnr(frames: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(T, H, W, 3) uint8 each -> PSNR in dB of each frame; at most 78 dB, for identical ones."""
    error = np.square(frames.astype(np.float64) - truth).mean(axis=(1, 2, 3))
    return 10 * np.log10(255**2 / np.maximum(error, 1e-3))
