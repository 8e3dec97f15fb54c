#!/bin/sh
# The words after `docker run IMAGE`: `serve` (SageMaker's word, and the default), `check`, `explain`
# and `quantize` are lmi's; flags alone belong to `serve`; any other command runs as it is.
set -eu
case "${1:-serve}" in
serve) [ $# -eq 0 ] || shift ;;
check | explain | quantize | test-handler) exec lmi "$@" ;;
-*) ;;
*) exec "$@" ;;
esac
command -v djl-serving >/dev/null || exec lmi serve "$@"
# The DJL model server ends with 77 when it wants to be started again. A signal ends `wait`, not
# what is waited for: its own exit code comes from another `wait`.
again=77
code=$again
while [ "$code" -eq "$again" ]; do
    lmi serve "$@" &
    server=$!
    trap 'kill -TERM "$server" 2>/dev/null || true' TERM INT
    code=0
    wait "$server" || code=$?
    while kill -0 "$server" 2>/dev/null; do
        code=0
        wait "$server" || code=$?
    done
done
exit "$code"
