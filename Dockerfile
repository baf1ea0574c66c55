# lssvwm without an installation, as a user without rights. Checked with hadolint; not built by its authors, who have no registry.
#
#   docker build --tag lssvwm .                                   CPU
#   docker build --tag lssvwm:cuda --build-arg TORCH=cu130 .      NVIDIA: run it with --gpus all
#   docker run --rm --volume "$PWD/demo:/work" lssvwm             what `make demo` does; the video is demo/video.mp4
#   docker run --rm --volume "$PWD/demo:/work" lssvwm lssvwm rollout --frames 200
#   docker run --rm --publish 8765:8765 lssvwm lssvwm play --host 0.0.0.0
FROM python:3.12-slim-trixie

ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

WORKDIR /opt/lssvwm
COPY constraints.txt ./
RUN pip install --constraint constraints.txt --index-url "https://download.pytorch.org/whl/${TORCH}" \
    --extra-index-url https://pypi.org/simple torch
COPY pyproject.toml README.md CHANGELOG.md LICENSE demo.sh ./
COPY lssvwm_cli lssvwm_cli
COPY lssvwm_core lssvwm_core
COPY datasets datasets
RUN pip install --constraint constraints.txt '.[play]' \
    && useradd --create-home --uid 1000 lssvwm \
    && install --directory --owner lssvwm /work

USER 1000
WORKDIR /work
EXPOSE 8765
CMD ["/opt/lssvwm/demo.sh"]
