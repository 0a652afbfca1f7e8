#!/usr/bin/env bash
#SBATCH --job-name=tlc-study
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@120
#
# Runs a study on a SLURM cluster: an array element for each job of the study, and the report at the end.
#
#   launch/slurm_study.sh submit --config=configs/study_mnli.py --workdir=gs://BUCKET/study [--config.a.b=value ...]
#
# --workdir is a place in a bucket (extra gcs; the nodes need the network and credentials), or a directory that all
# nodes share. SLURM's own logs are in WORKDIR/slurm; for a bucket, in NAME-OF-WORKDIR/slurm here, which all nodes must
# share then.
#
# Submits the jobs that are not done yet, so the same command continues a study in which a job failed.
#
#   SBATCH_FLAGS   an element's resources: "--partition=gpu --gres=gpu:1 --cpus-per-task=8 --time=8:00:00"
#   REPORT_FLAGS   resources of the report, which needs no accelerator (default: SBATCH_FLAGS)
#   TLC            the command, if `tlc` is not on PATH: /shared/tlc_jax/.venv/bin/tlc
#   RETRIES        maximal number of times that an element is requeued (default: 50)
set -euo pipefail

read -ra tlc <<<"${TLC:-tlc}"
read -ra flags <<<"${SBATCH_FLAGS:-}"
read -ra report_flags <<<"${REPORT_FLAGS:-${SBATCH_FLAGS:-}}"

fail() {
  echo "slurm_study: error: $1" >&2
  exit 2
}

submit() { # the study's flags
  local list number state name needs open needed key id all="" log
  local -A waits=() members=() array_of=()
  local -a groups=()
  command -v sbatch >/dev/null || fail "sbatch is not on PATH: run this on a login node of the cluster"
  log=$(workdir_of "$@")
  [[ $log != *://* ]] || log=$PWD/$(basename "$log") # SLURM writes to disks alone
  log+=/slurm
  list=$("${tlc[@]}" study "$@" --list)
  mkdir -p "$log"

  # A dependency belongs to an array and not to its elements, so jobs with the same dependencies form one array.
  while IFS=$'\t' read -r number state name needs; do
    [[ $state != "done" ]] || continue
    waits[$number]=yes
    open=""
    for needed in ${needs//,/ }; do
      [[ -z ${waits[$needed]:-} ]] || open+=" $needed"
    done
    key="after$open"
    [[ -n ${members[$key]:-} ]] || groups+=("$key")
    members[$key]+="${members[$key]:+,}$number"
    echo "job $number: $name"
  done <<<"$list"

  # The list has every job after those that it needs, so their arrays were submitted already.
  for key in "${groups[@]}"; do
    local -a dependency=()
    open=""
    for needed in ${key#after}; do
      open+=":${array_of[$needed]}_$needed"
    done
    # Without the second flag, jobs that need a failed job would stay in the queue forever.
    [[ -z $open ]] || dependency=("--dependency=afterok$open" --kill-on-invalid-dep=yes)
    id=$(sbatch --parsable --array="${members[$key]}" --output="$log/%A-%a.log" "${dependency[@]}" "${flags[@]}" \
      "$0" element "$@")
    id=${id%%;*}
    for number in ${members[$key]//,/ }; do
      array_of[$number]=$id
    done
    all+=":$id"
    echo "array $id: jobs ${members[$key]}${open:+, after$open}"
  done
  id=$(sbatch --parsable --job-name=tlc-report --output="$log/report-%j.log" ${all:+"--dependency=afterany$all"} \
    "${report_flags[@]}" "$0" report "$@")
  echo "report ${id%%;*}: when all have ended"
}

# Runs one job and the jobs that it needs. After status 75 (or death by a signal) the next attempt continues.
element() { # the study's flags
  local status=0 me="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
  # srun does not inherit --cpus-per-task; it, not this script, passes signals on.
  SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} \
    srun --ntasks=1 "${tlc[@]}" study "$@" --job="$SLURM_ARRAY_TASK_ID" || status=$?
  if ((status == 75 || status > 128)); then
    # If it is no longer running, SLURM is requeueing it already, or a person canceled it.
    if [[ $(squeue --noheader --jobs="$me" --format=%T) == RUNNING ]]; then
      if ((${SLURM_RESTART_COUNT:-0} < ${RETRIES:-50})); then
        echo "slurm_study: element $me stopped early and is requeued"
        scontrol requeue "$me"
      else
        echo "slurm_study: element $me was requeued ${SLURM_RESTART_COUNT} times: given up" >&2
      fi
    fi
  fi
  exit "$status"
}

report() { # the study's flags
  local missing status=0
  missing=$("${tlc[@]}" study "$@" --list | awk -F '\t' '$2 != "done"')
  if [[ -n $missing ]]; then
    echo "slurm_study: not done; submit the study again to go on with these jobs:" >&2
    echo "$missing" >&2
    status=1
  fi
  "${tlc[@]}" report --workdir="$(workdir_of "$@")"
  ((status != 0)) || echo "slurm_study: the study is complete"
  exit "$status"
}

workdir_of() { # the study's flags
  local flag
  for flag in "$@"; do
    [[ $flag != --workdir=* ]] || {
      echo "${flag#--workdir=}"
      return
    }
  done
  fail "--workdir=DIR is missing: name a directory that all nodes share"
}

usage="write launch/slurm_study.sh submit --config=FILE.py --workdir=DIR [--config.a.b=value ...]"
(($# >= 3)) || fail "$usage"
case $1 in
  submit | element | report) "$@" ;;
  *) fail "$usage" ;;
esac
