//! What a submission is expected to cost, before the vendor says. Sync.so in US dollars, GhostCut in points.

use super::segments::Segment;

/// Seconds that GhostCut charges at a time (a third party's report; the vendor documents no price).
const GHOSTCUT_STEP_SECONDS: u32 = 30;

/// Sync.so charges by the second of video; the segments are what is known of its length.
#[must_use]
pub fn lipsync(segments: &[Segment], flat: f64, per_second: f64) -> f64 {
    let seconds: f64 = segments.iter().map(Segment::seconds).sum();
    flat + per_second * seconds
}

/// GhostCut charges every started 30 seconds; `unknown` where the length of the video is not known.
#[must_use]
pub fn inpaint(video_seconds: Option<u32>, per_step: f64, unknown: f64) -> f64 {
    match video_seconds {
        Some(seconds) if seconds > 0 => {
            f64::from(seconds.div_ceil(GHOSTCUT_STEP_SECONDS)) * per_step
        }
        _ => unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_started_half_minute_counts() {
        let cost = |seconds| inpaint(seconds, 1.5, 4.0);
        assert_eq!(
            [cost(Some(1)), cost(Some(30)), cost(Some(31))],
            [1.5, 1.5, 3.0]
        );
        assert_eq!([cost(None), cost(Some(0))], [4.0, 4.0]);
    }
}
