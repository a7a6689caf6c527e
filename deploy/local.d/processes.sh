# shellcheck shell=bash
# Finds, starts and ends native processes, and finds free ports. Sourced by deploy/local.
#
# A process is ours if its working directory is one of ours. Unlike a recorded process id this cannot go
# stale, cannot point at a stranger and needs no file that a kill might leave half written.

# pids_in DIR COMMANDS [PREFIX...]: ids of the processes in DIR whose command matches the regular expression.
# PREFIX switches to their user: even root may need a capability to look at another user's processes.
# A directory that was deleted under a server still counts.
pids_in() {
  local where=$1 commands=$2 proc target
  shift 2
  [[ -n $where ]] || return 0 # zombies and the kernel's threads have an empty directory
  while IFS=$'\t' read -r proc target; do
    [[ $target == "$where" || $target == "$where (deleted)" ]] || continue
    if [[ $(cat -- "$proc/comm" 2>/dev/null) =~ ^($commands)$ ]]; then printf '%s\n' "${proc#/proc/}"; fi
  done < <("$@" find /proc/[0-9]*/cwd -maxdepth 0 -printf '%h\t%l\n' 2>/dev/null)
}

# launch DIR LOG COMMAND...: starts a server in DIR, in a session of its own, so that neither Ctrl-C nor
# the end of a terminal ends it. Sets `launched` to its id.
launch() {
  local where=$1 log=$2
  shift 2
  (
    cd -- "$where"
    # Containers may set a limit of a billion, over which Erlang takes seconds to loop.
    ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -H -n)"
    exec setsid "$@" </dev/null >>"$log" 2>&1 8>&- 9>&-
  ) &
  launched=$!
  disown "$launched" # bash need not report its end
}

# await_end SECONDS FINDER: waits until FINDER prints no process any more.
await_end() {
  local deadline=$((SECONDS + $1))
  until [[ -z $("$2") ]]; do
    ((SECONDS < deadline)) || return 1
    sleep 0.05
  done
}

# end_processes SIGNAL SECONDS FINDER: signals what FINDER prints and waits for the end of it. Only KILL is sent again: what was
# forked between the look and the kill may wait for a client for a minute before it notices that its parent is gone.
end_processes() {
  local pids signal=$1 deadline=$((SECONDS + $2))
  while mapfile -t pids < <("$3") && ((${#pids[@]} > 0)); do
    kill -"$signal" "${pids[@]}" 2>/dev/null || true
    [[ $1 == KILL ]] || signal=0
    ((SECONDS < deadline)) || return 1
    sleep 0.05
  done
}

# make_home SERVICE OWNER [PREFIX...]: a directory that OWNER can use, with nothing in its path that
# breaks RabbitMQ's start scripts; its real path goes to `home`. A checkout may lie where the server's user
# cannot enter: then the directory is made in /var/tmp, and a symbolic link remembers it.
make_home() {
  local link=$dir/$1 owner=$2 LC_ALL=C
  shift 2
  if [[ -L $link && ! -d $link ]]; then rm -f -- "$link"; fi
  mkdir -p -- "$link"
  chown -- "$owner" "$link/"
  home=$(readlink -f -- "$link")
  # shellcheck disable=SC2016 # expanded by the inner shell
  if [[ $home =~ ^[A-Za-z0-9/._@+-]+$ ]] && "$@" bash -c 'cd -- "$1" && [[ -w . ]]' - "$home" 2>/dev/null; then
    return 0
  fi
  rmdir -- "$link" || die "$owner cannot use $home any more: make it accessible, or destroy the instance"
  home=$(mktemp -d /var/tmp/ghostfleet.XXXXXX)
  ln -s -- "$home" "$link"
  chown -- "$owner" "$home"
}

# ports_in_use [STATE]: local TCP ports of sockets in this state of /proc/net/tcp, or in any, as four hexadecimal
# digits. By awk: a busy machine has tens of thousands of sockets that wait for their end.
ports_in_use() {
  # shellcheck disable=SC2016 # expanded by awk
  awk -v state="${1:-}" '$2 ~ /:/ && (state == "" || $4 == state) { sub(/.*:/, "", $2); print $2 }' \
    /proc/net/tcp $([[ ! -r /proc/net/tcp6 ]] || echo /proc/net/tcp6)
}

listening() { [[ -n $1 ]] && ports_in_use 0A | grep -x -- "$(printf '%04X' "$1")" >/dev/null; }

# free_port [RESERVED...]: below the range from which Linux takes the ports of outgoing connections, where
# a free port may be gone a moment later.
free_port() {
  local used candidate
  used=$(ports_in_use)
  while :; do
    candidate=$((20000 + RANDOM % 10000))
    if [[ " $* " != *" $candidate "* && $used != *"$(printf '%04X' "$candidate")"* ]]; then break; fi
  done
  printf '%s\n' "$candidate"
}

# at_least MINIMUM VERSION
at_least() { [[ -n $2 && $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]; }

# amqp_answers PORT: whether a broker there answers the AMQP 0-9-1 protocol header with a method frame
# (Connection.Start, type 1). RabbitMQ opens its listeners last, so by then it has booted.
amqp_answers() {
  local kind
  {
    kind=$(
      exec 3<>"/dev/tcp/127.0.0.1/$1" || exit
      printf 'AMQP\0\0\x09\x01' >&3
      timeout 5 head -c 1 <&3 | od -An -tu1
    )
  } 2>/dev/null
  [[ $kind =~ ^\ *1$ ]]
}
