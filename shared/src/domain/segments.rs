//! Segments (which audio is spoken when) and their part of a Sync.so request.
//!
//! The order of everything is fixed by the segments alone: a retry under the same idempotency key has to produce the
//! same bytes, and PostgreSQL does not keep the order of object keys.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::fields::{FieldCode, Node, Origin, json_number};
use super::location::Location;

/// Most segments a job may ever have; a deployment may allow fewer.
pub const MAX_SEGMENTS: usize = 10;
/// Shortest segment, in seconds.
pub const MIN_SEGMENT_SECONDS: f64 = 0.5;
/// Longest name of an audio input.
const MAX_REF_ID_LENGTH: usize = 128;
/// Longest label, in characters.
const MAX_LABEL_LENGTH: usize = 200;
/// More than 0.7 - 0.2 and the like lose in f64.
const FLOAT_SLACK_SECONDS: f64 = 1e-9;

/// A stretch of the video to be lip-synced. Only valid ones are built.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    start: f64,
    end: f64,
    ref_id: String,
    /// Start and end within the audio, in seconds.
    crop: Option<(f64, f64)>,
}

impl Segment {
    /// When the segment ends, in seconds of the video.
    pub(super) fn end(&self) -> f64 {
        self.end
    }

    /// How long it is.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.end - self.start
    }

    /// The stretch of this audio file that is spoken, in seconds; none where it is another file or the whole of it.
    pub(super) fn crop_of(&self, ref_id: &str) -> Option<(f64, f64)> {
        self.crop.filter(|_| self.ref_id == ref_id)
    }

    /// The segment as Sync.so documents it; a `label` is not part of it (the live API refused one).
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut audio = Map::new();
        audio.insert("refId".to_owned(), self.ref_id.as_str().into());
        if let Some((start, end)) = self.crop {
            audio.insert("startTime".to_owned(), json_number(start));
            audio.insert("endTime".to_owned(), json_number(end));
        }
        json!({
            "startTime": json_number(self.start),
            "endTime": json_number(self.end),
            "audioInput": audio,
        })
    }
}

/// An audio file and the name by which segments refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioInput {
    /// The name.
    pub ref_id: String,
    /// The file.
    pub location: Location,
}

/// Reads the segments and their audio files; these come in the order in which segments first name them.
/// The result counts only if no fault was added.
pub(super) fn read(
    segments: &Node<'_>,
    audio: &Node<'_>,
    origin: Origin,
    max: usize,
) -> (Vec<Segment>, Vec<AudioInput>) {
    let nodes = segments.list(max.min(MAX_SEGMENTS));
    let list_is_readable = nodes.is_some();
    let nodes = nodes.unwrap_or_default();
    let read: Vec<_> = nodes
        .iter()
        .map(|node| read_segment(node, origin))
        .collect();
    for (pair, node) in read.windows(2).zip(nodes.iter().skip(1)) {
        if let [Some(before), Some(after)] = pair
            && after.start < before.end
        {
            node.get("startTime").fault(
                FieldCode::Order,
                "must not be before the end of the segment before",
            );
        }
    }
    let files = read_audio(audio, &nodes, list_is_readable);
    (
        read.into_iter().flatten().collect(),
        files.unwrap_or_default(),
    )
}

fn read_segment(node: &Node<'_>, origin: Origin) -> Option<Segment> {
    node.object(origin, &["startTime", "endTime", "audioInput", "label"])?;
    let label = node.get("label");
    if origin == Origin::Request && !label.is_null() {
        label.text(MAX_LABEL_LENGTH);
    }
    let input = node.get("audioInput");
    let audio = input
        .object(origin, &["refId", "startTime", "endTime"])
        .map(|_| (read_ref_id(&input.get("refId"), origin), read_crop(&input)));
    let (start, end) = read_interval(node)?;
    if end - start < MIN_SEGMENT_SECONDS - FLOAT_SLACK_SECONDS {
        node.get("endTime").fault(
            FieldCode::OutOfRange,
            format!("must be at least {MIN_SEGMENT_SECONDS} seconds after startTime"),
        );
    }
    let (ref_id, crop) = audio?;
    Some(Segment {
        start,
        end,
        ref_id: ref_id?,
        crop: crop.ok()?,
    })
}

/// `startTime` and `endTime` of a node, in order.
fn read_interval(node: &Node<'_>) -> Option<(f64, f64)> {
    let (start, end) = (
        node.get("startTime").seconds(),
        node.get("endTime").seconds(),
    );
    let (start, end) = (start?, end?);
    if start >= end {
        node.get("endTime")
            .fault(FieldCode::Order, "must be greater than startTime");
        return None;
    }
    Some((start, end))
}

/// The vendor wants both times of a crop or neither; null is neither. The fault behind `Err` is already noted.
fn read_crop(input: &Node<'_>) -> Result<Option<(f64, f64)>, ()> {
    let [start, end] = ["startTime", "endTime"].map(|key| input.get(key));
    match (start.is_null(), end.is_null()) {
        (true, true) => Ok(None),
        (false, false) => read_interval(input).map(Some).ok_or(()),
        (start_is_null, _) => {
            let missing = if start_is_null { start } else { end };
            missing.fault(
                FieldCode::Incomplete,
                "startTime and endTime of a crop must be given together",
            );
            Err(())
        }
    }
}

/// New names are plain ASCII; names in rows may be whatever the replaced application took.
fn read_ref_id(node: &Node<'_>, origin: Origin) -> Option<String> {
    let name = node.text(MAX_REF_ID_LENGTH)?;
    if origin == Origin::Request
        && !name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    {
        node.fault(
            FieldCode::Malformed,
            "must consist of letters, digits, `.`, `_` and `-`",
        );
        return None;
    }
    Some(name.to_owned())
}

/// Matches names and files both ways. An unused file is a fault only where every segment could be read.
fn read_audio(
    audio: &Node<'_>,
    segments: &[Node<'_>],
    list_is_readable: bool,
) -> Option<Vec<AudioInput>> {
    let none = Map::new();
    let given = if audio.is_null() { &none } else { audio.map()? };
    if given.len() > MAX_SEGMENTS {
        audio.fault(
            FieldCode::OutOfRange,
            format!("must have at most {MAX_SEGMENTS} entries"),
        );
        return None;
    }
    let mut seen = HashSet::new();
    let mut all_named = list_is_readable;
    let mut files = Vec::new();
    for segment in segments {
        let node = segment.get("audioInput").get("refId");
        let Some(name) = node.as_text() else {
            all_named = false;
            continue;
        };
        let first = seen.insert(name);
        if !given.contains_key(name) {
            node.fault(FieldCode::Unmatched, "names no audio file of this job");
        } else if first && let Some(location) = Location::read(&audio.get(name)) {
            files.push(AudioInput {
                ref_id: name.to_owned(),
                location,
            });
        }
    }
    for name in given.keys().filter(|name| !seen.contains(name.as_str())) {
        let node = audio.get(name);
        Location::read(&node);
        if all_named {
            node.fault(FieldCode::Unmatched, "is used by no segment");
        }
    }
    Some(files)
}

#[cfg(test)]
mod tests {
    use super::super::fields::{Faults, FieldError};
    use super::*;

    type Read = Result<(Vec<Segment>, Vec<AudioInput>), Vec<FieldError>>;

    fn read_both(segments: &Value, audio: &Value, origin: Origin, max: usize) -> Read {
        let faults = Faults::default();
        let read = read(
            &Node::new("/segments", Some(segments), &faults),
            &Node::new("/audio", Some(audio), &faults),
            origin,
            max,
        );
        faults.unless_any(Some(read))
    }

    fn files(names: &[&str]) -> Value {
        let entry = |name: &&str| {
            (
                name.to_string(),
                json!(format!("https://a.example/{name}.wav")),
            )
        };
        Value::Object(names.iter().map(entry).collect())
    }

    fn segment(start: f64, end: f64, name: &str) -> Value {
        json!({"startTime": start, "endTime": end, "audioInput": {"refId": name}})
    }

    #[test]
    fn the_request_has_the_documented_keys_alone() {
        let mut cropped = segment(0.0, 15.0, "a1");
        cropped["label"] = json!("intro");
        cropped["audioInput"]["startTime"] = json!(2.0);
        cropped["audioInput"]["endTime"] = json!(17.25);
        let mut whole = segment(15.0, 15.5, "a1");
        whole["audioInput"]["startTime"] = Value::Null;
        whole["audioInput"]["endTime"] = Value::Null;
        let list = json!([cropped, whole]);
        let (segments, _) = read_both(&list, &files(&["a1"]), Origin::Request, 5).unwrap();
        let texts: Vec<_> = segments.iter().map(|s| s.to_json().to_string()).collect();
        assert_eq!(
            texts,
            [
                r#"{"startTime":0,"endTime":15,"audioInput":{"refId":"a1","startTime":2,"endTime":17.25}}"#,
                r#"{"startTime":15,"endTime":15.5,"audioInput":{"refId":"a1"}}"#,
            ]
        );
    }

    #[test]
    fn audio_comes_in_the_order_of_first_appearance() {
        let names = ["c", "a", "c", "b", "a"];
        let segments: Value = (0u8..)
            .zip(names)
            .map(|(i, name)| segment(f64::from(i), f64::from(i) + 1.0, name))
            .collect();
        for order in [["a", "b", "c"], ["b", "c", "a"]] {
            let (_, audio) = read_both(&segments, &files(&order), Origin::Stored, 10).unwrap();
            let order: Vec<_> = audio.iter().map(|audio| audio.ref_id.as_str()).collect();
            assert_eq!(order, ["c", "a", "b"]);
        }
    }

    #[test]
    fn a_segment_of_exactly_the_minimum_passes_in_spite_of_floats() {
        // In f64, 0.7 - 0.2 and 8.2 - 7.7 are less than 0.5.
        for (start, end, ok) in [
            (0.0, 0.5, true),
            (0.2, 0.7, true),
            (7.7, 8.2, true),
            (0.0, 0.49, false),
        ] {
            let list = json!([segment(start, end, "a")]);
            let read = read_both(&list, &files(&["a"]), Origin::Request, 5);
            assert_eq!(read.is_ok(), ok, "{start}..{end}");
        }
    }

    /// The one fault both origins find in these segments of a job with the audio file `a`.
    fn assert_fault(segments: &Value, path: &str, code: FieldCode) {
        for origin in [Origin::Request, Origin::Stored] {
            let faults = read_both(segments, &files(&["a"]), origin, 2).unwrap_err();
            let found: Vec<_> = faults.iter().map(|f| (f.path.as_str(), f.code)).collect();
            assert_eq!(found, [(&*format!("/segments{path}"), code)], "{segments}");
        }
    }

    #[test]
    fn faults_of_a_segment_are_named_with_their_place() {
        use FieldCode as C;
        assert_fault(&json!("x"), "", C::WrongType);
        assert_fault(&json!([7]), "/0", C::WrongType);
        for (key, value, path, code) in [
            ("startTime", Value::Null, "startTime", C::WrongType),
            ("startTime", json!("0"), "startTime", C::WrongType),
            ("startTime", json!(-0.5), "startTime", C::OutOfRange),
            ("startTime", json!(1), "endTime", C::Order),
            ("endTime", json!(0.4), "endTime", C::OutOfRange),
            ("audioInput", Value::Null, "audioInput", C::WrongType),
        ] {
            let mut changed = segment(0.0, 1.0, "a");
            changed[key] = value;
            assert_fault(&json!([changed]), &format!("/0/{path}"), code);
        }
    }

    #[test]
    fn faults_of_an_audio_input_are_named_with_their_place() {
        use FieldCode as C;
        for (start, end, path, code) in [
            (json!(1), Value::Null, "endTime", C::Incomplete),
            (Value::Null, json!(1), "startTime", C::Incomplete),
            (json!(1), json!(1), "endTime", C::Order),
            (json!("1"), json!(2), "startTime", C::WrongType),
            (json!(-1), json!(2), "startTime", C::OutOfRange),
        ] {
            let mut changed = segment(0.0, 1.0, "a");
            changed["audioInput"] = json!({"refId": "a", "startTime": start, "endTime": end});
            assert_fault(&json!([changed]), &format!("/0/audioInput/{path}"), code);
        }
        let mut nameless = segment(0.0, 1.0, "a");
        nameless["audioInput"]["refId"] = json!(1);
        assert_fault(&json!([nameless]), "/0/audioInput/refId", C::WrongType);
    }

    #[test]
    fn faults_between_segments_are_named_with_their_place() {
        use FieldCode as C;
        let first = segment(0.0, 1.0, "a");
        for (second, path, code) in [
            (segment(0.9, 2.0, "a"), "/1/startTime", C::Order),
            (segment(0.0, 1.0, "a"), "/1/startTime", C::Order),
            (segment(1.0, 2.0, "b"), "/1/audioInput/refId", C::Unmatched),
        ] {
            assert_fault(&json!([first, second]), path, code);
        }
        let unordered = json!([segment(5.0, 6.0, "a"), first]);
        assert_fault(&unordered, "/1/startTime", C::Order);
        let three = json!([first, segment(1.0, 2.0, "a"), segment(2.0, 3.0, "a")]);
        assert_fault(&three, "", C::OutOfRange);
    }

    #[test]
    fn audio_that_cannot_be_used_is_refused() {
        use FieldCode as C;
        let too_many: Vec<_> = (0..=MAX_SEGMENTS).map(|i| i.to_string()).collect();
        let too_many: Vec<_> = too_many.iter().map(String::as_str).collect();
        for (audio, path, code) in [
            (json!([]), "/audio", C::WrongType),
            (files(&too_many), "/audio", C::OutOfRange),
            (files(&["a", "b"]), "/audio/b", C::Unmatched),
            (json!({"a": 1}), "/audio/a", C::WrongType),
            (json!({"a": "ftp://x/a.wav"}), "/audio/a", C::Malformed),
            (Value::Null, "/segments/0/audioInput/refId", C::Unmatched),
        ] {
            let list = json!([segment(0.0, 1.0, "a")]);
            let faults = read_both(&list, &audio, Origin::Stored, 5).unwrap_err();
            let found: Vec<_> = faults.iter().map(|f| (f.path.as_str(), f.code)).collect();
            assert_eq!(found, [(path, code)]);
        }
    }

    #[test]
    fn rows_may_have_what_requests_may_not() {
        let mut old = segment(0.0, 1.0, "配音 1");
        old["label"] = json!("x".repeat(MAX_LABEL_LENGTH + 1));
        old["color"] = json!("red");
        let (list, audio) = (json!([old]), files(&["配音 1"]));
        assert!(read_both(&list, &audio, Origin::Stored, 5).is_ok());
        let faults = read_both(&list, &audio, Origin::Request, 5).unwrap_err();
        let paths: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/segments/0/color",
                "/segments/0/label",
                "/segments/0/audioInput/refId"
            ]
        );
    }
}
