"""`lssvwm distill`."""

from typing import Annotated

import typer

from lssvwm_cli.options import Device, Minutes, Resume, Set, Shards, Threads
from lssvwm_cli.train import run_and_tell

FRAMES_A_STEP = 400  # of clips as long as the teacher's
DEFAULTS = {  # of [train]
    "learning_rate": 2e-4,
    "warmup_steps": 20,
    "prefix_probability": 0.5,
    "clean_probability": 1.0,
}


def distill(
    teacher: Annotated[
        str, typer.Argument(help="The world to learn from: a run, a world's folder, a shipped name or a hub id.")
    ],
    sampling_steps: Annotated[int, typer.Option(min=1, help="Denoising steps in which the student makes a chunk.")] = 2,
    teacher_steps: Annotated[
        int | None,
        typer.Option(min=2, help="Denoising steps of the teacher, a multiple of the student's. [default: its own]"),
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(min=0, help="Guidance towards the memory, of the teacher. [default: its own]")
    ] = None,
    own_history: Annotated[
        bool,
        typer.Option(
            help="After their clean prefix clips go on from frames that the student makes: it learns what was true at "
            "places that the prefix showed, and elsewhere what its teacher would do there."
        ),
    ] = False,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Temperature of the student, in its own history and as a world. [default: its teacher's]"
        ),
    ] = None,
    init_from: Annotated[
        str | None, typer.Option(help="A world whose weights the student begins with. [default: its teacher's]")
    ] = None,
    data: Shards = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run, a folder below runs/. [default: `<teacher>-<n>-steps`]")
    ] = None,
    set_: Set = None,
    steps: Annotated[int, typer.Option(min=1, help="Training step at which to end.")] = 2000,
    minutes: Minutes = None,
    clip_frames: Annotated[
        int | None, typer.Option(min=1, help="Frames in each clip. [default: the longest of the teacher's training]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Clips in each step. [default: as many as have 400 frames in all]")
    ] = None,
    resume: Resume = True,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Train a student that makes in a few denoising steps what a trained world makes in more.

    The student is a world like any other, sampled with its own few steps by default. What its teacher does by guidance
    it learns to do without. Given again, the command continues its run; Ctrl-C saves first.
    """
    import torch

    from lssvwm_core.device import pick_device
    from lssvwm_core.presets import Stage
    from lssvwm_core.resolve import resolve_data, resolve_world
    from lssvwm_core.sampling import with_settings
    from lssvwm_core.training.run.config import make_config, with_distillation
    from lssvwm_core.training.run.folder import RUNS, run_facts, trained_frames
    from lssvwm_core.training.run.setup import open_run
    from lssvwm_core.world import load_model, load_sampler
    from lssvwm_datasets.errors import LssvwmError

    if threads:
        torch.set_num_threads(threads)
    where = pick_device(device)
    overrides = list(set_ or [])
    if any(override.startswith("model.") for override in overrides):
        raise LssvwmError(f"--set {' '.join(overrides)}: the student has the shape of its teacher; leave model.… out")
    folder, shards = resolve_world(teacher), resolve_data(data)
    student = None if init_from is None else resolve_world(init_from)
    frames = clip_frames or trained_frames(folder) or 100
    size = batch_size or max(1, FRAMES_A_STEP // frames)
    defaults = DEFAULTS | {"stages": (Stage(frames, steps=10_000, batch_size=size),), "steps": steps}
    config = make_config("tiny", shards, None, overrides, defaults)
    known = run_facts(folder).name
    taught = with_settings(load_sampler(folder), steps=teacher_steps, guidance=guidance, temperature=temperature)
    config = with_distillation(config, load_model(folder)[0].config, known, taught, sampling_steps, own_history)
    chosen = any((set_, clip_frames, batch_size))
    run, config = open_run(RUNS / (name or f"{known}-{sampling_steps}-steps"), config, resume, adopt=not chosen)
    run_and_tell(run, config, where, minutes, folder, shards, student)
