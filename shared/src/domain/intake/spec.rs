//! What the workers need to know of a job, read from its row.

use serde_json::Value;

use crate::domain::Stage;
use crate::domain::effects::{self, MAX_VIDEO_SECONDS, Masks};
use crate::domain::fields::{Faults, FieldCode, FieldError, Node, Origin, decoded};
use crate::domain::location::Location;
use crate::domain::metadata;
use crate::domain::segments::{self, AudioInput, MAX_SEGMENTS, Segment};

/// Where applications keep the input video in `job_metadata`; the first that is there counts.
const VIDEO_KEYS: [&str; 3] = ["video_s3_url", "s3_video_url", "video_url"];

/// What a job asks for. Has segments or masks, or both.
#[derive(Clone, Debug, PartialEq)]
pub struct JobSpec {
    /// The input video.
    pub video: Location,
    /// The audio files, in the order in which segments first name them.
    pub audio: Vec<AudioInput>,
    /// What Sync.so is to do; may be empty.
    pub segments: Vec<Segment>,
    /// What GhostCut is to do.
    pub masks: Option<Masks>,
}

/// A row that says nothing sensible: the job fails before anything is paid for.
/// Each path begins with the name of the column.
#[derive(Debug, thiserror::Error)]
#[error("{}", summary(.0))]
pub struct SpecError(pub Vec<FieldError>);

fn summary(faults: &[FieldError]) -> String {
    /// As many as a person reads in one line.
    const SHOWN: usize = 3;
    let shown: Vec<_> = faults
        .iter()
        .take(SHOWN)
        .map(FieldError::to_string)
        .collect();
    let more = match faults.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!("{}{more}", shown.join("; "))
}

impl JobSpec {
    /// Reads the columns of a row, whoever wrote it: `processing_config`, its `effects` and `segments_data` may each
    /// be JSON inside a text. Null columns ask for nothing.
    ///
    /// # Errors
    /// Every fault, and a row that asks for nothing at all.
    pub fn from_row(
        processing_config: Option<&Value>,
        segments_data: Option<&Value>,
        job_metadata: Option<&Value>,
    ) -> Result<Self, SpecError> {
        let faults = Faults::default();
        let config = decoded("processing_config", processing_config, &faults);
        let segments = decoded("segments_data", segments_data, &faults);
        let metadata = Node::new("job_metadata", job_metadata, &faults);
        let [config, segments] = [("processing_config", &config), ("segments_data", &segments)]
            .map(|(column, value)| Node::new(column, Some(value.as_ref()), &faults));
        for column in [&config, &segments] {
            if !column.is_null() {
                column.map();
            }
        }
        let effects = config.get("effects");
        let decoded_effects = decoded(effects.path(), effects.value(), &faults);
        let video_key = VIDEO_KEYS
            .into_iter()
            .find(|key| job_metadata.is_some_and(|value| metadata::text(value, key).is_some()))
            .unwrap_or(VIDEO_KEYS[0]);

        let spec = Self::read(
            &Parts {
                video: metadata.get(video_key),
                audio: metadata.get("audio_url_mapping"),
                segments: segments.get("segments"),
                effects: Node::new(effects.path(), Some(&decoded_effects), &faults),
            },
            Origin::Stored,
            MAX_SEGMENTS,
        );
        faults.unless_any(spec).map_err(SpecError)
    }

    /// Reads the parts of a job. The result counts only if no fault was added.
    pub(super) fn read(parts: &Parts<'_>, origin: Origin, max_segments: usize) -> Option<Self> {
        let video = Location::read(&parts.video);
        let (segments, audio) = segments::read(&parts.segments, &parts.audio, origin, max_segments);
        let masks = Masks::new(&effects::read(&parts.effects, origin));
        if parts.segments.is_nothing() && parts.effects.is_nothing() {
            parts.segments.fault(
                FieldCode::Empty,
                "a job needs segments or effects, and this one has neither",
            );
        }
        // GhostCut refuses longer videos, and it would do so after Sync.so was paid.
        if masks.is_some()
            && let Some(last) = segments.last()
            && last.end() > MAX_VIDEO_SECONDS
        {
            let index = segments.len() - 1;
            let end = parts.segments.get(&index.to_string()).get("endTime");
            end.fault(
                FieldCode::OutOfRange,
                format!("must be at most {MAX_VIDEO_SECONDS} in a job with effects"),
            );
        }
        Some(Self {
            video: video?,
            audio,
            segments,
            masks,
        })
    }

    /// Whether Sync.so has something to do.
    #[must_use]
    pub const fn has_segments(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Whether GhostCut has something to do.
    #[must_use]
    pub const fn has_effects(&self) -> bool {
        self.masks.is_some()
    }

    /// Where the job begins: at Sync.so, or at GhostCut with a video that has to be in our bucket first.
    #[must_use]
    pub const fn first_stage(&self, video_is_ours: bool) -> Stage {
        match (self.has_segments(), video_is_ours) {
            (true, _) => Stage::LipsyncSubmit,
            (false, true) => Stage::InpaintSubmit,
            (false, false) => Stage::SourceImport,
        }
    }
}

/// The places of a document where the parts of a job are.
pub(super) struct Parts<'a> {
    pub(super) video: Node<'a>,
    pub(super) audio: Node<'a>,
    pub(super) segments: Node<'a>,
    pub(super) effects: Node<'a>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn effects() -> Value {
        json!([{"type": "erasure", "startTime": 0, "endTime": 5,
            "region": {"x": 0.1, "y": 0.1, "width": 0.5, "height": 0.5}}])
    }

    fn segments() -> Value {
        json!({"segments": [{"startTime": 0, "endTime": 5, "label": "x",
            "audioInput": {"refId": "a", "startTime": null, "endTime": null}}], "total_segments": 1})
    }

    fn pro_metadata() -> Value {
        json!({"video_s3_url": "https://b.s3.amazonaws.com/我的 video.mp4", "segments_count": 1,
            "audio_url_mapping": {"a": "https://b.s3.amazonaws.com/a.wav"}})
    }

    fn paths(error: &SpecError) -> Vec<&str> {
        error.0.iter().map(|fault| fault.path.as_str()).collect()
    }

    #[test]
    fn a_row_of_the_replaced_application_is_understood() {
        let config = json!({"effects": effects()});
        let spec =
            JobSpec::from_row(Some(&config), Some(&segments()), Some(&pro_metadata())).unwrap();
        assert_eq!(
            spec.video.to_text(),
            "https://b.s3.amazonaws.com/%E6%88%91%E7%9A%84%20video.mp4"
        );
        assert_eq!(spec.audio[0].ref_id, "a");
        assert!(spec.has_segments() && spec.has_effects());
        assert_eq!(spec.first_stage(false), Stage::LipsyncSubmit);
    }

    #[test]
    fn json_inside_a_text_is_read_once() {
        let plain = json!({"effects": effects()});
        let metadata = json!({"video_url": "s3://bucket/v.mp4", "video_s3_url": "None"});
        let expected = JobSpec::from_row(Some(&plain), None, Some(&metadata)).unwrap();
        for config in [
            json!(plain.to_string()),
            json!({"effects": effects().to_string()}),
            json!(json!({"effects": effects().to_string()}).to_string()),
        ] {
            let spec = JobSpec::from_row(Some(&config), None, Some(&metadata)).unwrap();
            assert_eq!(spec, expected);
        }
        let twice = json!({"effects": json!(effects().to_string()).to_string()});
        let error = JobSpec::from_row(Some(&twice), None, Some(&metadata)).unwrap_err();
        assert_eq!(paths(&error), ["processing_config/effects"]);
    }

    #[test]
    fn rows_without_effects_end_after_lip_sync() {
        for config in [
            None,
            Some(json!(null)),
            Some(json!({})),
            Some(json!({"effects": null})),
            Some(json!({"effects": []})),
            Some(json!({"effects": "[]", "other": 1})),
        ] {
            let spec = JobSpec::from_row(config.as_ref(), Some(&segments()), Some(&pro_metadata()));
            assert!(!spec.unwrap().has_effects(), "{config:?}");
        }
    }

    #[test]
    fn rows_without_segments_begin_at_ghostcut() {
        let config = json!({"effects": effects()});
        let metadata = json!({"s3_video_url": "https://b.s3.amazonaws.com/v.mp4"});
        for segments in [None, Some(json!(null)), Some(json!({"segments": []}))] {
            let spec =
                JobSpec::from_row(Some(&config), segments.as_ref(), Some(&metadata)).unwrap();
            assert_eq!(spec.first_stage(true), Stage::InpaintSubmit);
            assert_eq!(spec.first_stage(false), Stage::SourceImport);
        }
    }

    #[test]
    fn invalid_rows_name_column_and_place() {
        let bad_effect = json!({"effects": [{"type": "blur", "region": null}]});
        let metadata = json!({"video_s3_url": 7, "audio_url_mapping": {"a": "x"}});
        let error =
            JobSpec::from_row(Some(&bad_effect), Some(&segments()), Some(&metadata)).unwrap_err();
        assert_eq!(
            paths(&error),
            [
                "job_metadata/video_s3_url",
                "job_metadata/audio_url_mapping/a",
                "processing_config/effects/0/type",
                "processing_config/effects/0/region",
            ]
        );
        assert_eq!(
            error.to_string(),
            "job_metadata/video_s3_url: must be a text; job_metadata/audio_url_mapping/a: must be a URL; \
             processing_config/effects/0/type: must be `erasure`, `protection` or `text`; and 1 more"
        );
    }

    #[test]
    fn rows_that_ask_for_nothing_or_say_nothing_are_refused() {
        let text = json!("not JSON");
        for (config, segments, metadata, expected) in [
            (
                None,
                None,
                Some(pro_metadata()),
                &["job_metadata/audio_url_mapping/a", "segments_data/segments"][..],
            ),
            (
                None,
                Some(segments()),
                None,
                &[
                    "job_metadata/video_s3_url",
                    "segments_data/segments/0/audioInput/refId",
                ],
            ),
            (
                Some(text.clone()),
                Some(segments()),
                Some(pro_metadata()),
                &["processing_config"],
            ),
            (
                Some(json!([])),
                Some(segments()),
                Some(pro_metadata()),
                &["processing_config"],
            ),
        ] {
            let error = JobSpec::from_row(config.as_ref(), segments.as_ref(), metadata.as_ref());
            assert_eq!(paths(&error.unwrap_err()), expected);
        }
    }

    /// Any JSON, made of the keys that are read so that it gets past the first check.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "erasure|text|None|a|\\[\\]|https://a.example/v|\\PC{0,8}".prop_map(Value::from),
        ];
        let key = "effects|segments|type|region|x|y|width|height|startTime|endTime|startFrame|audioInput|refId\
            |video_s3_url|audio_url_mapping|a";
        leaf.prop_recursive(6, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..6)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_row_is_understood_or_refused(config in any_json(), segments in any_json(), metadata in any_json()) {
            match JobSpec::from_row(Some(&config), Some(&segments), Some(&metadata)) {
                Ok(spec) => prop_assert!(spec.has_segments() || spec.has_effects()),
                Err(error) => prop_assert!(!error.0.is_empty()),
            }
        }
    }
}
