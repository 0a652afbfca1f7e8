#!/usr/bin/env bash
# Runs one `tlc` command on all hosts of a Cloud TPU slice until it is done, then copies its results here.
#
#   TPU=my-slice ZONE=us-west4-a launch/tpu_vm.sh pretrain --config=configs/mlm.py:24x1024 --workdir=gs://BUCKET/mlm ...
#   TPU=my-slice ZONE=us-west4-a launch/tpu_vm.sh stop      # saves and stops; the command above continues later
#
# --workdir is a place in a bucket that the slice's service account may write, or on storage that all hosts mount.
# Tested with a stand-in for gcloud; not run on a TPU yet.
#
#   PROJECT   the project, if it is not gcloud's default
#   SETUP     command run on each host before installing, such as one that installs a newer Python
#   PYTHON    Python 3.11 or newer on the hosts (default: python3)
#   CREATE    flags of `gcloud compute tpus queued-resources create`, to replace a slice that is gone (a spot slice
#             that was taken away): "--accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --spot".
#             Without it a slice that is gone ends this command with status 75.
#   RESULTS   local directory for the results of a mounted workdir (default: results/NAME-OF-WORKDIR)
#   RETRIES   maximal number of attempts after the first (default: 50)
set -euo pipefail

say() { echo "tpu_vm: $1" >&2; }
fail() {
  say "error: $1"
  exit 2
}

# ---- on a host: the command runs in the background, so that a lost connection does not stop it ----

here=$HOME/tlc_jax
pid_file=$here/run.pid

alive() { [[ -s $pid_file ]] && grep -qsz tlc "/proc/$(<"$pid_file")/cmdline"; }

worker() { # command flags...: starts the command or finds it running, follows its log, prints its exit status
  cd "$here"
  if ! alive; then
    rm -f run.status "$pid_file"
    printf '%q ' "$@" >run.command
    (
      .venv/bin/tlc "$@" &
      echo $! >"$pid_file"
      wait $! && echo 0 >run.status || echo $? >run.status
    ) >run.log 2>&1 </dev/null &
    until [[ -s $pid_file && -e run.log ]]; do sleep 0.1; done
  elif [[ $(<run.command) != "$(printf '%q ' "$@")" ]]; then
    say "error: another command is running here ($(<run.command)): stop it first with launch/tpu_vm.sh stop"
    echo "tlc_exit_status=2"
    return
  fi
  tail --lines=+1 --follow --pid="$(<"$pid_file")" run.log
  until [[ -s run.status ]]; do sleep 0.1; done
  echo "tlc_exit_status=$(<run.status)"
}

stop_worker() { ! alive || kill -TERM "$(<"$pid_file")"; }

install_commit() { # revision python
  [[ $(cat "$here/revision" 2>/dev/null) != "$1" ]] || return 0
  mkdir -p "$here"
  tar -xzf "$HOME/tlc_jax.tar.gz" -C "$here"
  cd "$here"
  "$2" -m venv .venv
  .venv/bin/python -m pip install -qq -c constraints.txt -e '.[tpu,gcs]'
  echo "$1" >revision
}

pack() { # workdir
  cd "$1"
  local -a found=()
  local name
  for name in config.json result.json metrics.jsonl results.jsonl study.json parameters.txt predictions artifact report; do
    [[ ! -e $name ]] || found+=("$name")
  done
  tar -czf "$HOME/tlc-results.tar.gz" "${found[@]}"
}

# ---- here ----

poll=${POLL:-30} # seconds between looks at a slice that is not ready yet, and before the next attempt

tpus() { gcloud compute tpus "$@" --zone="$ZONE" ${PROJECT:+"--project=$PROJECT"}; }

on() { # workers command...
  tpus tpu-vm ssh "$TPU" --worker="$1" --command="$(printf '%q ' "${@:2}")"
}

state() {
  local answer
  if answer=$(tpus tpu-vm describe "$TPU" --format='value(state)' 2>&1); then
    echo "$answer"
  elif [[ $answer == *NOT_FOUND* ]]; then
    echo GONE
  else
    fail "gcloud cannot describe $TPU (${answer##*$'\n'}): check TPU, ZONE, PROJECT and your login"
  fi
}

ready() { # returns once the slice can be used; replaces a slice that is gone if CREATE is set
  local now
  while true; do
    now=$(state) || exit
    case $now in
      READY) return ;;
      CREATING | STARTING | RESTARTING | REPAIRING) sleep "$poll" ;;
      *) replace_slice "$now" ;;
    esac
  done
}

replace_slice() { # state
  [[ -n ${CREATE:-} ]] || {
    say "the slice $TPU is $1: create it again (or set CREATE) and run the same command again"
    exit 75
  }
  say "the slice $TPU is $1: queueing for another"
  local -a create
  read -ra create <<<"$CREATE"
  tpus queued-resources delete "$TPU" --force --quiet >/dev/null 2>&1 || true
  tpus tpu-vm delete "$TPU" --quiet >/dev/null 2>&1 || true # if no queued resource made it
  tpus queued-resources create "$TPU" --node-id="$TPU" "${create[@]}"
  until [[ $(tpus queued-resources describe "$TPU" --format='value(state.state)') =~ ACTIVE|FAILED|SUSPENDED ]]; do
    sleep "$poll"
  done
}

prepare() { # archive: copies the commit that is checked out here to all hosts and installs it if needed
  local revision
  revision=$(git rev-parse HEAD)
  git diff --quiet HEAD || say "changes that are not committed stay here"
  # Joined by &&: `set -e` has no effect where the caller tests the exit status.
  git archive --format=tar.gz --output="$1" HEAD &&
    { [[ -z ${SETUP:-} ]] || tpus tpu-vm ssh "$TPU" --worker=all --command="$SETUP"; } &&
    tpus tpu-vm scp "$1" "$TPU:tlc_jax.tar.gz" --worker=all &&
    tpus tpu-vm scp launch/tpu_vm.sh "$TPU:tpu_vm.sh" --worker=all &&
    on all bash tpu_vm.sh install_commit "$revision" "${PYTHON:-python3}"
}

attempt() { # log command flags...: 75 if it was stopped early or lost, else the status of the command
  local log=$1 status
  shift
  # In the background: bash handles a signal while it waits, but not while a command runs in front.
  on all bash tpu_vm.sh worker "$@" > >(tee "$log") 2>&1 &
  wait $! || say "gcloud reports a failure, or lost a host"
  status=$(grep -o 'tlc_exit_status=[0-9]*' "$log" | cut -d= -f2 | sort -rn | awk '
    $1 > 0 && $1 != 75 && $1 <= 128 { hopeless = $1 }
    $1 == 75 || $1 > 128 { early = 75 }
    END { print NR == 0 ? 75 : hopeless ? hopeless : early + 0 }')
  return "$status"
}

collect() { # workdir
  [[ $1 != gs://* ]] || {
    say "results are in $1"
    return
  }
  local results=${RESULTS:-results/$(basename "$1")}
  mkdir -p "$results"
  on 0 bash tpu_vm.sh pack "$1"
  tpus tpu-vm scp "$TPU:tlc-results.tar.gz" "$results/results.tar.gz" --worker=0
  tar -xzf "$results/results.tar.gz" -C "$results"
  rm "$results/results.tar.gz"
  say "results are in $results"
}

main() { # command flags...
  local workdir="" argument try status temporary unprepared=0
  for argument in "$@"; do
    [[ $argument != --workdir=* ]] || workdir=${argument#--workdir=}
  done
  [[ $workdir == /* || $workdir == gs://* ]] ||
    fail "--workdir=DIR must be gs://BUCKET/FOLDER, or an absolute path on storage that all hosts share"
  cd "$(dirname "$0")/.."
  temporary=$(mktemp -d)
  # shellcheck disable=SC2064 # the folder's name must be expanded now
  trap "rm -rf '$temporary'" EXIT
  trap 'trap "" INT TERM; say "stopping"; on all bash tpu_vm.sh stop_worker; wait; exit 75' INT TERM
  for ((try = 0; try <= ${RETRIES:-50}; try++)); do
    ready
    status=75
    if prepare "$temporary/tlc_jax.tar.gz"; then
      unprepared=0 status=0
      attempt "$temporary/log" "$@" || status=$?
    elif ((++unprepared == 5)); then
      say "the hosts could not be set up: see above"
      exit 1
    fi
    ((status == 75)) || break
    say "stopped early (attempt $((try + 1)) of $((${RETRIES:-50} + 1)))"
    sleep "$poll"
  done
  ((status != 0)) || collect "$workdir"
  exit "$status"
}

usage="write TPU=NAME ZONE=ZONE launch/tpu_vm.sh COMMAND --config=FILE.py --workdir=DIR ..."
(($# >= 1)) || fail "$usage"
case $1 in
  worker | stop_worker | install_commit | pack) "$@" ;;
  *)
    [[ -n ${TPU:-} && -n ${ZONE:-} ]] || fail "TPU or ZONE is not set: $usage"
    command -v gcloud >/dev/null || fail "gcloud is not on PATH"
    if [[ $1 == stop ]]; then on all bash tpu_vm.sh stop_worker; else main "$@"; fi
    ;;
esac
