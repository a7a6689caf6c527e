//! Where a row that another application put into `video_jobs` goes on. Pure: whether it may be taken at all is asked elsewhere.

use serde_json::Value;

use super::intake::JobSpec;
use super::{Stage, Vendor, metadata};

/// The works that a row names, in the order of the pipeline. They were paid by somebody else: they are polled, never sent.
#[must_use]
pub fn works(job_metadata: Option<&Value>, zhaoli_task_id: Option<&str>) -> Vec<(Vendor, String)> {
    let key = |key| {
        job_metadata
            .and_then(|metadata| metadata::text(metadata, key))
            .filter(|id| !id.is_empty())
    };
    // A pro job keeps its generation in `zhaoli_task_id` (vendor-apis 3.1).
    let column = || {
        zhaoli_task_id
            .filter(|id| !matches!(*id, "" | "None"))
            .map(str::to_owned)
    };
    let sync = key("sync_generation_id").or_else(column);
    let ghostcut = key("ghostcut_task_id");
    [(Vendor::Sync, sync), (Vendor::Ghostcut, ghostcut)]
        .into_iter()
        .filter_map(|(vendor, id)| Some((vendor, id?)))
        .collect()
}

/// The stage in which a row begins, by the last work that it names. A row that cannot be read begins at the stage that says so
/// before anything is paid.
#[must_use]
pub fn first_stage(
    spec: Option<&JobSpec>,
    works: &[(Vendor, String)],
    video_is_ours: bool,
) -> Stage {
    let Some(spec) = spec else {
        return Stage::LipsyncSubmit;
    };
    let has = |vendor| works.iter().any(|(of, _)| *of == vendor);
    if spec.has_effects() && has(Vendor::Ghostcut) {
        Stage::InpaintPoll
    } else if spec.has_segments() && has(Vendor::Sync) {
        Stage::LipsyncPoll
    } else {
        spec.first_stage(video_is_ours)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(segments: bool, effects: bool) -> JobSpec {
        let config = json!({"effects": if effects { json!([{"type": "text", "startTime": 0, "endTime": 2,
            "region": {"x": 0.1, "y": 0.1, "width": 0.5, "height": 0.5}}]) } else { json!([]) }});
        let parts =
            json!({"segments": [{"startTime": 0, "endTime": 1, "audioInput": {"refId": "a"}}]});
        let mut metadata = json!({"video_s3_url": "https://b.s3.amazonaws.com/v.mp4"});
        if segments {
            metadata["audio_url_mapping"] = json!({"a": "https://b.s3.amazonaws.com/a.wav"});
        }
        JobSpec::from_row(Some(&config), segments.then_some(&parts), Some(&metadata)).unwrap()
    }

    #[test]
    fn ids_are_found_where_the_replaced_application_put_them() {
        let sync = || (Vendor::Sync, "g".to_owned());
        let ghostcut = || (Vendor::Ghostcut, "7".to_owned());
        for (metadata, column, expected) in [
            (json!(null), None, vec![]),
            (json!({"ghostcut_task_id": "None"}), Some("None"), vec![]),
            (json!({"ghostcut_task_id": ""}), Some(""), vec![]),
            (json!({}), Some("g"), vec![sync()]),
            (
                json!({"sync_generation_id": "g"}),
                Some("other"),
                vec![sync()],
            ),
            (
                json!({"ghostcut_task_id": 7}),
                Some("g"),
                vec![sync(), ghostcut()],
            ),
        ] {
            assert_eq!(
                works(Some(&metadata), column),
                expected,
                "{metadata} {column:?}"
            );
        }
    }

    #[test]
    fn a_row_goes_on_behind_the_last_work_it_names() {
        let (sync, ghostcut) = (
            (Vendor::Sync, "g".to_owned()),
            (Vendor::Ghostcut, "7".to_owned()),
        );
        let both = [sync.clone(), ghostcut.clone()];
        for (spec, works, ours, expected) in [
            (Some(spec(true, true)), &both[..], true, Stage::InpaintPoll),
            (Some(spec(true, true)), &both[..1], true, Stage::LipsyncPoll),
            (Some(spec(true, true)), &[], true, Stage::LipsyncSubmit),
            (
                Some(spec(false, true)),
                &both[1..],
                false,
                Stage::InpaintPoll,
            ),
            (Some(spec(false, true)), &[], true, Stage::InpaintSubmit),
            (Some(spec(false, true)), &[], false, Stage::SourceImport),
            // An id of a vendor that the job does not need says nothing.
            (
                Some(spec(true, false)),
                &both[1..],
                true,
                Stage::LipsyncSubmit,
            ),
            (
                Some(spec(false, true)),
                &both[..1],
                true,
                Stage::InpaintSubmit,
            ),
            (None, &both[..], true, Stage::LipsyncSubmit),
        ] {
            assert_eq!(
                first_stage(spec.as_ref(), works, ours),
                expected,
                "{spec:?} {works:?} {ours}"
            );
        }
    }
}
