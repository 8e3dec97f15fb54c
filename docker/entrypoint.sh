#!/bin/sh
# The words after `docker run IMAGE`: `serve` (SageMaker's word, and the default), `check` and
# `explain` are lmi's; flags alone belong to `serve`; any other command runs as it is.
set -eu
case "${1:-serve}" in
serve) [ $# -eq 0 ] || shift ;;
check | explain) exec lmi "$@" ;;
-*) ;;
*) exec "$@" ;;
esac
exec lmi serve "$@"
