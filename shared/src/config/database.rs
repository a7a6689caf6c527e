//! How to reach PostgreSQL.

use std::time::Duration;

use super::Secret;

/// PostgreSQL settings.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseConfig {
    /// PostgreSQL connection URL. With `?sslmode=verify-full` the way there is encrypted and the server's certificate and name are
    /// checked, by the system's authorities or by those of `&sslrootcert=FILE`; `?sslmode=require` encrypts and checks nothing
    #[arg(long, env, hide_env_values = true)]
    pub database_url: Secret,
    /// Connections in the pool
    #[arg(long, env, default_value_t = 10)]
    pub database_pool_size: usize,
    /// How long to wait for a connection
    #[arg(long, env, default_value = "10s", value_parser = humantime::parse_duration)]
    pub database_connect_timeout: Duration,
    /// Server-side limit for one statement
    #[arg(long, env, default_value = "30s", value_parser = humantime::parse_duration)]
    pub database_statement_timeout: Duration,
}
