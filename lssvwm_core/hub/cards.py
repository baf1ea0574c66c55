"""The cards of worlds and shards on the hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from lssvwm_core.evaluation.frame_metrics import FRAME_METRICS
from lssvwm_core.hub.client import SAMPLE_FILE
from lssvwm_core.model.storage import AUTOENCODER_FOLDER
from lssvwm_core.training.run.folder import RunFacts
from lssvwm_datasets.index import Index


@dataclass(frozen=True)
class Row:
    """The means of a row of a report over all generated frames, by metric."""

    all: dict[str, float]


@dataclass(frozen=True)
class Report:
    """What a card takes from the report.json of `lssvwm eval`."""

    task: str
    context: int
    frames: int
    episodes: int
    rows: dict[str, Row]


HUB = "https://huggingface.co"  # where cards are read; a video plays from its whole address only


PAPER = "2505.20171"  # its number on arXiv


def data_card(repo: str, index: Index, previews: bool = False) -> str:
    """`previews`: the repository has videos of some episodes, which the hub's viewer then shows."""
    height, width = index.frame_size
    viewer = "configs: [{config_name: preview, data_files: [{split: preview, path: preview/*}]}]\n" if previews else ""
    return f"""---
license: other
task_categories: [image-to-video]
tags: [world-model, video, latents, lssvwm]
{viewer}---
# {repo}

Latents and actions of `{index.dataset}`, made by [lssvwm](https://huggingface.co/models?library=lssvwm):
{index.episodes} episodes, {index.frames} frames of {width}×{height} pixels at {index.fps:g} Hz, in
{len(index.shards)} HDF5 shards. The licence is that of the recordings.

- latents: {"×".join(map(str, index.latent_shape))} float16 a frame, of the autoencoder in `{AUTOENCODER_FOLDER}/`
- actions: {", ".join(index.action_names)}
- poses: {", ".join(index.pose_names) or "none"}

```bash
pip install lssvwm
lssvwm train --data {repo}
```
"""


def model_card(
    repo: str,
    config: dict[str, Any],
    facts: RunFacts | None = None,
    reports: Sequence[Report] = (),
    data: str | None = None,
) -> str:
    """`facts` of its training, where known; `reports`, the report.json of `lssvwm eval` on these very weights.

    `data` is the data set on the hub that it was trained on, where it is known.
    """
    stored, model = config["data"], config["model"]
    sample, recipe = "", "The recipe was not recorded.\n"
    if facts is not None and facts.sample is not None:
        sample = f'<video controls loop src="{HUB}/{repo}/resolve/main/{SAMPLE_FILE}"></video>\n\n'
    if facts is not None and facts.config is not None:
        recipe = f"Trained for {facts.step} steps with this config:\n\n```toml\n{facts.config}```\n"
    return f"""---
{_metadata(repo, stored["dataset"], reports, data, facts.base_model if facts is not None else None)}
---
# {repo}

A long-context state-space video world model, trained with [lssvwm](https://huggingface.co/models?library=lssvwm) on
`{stored["dataset"]}` ({stored["frame_size"][1]}×{stored["frame_size"][0]} pixels, {stored["fps"]:g} Hz).
{model["depth"]} layers of width {model["width"]}; conditions: {", ".join(_streams(stored)) or "none"}.

{sample}## Use
```bash
pip install lssvwm
lssvwm rollout --checkpoint {repo} --frames 800 --out video.mp4
```

{_measured(reports)}## Training
{recipe}
Autoencoder: `{stored["autoencoder"]}` (sha256 {stored["autoencoder_sha256"][:12]}), in `{AUTOENCODER_FOLDER}/`.

## Citation
[Long-Context State-Space Video World Models](https://arxiv.org/abs/{PAPER})

```bibtex
@inproceedings{{po2025longcontext,
  title     = {{Long-Context State-Space Video World Models}},
  author    = {{Po, Ryan and Nitzan, Yotam and Zhang, Richard and Chen, Berlin and Dao, Tri and Shechtman, Eli and
               Wetzstein, Gordon and Huang, Xun}},
  booktitle = {{ICCV}},
  year      = {{2025}}
}}
```
"""


def _metadata(repo: str, dataset: str, reports: Sequence[Report], data: str | None, base_model: str | None) -> str:
    """What the hub finds and shows a model by, figures included."""
    results = [
        EvalResult(
            task_type="image-to-video",
            task_name=_task(report),
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_config=_task(report),  # the index joins figures that differ in the metric alone
            metric_type=metric,
            metric_name=metric.upper(),
            metric_value=round(value, 4),
        )
        for report in reports
        for metric, value in report.rows["model"].all.items()
    ]
    return ModelCardData(
        license="apache-2.0",
        library_name="lssvwm",
        pipeline_tag="image-to-video",
        tags=["world-model", "state-space-model", "diffusion", "long-context", f"arxiv:{PAPER}"],
        base_model=base_model,
        datasets=[data] if data else None,
        model_name=repo,
        eval_results=results or None,
    ).to_yaml()


def _measured(reports: Sequence[Report]) -> str:
    """Every row of every report in a table; empty without reports."""
    if not reports:
        return ""
    metrics = [metric for metric in FRAME_METRICS if any(metric.name in report.rows["model"].all for report in reports)]
    lines = [["task", "episodes", "", *(metric.heading for metric in metrics)]]
    lines.append(["---"] * len(lines[0]))
    for report in reports:
        for name, row in report.rows.items():
            figures = [f"{row.all[metric.name]:.3f}" if metric.name in row.all else "–" for metric in metrics]
            lines.append([_task(report), str(report.episodes), name, *figures])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        "## Long memory\nMeasured by `lssvwm eval` on held-out episodes: frames seen + generated; means over the "
        "generated frames, of a turn over the last. *Memory cut*: the same model with its attention window alone.\n\n"
        f"{table}\n\n"
    )


def _task(report: Report) -> str:
    return f"{report.task} {report.context} + {report.frames}"


def _streams(data: dict[str, Any]) -> list[str]:
    return [*(name for name in ("action", "pose") if data[f"{name}_names"]), *data.get("stream_names", {})]
