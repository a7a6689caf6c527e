//! A connection to RabbitMQ that re-establishes itself.
//!
//! One task per connection watches it, declares the topology on every new one (an empty broker is made whole again) and
//! gives up after a bound. It re-creates no channels: whoever held one learns that it died and opens another.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{ConnectionProperties, Event};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::outage::Outage;
use super::{BrokerError, BrokerMetrics, Queue, Topology, greeting};
use crate::config::BrokerConfig;

/// Heartbeat unless the URL sets one, seconds: a dead peer is noticed within twice this time.
const HEARTBEAT_SECONDS: u16 = 20;
/// Time for connecting, and for declaring, unless the URL sets `connection_timeout`, milliseconds.
const CONNECT_TIMEOUT_MS: u64 = 10_000;
/// Time for saying goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection shared by publishers or by consumers, never by both. Clones are the same connection; it closes with the
/// last of them.
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dialer: Dialer,
    state: watch::Receiver<State>,
    stop: CancellationToken,
    /// Ends the watching task with the last clone.
    _stop_on_drop: DropGuard,
}

#[derive(Clone, Debug)]
enum State {
    Up(Arc<lapin::Connection>),
    Down,
    Ended(BrokerError),
}

impl Connection {
    /// Connects, declares the topology and starts watching. `name` is what RabbitMQ shows for the connection.
    ///
    /// # Errors
    /// [`BrokerError::BadUrl`] and [`BrokerError::Incompatible`] at once, [`BrokerError::GaveUp`] when the broker stays
    /// unreachable for the bound.
    pub async fn connect(
        config: &BrokerConfig,
        name: &str,
        metrics: &BrokerMetrics,
    ) -> Result<Self, BrokerError> {
        let dialer = Dialer::new(config, name, metrics)?;
        let mut outage = Outage::new(dialer.bound);
        let first = dialer.dial_until_bound(&mut outage).await?;
        let (publish_state, state) = watch::channel(State::Up(Arc::clone(&first)));
        let stop = CancellationToken::new();
        tokio::spawn(watch_over(
            dialer.clone(),
            first,
            outage,
            publish_state,
            stop.clone(),
        ));
        let _stop_on_drop = stop.clone().drop_guard();
        Ok(Self {
            shared: Arc::new(Shared {
                dialer,
                state,
                stop,
                _stop_on_drop,
            }),
        })
    }

    /// Whether the connection stands.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.current().is_some()
    }

    /// Whether RabbitMQ blocks publishing on this connection because it runs out of memory or disk. It says so only after
    /// something was published during the alarm.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.current()
            .is_some_and(|connection| connection.status().blocked())
    }

    /// Waits until the connection has ended for good and says why; the binary then exits non-zero.
    pub async fn ended(&self) -> BrokerError {
        let mut state = self.shared.state.clone();
        let ended = state
            .wait_for(|state| matches!(state, State::Ended(_)))
            .await;
        match ended.as_deref() {
            Ok(State::Ended(error)) => error.clone(),
            _ => BrokerError::Closed,
        }
    }

    /// Closes the connection. Unacknowledged deliveries go back to their queues.
    pub async fn close(&self) {
        self.shared.stop.cancel();
        self.ended().await;
    }

    /// How many messages wait in each of `queues`, those being processed not counted. Does not wait for a connection.
    ///
    /// # Errors
    /// When the connection is down or a queue does not exist.
    pub async fn queue_depths(&self, queues: &[Queue]) -> Result<Vec<u32>, BrokerError> {
        let connection = self.current().ok_or(BrokerError::Disconnected)?;
        self.shared
            .dialer
            .in_time(async {
                let channel = connection.create_channel().await?;
                let mut depths = Vec::with_capacity(queues.len());
                for queue in queues {
                    let name = self.topology().queue_name(*queue).into();
                    let options = QueueDeclareOptions {
                        passive: true,
                        ..Default::default()
                    };
                    let declared = channel
                        .queue_declare(name, options, FieldTable::default())
                        .await?;
                    depths.push(declared.message_count());
                }
                channel.close(200, "counted".into()).await?;
                Ok(depths)
            })
            .await
    }

    pub(super) fn topology(&self) -> &Topology {
        &self.shared.dialer.topology
    }

    pub(super) fn metrics(&self) -> &BrokerMetrics {
        &self.shared.dialer.metrics
    }

    pub(super) fn bound(&self) -> Duration {
        self.shared.dialer.bound
    }

    /// Runs `work`, which talks to the broker, within the connect timeout.
    pub(super) async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        self.shared.dialer.in_time(work).await
    }

    /// The connection if it stands right now.
    pub(super) fn current(&self) -> Option<Arc<lapin::Connection>> {
        match &*self.shared.state.borrow() {
            State::Up(connection) if connection.status().connected() => {
                Some(Arc::clone(connection))
            }
            _ => None,
        }
    }

    /// Waits until the connection stands.
    pub(super) async fn ready(&self) -> Result<Arc<lapin::Connection>, BrokerError> {
        let mut state = self.shared.state.clone();
        loop {
            match &*state.borrow_and_update() {
                State::Up(connection) if connection.status().connected() => {
                    return Ok(Arc::clone(connection));
                }
                State::Ended(error) => return Err(error.clone()),
                // Up but dead: the watching task is about to say so.
                State::Up(_) | State::Down => {}
            }
            state.changed().await.map_err(|_| BrokerError::Closed)?;
        }
    }
}

/// Replaces the connection whenever it is lost, until it is stopped or the bound is over.
async fn watch_over(
    dialer: Dialer,
    mut connection: Arc<lapin::Connection>,
    mut outage: Outage,
    state: watch::Sender<State>,
    stop: CancellationToken,
) {
    let end = loop {
        let up_since = Instant::now();
        if stop.run_until_cancelled(lost(&connection)).await.is_none() {
            // A connection that does not answer to this is as closed as one that does.
            let _ = timeout(CLOSE_TIMEOUT, connection.close(200, "bye".into())).await;
            break BrokerError::Closed;
        }
        tracing::warn!(broker.address = %dialer.address, "connection to RabbitMQ lost, reconnecting");
        state.send_replace(State::Down);
        outage.stood(up_since.elapsed());
        connection = match stop.run_until_cancelled(dialer.redial(&mut outage)).await {
            Some(Ok(connection)) => connection,
            Some(Err(error)) => break error,
            None => break BrokerError::Closed,
        };
        dialer.metrics.connection_reconnects.inc();
        tracing::info!(broker.address = %dialer.address, "connection to RabbitMQ re-established");
        state.send_replace(State::Up(Arc::clone(&connection)));
    };
    state.send_replace(State::Ended(end));
}

/// Waits until `connection` is no longer open, and reports when RabbitMQ blocks it.
async fn lost(connection: &lapin::Connection) {
    let mut events = connection.events_listener().boxed();
    // Not every end of a connection is an event.
    let mut look = interval(Duration::from_secs(1));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while connection.status().connected() {
        tokio::select! {
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(reason)) => {
                    tracing::warn!(reason, "RabbitMQ blocks publishing: it runs out of memory or disk");
                }
                Some(Event::ConnectionUnblocked) => tracing::info!("RabbitMQ accepts messages again"),
                Some(_) => {}
                None => return,
            },
            _ = look.tick() => {}
        }
    }
}

/// What it takes to open a connection.
#[derive(Clone)]
pub(super) struct Dialer {
    /// The nodes; each is as good as another.
    uris: Vec<AMQPUri>,
    /// Hosts and ports, fit to be shown.
    address: String,
    name: String,
    topology: Topology,
    metrics: BrokerMetrics,
    timeout: Duration,
    bound: Duration,
}

impl std::fmt::Debug for Dialer {
    /// Leaves out the URL: it holds the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer")
            .field("address", &self.address)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Dialer {
    pub(super) fn new(
        config: &BrokerConfig,
        name: &str,
        metrics: &BrokerMetrics,
    ) -> Result<Self, BrokerError> {
        let mut uris = parse_uris(config.amqp_url.expose())?;
        // A fleet spreads over the nodes; each connection then takes them in turn.
        let first = rand::random_range(0..uris.len());
        uris.rotate_left(first);
        let address = |uri: &AMQPUri| format!("{}:{}", uri.authority.host, uri.authority.port);
        let timeout_ms = uris[0].query.connection_timeout;
        let timeout_ms = timeout_ms.unwrap_or(CONNECT_TIMEOUT_MS);
        Ok(Self {
            address: uris.iter().map(address).collect::<Vec<_>>().join(", "),
            uris,
            name: name.to_owned(),
            topology: Topology::new(config),
            metrics: metrics.clone(),
            timeout: Duration::from_millis(timeout_ms),
            bound: config.broker_reconnect_bound,
        })
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        timeout(self.timeout, work)
            .await
            .unwrap_or(Err(BrokerError::Timeout(self.timeout)))
    }

    /// Connects to the first node that answers.
    pub(super) async fn dial(&self) -> Result<Arc<lapin::Connection>, BrokerError> {
        let mut last = BrokerError::Disconnected;
        for uri in &self.uris {
            match self.dial_node(uri).await {
                Err(error) if !error.is_final() => last = error,
                done => return done,
            }
        }
        Err(last)
    }

    /// The version of the first node that answers.
    pub(super) async fn version(&self) -> Result<Option<String>, BrokerError> {
        let mut last = BrokerError::Disconnected;
        for uri in &self.uris {
            match self.in_time(greeting::version(uri)).await {
                Err(error) => last = error,
                said => return said,
            }
        }
        Err(last)
    }

    async fn dial_node(&self, uri: &AMQPUri) -> Result<Arc<lapin::Connection>, BrokerError> {
        let properties =
            ConnectionProperties::default().with_connection_name(self.name.as_str().into());
        let opening = async { Ok(lapin::Connection::connect_uri(uri.clone(), properties).await?) };
        let connection = self.in_time(opening).await?;
        self.in_time(self.topology.declare(&connection)).await?;
        Ok(Arc::new(connection))
    }

    async fn dial_until_bound(
        &self,
        outage: &mut Outage,
    ) -> Result<Arc<lapin::Connection>, BrokerError> {
        loop {
            let error = match self.dial().await {
                Ok(connection) => return Ok(connection),
                Err(error) if error.is_final() => return Err(error),
                Err(error) => error,
            };
            let Some(pause) = outage.pause() else {
                let what = format!("RabbitMQ at {}", self.address);
                return Err(BrokerError::GaveUp {
                    what,
                    bound: outage.bound(),
                    last: Box::new(error),
                });
            };
            tracing::warn!(broker.address = %self.address, error = &error as &dyn std::error::Error, ?pause, "RabbitMQ is not reachable");
            sleep(pause).await;
        }
    }

    /// Dials after a pause: a broker that accepts and drops connections must not be hammered.
    async fn redial(&self, outage: &mut Outage) -> Result<Arc<lapin::Connection>, BrokerError> {
        sleep(outage.pause().unwrap_or_default()).await;
        self.dial_until_bound(outage).await
    }
}

/// Reads the URLs of the nodes, separated by commas, which none of them can hold unescaped.
fn parse_uris(text: &str) -> Result<Vec<AMQPUri>, BrokerError> {
    text.split(',')
        .map(|url| {
            let mut uri = parse_uri(url.trim())?;
            uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
            Ok(uri)
        })
        .collect()
}

/// Reads the URL of a node. What goes wrong is said without any part of it.
fn parse_uri(text: &str) -> Result<AMQPUri, BrokerError> {
    let bad = |reason: &str| BrokerError::BadUrl(reason.to_owned());
    let url = url::Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    if !matches!(url.scheme(), "amqp" | "amqps") {
        return Err(bad("it must start with amqp:// or amqps://"));
    }
    let mut uri: AMQPUri = text
        .parse()
        .map_err(|_| bad("its user, virtual host or query cannot be read"))?;
    match url.host() {
        // lapin takes an IPv6 address for no host at all and goes to localhost.
        Some(url::Host::Ipv6(address)) => uri.authority.host = address.to_string(),
        Some(_) => {}
        None => return Err(bad("it names no host")),
    }
    if uri.vhost.is_empty() {
        // The virtual host of no name hardly exists; a trailing slash is common and means the default one.
        uri.vhost = "/".to_owned();
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_people_mean_them() {
        let host = |text: &str| parse_uri(text).unwrap().authority.host;
        let vhost = |text: &str| parse_uri(text).unwrap().vhost;
        assert_eq!(host("amqp://[::1]:5672"), "::1");
        assert_eq!(host("amqps://127.0.0.1"), "127.0.0.1");
        assert_eq!(vhost("amqp://host"), "/");
        assert_eq!(vhost("amqp://host/"), "/");
        assert_eq!(vhost("amqp://host//"), "/");
        assert_eq!(vhost("amqp://host/%2f"), "/");
        assert_eq!(vhost("amqp://host/fleet"), "fleet");
    }

    #[test]
    fn several_nodes_are_separated_by_commas() {
        let uris = parse_uris("amqp://u:p@a:5673/%2f?heartbeat=3, amqps://u:p@b/fleet").unwrap();
        let hosts: Vec<_> = uris.iter().map(|uri| uri.authority.host.as_str()).collect();
        let heartbeats: Vec<_> = uris.iter().map(|uri| uri.query.heartbeat).collect();
        assert_eq!(hosts, ["a", "b"]);
        assert_eq!(heartbeats, [Some(3), Some(HEARTBEAT_SECONDS)]);
        assert!(parse_uris("amqp://a,").is_err());
    }

    #[test]
    fn a_bad_url_is_not_repeated() {
        for text in [
            "hunter2",
            "http://u:hunter2@host",
            "amqp:hunter2",
            "amqp://u:hunter2@host:port",
            "amqp://h/?heartbeat=hunter2",
        ] {
            let error = parse_uri(text).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
