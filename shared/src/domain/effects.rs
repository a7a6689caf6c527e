//! Effects (what a customer marked in the picture) and the GhostCut masks they become.
//!
//! Invalid effects are faults, never skipped: skipping all of them once bought a full-screen erase, and skipping one
//! buys a video that is not what was ordered. Mapping, clamping and rounding are those of the replaced application.

use serde_json::{Value, json};

use super::fields::{FieldCode, Node, Origin, json_number};
use super::words::vocabulary;

/// Most effects of one job.
pub const MAX_EFFECTS: usize = 50;
/// Longest video GhostCut takes, in seconds.
pub const MAX_VIDEO_SECONDS: f64 = 900.0;
/// The mask end that stands for the end of the video, in seconds.
pub const TO_END_SECONDS: f64 = 99_999.0;
/// Coordinates are fractions of the picture and may stick out a little; beyond this they are pixels, and clamping
/// them would erase the whole picture.
const MAX_COORDINATE: f64 = 2.0;

vocabulary! {
    /// What an effect does.
    EffectKind {
        /// Remove everything in the box.
        Erasure = "erasure",
        /// Keep the box as it is.
        Protection = "protection",
        /// Remove only text found in the box.
        Text = "text",
    }
}

impl EffectKind {
    /// GhostCut's `type` of a mask.
    #[must_use]
    pub const fn mask_type(self) -> &'static str {
        match self {
            Self::Erasure => "remove",
            Self::Protection => "keep",
            Self::Text => "remove_only_ocr",
        }
    }
}

/// A box in the picture over a time. Only valid ones are built.
#[derive(Clone, Debug, PartialEq)]
pub struct Mask {
    kind: EffectKind,
    /// Seconds; before `end`.
    start: f64,
    end: f64,
    region: Region,
}

/// Corners as fractions of the picture, origin top left, two decimals, with an area.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Region {
    x1: f64,
    y1: f64,
    x2: f64,
    y2: f64,
}

impl Region {
    /// None where nothing is left after clamping and rounding.
    fn new(x: f64, y: f64, width: f64, height: f64) -> Option<Self> {
        let corner = |coordinate: f64| round2(coordinate.clamp(0.0, 1.0));
        let region = Self {
            x1: corner(x),
            y1: corner(y),
            x2: corner(x + width),
            y2: corner(y + height),
        };
        (region.x2 > region.x1 && region.y2 > region.y1).then_some(region)
    }
}

/// Two decimals by the exact binary value, ties to even: what Python's `round(x, 2)` does and
/// `(x * 100).round() / 100` does not.
fn round2(number: f64) -> f64 {
    // What `format!` writes of a finite number always parses.
    format!("{number:.2}").parse().unwrap_or(number)
}

impl Mask {
    fn to_json(&self) -> Value {
        let Region { x1, y1, x2, y2 } = self.region;
        let corner = |x, y| json!([json_number(x), json_number(y)]);
        json!({
            "type": self.kind.mask_type(),
            "start": json_number(self.start),
            "end": json_number(self.end),
            "region": [corner(x1, y1), corner(x2, y1), corner(x2, y2), corner(x1, y2)],
        })
    }
}

/// The masks of a GhostCut request.
#[derive(Clone, Debug, PartialEq)]
pub struct Masks {
    /// `needChineseOcclude`: 1 full screen (every mask is `keep`), 2 only by masks.
    pub mode: u8,
    /// `videoInpaintMasks`: the text of a JSON list, never an empty one.
    pub json: String,
    /// Start and end of each, in seconds.
    pub(super) times: Vec<(f64, f64)>,
}

impl Masks {
    /// None without masks: there is nothing to ask GhostCut for.
    pub(super) fn new(masks: &[Mask]) -> Option<Self> {
        if masks.is_empty() {
            return None;
        }
        let all_keep = masks.iter().all(|mask| mask.kind == EffectKind::Protection);
        let list: Vec<_> = masks.iter().map(Mask::to_json).collect();
        Some(Self {
            mode: if all_keep { 1 } else { 2 },
            json: Value::from(list).to_string(),
            times: masks.iter().map(|mask| (mask.start, mask.end)).collect(),
        })
    }
}

/// Reads a list of effects. The masks count only if no fault was added.
pub(super) fn read(effects: &Node<'_>, origin: Origin) -> Vec<Mask> {
    let list = effects.list(MAX_EFFECTS).unwrap_or_default();
    list.iter()
        .filter_map(|effect| read_effect(effect, origin))
        .collect()
}

fn read_effect(effect: &Node<'_>, origin: Origin) -> Option<Mask> {
    effect.object(origin, &["type", "startTime", "endTime", "region"])?;
    let kind = read_kind(&effect.get("type"));
    let region = read_region(&effect.get("region"), origin);
    let start = read_time(effect, ["startTime", "startFrame"], origin, 0.0);
    let end = read_time(effect, ["endTime", "endFrame"], origin, TO_END_SECONDS);
    let (start, end) = (start?, end?);
    if start >= MAX_VIDEO_SECONDS {
        effect.get("startTime").fault(
            FieldCode::OutOfRange,
            format!("must be less than {MAX_VIDEO_SECONDS}, the longest video in seconds"),
        );
    }
    if end > TO_END_SECONDS {
        effect.get("endTime").fault(
            FieldCode::OutOfRange,
            format!("must be at most {TO_END_SECONDS}, which means the end of the video"),
        );
    }
    if start >= end {
        effect
            .get("endTime")
            .fault(FieldCode::Order, "must be greater than startTime");
    }
    Some(Mask {
        kind: kind?,
        start,
        end,
        region: region?,
    })
}

fn read_kind(node: &Node<'_>) -> Option<EffectKind> {
    let kind = node.raw_text()?.parse().ok();
    if kind.is_none() {
        node.fault(
            FieldCode::Malformed,
            "must be `erasure`, `protection` or `text`",
        );
    }
    kind
}

/// A time that may be left out, but not null: a client that computed no number must not pay for the whole video.
/// Rows may have the replaced application's frame keys, which it took as seconds.
fn read_time(effect: &Node<'_>, keys: [&str; 2], origin: Origin, default: f64) -> Option<f64> {
    let [time, frame] = keys.map(|key| effect.get(key));
    if !time.is_absent() {
        time.seconds()
    } else if origin == Origin::Stored && !frame.is_absent() {
        frame.seconds()
    } else {
        Some(default)
    }
}

fn read_region(region: &Node<'_>, origin: Origin) -> Option<Region> {
    let keys = ["x", "y", "width", "height"];
    region.object(origin, &keys)?;
    let [x, y, width, height] = keys.map(|key| {
        let coordinate = region.get(key);
        let number = coordinate.number()?;
        if number.abs() > MAX_COORDINATE {
            coordinate.fault(
                FieldCode::OutOfRange,
                "must be a fraction of the picture (0 to 1), not pixels",
            );
            return None;
        }
        Some(number)
    });
    let read = Region::new(x?, y?, width?, height?);
    if read.is_none() {
        region.fault(
            FieldCode::OutOfRange,
            "must have an area inside the picture, after rounding to two decimals",
        );
    }
    read
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fields::{Faults, FieldError};
    use super::*;

    fn read_all(effects: &Value, origin: Origin) -> Result<Vec<Mask>, Vec<FieldError>> {
        let faults = Faults::default();
        let masks = read(&Node::new("/effects", Some(effects), &faults), origin);
        faults.unless_any(Some(masks))
    }

    fn faults(effects: &Value, origin: Origin) -> Vec<(String, FieldCode)> {
        let faults = read_all(effects, origin).unwrap_err();
        faults.into_iter().map(|f| (f.path, f.code)).collect()
    }

    fn effect(kind: &str) -> Value {
        json!({"type": kind, "startTime": 0, "endTime": 12.5,
            "region": {"x": 0.1, "y": 0.8, "width": 0.8, "height": 0.15}})
    }

    fn with(key: &str, value: Value) -> Value {
        let mut effect = effect("text");
        effect[key] = value;
        json!([effect])
    }

    #[test]
    fn rounding_is_that_of_python() {
        for (number, rounded) in [
            (0.005, 0.01),
            (0.015, 0.01),
            (0.045, 0.04),
            (0.115, 0.12),
            (0.125, 0.12),
            (0.145, 0.14),
            (0.285, 0.28),
            (0.375, 0.38),
            (0.575, 0.57),
            (0.625, 0.62),
            (0.875, 0.88),
            (0.995, 0.99),
        ] {
            assert_eq!(round2(number), rounded, "{number}");
        }
    }

    #[test]
    fn the_request_has_the_documented_form() {
        let masks = read_all(&json!([effect("text")]), Origin::Request).unwrap();
        assert_eq!(
            Masks::new(&masks).unwrap().json,
            r#"[{"type":"remove_only_ocr","start":0,"end":12.5,"region":[[0.1,0.8],[0.9,0.8],[0.9,0.95],[0.1,0.95]]}]"#
        );
    }

    #[test]
    fn full_screen_only_where_every_mask_keeps() {
        for (kinds, mode) in [
            (&["protection"][..], Some(1)),
            (&["protection", "protection"], Some(1)),
            (&["protection", "text"], Some(2)),
            (&["erasure"], Some(2)),
            (&["text"], Some(2)),
            (&[], None),
        ] {
            let effects: Value = kinds.iter().map(|kind| effect(kind)).collect();
            let masks = read_all(&effects, Origin::Request).unwrap();
            assert_eq!(Masks::new(&masks).map(|masks| masks.mode), mode);
        }
    }

    #[test]
    fn boxes_are_clamped_after_adding() {
        for (given, expected) in [
            ([-0.1, 0.0, 0.3, 1.5], Some([0.0, 0.0, 0.2, 1.0])),
            ([0.5, 0.5, 0.005, 0.5], Some([0.5, 0.5, 0.51, 1.0])),
            ([0.5, 0.5, 0.004, 0.5], None),
            ([0.5, 0.5, 0.0, 0.5], None),
            ([0.5, 0.5, -0.1, 0.5], None),
            ([1.0, 0.0, 0.5, 0.5], None),
            ([-0.5, 0.0, 0.5, 0.5], None),
        ] {
            let [x, y, width, height] = given;
            let region = Region::new(x, y, width, height);
            assert_eq!(
                region.map(|r| [r.x1, r.y1, r.x2, r.y2]),
                expected,
                "{given:?}"
            );
        }
    }

    #[test]
    fn times_left_out_span_the_video() {
        let mut bare = effect("erasure");
        bare.as_object_mut()
            .unwrap()
            .retain(|key, _| !key.ends_with("Time"));
        let masks = read_all(&json!([bare]), Origin::Request).unwrap();
        assert_eq!((masks[0].start, masks[0].end), (0.0, TO_END_SECONDS));

        bare["startFrame"] = json!(3);
        bare["endFrame"] = json!(7);
        let masks = read_all(&json!([bare]), Origin::Stored).unwrap();
        assert_eq!((masks[0].start, masks[0].end), (3.0, 7.0));
        assert_eq!(
            faults(&json!([bare]), Origin::Request)[0],
            ("/effects/0/startFrame".to_owned(), FieldCode::UnknownField)
        );
    }

    #[test]
    fn every_fault_is_named_with_its_place() {
        use FieldCode as C;
        let region = |x: Value| json!({"x": x, "y": 0.1, "width": 0.5, "height": 0.5});
        for (effects, path, code) in [
            (json!("[]"), "", C::WrongType),
            (json!({}), "", C::WrongType),
            (json!([null]), "/0", C::WrongType),
            (
                json!(vec![effect("text"); MAX_EFFECTS + 1]),
                "",
                C::OutOfRange,
            ),
            (with("type", json!("blur")), "/0/type", C::Malformed),
            (with("type", json!(1)), "/0/type", C::WrongType),
            (with("startTime", Value::Null), "/0/startTime", C::WrongType),
            (with("endTime", Value::Null), "/0/endTime", C::WrongType),
            (with("startTime", json!("0")), "/0/startTime", C::WrongType),
            (with("startTime", json!(-1)), "/0/startTime", C::OutOfRange),
            (with("startTime", json!(12.5)), "/0/endTime", C::Order),
            (with("endTime", json!(100_000)), "/0/endTime", C::OutOfRange),
            (with("region", Value::Null), "/0/region", C::WrongType),
            (
                with("region", region(Value::Null)),
                "/0/region/x",
                C::WrongType,
            ),
            (
                with("region", region(json!("0.1"))),
                "/0/region/x",
                C::WrongType,
            ),
            (
                with("region", region(json!(640))),
                "/0/region/x",
                C::OutOfRange,
            ),
            (with("region", region(json!(1))), "/0/region", C::OutOfRange),
            (
                with("region", json!({"x": 0, "y": 0, "width": 1})),
                "/0/region/height",
                C::Missing,
            ),
        ] {
            for origin in [Origin::Request, Origin::Stored] {
                let expected = (format!("/effects{path}"), code);
                assert_eq!(faults(&effects, origin), [expected], "{effects}");
            }
        }
    }

    #[test]
    fn all_faults_come_together() {
        let effects = json!([
            {"type": "blur", "startTime": null, "region": {"x": "a"}},
            effect("text"),
            {"startTime": 900, "region": {"x": 0, "y": 0, "width": 0, "height": 1}},
        ]);
        let paths: Vec<_> = faults(&effects, Origin::Request)
            .into_iter()
            .map(|(path, _)| path)
            .collect();
        assert_eq!(
            paths,
            [
                "/effects/0/type",
                "/effects/0/region/x",
                "/effects/0/region/y",
                "/effects/0/region/width",
                "/effects/0/region/height",
                "/effects/0/startTime",
                "/effects/2/type",
                "/effects/2/region",
                "/effects/2/startTime",
            ]
        );
    }

    proptest! {
        #[test]
        fn masks_always_have_an_area_inside_the_picture(
            x in -2.0..=2.0, y in -2.0..=2.0, width in -2.0..=2.0, height in -2.0..=2.0,
        ) {
            let region = json!({"x": x, "y": y, "width": width, "height": height});
            if let Ok(masks) = read_all(&with("region", region), Origin::Stored) {
                let list: Value = serde_json::from_str(&Masks::new(&masks).unwrap().json).unwrap();
                let corner = |index: usize, axis: usize| list[0]["region"][index][axis].as_f64().unwrap();
                prop_assert!(0.0 <= corner(0, 0) && corner(0, 0) < corner(2, 0) && corner(2, 0) <= 1.0);
                prop_assert!(0.0 <= corner(0, 1) && corner(0, 1) < corner(2, 1) && corner(2, 1) <= 1.0);
                for (index, axis) in [(0, 0), (0, 1), (2, 0), (2, 1)] {
                    prop_assert_eq!(round2(corner(index, axis)), corner(index, axis));
                }
            }
        }
    }
}
