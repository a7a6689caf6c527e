//! What a customer is told about a job: percentages and texts of `video_jobs`, word for word those of the replaced
//! application, because its front end shows and compares them.
//!
//! Must not decide anything: progress is shown, never acted on.

use std::fmt::Display;

use super::Vendor;

/// `progress_percentage` until the lip-sync is done.
pub const STARTED: i32 = 0;
/// `progress_percentage` when the lip-sync is stored and text inpainting is to follow.
pub const LIPSYNC_DONE: i32 = 60;
/// `progress_percentage` when GhostCut has accepted the video.
pub const INPAINT_ACCEPTED: i32 = 70;
/// Highest `progress_percentage` while GhostCut works.
const INPAINT_MAX: i32 = 95;
/// `progress_percentage` of a completed job.
pub const DONE: i32 = 100;

/// `progress_message` at [`LIPSYNC_DONE`].
pub const LIPSYNC_DONE_MESSAGE: &str = "Lip-sync completed. Starting text inpainting...";
/// `progress_message` from [`INPAINT_ACCEPTED`] on.
pub const INPAINT_MESSAGE: &str = "Text inpainting in progress...";
/// `progress_message` of a job completed without effects.
pub const DONE_LIPSYNC_ONLY_MESSAGE: &str = "Pro video processing completed (lip-sync only)";
/// `progress_message` of a job completed with lip-sync and text inpainting.
pub const DONE_BOTH_MESSAGE: &str = "Pro video processing completed (lip-sync + text inpainting)";
/// `progress_message` of a job completed without segments, which the replaced application did not have.
pub const DONE_INPAINT_ONLY_MESSAGE: &str = "Pro video processing completed (text inpainting only)";

/// `error_message` where GhostCut finished without a result.
pub const NO_INPAINT_URL_ERROR: &str = "No output URL from text inpainting service";
/// `error_message` where the result could not be stored.
pub const UPLOAD_ERROR: &str = "Failed to upload final result";

/// What a customer is told when a vendor has accepted the work: `progress_percentage` and, where it changes, `progress_message`.
#[must_use]
pub const fn accepted(vendor: Vendor) -> (i32, Option<&'static str>) {
    match vendor {
        Vendor::Sync => (STARTED, None),
        Vendor::Ghostcut => (INPAINT_ACCEPTED, Some(INPAINT_MESSAGE)),
    }
}

/// `progress_percentage` while GhostCut works: `min(95, max(70, trunc(p * 0.35 + 70)))`.
/// The vendor's progress (0 to 100) may be missing.
#[must_use]
pub fn inpaint_percentage(vendor_progress: Option<f64>) -> i32 {
    // The cast truncates, saturates and takes NaN as 0.
    let percentage = (vendor_progress.unwrap_or(0.0) * 0.35 + 70.0) as i32;
    percentage.clamp(INPAINT_ACCEPTED, INPAINT_MAX)
}

/// `progress_message` of a completed job; it had segments, effects or both.
#[must_use]
pub const fn done_message(has_segments: bool, has_effects: bool) -> &'static str {
    match (has_segments, has_effects) {
        (true, false) => DONE_LIPSYNC_ONLY_MESSAGE,
        (true, true) => DONE_BOTH_MESSAGE,
        (false, _) => DONE_INPAINT_ONLY_MESSAGE,
    }
}

/// `progress_message` where Sync.so did not take the job.
#[must_use]
pub fn lipsync_not_started(reason: impl Display) -> String {
    format!("Failed to start lip-sync generation: {reason}")
}

/// `progress_message` where Sync.so took the job and it failed there.
#[must_use]
pub fn lipsync_failed(reason: impl Display) -> String {
    format!("Lip-sync generation failed: {reason}")
}

/// `error_message` where GhostCut did not take the job.
#[must_use]
pub fn inpaint_not_started(reason: impl Display) -> String {
    format!("Failed to start text inpainting: {reason}")
}

/// `error_message` where GhostCut took the job and it failed there.
#[must_use]
pub fn inpaint_failed(reason: impl Display) -> String {
    format!("Text inpainting failed: {reason}")
}

/// `error_message` where the vendor's result could not be fetched.
#[must_use]
pub fn download_failed(http_status: u16) -> String {
    format!("Failed to download result (HTTP {http_status})")
}

/// `error_message` where the result was fetched and is unusable.
#[must_use]
pub fn result_unusable(reason: impl Display) -> String {
    format!("Error processing final result: {reason}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentages_follow_the_table() {
        for (vendor, ours) in [
            (None, 70),
            (Some(f64::NAN), 70),
            (Some(-5.0), 70),
            (Some(0.0), 70),
            (Some(2.8), 70),
            (Some(2.9), 71),
            (Some(50.0), 87),
            (Some(71.4), 94),
            (Some(71.5), 95),
            (Some(100.0), 95),
            (Some(f64::INFINITY), 95),
        ] {
            assert_eq!(inpaint_percentage(vendor), ours, "{vendor:?}");
        }
    }

    #[test]
    fn texts_are_those_of_the_replaced_application() {
        for (ours, theirs) in [
            (
                done_message(true, false),
                "Pro video processing completed (lip-sync only)",
            ),
            (
                done_message(true, true),
                "Pro video processing completed (lip-sync + text inpainting)",
            ),
            (
                &lipsync_not_started("x"),
                "Failed to start lip-sync generation: x",
            ),
            (&lipsync_failed("x"), "Lip-sync generation failed: x"),
            (
                &inpaint_not_started("x"),
                "Failed to start text inpainting: x",
            ),
            (&inpaint_failed("x"), "Text inpainting failed: x"),
            (
                &download_failed(503),
                "Failed to download result (HTTP 503)",
            ),
            (&result_unusable("x"), "Error processing final result: x"),
        ] {
            assert_eq!(ours, theirs);
        }
    }

    proptest! {
        #[test]
        fn progress_never_goes_back(before in -10.0..120.0, more in 0.0..100.0) {
            prop_assert!(inpaint_percentage(Some(before)) <= inpaint_percentage(Some(before + more)));
        }
    }
}
