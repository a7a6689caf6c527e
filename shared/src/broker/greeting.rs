//! What RabbitMQ says of itself before anybody has signed in. lapin reads it and keeps it to itself, so it is asked for apart.

use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use lapin::protocol::connection::AMQPMethod;
use lapin::protocol::{AMQPClass, parse_class};
use lapin::runtime::default_runtime;
use lapin::tcp::AMQPUriTcpExt as _;
use lapin::types::AMQPValue;
use lapin::uri::AMQPUri;

use super::BrokerError;

/// What a client of AMQP 0-9-1 says first.
const HELLO: &[u8] = b"AMQP\x00\x00\x09\x01";
/// Type, channel and size of a frame.
const FRAME_HEADER: usize = 7;
/// The type of a frame that is a method.
const METHOD: u8 = 1;
/// A greeting has some hundred bytes; what is longer is none.
const MAX_GREETING: u32 = 64 * 1024;

/// The version of the server at `uri`; none if it does not say it.
pub(super) async fn version(uri: &AMQPUri) -> Result<Option<String>, BrokerError> {
    let runtime = default_runtime()?;
    let asked = async {
        let mut stream = uri.connect_async(&runtime).await?;
        stream.write_all(HELLO).await?;
        stream.flush().await?;
        let mut header = [0; FRAME_HEADER];
        stream.read_exact(&mut header).await?;
        let Some(size) = size(header) else {
            return Ok(Vec::new());
        };
        let mut greeting = vec![0; size];
        stream.read_exact(&mut greeting).await?;
        Ok::<_, std::io::Error>(greeting)
    };
    let greeting = asked.await.map_err(lapin::Error::from)?;
    Ok(read(&greeting))
}

/// How long the greeting is that this begins; none if it begins something else.
fn size(header: [u8; FRAME_HEADER]) -> Option<usize> {
    let [kind, _, _, size @ ..] = header;
    let size = u32::from_be_bytes(size);
    (kind == METHOD && size <= MAX_GREETING).then_some(size as usize)
}

fn read(greeting: &[u8]) -> Option<String> {
    let (_, AMQPClass::Connection(AMQPMethod::Start(start))) = parse_class(greeting).ok()? else {
        return None;
    };
    match start.server_properties.inner().get("version")? {
        AMQPValue::LongString(version) => {
            Some(String::from_utf8_lossy(version.as_bytes()).into_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `connection.start` of AMQP 0-9-1 with one property.
    fn greeting(name: &str, value: &[u8]) -> Vec<u8> {
        let long = |text: &[u8]| [&(text.len() as u32).to_be_bytes()[..], text].concat();
        let property = [&[name.len() as u8][..], name.as_bytes(), value].concat();
        let start = [0, 10, 0, 10, 0, 9];
        [
            &start[..],
            &long(&property),
            &long(b"PLAIN"),
            &long(b"en_US"),
        ]
        .concat()
    }

    #[test]
    fn the_version_is_read_from_a_greeting() {
        let text = b"S\x00\x00\x00\x063.13.7";
        assert_eq!(read(&greeting("version", text)).as_deref(), Some("3.13.7"));
        assert_eq!(read(&greeting("product", text)), None);
        assert_eq!(read(&greeting("version", b"t\x01")), None);
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn what_is_no_greeting_is_not_waited_for() {
        assert_eq!(size([1, 0, 0, 0, 0, 1, 0xff]), Some(511));
        assert_eq!(size([1, 0, 0, 0xff, 0, 0, 0]), None);
        // A server of another protocol says which it speaks, and hangs up.
        assert_eq!(size(*b"AMQP\x01\x01\x00"), None);
        assert_eq!(size(*b"HTTP/1."), None);
    }
}
