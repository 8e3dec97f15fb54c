#!/bin/sh
# Build an image with docker, podman or buildah, whichever is there:
#   sh tools/build_image.sh [IMAGE] [ARGUMENTS OF THE BUILD...]
# BUILDER names one of them, DOCKERFILE the recipe (docker/cpu.Dockerfile). Arguments such as
# --build-arg BASE=... and --secret id=...,src=... are passed on; the recipe says which there are.
set -eu
image="${1:-lmi:cpu}"
[ $# -eq 0 ] || shift
cd "$(dirname "$0")/.."

builder="${BUILDER:-}"
for candidate in docker podman buildah; do
    if [ -z "$builder" ] && command -v "$candidate" >/dev/null 2>&1; then
        builder="$candidate"
    fi
done

case "${builder##*/}" in
docker) set -- build "$@" ;;
# The OCI format has no HEALTHCHECK.
podman | buildah) set -- build --format docker "$@" ;;
"")
    echo "build_image: needs docker, podman or buildah; on Debian: apt-get install buildah" >&2
    exit 2
    ;;
*)
    echo "build_image: BUILDER=$builder is none of docker, podman, buildah" >&2
    exit 2
    ;;
esac
echo "build_image: $image with $builder" >&2
exec "$builder" "$@" --file "${DOCKERFILE:-docker/cpu.Dockerfile}" --tag "$image" .
