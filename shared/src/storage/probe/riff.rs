//! Duration of AVI and WAV files (RIFF chunks: <https://learn.microsoft.com/windows/win32/directshow/avi-riff-file-reference>,
//! RF64: EBU Tech 3306). AVI files beyond 1 GB count their frames in the OpenDML `dmlh`.

use super::Timing;
use super::sparse::{MAX_STEPS, Sparse, Stop, after};

/// `WAVE_FORMAT_…` whose bytes per second are exact: PCM, float, A-law, µ-law and "see the sub-format".
const EXACT_FORMATS: [u16; 5] = [1, 3, 6, 7, 0xfffe];

/// A chunk.
struct Chunk {
    id: [u8; 4],
    size: u32,
    content: u64,
}

impl Chunk {
    /// Where the next one begins: chunks are padded to even sizes.
    fn next(&self) -> Result<u64, Stop> {
        after(
            self.content,
            u64::from(self.size) + u64::from(self.size % 2),
        )
    }

    /// What a list is of.
    fn list(&self, file: &Sparse) -> Result<Option<[u8; 4]>, Stop> {
        if &self.id == b"LIST" {
            file.array(self.content).map(Some)
        } else {
            Ok(None)
        }
    }
}

fn chunk(file: &Sparse, at: u64) -> Result<Chunk, Stop> {
    Ok(Chunk {
        id: file.array(at)?,
        size: file.le32(after(at, 4)?)?,
        content: after(at, 8)?,
    })
}

pub(super) fn wav(file: &Sparse) -> Result<Timing, Stop> {
    let mut long_size = None;
    let mut bytes_per_second = None;
    let mut at = 12;
    for _ in 0..MAX_STEPS {
        let found = chunk(file, at)?;
        match &found.id {
            b"ds64" => {
                let size = file.array(after(found.content, 8)?)?;
                long_size = Some(u64::from_le_bytes(size));
            }
            b"fmt " => {
                let format = u16::from_le_bytes(file.array(found.content)?);
                let rate = file.le32(after(found.content, 8)?)?;
                bytes_per_second = (EXACT_FORMATS.contains(&format) && rate > 0).then_some(rate);
            }
            b"data" => {
                let rate = bytes_per_second.ok_or(Stop::Unknown)?;
                let said = match found.size {
                    // A stream whose end was not known when its head was written.
                    0 => None,
                    u32::MAX => long_size,
                    size => Some(u64::from(size)),
                };
                let there = file.total.map(|total| total.saturating_sub(found.content));
                let bytes = match (said, there) {
                    (Some(said), Some(there)) => said.min(there),
                    (said, there) => said.or(there).ok_or(Stop::Unknown)?,
                };
                return Ok(Timing::of(bytes as f64 / f64::from(rate)));
            }
            _ => {}
        }
        at = found.next()?;
    }
    Err(Stop::Unknown)
}

/// What the headers of an AVI say.
#[derive(Default)]
struct Avi {
    /// Frames by the main header, which counts those of the first part alone in a file of several.
    main_frames: Option<u32>,
    /// Frames, scale and rate of the first video stream.
    stream: Option<(u32, u32, u32)>,
    /// Frames of all parts.
    all_frames: Option<u32>,
    picture: Option<(u32, u32)>,
}

pub(super) fn avi(file: &Sparse) -> Result<Timing, Stop> {
    let first_part = u64::from(file.le32(4)?) + 8;
    let avi = read_headers(file, &find_headers(file)?)?;
    let (frames, scale, rate) = avi.stream.ok_or(Stop::Unknown)?;
    let frames = match avi.all_frames {
        Some(all) => all,
        // Believed only where everything agrees: a wrong duration would refuse a good file.
        None if avi.main_frames == Some(frames)
            && file.total.is_some_and(|total| total <= first_part + 4096) =>
        {
            frames
        }
        None => return Err(Stop::Unknown),
    };
    if rate == 0 || scale == 0 {
        return Err(Stop::Unknown);
    }
    Ok(Timing {
        seconds: f64::from(frames) * f64::from(scale) / f64::from(rate),
        picture: avi.picture,
    })
}

fn find_headers(file: &Sparse) -> Result<Chunk, Stop> {
    let mut at = 12;
    for _ in 0..MAX_STEPS {
        let found = chunk(file, at)?;
        if found.list(file)? == Some(*b"hdrl") {
            return Ok(found);
        }
        at = found.next()?;
    }
    Err(Stop::Unknown)
}

fn read_headers(file: &Sparse, headers: &Chunk) -> Result<Avi, Stop> {
    let mut avi = Avi::default();
    let end = headers.next()?;
    let mut at = after(headers.content, 4)?;
    for _ in 0..MAX_STEPS {
        if after(at, 8)? > end {
            break;
        }
        let found = chunk(file, at)?;
        if &found.id == b"avih" {
            avi.main_frames = Some(file.le32(after(found.content, 16)?)?);
            let side = |offset| file.le32(after(found.content, offset)?);
            avi.picture = Some((side(32)?, side(36)?)).filter(|(w, h)| *w > 0 && *h > 0);
        }
        match found.list(file)?.as_ref() {
            Some(b"strl") if avi.stream.is_none() => {
                let head = chunk(file, after(found.content, 4)?)?;
                if &head.id == b"strh" && &file.array::<4>(head.content)? == b"vids" {
                    let field = |offset| file.le32(after(head.content, offset)?);
                    avi.stream = Some((field(32)?, field(20)?, field(24)?));
                }
            }
            Some(b"odml") => {
                let head = chunk(file, after(found.content, 4)?)?;
                if &head.id == b"dmlh" {
                    avi.all_frames = Some(file.le32(head.content)?).filter(|frames| *frames > 0);
                }
            }
            _ => {}
        }
        at = found.next()?;
    }
    Ok(avi)
}
