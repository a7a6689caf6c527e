//! A job before it is stored: its request, with the objects that its local files will be.

use std::fmt;
use std::path::Path;

use serde_json::{Map, Value, json};
use shared::db::{Created, RequestKey};
use shared::domain::fields::FieldError;
use shared::storage::{Container, Key};
use uuid::Uuid;

use super::SubmitArgs;
use super::lines::Line;
use super::local::{self, Upload, Use};
use crate::intake;

/// Longest file name taken over into a request, in characters.
const MAX_NAME_LENGTH: usize = 500;

/// A job to submit.
#[derive(Debug)]
pub(super) struct Draft {
    /// Its line in the jobs file.
    pub(super) line: Option<usize>,
    /// Made first: the keys of the uploads contain it.
    pub(super) id: Uuid,
    /// Local files are replaced by the objects they will be.
    pub(super) request: Value,
    pub(super) key: Option<RequestKey>,
    pub(super) uploads: Vec<Upload>,
    /// What an earlier request under its key came to; then nothing is uploaded.
    pub(super) known: Option<Created>,
}

/// What is wrong with a job.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) line: Option<usize>,
    pub(super) error: FieldError,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if self.error.path.is_empty() {
            return f.write_str(&self.error.message);
        }
        self.error.fmt(f)
    }
}

impl Draft {
    /// Looks at the local files that a request names and puts objects of `bucket` in their place.
    pub(super) async fn new(line: Line, bucket: &str, faults: &mut Vec<Fault>) -> Self {
        let mut draft = Self {
            line: line.number,
            id: Uuid::new_v4(),
            request: line.request,
            key: line.key,
            uploads: Vec::new(),
            known: None,
        };
        let mut found: Vec<_> = line.key_fault.into_iter().collect();
        for file in files(&draft.request) {
            found.extend(draft.place(file, bucket).await.err());
        }
        let line = draft.line;
        faults.extend(found.into_iter().map(|error| Fault { line, error }));
        draft
    }

    /// Puts the object that a local file will be in its place. A file with a fault gets one too, so that the rest of
    /// the request can be checked; it is never sent.
    async fn place(&mut self, file: File, bucket: &str) -> Result<(), FieldError> {
        let location = self.request.pointer(&file.pointer).and_then(Value::as_str);
        let Some(path) = location.and_then(local::path_of) else {
            return Ok(());
        };
        let inspected = local::inspect(&path).await;
        let container = inspected
            .as_ref()
            .map_or(Container::Mp4, |local| local.container);
        // A wrong user is found when the request is checked; until then any will do.
        let user = self.request["user_id"].as_str();
        let user = user.and_then(|user| user.parse().ok()).unwrap_or_default();
        let job = self.id;
        let key = match file.wanted {
            Use::Audio => Key::InputAudio {
                user,
                job,
                index: file.index,
                container,
            },
            Use::Video => {
                self.keep_name(&path);
                Key::InputVideo {
                    user,
                    job,
                    container,
                }
            }
        };
        if let Some(location) = self.request.pointer_mut(&file.pointer) {
            *location = format!("s3://{bucket}/{key}").into();
        }
        let bytes = inspected.as_ref().map_or(0, |local| local.bytes);
        let faulty = inspected.is_err();
        self.uploads.push(Upload {
            path,
            key,
            bytes,
            faulty,
        });
        inspected.map(drop).map_err(|(code, message)| FieldError {
            path: file.pointer,
            code,
            message,
        })
    }

    /// The video keeps its name although its object has another.
    fn keep_name(&mut self, path: &Path) {
        let name: String = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_NAME_LENGTH)
            .collect();
        if let Some(request) = self.request.as_object_mut()
            && !name.is_empty()
            && request.get("original_filename").is_none_or(Value::is_null)
        {
            request.insert("original_filename".to_owned(), name.into());
        }
    }

    /// The file that is to become this object.
    pub(super) fn upload_to(&self, key: &str) -> Option<intake::Upload<'_>> {
        let upload = self
            .uploads
            .iter()
            .find(|upload| upload.key.to_string() == key)?;
        Some(if upload.faulty {
            intake::Upload::Faulty
        } else {
            intake::Upload::From(&upload.path)
        })
    }

    /// A message about this job.
    pub(super) fn named(&self, message: &str) -> String {
        match self.line {
            Some(line) => format!("line {line}: {message}"),
            None => message.to_owned(),
        }
    }
}

/// A place of a request where a file is named.
struct File {
    pointer: String,
    wanted: Use,
    /// Of an audio file, in the order of first appearance in the segments.
    index: usize,
}

fn files(request: &Value) -> Vec<File> {
    let mut files = vec![File {
        pointer: "/video_url".to_owned(),
        wanted: Use::Video,
        index: 0,
    }];
    let names = ref_ids(&request["segments"]);
    for name in request["audio"].as_object().into_iter().flat_map(Map::keys) {
        let index = names.iter().position(|other| other == name);
        files.push(File {
            pointer: format!("/audio/{}", name.replace('~', "~0").replace('/', "~1")),
            wanted: Use::Audio,
            // Refused when the request is checked: no segment uses it.
            index: index.unwrap_or(names.len()),
        });
    }
    files
}

/// The refIds of a list of segments, in the order in which they first appear.
fn ref_ids(segments: &Value) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for segment in segments.as_array().into_iter().flatten() {
        if let Some(name) = segment["audioInput"]["refId"].as_str()
            && !names.iter().any(|other| other == name)
        {
            names.push(name.to_owned());
        }
    }
    names
}

/// The request that the arguments mean.
pub(super) fn request(
    args: &SubmitArgs,
    segments: Option<Value>,
    effects: Option<Value>,
) -> Result<Value, String> {
    let Some((video, audio)) = args.files.split_first() else {
        return Err("name the video".to_owned());
    };
    let Some(segments) = segments else {
        if !audio.is_empty() {
            return Err(
                "--segments has to say when the audio is spoken, for example \
                 '[{\"startTime\":0,\"endTime\":10,\"audioInput\":{\"refId\":\"voice\"}}]'"
                    .to_owned(),
            );
        }
        return Ok(assemble(args, video, json!({}), json!([]), effects));
    };
    let audio = assign(audio, &ref_ids(&segments))?;
    Ok(assemble(args, video, audio.into(), segments, effects))
}

fn assemble(
    args: &SubmitArgs,
    video: &str,
    audio: Value,
    segments: Value,
    effects: Option<Value>,
) -> Value {
    json!({
        "user_id": args.user_id,
        "display_name": args.display_name,
        "priority": args.priority,
        "callback_url": args.callback_url,
        "video_url": video,
        "audio": audio,
        "segments": segments,
        "effects": effects,
    })
}

/// Gives each refId its file: those written `refId=FILE` first, the others in order.
fn assign(files: &[String], names: &[String]) -> Result<Map<String, Value>, String> {
    let mut assigned: Map<String, Value> = Map::new();
    let mut rest = Vec::new();
    for file in files {
        match file.split_once('=') {
            Some((name, path)) if names.iter().any(|other| other == name) => {
                if assigned.insert(name.to_owned(), path.into()).is_some() {
                    return Err(format!("`{name}` has two audio files"));
                }
            }
            _ => rest.push(file),
        }
    }
    let open: Vec<_> = names
        .iter()
        .filter(|name| !assigned.contains_key(*name))
        .collect();
    if open.len() != rest.len() {
        return Err(format!(
            "the segments name {} refId(s) ({}), and there are {} audio file(s)",
            names.len(),
            names.join(", "),
            files.len()
        ));
    }
    for (name, file) in open.into_iter().zip(rest) {
        assigned.insert(name.clone(), file.as_str().into());
    }
    Ok(assigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    fn segments(names: &[&str]) -> Value {
        names
            .iter()
            .map(|name| json!({"audioInput": {"refId": name}}))
            .collect()
    }

    #[test]
    fn audio_files_follow_the_first_appearance_of_ref_ids() {
        let names = ref_ids(&segments(&["b", "a", "b", "c"]));
        assert_eq!(names, ["b", "a", "c"]);
        let assigned = |files: &[&str]| assign(&texts(files), &names).map(Value::from);
        let expected = json!({"b": "1.wav", "a": "2.wav", "c": "3.wav"});
        assert_eq!(assigned(&["1.wav", "2.wav", "3.wav"]), Ok(expected));
        let expected = json!({"a": "x=y.wav", "b": "1=.wav", "c": "2.wav"});
        assert_eq!(assigned(&["1=.wav", "a=x=y.wav", "2.wav"]), Ok(expected));
    }

    #[test]
    fn audio_files_and_ref_ids_have_to_match() {
        let names = texts(&["a", "b"]);
        for files in [
            &["1.wav"][..],
            &["1.wav", "2.wav", "3.wav"],
            &["a=1.wav", "a=2.wav"],
            &[],
        ] {
            assert!(assign(&texts(files), &names).is_err(), "{files:?}");
        }
    }

    #[tokio::test]
    async fn missing_files_are_faults_and_urls_are_left_alone() {
        let line = Line {
            number: Some(3),
            request: json!({"video_url": "no/such\u{7}.mp4", "original_filename": null,
                "audio": {"a/b": "file:gone.wav", "c": "https://a.example/c.wav", "d": 7},
                "segments": segments(&["c", "a/b"])}),
            ..Line::default()
        };
        let mut faults = Vec::new();
        let draft = Draft::new(line, "ours", &mut faults).await;
        let texts: Vec<_> = faults.iter().map(Fault::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts[0].starts_with("line 3: /video_url: no/such"));
        assert!(texts[1].starts_with("line 3: /audio/a~1b: gone.wav: cannot be read"));
        let base = format!("users/{}/jobs/{}/input", Uuid::nil(), draft.id);
        assert_eq!(draft.request["original_filename"], "such.mp4");
        let video = format!("{base}/video.mp4");
        assert_eq!(draft.request["video_url"], format!("s3://ours/{video}"));
        let audio = &draft.request["audio"];
        assert_eq!(audio["a/b"], format!("s3://ours/{base}/audio-1.mp4"));
        assert_eq!(audio["c"], "https://a.example/c.wav");
        assert!(matches!(
            draft.upload_to(&video),
            Some(intake::Upload::Faulty)
        ));
        assert!(draft.upload_to("x").is_none());
    }

    #[tokio::test]
    async fn a_line_that_is_no_object_is_left_for_the_check() {
        let line = Line {
            number: Some(1),
            request: json!([1]),
            ..Line::default()
        };
        let mut faults = Vec::new();
        let draft = Draft::new(line, "ours", &mut faults).await;
        assert_eq!(draft.request, json!([1]));
        assert!(faults.is_empty());
    }
}
