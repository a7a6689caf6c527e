# shellcheck shell=bash
# The native RabbitMQ of an instance. Sourced by deploy/local.
#
# A node of its own: name, cookie, data, logs, plugins, and an epmd on a port of its own, so that neither
# this user's nor the machine's Erlang nodes notice it.

declare -gA service_ports+=([rabbitmq]="amqp distribution epmd")

rabbitmq_installed() {
  local version
  version=$(find /usr/lib/rabbitmq/lib/rabbitmq_server-* -maxdepth 0 -printf '%f\n' 2>/dev/null | sort -V | tail -n 1)
  at_least 3.10 "${version#rabbitmq_server-}"
}

# All that a start goes through, so that a node which is just being born is not started twice.
rmq_home() { readlink -f -- "$dir/rabbitmq"; }
rmq_pids() { pids_in "$(rmq_home)" 'rabbitmq-server|erl|erlexec|beam\.smp'; }
rmq_epmd_pids() { pids_in "$(rmq_home)" epmd; }

rabbitmq_alive() { [[ -n $(rmq_pids) ]]; }

# Sets rmq_env to the environment of our node. Files that do not exist are named too, since their defaults
# are the machine's own files in /etc/rabbitmq.
rmq_environment() {
  local home
  home=$(rmq_home)
  rmq_env=(env
    HOME="$home" # of .erlang.cookie
    LC_ALL=C.UTF-8
    ERL_EPMD_ADDRESS=127.0.0.1
    ERL_EPMD_PORT="${port[epmd]:-0}"
    RABBITMQ_ADVANCED_CONFIG_FILE="$home/none"
    RABBITMQ_CONFIG_FILE="$home/rabbitmq.conf"
    RABBITMQ_CONFIG_FILES="$home/none"
    RABBITMQ_CONF_ENV_FILE="$home/none"
    RABBITMQ_CTL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}'
    RABBITMQ_DIST_PORT="${port[distribution]:-0}"
    RABBITMQ_ENABLED_PLUGINS_FILE="$home/enabled_plugins"
    RABBITMQ_LOG_BASE="$home/log"
    RABBITMQ_MNESIA_BASE="$home/mnesia"
    RABBITMQ_NODENAME="ghostfleet_$name@localhost"
    # Two schedulers that never spin: several nodes and a build may share a small machine.
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}'
  )
}

# The port alone could be a stranger's; the second question goes to our node by its name. A node that has
# booted once has its user and virtual host.
rabbitmq_ready() {
  amqp_answers "${port[amqp]:-0}" || return 1
  rabbitmq_ctl await_startup --timeout 60 >/dev/null || return 1
  : >>"$dir/rabbitmq/booted"
}

rabbitmq_ctl() {
  local rmq_env
  rmq_environment
  (cd / && "${rmq_env[@]}" /usr/lib/rabbitmq/bin/rabbitmqctl --quiet "$@")
}

rabbitmq_launch() {
  local rmq_env
  make_home rabbitmq "$(id -un)"
  rmq_end_epmd
  # A first boot that was killed may leave a node without its user. Nobody has used it yet: begin anew.
  if [[ ! -e $home/booted ]]; then rm -rf -- "$home/mnesia"; fi
  if [[ ! -s $home/.erlang.cookie ]]; then
    head -c 24 /dev/urandom | base64 | (umask 077 && write_file "$home/.erlang.cookie")
  fi
  settle_ports rabbitmq
  {
    cat -- "$lib/rabbitmq.conf"
    printf 'listeners.tcp.1 = 127.0.0.1:%s\n' "${port[amqp]}"
  } | write_file "$home/rabbitmq.conf"
  echo '[].' | write_file "$home/enabled_plugins"
  rmq_environment
  : >"$home/boot.log"
  # In the foreground of its session, where epmd keeps its working directory.
  launch "$home" "$home/boot.log" epmd -address 127.0.0.1 -port "${port[epmd]}"
  launch "$home" "$home/boot.log" "${rmq_env[@]}" /usr/lib/rabbitmq/bin/rabbitmq-server
  child[rabbitmq]=$launched
}

rabbitmq_stop() {
  end_processes TERM 30 rmq_pids || rabbitmq_kill
  rmq_end_epmd
}

rabbitmq_kill() { end_processes KILL 10 rmq_pids || die "rabbitmq: does not end"; }

rmq_end_epmd() { end_processes KILL 10 rmq_epmd_pids || die "rabbitmq: its epmd does not end"; }

rabbitmq_log() { tail -n 15 -- "$dir/rabbitmq/boot.log"; }
