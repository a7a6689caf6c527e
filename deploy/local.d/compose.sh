# shellcheck shell=bash
# Both servers of an instance as containers. Sourced by deploy/local in place of postgresql.sh and rabbitmq.sh.

declare -gA service_ports=([postgresql]=postgresql [rabbitmq]=amqp)

# The project's name holds the instance's path, so that checkouts do not share containers.
compose() {
  local project
  project=ghostfleet-$name-$(printf '%s' "$dir" | cksum | cut -d ' ' -f 1)
  POSTGRESQL_PORT=${port[postgresql]:-0} AMQP_PORT=${port[amqp]:-0} \
    docker compose --project-name "$project" --file "$lib/compose.yaml" "$@" 8>&- 9>&-
}

container_alive() { [[ -n $(compose ps --quiet --status running "$1") ]]; }

# A port that is taken is a failure to start like any other here: start_service looks at the ports.
container_launch() {
  settle_ports "$1"
  compose up --detach "$1" >&2 || true
}

postgresql_alive() { container_alive postgresql; }
postgresql_launch() { container_launch postgresql; }
postgresql_stop() { compose stop postgresql; }
postgresql_kill() { compose kill postgresql; }
postgresql_immediate() { compose kill --signal QUIT postgresql; }
postgresql_log() { compose logs --tail 15 postgresql; }

# Over TCP: while the image prepares its data, a server answers on the Unix socket alone.
postgresql_ready() {
  compose exec -T postgresql psql --no-psqlrc --host 127.0.0.1 --username ghostfleet --dbname ghostfleet \
    --command 'SELECT 1' </dev/null >/dev/null
}

rabbitmq_ctl() { compose exec -T rabbitmq rabbitmqctl --quiet "$@" </dev/null; }
rabbitmq_alive() { container_alive rabbitmq; }
rabbitmq_launch() { container_launch rabbitmq; }
rabbitmq_stop() { compose stop rabbitmq; }
rabbitmq_kill() { compose kill rabbitmq; }
rabbitmq_log() { compose logs --tail 15 rabbitmq; }
rabbitmq_ready() { amqp_answers "${port[amqp]:-0}"; }
stop_epmd() { :; }
