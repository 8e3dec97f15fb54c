#!/bin/sh
# Serve a folder with the image, locked down: read-only but for /tmp, no capabilities, not root.
#   sh examples/docker-run/run.sh [FOLDER]
# DOCKER names another program (podman), IMAGE another image, PORT another port of this machine.
set -eu
folder="$(cd "${1:-$(dirname "$0")/../demo}" && pwd)"
exec "${DOCKER:-docker}" run --rm \
    --read-only --tmpfs /tmp:size=4g,mode=1777 \
    --cap-drop ALL --security-opt no-new-privileges \
    --publish "127.0.0.1:${PORT:-8080}:8080" \
    --volume "$folder:/opt/ml/model:ro" \
    "${IMAGE:-lmi:cpu}" serve
