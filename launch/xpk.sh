#!/usr/bin/env bash
# Runs one `tlc` command on all hosts of a TPU slice of a cluster that xpk made, until it is done.
#
#   CLUSTER=my-cluster IMAGE=REGION-docker.pkg.dev/PROJECT/REPOSITORY/tlc:latest \
#     launch/xpk.sh pretrain --config=configs/mlm.py:24x1024 --workdir=gs://BUCKET/mlm ...
#
# xpk 1.16 makes the JobSet (its dry run was tried). Not run on a cluster yet.
#
#   IMAGE     an image made from launch/Dockerfile
#   TPU_TYPE  kind and chips of a slice (default: v5litepod-16)
#   WORKLOAD  name of the workload (default: tlc)
#   RETRIES   maximal number of attempts after the first (default: 50)
#   XPK       more flags of `xpk workload create`: "--project=my-project --zone=us-west4-a --spot", "--dry-run"
set -euo pipefail

fail() {
  echo "xpk: error: $1" >&2
  exit 2
}

(($# >= 1)) || fail "write CLUSTER=NAME IMAGE=NAME launch/xpk.sh COMMAND --config=FILE.py --workdir=gs://BUCKET/FOLDER ..."
[[ -n ${CLUSTER:-} && -n ${IMAGE:-} ]] || fail "CLUSTER or IMAGE is not set"
[[ " $* " == *" --workdir=gs://"* ]] || fail "--workdir=gs://BUCKET/FOLDER is missing: pods have no disk that outlives them"
command -v xpk >/dev/null || fail "xpk is not on PATH: pip install xpk"
read -ra more <<<"${XPK:-}"

# Status 75 and kills start all hosts again; status 1 and 2 end the workload. xpk passes SIGTERM on to the shell that
# starts the command, which `exec` replaces by the command.
exec xpk workload create --cluster="$CLUSTER" --workload="${WORKLOAD:-tlc}" --docker-image="$IMAGE" \
  --tpu-type="${TPU_TYPE:-v5litepod-16}" --max-restarts="${RETRIES:-50}" --restart-on-exit-codes=75 \
  --termination-grace-period-seconds=120 "${more[@]}" --command="exec tlc $(printf '%q ' "$@")"
