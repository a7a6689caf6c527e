//! What the vendors want of a job's files, checked against what is known of them before anything is paid for.
//!
//! Refuses only what must fail: what is not known is no fault. Must not read files. Limits and formats are those of the
//! vendors' documentation of 2026 (GhostCut's guide; Sync.so's pages on media and on error codes).

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::spec::JobSpec;
use crate::domain::effects::{MAX_VIDEO_SECONDS, TO_END_SECONDS};
use crate::domain::fields::{FieldCode, FieldError};
use crate::domain::media::{Container, MediaFacts};

/// Where a request names its video.
pub const VIDEO_PATH: &str = "/video_url";
/// GhostCut refuses files of 1000 MB and more.
const MAX_INPAINT_BYTES: u64 = 1_000_000_000;
/// Longest audio Sync.so takes (`generation_audio_length_exceeded`), in seconds.
const MAX_AUDIO_SECONDS: f64 = 300.0;
/// Containers round to frames and tracks differ a little in length; within this nothing is certain.
const TOLERANCE_SECONDS: f64 = 0.5;
/// The key of [`Inputs`] in `job_metadata`.
const METADATA_KEY: &str = "input_probe";
/// How long what was seen is believed. A URL that a user signed may end soon after.
const BELIEVED: TimeDelta = TimeDelta::minutes(10);

const SYNC_VIDEO: &[Container] = &[
    Container::Mp4,
    Container::Mov,
    Container::Webm,
    Container::Avi,
];
const SYNC_AUDIO: &[Container] = &[
    Container::Wav,
    Container::Mp3,
    Container::Ogg,
    Container::Flac,
    Container::Mp4,
    Container::M4a,
    Container::Aac,
];
/// GhostCut also takes MPEG program streams and playlists, which are not known containers and so are not refused.
const GHOSTCUT_VIDEO: &[Container] = &[
    Container::Mp4,
    Container::Mov,
    Container::Mkv,
    Container::Avi,
];

/// What was seen of the files of a job. Kept in `job_metadata.input_probe`, which nobody sends to a vendor and no answer of
/// the API shows, so that a worker does not look again at what intake has just seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    /// When.
    pub checked_at: DateTime<Utc>,
    /// Whether durations were looked for: one that is absent could not be known then.
    pub measured: bool,
    /// The video; absent where it could not be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video: Option<MediaFacts>,
    /// The audio files by the names that segments call them, without those that could not be looked at.
    #[serde(default)]
    pub audio: BTreeMap<String, MediaFacts>,
}

impl Inputs {
    /// Nothing was seen yet. `measured`: whether durations will be looked for.
    #[must_use]
    pub const fn unseen(now: DateTime<Utc>, measured: bool) -> Self {
        Self {
            checked_at: now,
            measured,
            video: None,
            audio: BTreeMap::new(),
        }
    }

    /// What a row says was seen shortly before `now`, as closely as is wanted now.
    #[must_use]
    pub fn from_metadata(
        metadata: Option<&Value>,
        now: DateTime<Utc>,
        measured: bool,
    ) -> Option<Self> {
        let seen = Self::deserialize(metadata?.get(METADATA_KEY)?).ok()?;
        // A clock may be ahead of the other one.
        let recent = (now - seen.checked_at).abs() < BELIEVED;
        (recent && (seen.measured || !measured)).then_some(seen)
    }

    /// Writes it into a row's metadata, unless nothing was seen.
    pub fn store(&self, metadata: &mut Value) {
        if (self.video.is_some() || !self.audio.is_empty())
            && let Some(metadata) = metadata.as_object_mut()
            && let Ok(value) = serde_json::to_value(self)
        {
            metadata.insert(METADATA_KEY.to_owned(), value);
        }
    }

    /// Everything that makes a vendor refuse the job or its work fail. Paths are those of a request, also for a stored job:
    /// its owner knows those.
    #[must_use]
    pub fn faults(&self, spec: &JobSpec) -> Vec<FieldError> {
        let mut faults = Vec::new();
        if let Some(video) = &self.video {
            let (vendor, taken) = if spec.has_segments() {
                ("Sync.so", SYNC_VIDEO)
            } else {
                ("GhostCut", GHOSTCUT_VIDEO)
            };
            faults.extend(refused_format(VIDEO_PATH, video, vendor, taken));
            if spec.has_effects() {
                // With segments it is Sync.so's result that GhostCut gets: as long, about as large, and paid for by then.
                faults.extend(refused_by_ghostcut(VIDEO_PATH, video));
            }
            if let Some(seconds) = video.seconds {
                check_segments(spec, seconds, &mut faults);
                check_masks(spec, seconds, &mut faults);
            }
        }
        for (ref_id, audio) in &self.audio {
            check_audio(spec, ref_id, audio, &mut faults);
        }
        faults
    }

    /// What a new request should not ask for although a vendor takes it: masks that end after the video. Rows of the replaced
    /// application have such masks, where frames were taken as seconds.
    #[must_use]
    pub fn doubts(&self, spec: &JobSpec) -> Vec<FieldError> {
        let Some(seconds) = self.video.as_ref().and_then(|video| video.seconds) else {
            return Vec::new();
        };
        let late = |(index, (start, end)): (usize, &(f64, f64))| {
            let past = *end > seconds + TOLERANCE_SECONDS && *end < TO_END_SECONDS;
            (past && *start < seconds).then(|| {
                let end_of = end_of("the video", seconds);
                let message = format!("{end_of}; leave it out to mean the end");
                out_of_range(format!("/effects/{index}/endTime"), message)
            })
        };
        mask_times(spec)
            .iter()
            .enumerate()
            .filter_map(late)
            .collect()
    }
}

/// Why GhostCut would refuse a video for its size or length; `path` says which video.
#[must_use]
pub fn refused_by_ghostcut(path: &str, video: &MediaFacts) -> Vec<FieldError> {
    let mut faults = Vec::new();
    if video.bytes.is_some_and(|bytes| bytes >= MAX_INPAINT_BYTES) {
        let message = "must be smaller than 1000 MB in a job with effects".to_owned();
        faults.push(out_of_range(path.to_owned(), message));
    }
    if let Some(seconds) = video.seconds
        && seconds > MAX_VIDEO_SECONDS + TOLERANCE_SECONDS
    {
        let message = format!(
            "must last at most {MAX_VIDEO_SECONDS} seconds in a job with effects, and lasts {seconds:.1}"
        );
        faults.push(out_of_range(path.to_owned(), message));
    }
    faults
}

fn refused_format(
    path: &str,
    file: &MediaFacts,
    vendor: &str,
    taken: &[Container],
) -> Option<FieldError> {
    let container = file.container.filter(|found| !taken.contains(found))?;
    let names: Vec<_> = taken.iter().map(ToString::to_string).collect();
    Some(FieldError {
        path: path.to_owned(),
        code: FieldCode::Malformed,
        message: format!(
            "is {container}, and {vendor} takes {} here",
            names.join(", ")
        ),
    })
}

fn check_segments(spec: &JobSpec, seconds: f64, faults: &mut Vec<FieldError>) {
    for (index, segment) in spec.segments.iter().enumerate() {
        if segment.end() > seconds + TOLERANCE_SECONDS {
            let path = format!("/segments/{index}/endTime");
            faults.push(out_of_range(path, end_of("the video", seconds)));
        }
    }
}

fn check_masks(spec: &JobSpec, seconds: f64, faults: &mut Vec<FieldError>) {
    for (index, (start, _)) in mask_times(spec).iter().enumerate() {
        if *start >= seconds + TOLERANCE_SECONDS {
            let path = format!("/effects/{index}/startTime");
            faults.push(out_of_range(path, end_of("the video", seconds)));
        }
    }
}

fn check_audio(spec: &JobSpec, ref_id: &str, audio: &MediaFacts, faults: &mut Vec<FieldError>) {
    // Names of new requests need no escape; those of rows may.
    let path = format!("/audio/{}", ref_id.replace('~', "~0").replace('/', "~1"));
    faults.extend(refused_format(&path, audio, "Sync.so", SYNC_AUDIO));
    let Some(seconds) = audio.seconds else {
        return;
    };
    if seconds > MAX_AUDIO_SECONDS + TOLERANCE_SECONDS {
        let message =
            format!("must last at most {MAX_AUDIO_SECONDS} seconds, and lasts {seconds:.1}");
        faults.push(out_of_range(path, message));
    }
    for (index, segment) in spec.segments.iter().enumerate() {
        if let Some((_, end)) = segment.crop_of(ref_id)
            && end > seconds + TOLERANCE_SECONDS
        {
            let path = format!("/segments/{index}/audioInput/endTime");
            faults.push(out_of_range(path, end_of("the audio", seconds)));
        }
    }
}

fn mask_times(spec: &JobSpec) -> &[(f64, f64)] {
    spec.masks.as_ref().map_or(&[], |masks| &masks.times)
}

fn end_of(what: &str, seconds: f64) -> String {
    format!("must be within {what}, which lasts {seconds:.2} seconds")
}

const fn out_of_range(path: String, message: String) -> FieldError {
    FieldError {
        path,
        code: FieldCode::OutOfRange,
        message,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Segments at 0-5 and 5-10, the second cropping `b` to 2-7; masks at 0-8 and 9-99999.
    fn spec(segments: bool, effects: bool) -> JobSpec {
        let region = json!({"x": 0, "y": 0, "width": 1, "height": 0.5});
        let masks = json!([{"type": "text", "startTime": 0, "endTime": 8, "region": region},
            {"type": "text", "startTime": 9, "region": region}]);
        let list = json!([{"startTime": 0, "endTime": 5, "audioInput": {"refId": "a"}},
            {"startTime": 5, "endTime": 10, "audioInput": {"refId": "b", "startTime": 2, "endTime": 7}}]);
        let audio = json!({"a": "https://a.example/a", "b": "https://a.example/b"});
        JobSpec::from_row(
            effects.then(|| json!({"effects": masks})).as_ref(),
            segments.then(|| json!({"segments": list})).as_ref(),
            Some(&json!({"video_url": "https://a.example/v",
                "audio_url_mapping": if segments { audio } else { json!({}) }})),
        )
        .unwrap()
    }

    fn lasting(seconds: f64) -> MediaFacts {
        MediaFacts {
            seconds: Some(seconds),
            ..MediaFacts::default()
        }
    }

    fn of(container: Container) -> MediaFacts {
        MediaFacts {
            container: Some(container),
            ..MediaFacts::default()
        }
    }

    fn seen(video: MediaFacts, audio: &[(&str, MediaFacts)]) -> Inputs {
        let audio = audio
            .iter()
            .map(|(name, facts)| ((*name).to_owned(), facts.clone()));
        Inputs {
            video: Some(video),
            audio: audio.collect(),
            ..Inputs::unseen(DateTime::UNIX_EPOCH, true)
        }
    }

    fn paths(faults: &[FieldError]) -> Vec<&str> {
        faults.iter().map(|fault| fault.path.as_str()).collect()
    }

    #[test]
    fn what_is_not_known_is_no_fault() {
        let unseen = Inputs::unseen(DateTime::UNIX_EPOCH, true);
        let unknown = seen(MediaFacts::default(), &[("a", MediaFacts::default())]);
        for inputs in [unseen, unknown] {
            for (segments, effects) in [(true, true), (true, false), (false, true)] {
                let spec = spec(segments, effects);
                assert_eq!(inputs.faults(&spec), []);
                assert_eq!(inputs.doubts(&spec), []);
            }
        }
    }

    #[test]
    fn times_have_to_lie_within_the_files() {
        for (video, audio, expected) in [
            (10.0, 7.0, &[][..]),
            (9.6, 6.6, &[]),
            (9.4, 7.0, &["/segments/1/endTime"]),
            (
                8.0,
                6.0,
                &[
                    "/segments/1/endTime",
                    "/effects/1/startTime",
                    "/segments/1/audioInput/endTime",
                ],
            ),
            (
                4.0,
                300.6,
                &[
                    "/segments/0/endTime",
                    "/segments/1/endTime",
                    "/effects/1/startTime",
                    "/audio/b",
                ],
            ),
            (900.5, 300.5, &[]),
            (900.6, 7.0, &["/video_url"]),
        ] {
            let inputs = seen(lasting(video), &[("b", lasting(audio))]);
            let faults = inputs.faults(&spec(true, true));
            assert_eq!(paths(&faults), expected, "{video} {audio}");
            assert!(
                faults
                    .iter()
                    .all(|fault| fault.code == FieldCode::OutOfRange)
            );
        }
        // Sync.so's own limit on videos depends on the plan.
        assert_eq!(seen(lasting(2000.0), &[]).faults(&spec(true, false)), []);
    }

    #[test]
    fn a_mask_may_end_with_the_video_but_not_long_after() {
        for (video, expected) in [(8.0, &[][..]), (7.6, &[]), (7.4, &["/effects/0/endTime"])] {
            let doubts = seen(lasting(video), &[]).doubts(&spec(false, true));
            assert_eq!(paths(&doubts), expected, "{video}");
        }
    }

    #[test]
    fn formats_and_sizes_are_those_of_the_vendor_that_gets_the_file() {
        let of_size = |bytes| MediaFacts {
            bytes: Some(bytes),
            ..MediaFacts::default()
        };
        for (segments, effects, video, refused) in [
            (true, false, of(Container::Mp4), false),
            (true, false, of(Container::Mkv), true),
            (true, false, of(Container::Wav), true),
            (true, true, of(Container::Webm), false),
            (false, true, of(Container::Mkv), false),
            (false, true, of(Container::Webm), true),
            (true, false, of_size(MAX_INPAINT_BYTES), false),
            (true, true, of_size(MAX_INPAINT_BYTES - 1), false),
            (true, true, of_size(MAX_INPAINT_BYTES), true),
            (false, true, of_size(MAX_INPAINT_BYTES), true),
        ] {
            let faults = seen(video.clone(), &[]).faults(&spec(segments, effects));
            let expected = if refused { &[VIDEO_PATH][..] } else { &[] };
            assert_eq!(paths(&faults), expected, "{segments} {effects} {video:?}");
        }
        for container in Container::ALL {
            let inputs = seen(MediaFacts::default(), &[("a", of(container))]);
            let refused = !SYNC_AUDIO.contains(&container);
            let faults = inputs.faults(&spec(true, false));
            let expected = if refused { &["/audio/a"][..] } else { &[] };
            assert_eq!(paths(&faults), expected, "{container}");
        }
    }

    #[test]
    fn what_was_seen_is_believed_for_a_while() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let mut inputs = seen(lasting(3.04), &[("a", of(Container::M4a))]);
        inputs.checked_at = now;
        let mut metadata = json!({"segments_count": 1});
        inputs.store(&mut metadata);
        assert_eq!(
            metadata["input_probe"]["audio"],
            json!({"a": {"container": "m4a"}})
        );
        for (minutes, believed) in [(0, true), (9, true), (-9, true), (10, false), (-10, false)] {
            let read =
                Inputs::from_metadata(Some(&metadata), now + TimeDelta::minutes(minutes), true);
            assert_eq!(read, believed.then(|| inputs.clone()), "{minutes}");
        }
        // A glance does not tell durations.
        inputs.measured = false;
        inputs.store(&mut metadata);
        for measured in [true, false] {
            let read = Inputs::from_metadata(Some(&metadata), now, measured);
            assert_eq!(read.is_some(), !measured);
        }
        for odd in [json!(null), json!({}), json!({"input_probe": {"video": 3}})] {
            assert_eq!(Inputs::from_metadata(Some(&odd), now, false), None, "{odd}");
        }
        let mut untouched = json!({});
        Inputs::unseen(now, true).store(&mut untouched);
        assert_eq!(untouched, json!({}));
    }
}
