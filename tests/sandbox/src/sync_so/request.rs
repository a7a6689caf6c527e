//! Schema of the create request. Unknown keys are refused, as the live service refused `label` in segments.

use serde::Deserialize;
use serde_json::{Map, Value};

/// Body of `POST /v2/generate`, checked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct CreateRequest {
    #[serde(rename = "model")]
    _model: String,
    pub(super) input: Vec<Input>,
    #[serde(default)]
    segments: Vec<Segment>,
    options: Option<Options>,
    pub(super) webhook_url: Option<String>,
    pub(super) output_file_name: Option<String>,
    pub(super) project_id: Option<uuid::Uuid>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Input {
    #[serde(rename = "type")]
    pub(super) kind: Kind,
    pub(super) url: Option<String>,
    asset_id: Option<String>,
    ref_id: Option<String>,
    /// Of a text input; its content is the vendor's business.
    provider: Option<Map<String, Value>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Video,
    Audio,
    Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Segment {
    start_time: f64,
    end_time: f64,
    audio_input: AudioInput,
    #[serde(rename = "optionsOverride")]
    _options_override: Option<Options>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AudioInput {
    ref_id: String,
    start_time: Option<f64>,
    end_time: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    #[serde(rename = "sync_mode")]
    _sync_mode: Option<SyncMode>,
    temperature: Option<f64>,
    #[serde(rename = "active_speaker_detection")]
    _active_speaker_detection: Option<Value>,
    #[serde(rename = "occlusion_detection_enabled")]
    _occlusion_detection_enabled: Option<bool>,
    #[serde(rename = "model_mode")]
    _model_mode: Option<String>,
    #[serde(rename = "prompt")]
    _prompt: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SyncMode {
    Bounce,
    Loop,
    CutOff,
    Silence,
    Remap,
}

impl CreateRequest {
    /// Parses and checks a body; the error is the vendor's `message`.
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        let request: Self = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        request.check()?;
        Ok(request)
    }

    /// URL of the video, which the result is made from.
    pub(super) fn video_url(&self) -> String {
        let video = self.input.iter().find(|input| input.kind == Kind::Video);
        video
            .and_then(|video| video.url.clone())
            .unwrap_or_default()
    }

    fn check(&self) -> Result<(), String> {
        let videos = self
            .input
            .iter()
            .filter(|input| input.kind == Kind::Video)
            .count();
        if videos != 1 || self.input.len() < 2 {
            return Err("input must hold one video and one or more audio or text entries".into());
        }
        self.input.iter().try_for_each(Input::check)?;
        self.segments
            .iter()
            .try_for_each(|segment| self.check_segment(segment))?;
        if let Some(url) = &self.webhook_url {
            check_url("webhookUrl", url)?;
        }
        if let Some(name) = &self.output_file_name {
            let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if name.is_empty() || name.len() > 255 || !name.chars().all(valid) {
                return Err(
                    "outputFileName must be 1-255 letters, digits, underscores and hyphens".into(),
                );
            }
        }
        match self
            .options
            .as_ref()
            .and_then(|options| options.temperature)
        {
            Some(temperature) if !(0.0..=1.0).contains(&temperature) => {
                Err("temperature must be 0 to 1".into())
            }
            _ => Ok(()),
        }
    }

    fn check_segment(&self, segment: &Segment) -> Result<(), String> {
        if !(segment.start_time >= 0.0 && segment.start_time < segment.end_time) {
            return Err("segment: startTime must be before endTime".into());
        }
        let audio = &segment.audio_input;
        match (audio.start_time, audio.end_time) {
            (None, None) => {}
            (Some(start), Some(end)) if start >= 0.0 && start < end => {}
            (Some(_), Some(_)) => return Err("audioInput: startTime must be before endTime".into()),
            _ => return Err("audioInput: startTime and endTime go together".into()),
        }
        let named = |input: &&Input| {
            input.kind != Kind::Video && input.ref_id.as_deref() == Some(&audio.ref_id)
        };
        match self.input.iter().filter(named).count() {
            1 => Ok(()),
            _ => Err(format!(
                "segment: refId {:?} must name one audio input",
                audio.ref_id
            )),
        }
    }
}

impl Input {
    fn check(&self) -> Result<(), String> {
        match (self.kind, &self.url, &self.asset_id, &self.provider) {
            (Kind::Text, None, None, Some(_)) => Ok(()),
            (Kind::Text, ..) => Err("a text input needs a provider".into()),
            (_, Some(url), None, None) => check_url("url", url),
            (_, None, Some(_), None) => Ok(()),
            _ => Err("an input needs either url or assetId".into()),
        }
    }
}

fn check_url(key: &str, text: &str) -> Result<(), String> {
    match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(()),
        _ => Err(format!("{key} must be an http or https URL")),
    }
}
