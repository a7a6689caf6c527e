# shellcheck shell=bash
# The native RabbitMQ of an instance: one node, or a cluster of nodes `rabbitmq`, `rabbitmq-2`, ... Sourced by deploy/local.
#
# Nodes of their own: name, cookie, data, logs, plugins, and an epmd on a port of its own for all nodes of the
# instance, so that neither this user's nor the machine's Erlang nodes notice them.

declare -gA service_ports+=([epmd]=epmd)

rabbitmq_installed() {
  local version
  version=$(find /usr/lib/rabbitmq/lib/rabbitmq_server-* -maxdepth 0 -printf '%f\n' 2>/dev/null | sort -V | tail -n 1)
  at_least 3.10 "${version#rabbitmq_server-}"
}

# All that a start goes through, so that a node which is just being born is not started twice.
rmq_home() { readlink -f -- "$dir/$1"; }
rmq_pids() { pids_in "$(rmq_home "$1")" 'rabbitmq-server|erl|erlexec|beam\.smp'; }
rmq_node() { printf 'ghostfleet_%s@localhost' "$name${1#rabbitmq}"; }
rmq_port() { printf '%s' "${port[$2${1#rabbitmq}]:-0}"; }

rmq_alive() { [[ -n $(rmq_pids "$1") ]]; }

# Sets rmq_env to the environment of a node. Files that do not exist are named too, since their defaults
# are the machine's own files in /etc/rabbitmq.
rmq_environment() {
  local home
  home=$(rmq_home "$1")
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
    RABBITMQ_DIST_PORT="$(rmq_port "$1" distribution)"
    RABBITMQ_ENABLED_PLUGINS_FILE="$home/enabled_plugins"
    RABBITMQ_LOG_BASE="$home/log"
    RABBITMQ_MNESIA_BASE="$home/mnesia"
    RABBITMQ_NODENAME="$(rmq_node "$1")"
    # Two schedulers that never spin: several nodes and a build may share a small machine.
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}'
  )
}

# The port alone could be a stranger's; the second question goes to our node by its name. A node that has
# booted once has its user and virtual host.
rmq_ready() {
  amqp_answers "$(rmq_port "$1" amqp)" || return 1
  rmq_ctl "$1" await_startup --timeout 60 >/dev/null || return 1
  : >>"$dir/$1/booted"
}

rmq_ctl() {
  local rmq_env
  rmq_environment "$1"
  # Erlang reads whatever it is given, also the rest of a script that somebody pastes.
  (cd / && "${rmq_env[@]}" /usr/lib/rabbitmq/bin/rabbitmqctl --quiet "${@:2}" </dev/null)
}

# Any node of a cluster will do, as long as it runs.
rabbitmq_ctl() {
  local service
  for service in "${services[@]:1}"; do
    if rmq_alive "$service"; then break; fi
  done
  rmq_ctl "$service" "$@"
}

rmq_launch() {
  local rmq_env
  rmq_ensure_epmd
  make_home "$1" "$(id -un)"
  # A first boot that was killed may leave a node without its user. Nobody has used it yet: begin anew.
  if [[ ! -e $home/booted && -e $home/mnesia ]]; then
    if [[ $1 != rabbitmq ]]; then rmq_ctl rabbitmq forget_cluster_node "$(rmq_node "$1")" &>/dev/null || true; fi
    rm -rf -- "$home/mnesia"
  fi
  if [[ $1 != rabbitmq ]]; then
    (umask 077 && write_file "$home/.erlang.cookie" <"$(rmq_home rabbitmq)/.erlang.cookie")
  elif [[ ! -s $home/.erlang.cookie ]]; then
    head -c 24 /dev/urandom | base64 | (umask 077 && write_file "$home/.erlang.cookie")
  fi
  settle_ports "$1"
  {
    cat -- "$lib/rabbitmq.conf"
    printf 'listeners.tcp.1 = 127.0.0.1:%s\n' "$(rmq_port "$1" amqp)"
    if [[ $1 != rabbitmq ]]; then
      printf 'cluster_formation.peer_discovery_backend = classic_config\n'
      printf 'cluster_formation.classic_config.nodes.1 = %s\n' "$(rmq_node rabbitmq)"
      printf 'cluster_formation.classic_config.nodes.2 = %s\n' "$(rmq_node "$1")"
    fi
  } | write_file "$home/rabbitmq.conf"
  echo '[].' | write_file "$home/enabled_plugins"
  rmq_environment "$1"
  : >"$home/boot.log"
  launch "$home" "$home/boot.log" "${rmq_env[@]}" /usr/lib/rabbitmq/bin/rabbitmq-server
  child[$1]=$launched
}

rmq_stop() {
  rmq_finder=$1
  end_processes TERM 30 rmq_found || rmq_kill "$1"
}

rmq_kill() {
  rmq_finder=$1
  end_processes KILL 10 rmq_found || die "$1: does not end"
}

# end_processes takes a function without arguments.
rmq_found() { rmq_pids "$rmq_finder"; }

rmq_log() { tail -n 15 -- "$dir/$1/boot.log"; }

epmd_pids() { pids_in "$(rmq_home epmd)" epmd; }

stop_epmd() { end_processes KILL 10 epmd_pids || die "epmd does not end"; }

# In the foreground of its session, where epmd keeps its working directory. It outlives the nodes, which find
# each other by it.
rmq_ensure_epmd() {
  local home
  if [[ -n ${port[epmd]:-} && -n $(epmd_pids) ]]; then return; fi
  stop_epmd
  make_home epmd "$(id -un)"
  settle_ports epmd
  launch "$home" "$home/log" epmd -address 127.0.0.1 -port "${port[epmd]}"
}

# The functions of each node's name that deploy/local calls.
for rmq_service in "${services[@]:1}"; do
  service_ports[$rmq_service]="amqp${rmq_service#rabbitmq} distribution${rmq_service#rabbitmq}"
  for rmq_function in alive ready launch stop kill log; do
    eval "${rmq_service}_$rmq_function() { rmq_$rmq_function $rmq_service; }"
  done
done
