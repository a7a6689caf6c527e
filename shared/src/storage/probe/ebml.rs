//! Duration and picture size of WebM and Matroska files (RFC 8794 EBML, RFC 9559 Matroska): `Segment` / `Info` and `Tracks`,
//! which every common program writes before the first `Cluster`.

use super::Timing;
use super::sparse::{MAX_STEPS, Sparse, Stop, after};

const SEGMENT: u32 = 0x1853_8067;
const INFO: u32 = 0x1549_a966;
const TIMESTAMP_SCALE: u32 = 0x2a_d7b1;
const DURATION: u32 = 0x4489;
const CLUSTER: u32 = 0x1f43_b675;
const TRACKS: u32 = 0x1654_ae6b;
const TRACK: u32 = 0xae;
const VIDEO: u32 = 0xe0;
const WIDTH: u32 = 0xb0;
const HEIGHT: u32 = 0xba;
/// Nanoseconds of a tick where the file does not say.
const DEFAULT_SCALE: u64 = 1_000_000;

/// How many tracks are asked for a picture.
const MAX_TRACKS: usize = 16;

/// An element.
struct Element {
    id: u32,
    content: u64,
    /// None where the size is not known before the end: a stream that was recorded live.
    size: Option<u64>,
}

impl Element {
    fn end(&self) -> Result<Option<u64>, Stop> {
        self.size.map(|size| after(self.content, size)).transpose()
    }
}

/// A number whose first byte tells its length by its leading zeros, with those marks.
fn number(file: &Sparse, at: u64, longest: u32) -> Result<(u64, u32), Stop> {
    let [first] = file.array(at)?;
    let length = first.leading_zeros() + 1;
    if length > longest {
        return Err(Stop::Unknown);
    }
    let bytes = file.at(at, length as usize)?;
    let value = bytes
        .iter()
        .fold(0, |all, byte| all << 8 | u64::from(*byte));
    Ok((value, length))
}

/// Its header has at least two bytes, so whoever goes from end to end always moves on.
fn element(file: &Sparse, at: u64) -> Result<Element, Stop> {
    let (id, id_length) = number(file, at, 4)?;
    let size_at = after(at, id_length.into())?;
    let (marked, size_length) = number(file, size_at, 8)?;
    let all_ones = (1 << (7 * size_length)) - 1;
    let size = marked & all_ones;
    Ok(Element {
        id: u32::try_from(id).map_err(|_| Stop::Unknown)?,
        content: after(size_at, size_length.into())?,
        size: (size != all_ones).then_some(size),
    })
}

/// The first element with this id between two places; a `Cluster` or an element without size before it ends the search.
fn find(file: &Sparse, from: u64, end: Option<u64>, id: u32) -> Result<Option<Element>, Stop> {
    let mut at = from;
    for _ in 0..MAX_STEPS {
        if end.or(file.total).is_some_and(|end| at >= end) {
            return Ok(None);
        }
        let found = element(file, at)?;
        if found.id == id {
            return Ok(Some(found));
        }
        match found.end()? {
            Some(next) if found.id != CLUSTER => at = next,
            _ => return Ok(None),
        }
    }
    Err(Stop::Unknown)
}

/// The content of an element as a number of up to eight bytes.
fn unsigned(file: &Sparse, element: &Element) -> Result<u64, Stop> {
    let size = element.size.and_then(|size| usize::try_from(size).ok());
    let size = size.filter(|size| *size <= 8).ok_or(Stop::Unknown)?;
    let bytes = file.at(element.content, size)?;
    Ok(bytes
        .iter()
        .fold(0, |all, byte| all << 8 | u64::from(*byte)))
}

pub(super) fn timing(file: &Sparse) -> Result<Timing, Stop> {
    let segment = find(file, 0, None, SEGMENT)?.ok_or(Stop::Unknown)?;
    let segment_end = segment.end()?;
    let info = find(file, segment.content, segment_end, INFO)?.ok_or(Stop::Unknown)?;
    let (from, end) = (info.content, info.end()?);
    let scale = match find(file, from, end, TIMESTAMP_SCALE)? {
        Some(scale) => unsigned(file, &scale)?,
        None => DEFAULT_SCALE,
    };
    let duration = find(file, from, end, DURATION)?.ok_or(Stop::Unknown)?;
    let ticks = match duration.size {
        Some(4) => f32::from_be_bytes(file.array(duration.content)?).into(),
        Some(8) => f64::from_be_bytes(file.array(duration.content)?),
        _ => return Err(Stop::Unknown),
    };
    Ok(Timing {
        seconds: ticks * scale as f64 / 1e9,
        picture: picture(file, segment.content, segment_end).unwrap_or_default(),
    })
}

/// Width and height of the first track that has them, as far as what was read tells.
fn picture(file: &Sparse, from: u64, end: Option<u64>) -> Result<Option<(u32, u32)>, Stop> {
    let tracks = find(file, from, end, TRACKS)?.ok_or(Stop::Unknown)?;
    let mut at = tracks.content;
    for _ in 0..MAX_TRACKS {
        let Some(track) = find(file, at, tracks.end()?, TRACK)? else {
            break;
        };
        let end = track.end()?;
        if let Some(video) = find(file, track.content, end, VIDEO)? {
            let side = |id| -> Result<u32, Stop> {
                let found = find(file, video.content, video.end()?, id)?.ok_or(Stop::Unknown)?;
                u32::try_from(unsigned(file, &found)?).map_err(|_| Stop::Unknown)
            };
            return Ok(Some((side(WIDTH)?, side(HEIGHT)?)));
        }
        at = end.ok_or(Stop::Unknown)?;
    }
    Ok(None)
}
