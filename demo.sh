#!/bin/sh
# The commands of `make demo`, for a folder to work in and with lssvwm on the path; the Dockerfile runs the same.
set -eu
lssvwm prepare maze
lssvwm train --init-from maze-world --set train.learning_rate=1e-4 --minutes "${MINUTES:-2}" --steps 100000
lssvwm rollout --frames 800 --side-by-side --map --out video.mp4
echo "The video is $PWD/video.mp4 (left: the recording, right: what the world generates), its map $PWD/video.map.png"
