//! Duration and picture size of MP4, QuickTime and M4A files (ISO/IEC 14496-12: 4.2 boxes, 8.2.2 `mvhd`, 8.3.2 `tkhd`,
//! 8.8.2 `mehd`). The `moov` box may stand before or after the media data.

use super::Timing;
use super::sparse::{MAX_STEPS, Sparse, Stop, after};

/// How many tracks are asked for a picture.
const MAX_TRACKS: usize = 16;

/// A box.
struct Box4 {
    kind: [u8; 4],
    /// Where its content begins.
    content: u64,
    /// Where it ends; none where it reaches to the end of a file of unknown size.
    end: Option<u64>,
}

/// Its size is at least that of its header, so whoever goes from end to end always moves on.
fn read_box(file: &Sparse, at: u64) -> Result<Box4, Stop> {
    let kind = file.array(after(at, 4)?)?;
    let (size, header) = match file.be32(at)? {
        1 => (file.be64(after(at, 8)?)?, 16),
        size => (u64::from(size), 8),
    };
    let content = after(at, header)?;
    let end = match size {
        0 if header == 8 => file.total,
        size if size >= header => Some(after(at, size)?),
        _ => return Err(Stop::Unknown),
    };
    Ok(Box4 { kind, content, end })
}

/// The first box of this kind between two places.
fn find(file: &Sparse, from: u64, end: Option<u64>, kind: &[u8; 4]) -> Result<Option<Box4>, Stop> {
    let mut at = from;
    for _ in 0..MAX_STEPS {
        if end.is_some_and(|end| at.saturating_add(8) > end) {
            return Ok(None);
        }
        let found = read_box(file, at)?;
        if found.kind == *kind {
            return Ok(Some(found));
        }
        match found.end {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
    Err(Stop::Unknown)
}

pub(super) fn timing(file: &Sparse) -> Result<Timing, Stop> {
    let moov = match find(file, 0, file.total, b"moov")? {
        Some(moov) => moov,
        // The chain of boxes was followed to its end, or to a box that is longer than the file.
        None if file.total.is_some() => {
            return Err(Stop::Broken("has no `moov` box: it is cut short"));
        }
        None => return Err(Stop::Unknown),
    };
    let mvhd = find(file, moov.content, moov.end, b"mvhd")?.ok_or(Stop::Unknown)?;
    let (scale, duration) = match file.array::<1>(mvhd.content)? {
        [0] => {
            let duration = file.be32(after(mvhd.content, 16)?)?;
            let duration = if duration == u32::MAX { 0 } else { duration };
            (file.be32(after(mvhd.content, 12)?)?, u64::from(duration))
        }
        [1] => {
            let duration = file.be64(after(mvhd.content, 24)?)?;
            let duration = if duration == u64::MAX { 0 } else { duration };
            (file.be32(after(mvhd.content, 20)?)?, duration)
        }
        _ => return Err(Stop::Unknown),
    };
    // The movie of a fragmented file is empty; its whole duration may be told apart.
    let duration = if duration == 0 {
        fragments(file, &moov)?
    } else {
        duration
    };
    if scale == 0 {
        return Err(Stop::Unknown);
    }
    Ok(Timing {
        seconds: duration as f64 / f64::from(scale),
        picture: picture(file, &moov).unwrap_or_default(),
    })
}

fn fragments(file: &Sparse, moov: &Box4) -> Result<u64, Stop> {
    let mvex = find(file, moov.content, moov.end, b"mvex")?.ok_or(Stop::Unknown)?;
    let mehd = find(file, mvex.content, mvex.end, b"mehd")?.ok_or(Stop::Unknown)?;
    let at = after(mehd.content, 4)?;
    match file.array::<1>(mehd.content)? {
        [0] => file.be32(at).map(u64::from),
        [1] => file.be64(at),
        _ => Err(Stop::Unknown),
    }
}

/// Width and height of the first track that has them, as far as what was read tells: not worth another request.
fn picture(file: &Sparse, moov: &Box4) -> Result<Option<(u32, u32)>, Stop> {
    let mut at = moov.content;
    for _ in 0..MAX_TRACKS {
        let Some(trak) = find(file, at, moov.end, b"trak")? else {
            break;
        };
        if let Some(tkhd) = find(file, trak.content, trak.end, b"tkhd")? {
            let at = match file.array::<1>(tkhd.content)? {
                [0] => 76,
                _ => 88,
            };
            let at = after(tkhd.content, at)?;
            // 16.16 fixed point.
            let (width, height) = (file.be32(at)? >> 16, file.be32(after(at, 4)?)? >> 16);
            if width > 0 && height > 0 {
                return Ok(Some((width, height)));
            }
        }
        at = trak.end.ok_or(Stop::Unknown)?;
    }
    Ok(None)
}
