"""The evaluation of one world on one task: what its results depend on, and what its report tells."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lssvwm_core.evaluation.features import i3d_features, latent_features
from lssvwm_core.evaluation.frame_metrics import LPIPS, load_frame_metrics
from lssvwm_core.evaluation.report import write_report
from lssvwm_core.evaluation.results import EVALUATIONS, Measures, load_results
from lssvwm_core.evaluation.run import EvalOptions, EvalProgress, evaluate
from lssvwm_core.model.storage import weights_sha256
from lssvwm_core.training.run.folder import run_facts, trained_frames
from lssvwm_core.world import World


@dataclass(frozen=True)
class WorldEvaluation:
    """One world, one task, and the episodes that it is measured on.

    Attributes:
        folder: the world's.
        source: held-out shards or recordings.
    """

    folder: Path
    world: World
    source: Path
    options: EvalOptions
    measures: Measures

    @property
    def default_out(self) -> Path:
        """Where it is kept unless the user says otherwise."""
        return EVALUATIONS / f"{self.options.task.name}-{run_facts(self.folder).name.replace('/', '-')}"

    def run(self, out: Path) -> Iterator[EvalProgress]:
        """Write the results of the episodes that `out` lacks. Raises: LssvwmError as `evaluate`."""
        codec, known_by = self.world.autoencoder.folder, self.world.header.autoencoder_sha256
        decoder = known_by if codec is None else weights_sha256(codec)
        identity = {
            "weights": weights_sha256(self.folder),
            "decoder": decoder if decoder != known_by else None,  # else it came with the encoder
            "data": str(self.source.resolve()),
            "frechet": self.measures.features.name,
        }
        return evaluate(self.world, self.source, self.options, self.measures, identity, out)

    def report(self, out: Path) -> dict[str, Any]:
        """Write the report of the results in `out`; returns the content of report.json."""
        facts = {
            "data": str(self.source),
            "steps": self.world.steps,
            "guidance": self.world.sampler.guidance,
            "temperature": self.world.sampler.temperature,
            "chunk": self.world.chunk,
            "seed": self.options.seed,
            "seeds": self.options.seeds,
        }
        name, trained = run_facts(self.folder).name, trained_frames(self.folder)
        return write_report(out, self.options.task, load_results(out), name, trained, self.measures, facts)


def load_measures(
    world: World, device: torch.device, lpips_weights: Path | None = None, fvd_weights: Path | None = None
) -> Measures:
    """What a world is measured with: FVD's features where their weights are given, else those of its latents.

    Raises: LssvwmError for weights that cannot be loaded.
    """
    features = i3d_features(fvd_weights, device) if fvd_weights else latent_features(world.autoencoder, device)
    return Measures(features, *load_frame_metrics(device, {LPIPS.name: lpips_weights}))
