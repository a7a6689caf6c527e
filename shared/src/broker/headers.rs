//! Message headers, from AMQP's types to JSON.

use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Map, Value};

/// The trace context of the W3C, <https://www.w3.org/TR/trace-context/#traceparent-header>.
pub(super) const TRACEPARENT: &str = "traceparent";

/// All headers as a JSON object; for a dead letter they tell by `x-death` where it came from and why.
pub(super) fn to_json(table: &FieldTable) -> Value {
    let entries = table
        .into_iter()
        .map(|(key, value)| (key.to_string(), value_to_json(value)));
    Value::Object(entries.collect::<Map<_, _>>())
}

fn value_to_json(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(v) => (*v).into(),
        AMQPValue::ShortShortInt(v) => (*v).into(),
        AMQPValue::ShortShortUInt(v) => (*v).into(),
        AMQPValue::ShortInt(v) => (*v).into(),
        AMQPValue::ShortUInt(v) => (*v).into(),
        AMQPValue::LongInt(v) => (*v).into(),
        AMQPValue::LongUInt(v) => (*v).into(),
        AMQPValue::LongLongInt(v) => (*v).into(),
        AMQPValue::Float(v) => (*v).into(),
        AMQPValue::Double(v) => (*v).into(),
        // A decimal has no JSON form without loss; no header RabbitMQ or we set is one.
        AMQPValue::DecimalValue(v) => format!("{}e-{}", v.value, v.scale).into(),
        AMQPValue::ShortString(v) => v.as_str().into(),
        AMQPValue::LongString(v) => String::from_utf8_lossy(v.as_bytes()).into(),
        AMQPValue::FieldArray(v) => v.as_slice().iter().map(value_to_json).collect(),
        AMQPValue::Timestamp(v) => (*v).into(),
        AMQPValue::FieldTable(v) => to_json(v),
        AMQPValue::ByteArray(v) => hex::encode(v.as_slice()).into(),
        AMQPValue::Void => Value::Null,
    }
}
