//! A fleet's queues under a random prefix, and a TCP proxy that can be cut, stalled and taken down.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use shared::broker::{
    BrokerError, BrokerMetrics, Connection, Consumer, Delivery, Outgoing, PublishOutcome,
    Publisher, Queue, Topology,
};
use shared::config::{BrokerConfig, Secret};
use shared::domain::Stage;
use shared::telemetry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

/// No wait in these tests may be longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for `work`, but not for ever.
pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    timeout(DEADLINE, work)
        .await
        .expect("nothing happened before the deadline")
}

/// Asks until the answer is yes.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let asking = async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while !ask().await {
            tick.tick().await;
        }
    };
    timeout(DEADLINE, asking)
        .await
        .unwrap_or_else(|_| panic!("not before the deadline: {what}"));
}

pub(crate) fn amqp_url() -> Url {
    let url = std::env::var("AMQP_URL")
        .expect("set AMQP_URL to a RabbitMQ these tests may use, see deploy/local");
    url.parse().expect("AMQP_URL is a URL")
}

/// What a test works with; see [`fleet`].
#[derive(Clone)]
pub(crate) struct Fleet {
    pub(crate) config: BrokerConfig,
    pub(crate) metrics: BrokerMetrics,
    registry: Registry,
}

/// Runs a test with queues of its own and deletes them, also when it fails.
pub(crate) async fn fleet<F: Future<Output = ()>>(test: impl FnOnce(Fleet) -> F) {
    let registry = Registry::default();
    let fleet = Fleet {
        config: BrokerConfig {
            amqp_url: Secret::from(amqp_url().to_string()),
            amqp_prefix: format!("test-{}", Uuid::new_v4().simple()),
            queue_max_length: 1000,
            delivery_limit: 50,
            confirm_timeout: Duration::from_secs(10),
            broker_reconnect_bound: Duration::from_secs(20),
        },
        metrics: BrokerMetrics::register(&registry).unwrap(),
        registry,
    };
    let outcome = std::panic::AssertUnwindSafe(test(fleet.clone()))
        .catch_unwind()
        .await;
    fleet.delete_topology().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

impl Fleet {
    pub(crate) async fn connect(&self) -> Result<Connection, BrokerError> {
        Connection::connect(&self.config, "test", &self.metrics).await
    }

    pub(crate) async fn connected(&self) -> Connection {
        soon(self.connect()).await.unwrap()
    }

    /// The same queues, reached through `proxy`.
    pub(crate) fn through(&self, proxy: &Proxy) -> Self {
        let mut url = amqp_url();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(proxy.port)).unwrap();
        let mut fleet = self.clone();
        fleet.config.amqp_url = Secret::from(url.to_string());
        fleet
    }

    pub(crate) async fn publisher(&self) -> Publisher {
        Publisher::new(self.connected().await, &self.config)
    }

    pub(crate) fn queue_name(&self, stage: Stage) -> String {
        Topology::new(&self.config).queue_name(Queue::Stage(stage))
    }

    /// Deletes the exchanges and queues with everything in them.
    pub(crate) async fn delete_topology(&self) {
        let topology = Topology::new(&self.config);
        let (_connection, channel) = plain_channel().await;
        for queue in Queue::all() {
            let name = topology.queue_name(queue).into();
            soon(channel.queue_delete(name, Default::default()))
                .await
                .unwrap();
        }
        for name in [topology.stages_exchange(), topology.dead_exchange()] {
            soon(channel.exchange_delete(name.into(), Default::default()))
                .await
                .unwrap();
        }
    }

    /// `broker_reconnects_total` of a part.
    pub(crate) fn reconnects(&self, part: &str) -> u64 {
        let families = self.registry.gather();
        let metrics = families.iter().flat_map(|family| family.get_metric());
        let mut of_part =
            metrics.filter(|metric| metric.get_label().iter().any(|label| label.value() == part));
        of_part
            .next()
            .expect("the counter exists from the start")
            .get_counter()
            .get_value() as u64
    }
}

/// A connection that does not go through our code, for what our code must not do.
pub(crate) async fn plain_channel() -> (lapin::Connection, lapin::Channel) {
    let url = amqp_url().to_string();
    let connection = soon(lapin::Connection::connect(&url, Default::default()))
        .await
        .unwrap();
    let channel = soon(connection.create_channel()).await.unwrap();
    (connection, channel)
}

pub(crate) async fn delete_queue(name: String) {
    let (_connection, channel) = plain_channel().await;
    soon(channel.queue_delete(name.into(), Default::default()))
        .await
        .unwrap();
}

pub(crate) fn messages(count: usize) -> Vec<Outgoing> {
    let message = |n: usize| Outgoing {
        message_id: Uuid::new_v4(),
        body: n.to_string().into(),
        traceparent: None,
    };
    (0..count).map(message).collect()
}

/// Publishes one message until it is confirmed.
pub(crate) async fn publish_one(publisher: &Publisher, stage: Stage) -> Outgoing {
    let batch = messages(1);
    until("one message confirmed", || async {
        publisher.publish(stage, &batch).await == [PublishOutcome::Confirmed]
    })
    .await;
    batch.into_iter().next().unwrap()
}

/// The next delivery of a consumer that nobody stops.
pub(crate) async fn take(consumer: &mut Consumer) -> Delivery {
    soon(consumer.next(&CancellationToken::new()))
        .await
        .unwrap()
        .expect("nobody stopped the consumer")
}

pub(crate) async fn depth(connection: &Connection, queue: Queue) -> u32 {
    soon(connection.queue_depths(&[queue])).await.unwrap()[0]
}

/// Forwards TCP connections to RabbitMQ.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    mode: watch::Sender<Mode>,
    open: Arc<Mutex<JoinSet<()>>>,
    accepting: AbortHandle,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Forward,
    /// Nothing comes back from RabbitMQ; what is sent still gets there.
    Mute,
    /// New connections are accepted and dropped.
    Down,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        let url = amqp_url();
        let target = (
            url.host_str().unwrap().to_owned(),
            url.port().unwrap_or(5672),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mode, modes) = watch::channel(Mode::Forward);
        let open: Arc<Mutex<JoinSet<()>>> = Arc::default();
        let accepted = Arc::clone(&open);
        let accepting = tokio::spawn(async move {
            loop {
                let (mut inbound, _) = listener.accept().await.unwrap();
                if *modes.borrow() == Mode::Down {
                    continue;
                }
                let (target, mut modes) = (target.clone(), modes.clone());
                accepted.lock().unwrap().spawn(async move {
                    let mut outbound = TcpStream::connect(target).await.unwrap();
                    let (mut answers, mut to_broker) = outbound.split();
                    let (mut requests, mut to_client) = inbound.split();
                    let answering = async {
                        let mut buffer = vec![0; 64 * 1024];
                        loop {
                            let length = answers.read(&mut buffer).await?;
                            modes.wait_for(|mode| *mode != Mode::Mute).await.unwrap();
                            to_client.write_all(&buffer[..length]).await?;
                            if length == 0 {
                                return std::io::Result::Ok(());
                            }
                        }
                    };
                    // Ends with either peer or by being aborted.
                    tokio::select! {
                        _ = answering => {}
                        _ = copy(&mut requests, &mut to_broker) => {}
                    }
                });
            }
        });
        Self {
            port,
            mode,
            open,
            accepting: accepting.abort_handle(),
        }
    }

    /// Cuts every open connection; new ones are forwarded.
    pub(crate) fn cut(&self) {
        self.open.lock().unwrap().abort_all();
    }

    /// Keeps RabbitMQ's answers back until [`Self::bring_up`].
    pub(crate) fn mute(&self) {
        self.mode.send_replace(Mode::Mute);
    }

    /// Cuts every open connection and lets none through.
    pub(crate) fn take_down(&self) {
        self.mode.send_replace(Mode::Down);
        self.cut();
    }

    pub(crate) fn bring_up(&self) {
        self.mode.send_replace(Mode::Forward);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
