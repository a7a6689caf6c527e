//! Duration of MP3 files (ISO/IEC 11172-3 frames; `Xing`, `Info` and `VBRI` tables of the encoders) and FLAC files (RFC 9639).
//! A constant bit rate counts as sure only where the file has it at its beginning, in its middle and near its end.

use super::Timing;
use super::sparse::{Sparse, Stop, after};

/// How far a frame is looked for.
const WINDOW: u64 = 4096;

/// The head of a frame of layer 3.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Frame {
    /// MPEG-1, whose frames are twice as long as those of MPEG-2 and 2.5.
    first_version: bool,
    mono: bool,
    bits_per_second: u32,
    samples_per_second: u32,
    padded: bool,
}

impl Frame {
    fn read(head: &[u8]) -> Option<Self> {
        const FIRST: [u32; 15] = [
            0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320,
        ];
        const OTHER: [u32; 15] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
        let [0xff, second, third, fourth] = *head else {
            return None;
        };
        // Eleven set bits, then version (1 is reserved) and layer (1 is layer 3).
        if second & 0xe6 != 0xe2 || second & 0x18 == 0x08 {
            return None;
        }
        let first_version = second & 0x18 == 0x18;
        let rates = if first_version { FIRST } else { OTHER };
        let kilobits = *rates.get(usize::from(third >> 4))?;
        let samples = *[44_100, 48_000, 32_000].get(usize::from(third >> 2 & 3))?;
        let samples = match second & 0x18 {
            0x18 => samples,
            0x10 => samples / 2,
            _ => samples / 4,
        };
        (kilobits > 0).then_some(Self {
            first_version,
            mono: fourth >> 6 == 3,
            bits_per_second: kilobits * 1000,
            samples_per_second: samples,
            padded: third & 2 != 0,
        })
    }

    const fn samples(self) -> u32 {
        if self.first_version { 1152 } else { 576 }
    }

    fn length(self) -> u64 {
        let bytes = self.samples() / 8 * self.bits_per_second / self.samples_per_second;
        u64::from(bytes) + u64::from(self.padded)
    }

    /// Whether both belong to one stream of a constant bit rate.
    fn agrees(self, other: Self) -> bool {
        (
            self.first_version,
            self.bits_per_second,
            self.samples_per_second,
        ) == (
            other.first_version,
            other.bits_per_second,
            other.samples_per_second,
        )
    }
}

/// The first place from `at` on where a frame begins that another one follows.
fn find_frame(file: &Sparse, at: u64) -> Result<(u64, Frame), Stop> {
    let total = file.total.ok_or(Stop::Unknown)?;
    let length = total.saturating_sub(at).min(WINDOW);
    let window = file.at(at, usize::try_from(length).map_err(|_| Stop::Unknown)?)?;
    for (place, head) in window.windows(4).enumerate() {
        if let Some(frame) = Frame::read(head)
            && let Some(next) = usize::try_from(frame.length()).ok()
            && let Some(next) = window.get(place + next..).and_then(|rest| rest.get(..4))
            && Frame::read(next).is_some_and(|next| {
                (next.first_version, next.samples_per_second)
                    == (frame.first_version, frame.samples_per_second)
            })
        {
            return Ok((after(at, place as u64)?, frame));
        }
    }
    Err(Stop::Unknown)
}

pub(super) fn mp3(file: &Sparse) -> Result<Timing, Stop> {
    let start = if file.array::<3>(0)? == *b"ID3" {
        let [flags, a, b, c, d] = file.array(5)?;
        // 28 bits, seven to a byte; a footer repeats the head.
        let size = [a, b, c, d]
            .iter()
            .fold(0, |size, byte| size << 7 | u64::from(byte & 0x7f));
        10 + size + if flags & 0x10 == 0 { 0 } else { 10 }
    } else {
        0
    };
    let (at, frame) = find_frame(file, start)?;
    if let Some(frames) = counted(file, at, frame)? {
        let samples = f64::from(frames) * f64::from(frame.samples());
        return Ok(Timing::of(samples / f64::from(frame.samples_per_second)));
    }
    let bytes = file.total.ok_or(Stop::Unknown)?.saturating_sub(at);
    for quarter in 1..4 {
        let (_, other) = find_frame(file, after(at, bytes / 4 * quarter)?)?;
        if !frame.agrees(other) {
            return Err(Stop::Unknown);
        }
    }
    Ok(Timing::of(
        bytes as f64 * 8.0 / f64::from(frame.bits_per_second),
    ))
}

/// How many frames the encoder says there are, in the first frame, where it says so.
fn counted(file: &Sparse, at: u64, frame: Frame) -> Result<Option<u32>, Stop> {
    let side = match (frame.first_version, frame.mono) {
        (true, false) => 32,
        (true, true) | (false, false) => 17,
        (false, true) => 9,
    };
    let table = after(at, 4 + side)?;
    if matches!(&file.array(table)?, b"Xing" | b"Info") {
        let has_frames = file.be32(after(table, 4)?)? & 1 != 0;
        let frames = file.be32(after(table, 8)?)?;
        return Ok(Some(frames).filter(|frames| has_frames && *frames > 0));
    }
    let table = after(at, 4 + 32)?;
    if &file.array(table)? == b"VBRI" {
        return Ok(Some(file.be32(after(table, 14)?)?).filter(|frames| *frames > 0));
    }
    Ok(None)
}

pub(super) fn flac(file: &Sparse) -> Result<Timing, Stop> {
    // After `fLaC` the block STREAMINFO (type 0): rate in 20 bits, channels and depth in 8, samples in 36.
    if file.array::<1>(4)?[0] & 0x7f != 0 {
        return Err(Stop::Unknown);
    }
    let packed = file.be64(18)?;
    let (rate, samples) = (packed >> 44, packed & ((1 << 36) - 1));
    if rate == 0 || samples == 0 {
        return Err(Stop::Unknown);
    }
    Ok(Timing::of(samples as f64 / rate as f64))
}
