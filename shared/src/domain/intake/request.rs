//! The request of `POST /v1/jobs` and the row it becomes.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::spec::{JobSpec, Parts};
use crate::domain::Stage;
use crate::domain::fields::{Faults, FieldCode, FieldError, Node, Origin};
use crate::domain::location::Location;
use crate::domain::notice::{MAX_URL_LENGTH, Target};
use crate::domain::words::vocabulary;

/// Longest name in `video_jobs`, in characters (`varchar(500)`).
const MAX_NAME_LENGTH: usize = 500;
/// Every field of a request.
const FIELDS: [&str; 9] = [
    "user_id",
    "display_name",
    "original_filename",
    "video_url",
    "audio",
    "segments",
    "effects",
    "priority",
    CALLBACK_URL,
];
/// The field that names who is told that the job has ended.
pub const CALLBACK_URL: &str = "callback_url";

vocabulary! {
    /// How soon a job is dispatched compared with others.
    Priority {
        /// Before the others.
        High = "high",
        /// The default.
        Normal = "normal",
        /// After the others.
        Low = "low",
    }
}

impl Priority {
    /// The class stored in `job_stages`; lower goes first.
    #[must_use]
    pub const fn class(self) -> i16 {
        match self {
            Self::High => 0,
            Self::Normal => 1,
            Self::Low => 2,
        }
    }
}

/// A valid request as the values of its columns in `video_jobs` and `job_stages`. Holds URLs that may be signed, so
/// it is not `Debug`.
#[derive(Clone, PartialEq)]
pub struct NewJob {
    /// `user_id`.
    pub user_id: Uuid,
    /// `display_name`.
    pub display_name: Option<String>,
    /// `original_filename`: as given, or the end of the video's URL.
    pub original_filename: String,
    /// `processing_config`: `{"effects":[...]}`.
    pub processing_config: Value,
    /// `segments_data`; null in a job without segments.
    pub segments_data: Option<Value>,
    /// `job_metadata`: the video, the audio files and the number of segments.
    pub job_metadata: Value,
    /// `is_pro_job`: the replaced application's name for jobs with this pipeline, always true.
    pub is_pro_job: bool,
    /// `job_stages.priority`.
    pub priority: Priority,
    /// `job_stages.stage`.
    pub first_stage: Stage,
    /// `notice_targets`: who is told that the job has ended.
    pub notify: Option<Target>,
}

impl NewJob {
    /// Reads a request. `max_segments` is the deployment's limit, at most
    /// [`MAX_SEGMENTS`](crate::domain::segments::MAX_SEGMENTS); `is_ours` says whether a location is in our bucket.
    ///
    /// # Errors
    /// Every fault of the request, each with a JSON pointer.
    pub fn from_request(
        request: &Value,
        max_segments: usize,
        is_ours: impl Fn(&Location) -> bool,
    ) -> Result<Self, Vec<FieldError>> {
        let faults = Faults::default();
        let job = Self::read(
            &Node::new("", Some(request), &faults),
            max_segments,
            is_ours,
        );
        faults.unless_any(job)
    }

    fn read(
        root: &Node<'_>,
        max_segments: usize,
        is_ours: impl Fn(&Location) -> bool,
    ) -> Option<Self> {
        root.object(Origin::Request, &FIELDS)?;
        let user_id = read_user(&root.get("user_id"));
        let [display_name, file_name] = ["display_name", "original_filename"].map(|key| {
            let name = root.get(key);
            if name.is_null() {
                None
            } else {
                name.text(MAX_NAME_LENGTH)
            }
        });
        let priority = read_priority(&root.get("priority"));
        let notify = read_target(&root.get(CALLBACK_URL));
        let [video, audio, segments, effects] =
            ["video_url", "audio", "segments", "effects"].map(|key| root.get(key));
        let list = |node: &Node<'_>| node.value().and_then(Value::as_array).cloned();
        let (segment_list, effect_list) = (list(&segments), list(&effects));
        let parts = Parts {
            video,
            audio,
            segments,
            effects,
        };
        let spec = JobSpec::read(&parts, Origin::Request, max_segments)?;
        Some(Self {
            user_id: user_id?,
            display_name: display_name.map(str::to_owned),
            original_filename: file_name.map_or_else(|| name_of(&spec.video), str::to_owned),
            processing_config: json!({"effects": effect_list.unwrap_or_default()}),
            segments_data: segment_list
                .filter(|list| !list.is_empty())
                .map(|list| json!({"total_segments": list.len(), "segments": list})),
            job_metadata: metadata_of(&spec),
            is_pro_job: true,
            priority: priority?,
            first_stage: spec.first_stage(is_ours(&spec.video)),
            notify,
        })
    }
}

fn read_user(node: &Node<'_>) -> Option<Uuid> {
    let user = node.raw_text()?.parse().ok();
    if user.is_none() {
        node.fault(FieldCode::Malformed, "must be a UUID");
    }
    user
}

fn read_priority(node: &Node<'_>) -> Option<Priority> {
    if node.is_null() {
        return Some(Priority::Normal);
    }
    let priority = node.raw_text()?.parse().ok();
    if priority.is_none() {
        node.fault(FieldCode::Malformed, "must be `low`, `normal` or `high`");
    }
    priority
}

/// Where it may lead is decided by the deployment, in the producer's intake.
fn read_target(node: &Node<'_>) -> Option<Target> {
    if node.is_null() {
        return None;
    }
    match Target::read(node.text(MAX_URL_LENGTH)?) {
        Ok(target) => Some(target),
        Err(message) => {
            node.fault(FieldCode::Malformed, message);
            None
        }
    }
}

fn name_of(video: &Location) -> String {
    let name = video.file_name().unwrap_or_else(|| "video".to_owned());
    name.chars().take(MAX_NAME_LENGTH).collect()
}

fn metadata_of(spec: &JobSpec) -> Value {
    let audio: Map<_, _> = spec
        .audio
        .iter()
        .map(|audio| (audio.ref_id.clone(), audio.location.to_text().into()))
        .collect();
    json!({
        "video_s3_url": spec.video.to_text(),
        "audio_url_mapping": audio,
        "segments_count": spec.segments.len(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const USER: &str = "7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001";

    fn request() -> Value {
        json!({
            "user_id": USER,
            "video_url": "https://a.example/x/my%20video.mp4?X-Amz-Signature=abc",
            "audio": {"a": "https://a.example/a.wav"},
            "segments": [{"startTime": 0, "endTime": 5, "audioInput": {"refId": "a"}, "label": "intro"}],
            "effects": [{"type": "text", "startTime": 0, "endTime": 5,
                "region": {"x": 0.1, "y": 0.8, "width": 0.8, "height": 0.15}}],
        })
    }

    fn read(request: &Value) -> Result<NewJob, Vec<FieldError>> {
        NewJob::from_request(
            request,
            5,
            |video| matches!(video, Location::Object { bucket, .. } if bucket == "ours"),
        )
    }

    fn job(request: &Value) -> NewJob {
        read(request).unwrap_or_else(|faults| panic!("{faults:?}"))
    }

    fn faults(request: &Value) -> Vec<(String, FieldCode)> {
        let faults = read(request).err().unwrap_or_default();
        faults.into_iter().map(|f| (f.path, f.code)).collect()
    }

    fn spec(job: &NewJob) -> JobSpec {
        JobSpec::from_row(
            Some(&job.processing_config),
            job.segments_data.as_ref(),
            Some(&job.job_metadata),
        )
        .unwrap()
    }

    #[test]
    fn a_request_becomes_the_columns_of_its_row() {
        let job = job(&request());
        assert_eq!(job.user_id.to_string(), USER);
        assert_eq!(job.display_name, None);
        assert_eq!(job.original_filename, "my video.mp4");
        assert_eq!(
            job.processing_config,
            json!({"effects": request()["effects"]})
        );
        assert_eq!(
            job.segments_data,
            Some(json!({"segments": request()["segments"], "total_segments": 1}))
        );
        assert_eq!(
            job.job_metadata,
            json!({"video_s3_url": request()["video_url"], "audio_url_mapping": request()["audio"],
                "segments_count": 1})
        );
        assert!(job.is_pro_job);
        assert_eq!(job.priority, Priority::Normal);
        assert_eq!(job.first_stage, Stage::LipsyncSubmit);
    }

    #[test]
    fn the_parts_decide_the_first_stage() {
        let mut without_segments = request();
        without_segments.as_object_mut().unwrap().remove("segments");
        without_segments["audio"] = Value::Null;
        let job_abroad = job(&without_segments);
        assert_eq!(job_abroad.first_stage, Stage::SourceImport);
        assert_eq!(job_abroad.segments_data, None);
        without_segments["video_url"] = json!("s3://ours/v.mp4");
        assert_eq!(job(&without_segments).first_stage, Stage::InpaintSubmit);

        let mut without_effects = request();
        without_effects["effects"] = json!([]);
        let job = job(&without_effects);
        assert_eq!(job.first_stage, Stage::LipsyncSubmit);
        assert!(!spec(&job).has_effects());
    }

    #[test]
    fn names_and_priority_are_taken_as_given() {
        let mut request = request();
        request["display_name"] = json!("片段 1");
        request["original_filename"] = json!("clip.mov");
        request["priority"] = json!("high");
        request["callback_url"] = json!("https://hooks.example/end?key=1");
        let job = job(&request);
        let host = job.notify.map(|target| target.host);
        assert_eq!(host.as_deref(), Some("hooks.example"));
        assert_eq!(job.display_name.as_deref(), Some("片段 1"));
        assert_eq!(job.original_filename, "clip.mov");
        assert_eq!(job.priority, Priority::High);
        assert!(Priority::High.class() < Priority::Normal.class());
        assert!(Priority::Normal.class() < Priority::Low.class());
    }

    #[test]
    fn long_names_of_urls_are_cut() {
        let mut request = request();
        request["video_url"] = json!(format!("https://a.example/{}", "x".repeat(1000)));
        assert_eq!(job(&request).original_filename.len(), MAX_NAME_LENGTH);
        request["video_url"] = json!("https://a.example");
        assert_eq!(job(&request).original_filename, "video");
    }

    #[test]
    fn every_fault_is_named_with_its_place() {
        use FieldCode as C;
        for (path, value, code) in [
            ("/user_id", json!("me"), C::Malformed),
            ("/user_id", Value::Null, C::WrongType),
            ("/display_name", json!(""), C::OutOfRange),
            ("/display_name", json!("x".repeat(501)), C::OutOfRange),
            ("/display_name", json!("a\0b"), C::Malformed),
            ("/original_filename", json!(1), C::WrongType),
            ("/video_url", json!("C:\\v.mp4"), C::Malformed),
            ("/video_url", json!("https://u:p@a.example/v"), C::Malformed),
            ("/video_url", json!("x".repeat(2049)), C::OutOfRange),
            ("/audio", json!([]), C::WrongType),
            ("/priority", json!("urgent"), C::Malformed),
            ("/callback_url", json!("hooks.example"), C::Malformed),
            ("/callback_url", json!(7), C::WrongType),
            ("/callback_url", json!(""), C::OutOfRange),
            ("/resolution", json!("4k"), C::UnknownField),
        ] {
            let mut request = request();
            request[&path[1..]] = value;
            assert_eq!(faults(&request), [(path.to_owned(), code)]);
        }
        for request in [json!(null), json!([]), json!("{}")] {
            assert_eq!(faults(&request), [(String::new(), C::WrongType)]);
        }
    }

    #[test]
    fn all_faults_come_together() {
        let request = json!({
            "display_name": 1,
            "video_url": "ftp://a.example/v.mp4",
            "audio": {"a": "https://a.example/a.wav", "b": ""},
            "segments": [{"startTime": "0", "endTime": 5, "audioInput": {"refId": "c"}}],
            "effects": [{"type": "text", "region": {"x": 0, "y": 0, "width": 1, "height": 0}}],
            "colour": "red",
        });
        let paths: Vec<_> = faults(&request).into_iter().map(|(path, _)| path).collect();
        assert_eq!(
            paths,
            [
                "/colour",
                "/user_id",
                "/display_name",
                "/video_url",
                "/segments/0/startTime",
                "/segments/0/audioInput/refId",
                "/audio/a",
                "/audio/b",
                "/audio/b",
                "/effects/0/region",
            ]
        );
    }

    #[test]
    fn a_job_without_anything_to_do_is_refused() {
        for nothing in [json!(null), json!([])] {
            let request = json!({"user_id": USER, "video_url": "s3://ours/v.mp4",
                "segments": nothing, "effects": nothing});
            assert_eq!(
                faults(&request),
                [("/segments".to_owned(), FieldCode::Empty)]
            );
        }
    }

    #[test]
    fn a_video_too_long_for_ghostcut_is_refused_before_sync_is_paid() {
        let mut request = request();
        request["segments"][0]["endTime"] = json!(900.5);
        assert_eq!(
            faults(&request),
            [("/segments/0/endTime".to_owned(), FieldCode::OutOfRange)]
        );
        request["effects"] = json!([]);
        assert!(read(&request).is_ok());
    }

    #[test]
    fn faults_do_not_repeat_values() {
        let mut request = request();
        request["video_url"] = json!("https://u:SECRET@a.example/v?X-Amz-Signature=SECRET#x");
        request["user_id"] = json!("SECRET");
        request["priority"] = json!("SECRET");
        let faults = read(&request).err().unwrap();
        assert_eq!(faults.len(), 3);
        assert!(!format!("{faults:?}").contains("SECRET"));
    }

    proptest! {
        /// One value of a valid request replaced by another: still read or refused, and what is read reads back.
        #[test]
        fn changed_requests_are_read_or_refused(
            pointer in prop::sample::select(vec![
                "", "/user_id", "/video_url", "/audio", "/audio/a", "/segments", "/segments/0", "/segments/0/startTime",
                "/segments/0/endTime", "/segments/0/audioInput", "/segments/0/label", "/effects", "/effects/0",
                "/effects/0/type", "/effects/0/startTime", "/effects/0/endTime", "/effects/0/region/x",
                "/effects/0/region/width",
            ]),
            value in prop_oneof![
                Just(Value::Null), Just(json!([])), Just(json!({})), any::<f64>().prop_map(Value::from),
                (0.0..10.0).prop_map(Value::from), "\\PC{0,10}".prop_map(Value::from),
                "https?://[a-z测 %#?]{1,20}".prop_map(Value::from),
            ],
        ) {
            let mut request = request();
            *request.pointer_mut(pointer).unwrap() = value;
            match read(&request) {
                Ok(job) => {
                    let spec = spec(&job);
                    prop_assert_eq!(spec.first_stage(false), job.first_stage);
                    prop_assert_eq!(json!(spec.segments.len()), job.job_metadata["segments_count"].clone());
                }
                Err(faults) => prop_assert!(!faults.is_empty()),
            }
        }
    }
}
