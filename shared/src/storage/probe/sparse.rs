//! A file of which only some stretches are in memory. Parsers ask for bytes; what is not there stops them with the stretch
//! that they need, and they begin again when it has come. So a parser is a plain function that never waits.

use bytes::Bytes;

/// How many parts of a file are passed, one after the other, in search of one: no good file has as many before it. A parser
/// runs between two awaits, so its work has to be bounded too.
pub(super) const MAX_STEPS: usize = 4096;

/// The pieces that were read, and the size of the whole where it is known.
pub(super) struct Sparse {
    pub(super) total: Option<u64>,
    pieces: Vec<(u64, Bytes)>,
}

/// Why a parser did not come to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// These bytes have to be read first.
    Need { offset: u64, length: usize },
    /// The file does not say, or says what we do not understand.
    Unknown,
    /// No player can play it, for this reason.
    Broken(&'static str),
}

impl Sparse {
    /// Nothing was read yet.
    pub(super) fn new(total: Option<u64>) -> Self {
        let pieces = Vec::new();
        Self { total, pieces }
    }

    pub(super) fn add(&mut self, offset: u64, bytes: Bytes) {
        self.pieces.push((offset, bytes));
    }

    /// The bytes from `offset` on; [`Stop::Unknown`] where the file ends before.
    pub(super) fn at(&self, offset: u64, length: usize) -> Result<&[u8], Stop> {
        let end = offset.checked_add(length as u64).ok_or(Stop::Unknown)?;
        if self.total.is_some_and(|total| end > total) {
            return Err(Stop::Unknown);
        }
        // The latest pieces are asked for most.
        for (start, bytes) in self.pieces.iter().rev() {
            let from = offset.checked_sub(*start);
            let from = from.and_then(|from| usize::try_from(from).ok());
            if let Some(from) = from
                && let Some(found) = bytes.get(from..).and_then(|rest| rest.get(..length))
            {
                return Ok(found);
            }
        }
        Err(Stop::Need { offset, length })
    }

    /// The bytes from `offset` on, as an array.
    pub(super) fn array<const N: usize>(&self, offset: u64) -> Result<[u8; N], Stop> {
        self.at(offset, N)?.try_into().map_err(|_| Stop::Unknown)
    }

    pub(super) fn be32(&self, offset: u64) -> Result<u32, Stop> {
        self.array(offset).map(u32::from_be_bytes)
    }

    pub(super) fn be64(&self, offset: u64) -> Result<u64, Stop> {
        self.array(offset).map(u64::from_be_bytes)
    }

    pub(super) fn le32(&self, offset: u64) -> Result<u32, Stop> {
        self.array(offset).map(u32::from_le_bytes)
    }
}

/// The place `length` bytes further on.
pub(super) fn after(offset: u64, length: u64) -> Result<u64, Stop> {
    offset.checked_add(length).ok_or(Stop::Unknown)
}
