//! Follows the top-level boxes of an MP4 or QuickTime file while it streams by (ISO/IEC 14496-12, 4.2).
//!
//! Finds files that are cut short or hold no video at all. It looks into no box and keeps none of it.

/// Why a file cannot be a whole MP4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The last box is longer than what came.
    CutShort,
    /// There is no such box, although every file has one.
    Missing(&'static str),
}

/// Where in the chain of boxes the stream is.
#[derive(Default)]
pub(super) struct Boxes {
    header: Vec<u8>,
    /// Bytes of the current box that are still to come.
    left: u64,
    /// The rest of the file belongs to the last box, or is no box.
    ended: bool,
    moov: bool,
    mdat: bool,
}

impl Boxes {
    /// Goes on by the next bytes of the file.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.ended {
            if self.left > 0 {
                let skip =
                    usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.left -= skip as u64;
                bytes = &bytes[skip..];
                continue;
            }
            self.header.push(bytes[0]);
            bytes = &bytes[1..];
            self.read_header();
        }
    }

    /// Judges the file after its last byte.
    pub(super) fn finish(&self) -> Result<(), Flaw> {
        match self {
            Self { left: 1.., .. } => Err(Flaw::CutShort),
            Self { moov: false, .. } => Err(Flaw::Missing("moov")),
            Self { mdat: false, .. } => Err(Flaw::Missing("mdat")),
            _ => Ok(()),
        }
    }

    /// Enters the box whose header is complete: size and type of 4 bytes each; a size of 1 is followed by 8 bytes
    /// with the true one, a size of 0 reaches to the end of the file.
    fn read_header(&mut self) {
        let (size, length) = match *self.header {
            [a, b, c, d, _, _, _, _] if [a, b, c, d] != [0, 0, 0, 1] => {
                (u32::from_be_bytes([a, b, c, d]).into(), 8)
            }
            [_, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h] => {
                (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 16)
            }
            _ => return,
        };
        match &self.header[4..8] {
            b"moov" => self.moov = true,
            b"mdat" => self.mdat = true,
            _ => {}
        }
        self.header.clear();
        match u64::checked_sub(size, length) {
            Some(left) => self.left = left,
            // Size 0, or bytes after the last box that some programs write and all players ignore.
            None => self.ended = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(kind: &str, content: &[u8]) -> Vec<u8> {
        let size = u32::try_from(content.len() + 8).unwrap().to_be_bytes();
        [&size, kind.as_bytes(), content].concat()
    }

    fn long(kind: &str, content: &[u8]) -> Vec<u8> {
        let size = (content.len() as u64 + 16).to_be_bytes();
        [&[0, 0, 0, 1], kind.as_bytes(), &size, content].concat()
    }

    /// The verdict, which must not depend on how the file is cut into pieces.
    fn judge(file: &[u8]) -> Result<(), Flaw> {
        let verdicts = [1, 3, 7, 16, file.len().max(1)].map(|piece| {
            let mut boxes = Boxes::default();
            file.chunks(piece).for_each(|bytes| boxes.feed(bytes));
            boxes.finish()
        });
        assert!(
            verdicts.iter().all(|verdict| *verdict == verdicts[0]),
            "{verdicts:?}"
        );
        verdicts[0]
    }

    #[test]
    fn whole_files_pass() {
        let start = [plain("ftyp", b"isom\0\0\x02\0"), plain("free", b"")].concat();
        let (moov, mdat) = (plain("moov", &[1; 40]), plain("mdat", &[2; 100]));
        assert_eq!(judge(&[&start[..], &moov, &mdat].concat()), Ok(()));
        assert_eq!(
            judge(&[&start[..], &long("mdat", &[2; 100]), &moov].concat()),
            Ok(())
        );
        let open = [b"\0\0\0\0mdat".as_slice(), &[2; 100]].concat();
        assert_eq!(
            judge(&[&start[..], &moov, &open].concat()),
            Ok(()),
            "a size of 0 reaches to the end"
        );
        assert_eq!(
            judge(&[&start[..], &moov, &mdat, &[0; 5]].concat()),
            Ok(()),
            "padding"
        );
        assert_eq!(
            judge(&[&start[..], &moov, &mdat, &[0; 500]].concat()),
            Ok(()),
            "padding"
        );
    }

    #[test]
    fn files_cut_short_are_found() {
        let file = [
            plain("ftyp", b"isom"),
            plain("moov", &[1; 40]),
            long("mdat", &[2; 100]),
        ]
        .concat();
        for length in [file.len() - 1, file.len() - 99] {
            assert_eq!(judge(&file[..length]), Err(Flaw::CutShort), "{length}");
        }
        assert_eq!(
            judge(&[plain("ftyp", b"isom"), plain("moov", &[1; 40])].concat()),
            Err(Flaw::Missing("mdat"))
        );
        assert_eq!(
            judge(&[plain("ftyp", b"isom"), plain("mdat", &[1; 40])].concat()),
            Err(Flaw::Missing("moov"))
        );
        assert_eq!(judge(b"\0\0\0\x0cftypisom"), Err(Flaw::Missing("moov")));
    }

    #[test]
    fn an_absurd_size_is_a_cut_file() {
        let huge = [
            b"\0\0\0\x01mdat".as_slice(),
            &u64::MAX.to_be_bytes(),
            &[0; 64],
        ]
        .concat();
        assert_eq!(judge(&huge), Err(Flaw::CutShort));
    }
}
