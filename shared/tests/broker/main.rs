//! The broker module against a real RabbitMQ, named by `AMQP_URL`. Every test has a prefix of its own and deletes it.

mod harness;
mod outages;
mod server_faults;
mod traffic;
