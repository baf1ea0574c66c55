"""Which autoencoder encodes recordings when the user names none, or leaves the choice to what is measured."""

from pathlib import Path

from lssvwm_core.prepare.quality import LOWEST_PSNR, Reconstruction, measure_reconstruction
from lssvwm_core.resolve import shipped_models
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.sources import Recording

AUTO = "auto"
GAMES = "game-autoencoder"  # of first-person games in general, where it ships
SUFFIX = "autoencoder"


def default_autoencoder(dataset: str) -> str:
    """The one that ships for a data set, else the one for games in general, else any that ships; told by name."""
    shipped = [name for name in shipped_models() if name.endswith(SUFFIX)]
    wanted = (f"{dataset}-{SUFFIX}", GAMES, *shipped)
    return next(name for name in wanted if name in shipped)


def best_shipped(recordings: list[Recording], device: str = "cpu") -> tuple[str, Reconstruction]:
    """The autoencoder that ships and reconstructs the recordings best, whether or not well enough (`LOWEST_PSNR`).

    Raises: LssvwmError where none can encode them, with what each said.
    """
    measured, refusals = {}, []
    for name, folder in shipped_models().items():
        if name.endswith(SUFFIX):
            try:
                measured[name] = measure_reconstruction(recordings, folder, device)
            except LssvwmError as error:
                refusals.append(f"{name}: {error}")
    if not measured:
        raise LssvwmError("\n".join(refusals))
    best = max(measured, key=lambda name: measured[name].psnr)
    return best, measured[best]


def good_enough(reconstruction: Reconstruction) -> bool:
    return reconstruction.psnr >= LOWEST_PSNR


def trained_here(dataset: str) -> Path:
    """Where an autoencoder that is trained on a data set's recordings is kept."""
    return Path("runs") / f"{dataset}-{SUFFIX}"
