//! Jobs to run: requests of every kind, with real media in the bucket and behind foreign URLs.

use sandbox::media::SAMPLES;
use serde_json::{Value, json};
use shared::domain::Vendor;
use shared::storage::{Container, Storage};
use uuid::Uuid;

/// What a job asks for, and so whom it pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Lip-sync, then inpainting of its result.
    Both,
    /// Lip-sync only.
    Lipsync,
    /// Inpainting only.
    Inpaint,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Both, Self::Lipsync, Self::Inpaint];

    /// Whether one work of this vendor is paid for the job.
    #[must_use]
    pub const fn pays(self, vendor: Vendor) -> bool {
        match vendor {
            Vendor::Sync => !matches!(self, Self::Inpaint),
            Vendor::Ghostcut => !matches!(self, Self::Lipsync),
        }
    }
}

/// The sandbox's sample media, in the bucket and at the sandbox.
#[derive(Clone, Debug)]
pub struct Media {
    bucket: String,
    url: String,
}

impl Media {
    /// Stores the samples in the bucket. `url` is the sandbox's `SANDBOX_MEDIA_URL`, which serves them too.
    ///
    /// # Errors
    /// When the store does not take them.
    pub async fn upload(storage: &Storage, url: &str) -> anyhow::Result<Self> {
        for sample in SAMPLES {
            let container = sample.name.rsplit('.').next();
            let container = container.and_then(Container::from_extension);
            let content_type =
                container.map_or("application/octet-stream", Container::content_type);
            let key = format!("samples/{}", sample.name);
            storage.put(&key, content_type, sample.bytes.into()).await?;
        }
        Ok(Self {
            bucket: storage.bucket().to_owned(),
            url: url.to_owned(),
        })
    }

    /// Body of `POST /v1/jobs` for a job of this kind. `number` varies media, parts and where the video lies.
    #[must_use]
    pub fn request(&self, kind: Kind, number: usize) -> Value {
        let video = ["talk.mp4", "bars.mp4", "zoom.mp4"][number % 3];
        let video = if number.is_multiple_of(2) {
            self.object(video)
        } else {
            format!("{}/samples/{video}", self.url)
        };
        let mut request = json!({
            "user_id": Uuid::from_u128(1 + number as u128 % 4),
            "display_name": format!("{kind:?} {number}"),
            "video_url": video,
        });
        if kind.pays(Vendor::Sync) {
            let second = ["tone-660.wav", "tone-550.mp3"][number % 2];
            request["audio"] =
                json!({ "first": self.object("tone-330.wav"), "second": self.object(second) });
            request["segments"] = json!([
                { "startTime": 0, "endTime": 1, "audioInput": { "refId": "first" } },
                { "startTime": 1, "endTime": 2, "audioInput": { "refId": "second" } },
            ]);
        }
        if kind.pays(Vendor::Ghostcut) {
            let effect = ["text", "erasure"][number % 2];
            request["effects"] = json!([{ "type": effect, "startTime": 0, "endTime": 2,
                "region": { "x": 0.1, "y": 0.8, "width": 0.8, "height": 0.15 } }]);
        }
        request
    }

    fn object(&self, name: &str) -> String {
        format!("s3://{}/samples/{name}", self.bucket)
    }
}
