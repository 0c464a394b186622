# What the launchers share: options, errors and --dry-run.
# shellcheck shell=bash

# Prints one sentence and leaves: nothing has been run yet.
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) ||
  fail "bash $BASH_VERSION is too old: install bash 4.4 or newer."

dry_run=''
job=()              # what stands behind --
job_of=${job_of-}   # the command that takes it: the script says it
command=''          # the command that is given, likewise

# Prints the comment at the top of the script.
usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; }

# Quotes words for another shell, which reads them back byte for byte.
quoted() {
  local line
  printf -v line ' %q' "$@"
  printf '%s' "${line# }"
}

# Runs a command, or prints it on one line to be pasted into a shell.
run() {
  local word line=''
  if [[ ! $dry_run ]]; then
    "$@"
    return
  fi
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]] || word=${word@Q}
    line+=" $word"
  done
  printf '%s\n' "${line# }"
}

# Sets a variable for each option, e.g. $max_restarts for --max-restarts=5.
#   parse "NAMES WITH A VALUE" "NAMES WITHOUT" ARGUMENTS
parse() {
  # No local has the name of an option.
  local options=" $1 " switches=" $2 " word key value
  local allowed="--${1// /, --}${2:+, --${2// /, --}}, --dry-run"
  shift 2
  while (($#)); do
    word=$1 key=${1#--} key=${key%%=*}
    shift
    case $word in
      --)
        [[ $command == "$job_of" ]] ||
          fail "$command takes no job: leave out what stands behind --."
        job=("$@")
        return
        ;;
      --dry-run) dry_run=1 && continue ;;
      --help) usage && exit ;;
      --?*) ;;
      *) fail "'$word' is not an option of $command: allowed are $allowed; the" \
        "job's own arguments stand behind --." ;;
    esac
    if [[ $key != *' '* && $options == *" $key "* ]]; then
      value=${word#*=}
      if [[ $word != *=* ]]; then
        value=${1:-}
        shift || true
      fi
      [[ $value && $value != -* ]] ||
        fail "--$key has no value: write --$key=VALUE."
    elif [[ $key != *' '* && $switches == *" $key "* ]]; then
      value=1
      [[ $word != *=* ]] || fail "--$key takes no value: write --$key alone."
    else
      fail "--$key is not an option of $command: allowed are $allowed."
    fi
    printf -v "${key//-/_}" '%s' "$value"
  done
}

# Refuses a command without the options that it needs.
need() {
  local key
  for key in "$@"; do
    [[ ${!key} ]] || fail "$command needs --$key=VALUE; --help shows them all."
  done
}

# Refuses to begin without a tool that is to be run.
need_tool() {
  [[ $dry_run ]] || command -v "$1" >/dev/null ||
    fail "$1 is not on PATH: install $2, or add --dry-run to see what it would" \
      'be asked.'
}

# Refuses a job whose folder is not the same one on all hosts.
need_job() {
  local k workdir=''
  for k in "${!job[@]}"; do
    case ${job[k]} in
      --workdir=* | -workdir=*) workdir=${job[k]#*=} ;;
      --workdir | -workdir) workdir=${job[k + 1]:-} ;;
    esac
  done
  [[ $workdir != *://* ]] ||
    fail "--workdir=$workdir is an address, not a folder: mount it on all hosts" \
      'and give the folder (docs/pod.md says what a mount must do).'
  [[ $workdir == /* ]] ||
    fail "the job's --workdir is '$workdir': behind --, give the absolute path" \
      'of a folder that all hosts share, e.g. --workdir=/mnt/share/runs/ucf101.'
}
