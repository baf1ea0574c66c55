"""An image VAE of diffusers (`AutoencoderKL`) as an autoencoder of frames, read from its own folder layout.

Needs the extra `diffusers`. Latents are the mode of the posterior, so that encoding is deterministic.
"""

import math
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from lssvwm_core.model.frame_codec import MOST_BLOCKS, FrameCodec
from lssvwm_core.model.storage import CONFIG_FILE, VAE_WEIGHTS_FILE, load_config
from lssvwm_core.model.tensors import is_finite, read_header
from lssvwm_datasets.errors import LssvwmError

CLASS_NAME = "AutoencoderKL"


class ImageVae(FrameCodec):
    """Normalises latents by what the VAE's config says of them: means and deviations, or shift and scaling factor."""

    def __init__(self, vae: Any) -> None:
        config = vae.config
        super().__init__(CLASS_NAME, config.latent_channels, 2 ** (len(config.block_out_channels) - 1))
        self.vae = vae
        mean, std = config.get("latents_mean") or 0.0, config.get("latents_std") or 1.0
        self.latent_mean += torch.tensor(mean) + (config.get("shift_factor") or 0.0)
        self.latent_std *= torch.tensor(std) / config.scaling_factor

    def raw_latents(self, pixels: Tensor) -> Tensor:
        return self.vae.encode(pixels).latent_dist.mode().float()

    def raw_pixels(self, latents: Tensor) -> Tensor:
        return self.vae.decode(latents).sample.float()


def load_image_vae(folder: Path) -> ImageVae:
    """Read a folder as diffusers saves it, safetensors only. Raises: LssvwmError."""
    path = folder / VAE_WEIGHTS_FILE
    if not path.exists():
        raise LssvwmError(f"{path}: no such file; a diffusers VAE is read from safetensors only")
    try:
        from diffusers import AutoencoderKL
        from diffusers.utils import logging
    except ImportError as error:
        raise LssvwmError(f"{folder}: a diffusers VAE; install the extra: pip install 'lssvwm[diffusers]'") from error
    logging.set_verbosity_error()  # what it would warn of is an error below
    _check_sizes(folder, AutoencoderKL)
    try:
        vae, found = AutoencoderKL.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, safetensors.SafetensorError) as error:
        raise LssvwmError(f"{path}: cannot be read with its {CONFIG_FILE}: {str(error).splitlines()[0]}") from error
    problems = [f"{kind.split('_')[0]} {name}" for kind in ("missing_keys", "unexpected_keys") for name in found[kind]]
    if problems:
        raise LssvwmError(f"{path}: does not fit its config: {'; '.join(problems[:3])} ({len(problems)} in all)")
    for name, tensor in vae.state_dict().items():
        if not is_finite(tensor):
            raise LssvwmError(f"{path}: damaged: {name} has numbers that are not finite (NaN or infinite)")
    return ImageVae(vae.float()).eval()


def _check_sizes(folder: Path, vae_class: Any) -> None:
    """Raises: LssvwmError when the config describes far more weights than the file has; no memory is taken for them.

    What fits exactly is left to diffusers, which knows the names of its earlier versions too.
    """
    fields = load_config(folder, CLASS_NAME)
    blocks = fields.get("layers_per_block", 1)
    if not isinstance(blocks, int) or not 0 <= blocks <= MOST_BLOCKS:
        raise LssvwmError(f"{folder / CONFIG_FILE}: layers_per_block is {blocks!r}; expected 0 to {MOST_BLOCKS}")
    stored = sum(math.prod(spec.shape) for spec in read_header(folder / VAE_WEIGHTS_FILE).tensors.values())
    try:
        with torch.device("meta"):
            described = sum(tensor.numel() for tensor in vae_class.from_config(fields).state_dict().values())
    except Exception as error:  # whatever diffusers makes of odd fields
        raise LssvwmError(f"{folder / CONFIG_FILE}: no model can be built as it says ({error})") from error
    if described > 2 * stored:
        raise LssvwmError(f"{folder / CONFIG_FILE}: describes {described} weights; {VAE_WEIGHTS_FILE} has {stored}")
