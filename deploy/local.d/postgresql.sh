# shellcheck shell=bash
# The native PostgreSQL of an instance. Sourced by deploy/local.
#
# Trust authentication on 127.0.0.1 and no Unix socket: any user of this machine can connect, so this is for
# development machines. Durability settings are left at their safe defaults: the tests pull the plug.

declare -gA service_ports+=([postgresql]=postgresql)

# PostgreSQL refuses to run as root. Whoever has the directory keeps it, so that we find its processes again.
pg_user=$(id -un)
pg_as=()
if ((EUID == 0)); then
  pg_user=$(stat -L -c %U -- "$dir/postgresql" 2>/dev/null) || pg_user=root
  if [[ $pg_user == root ]]; then pg_user=postgres; fi
  if ! id -u "$pg_user" &>/dev/null; then pg_user=nobody; fi
  pg_as=(setpriv --reuid "$pg_user" --regid "$(id -g "$pg_user")" --init-groups env HOME=/)
fi

# The version that made the data directory, else the newest there is.
pg_version() {
  if [[ -r $dir/postgresql/data/PG_VERSION ]]; then
    cat -- "$dir/postgresql/data/PG_VERSION"
  else
    find /usr/lib/postgresql/*/bin/initdb -printf '%p\n' 2>/dev/null | cut -d / -f 5 | sort -V | tail -n 1
  fi
}

pg_bin() { printf '/usr/lib/postgresql/%s/bin' "$(pg_version)"; }

postgresql_installed() {
  local version
  version=$(pg_version)
  at_least 15 "$version" && [[ -x /usr/lib/postgresql/$version/bin/postgres ]]
}

# Background processes of a server work in its data directory too.
pg_data() { readlink -f -- "$dir/postgresql/data"; }
pg_pids() { pids_in "$(pg_data)" postgres "${pg_as[@]}"; }

pg_postmaster() {
  local pid
  read -r pid 2>/dev/null <"$dir/postgresql/data/postmaster.pid" || return 0
  pg_pids | grep -x -- "$pid" || true
}

postgresql_alive() { [[ -n $(pg_postmaster) ]]; }

# Asks for the data directory, so that a stranger on our port is not mistaken for our server.
postgresql_ready() {
  local answer
  answer=$(PGCONNECT_TIMEOUT=5 "$(pg_bin)/psql" --no-psqlrc --no-password --tuples-only --no-align --host 127.0.0.1 \
    --port "${port[postgresql]:-0}" --username ghostfleet --dbname ghostfleet --command 'SHOW data_directory')
  [[ $answer == "$(pg_data)" ]]
}

postgresql_launch() {
  make_home postgresql "$pg_user" "${pg_as[@]}"
  # Without a postmaster these are orphans of a crash, or a server just being born.
  end_processes KILL 10 pg_pids || die "postgresql: processes of an earlier run do not end"
  # Its process id may meanwhile belong to a stranger of the same user, which would stop the start.
  rm -f -- "$home/data/postmaster.pid"
  if [[ ! -d $home/data ]]; then pg_initialise; fi
  settle_ports postgresql
  # Not by pg_ctl: it would pass the paths through a shell.
  launch "$home/data" "$home/log" "${pg_as[@]}" "$(pg_bin)/postgres" -D "$home/data" \
    -c listen_addresses=127.0.0.1 -c port="${port[postgresql]}" -c unix_socket_directories= \
    -c max_connections=300 -c timezone=UTC
  child[postgresql]=$launched
}

# The data directory gets its name when it is complete, so that a kill leaves all of it or none.
pg_initialise() {
  local bin
  bin=$(pg_bin)
  rm -rf -- "$home/data.new"
  (
    cd -- "$home"
    "${pg_as[@]}" "$bin/initdb" --pgdata "$home/data.new" --username ghostfleet \
      --auth trust --encoding UTF8 --locale C.UTF-8 --no-instructions
    "${pg_as[@]}" "$bin/postgres" --single -D "$home/data.new" \
      -c exit_on_error=true postgres <<<'CREATE DATABASE ghostfleet;'
  ) >"$home/log" 2>&1 || {
    postgresql_log >&2
    die "postgresql: creating the data directory failed"
  }
  mv -- "$home/data.new" "$home/data"
}

postgresql_stop() {
  local pid
  pid=$(pg_postmaster)
  if [[ -n $pid ]]; then
    kill -INT "$pid" 2>/dev/null || true # what pg_ctl calls a fast shutdown
    await_end 30 pg_pids || note "postgresql: does not stop, killing it"
  fi
  postgresql_kill # also what a postmaster that crashed has left
}

# What pg_ctl calls an immediate shutdown: the postmaster tells its processes, and none of them writes anything.
postgresql_immediate() {
  local pid
  pid=$(pg_postmaster)
  if [[ -n $pid ]]; then
    kill -QUIT "$pid" 2>/dev/null || true
    await_end 30 pg_pids || die "postgresql: does not end"
  fi
}

postgresql_kill() { end_processes KILL 10 pg_pids || die "postgresql: does not end"; }

postgresql_log() { tail -n 15 -- "$dir/postgresql/log"; }
