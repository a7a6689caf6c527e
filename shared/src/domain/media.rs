//! Media files: containers, recognised by their first bytes, and what can be known of a file without decoding it.
//!
//! Says what a file claims to be, not whether a player can show it. Must not read files: `storage::probe` does.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many first bytes [`Container::sniff`] wants to see; fewer only where the file is shorter.
pub const SNIFF_BYTES: usize = 512;

/// A container format the vendors take or give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    /// MPEG-4 part 14.
    Mp4,
    /// QuickTime.
    Mov,
    /// WebM.
    Webm,
    /// Matroska.
    Mkv,
    /// AVI.
    Avi,
    /// WAVE audio.
    Wav,
    /// MPEG audio layer 3.
    Mp3,
    /// Ogg.
    Ogg,
    /// FLAC audio.
    Flac,
    /// MPEG-4 audio.
    M4a,
    /// AAC audio in an ADTS stream.
    Aac,
}

impl Container {
    /// Every container.
    pub const ALL: [Self; 11] = [
        Self::Mp4,
        Self::Mov,
        Self::Webm,
        Self::Mkv,
        Self::Avi,
        Self::Wav,
        Self::Mp3,
        Self::Ogg,
        Self::Flac,
        Self::M4a,
        Self::Aac,
    ];

    /// The file extension, without a dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4",
            Self::Mov => "mov",
            Self::Webm => "webm",
            Self::Mkv => "mkv",
            Self::Avi => "avi",
            Self::Wav => "wav",
            Self::Mp3 => "mp3",
            Self::Ogg => "ogg",
            Self::Flac => "flac",
            Self::M4a => "m4a",
            Self::Aac => "aac",
        }
    }

    /// The container a file extension names, in any case, without a dot.
    #[must_use]
    pub fn from_extension(extension: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|container| container.extension().eq_ignore_ascii_case(extension))
    }

    /// The MIME type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Mp4 => "video/mp4",
            Self::Mov => "video/quicktime",
            Self::Webm => "video/webm",
            Self::Mkv => "video/x-matroska",
            Self::Avi => "video/x-msvideo",
            Self::Wav => "audio/wav",
            Self::Mp3 => "audio/mpeg",
            Self::Ogg => "audio/ogg",
            Self::Flac => "audio/flac",
            Self::M4a => "audio/mp4",
            Self::Aac => "audio/aac",
        }
    }

    /// Whether a file of this container can hold what is wanted. Audio is often put into MP4 or WebM.
    #[must_use]
    pub const fn can_be(self, kind: MediaKind) -> bool {
        match kind {
            MediaKind::Video => matches!(
                self,
                Self::Mp4 | Self::Mov | Self::Webm | Self::Mkv | Self::Avi
            ),
            MediaKind::Audio => !matches!(self, Self::Mov | Self::Mkv | Self::Avi),
        }
    }

    /// Whether the file is a chain of MP4 boxes.
    #[must_use]
    pub const fn has_boxes(self) -> bool {
        matches!(self, Self::Mp4 | Self::Mov | Self::M4a)
    }

    /// Recognises a container by a file's first [`SNIFF_BYTES`] bytes.
    #[must_use]
    pub fn sniff(start: &[u8]) -> Option<Self> {
        let at =
            |offset: usize, magic: &[u8]| start.get(offset..offset + magic.len()) == Some(magic);
        if at(4, b"ftyp") {
            return Some(match start.get(8..12)? {
                b"qt  " => Self::Mov,
                b"M4A " | b"M4B " => Self::M4a,
                _ => Self::Mp4,
            });
        }
        // QuickTime files older than `ftyp` begin with any of these boxes.
        if [b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"]
            .into_iter()
            .any(|kind| at(4, kind))
        {
            return Some(Self::Mov);
        }
        if at(0, &[0x1a, 0x45, 0xdf, 0xa3]) {
            // EBML: the document type is a text inside the first element.
            let has = |text: &[u8]| start.windows(text.len()).any(|window| window == text);
            return if has(b"webm") {
                Some(Self::Webm)
            } else {
                has(b"matroska").then_some(Self::Mkv)
            };
        }
        if at(0, b"RIFF") || at(0, b"RF64") {
            return match start.get(8..12)? {
                b"AVI " => Some(Self::Avi),
                b"WAVE" => Some(Self::Wav),
                _ => None,
            };
        }
        match start {
            [b'O', b'g', b'g', b'S', ..] => Some(Self::Ogg),
            [b'f', b'L', b'a', b'C', ..] => Some(Self::Flac),
            [b'I', b'D', b'3', ..] => Some(Self::Mp3),
            // A frame header: 11 set bits, then version and layer; layer 0 is AAC's.
            [0xff, second, ..] if second & 0xf6 == 0xf0 => Some(Self::Aac),
            [0xff, second, third, ..]
                if second & 0xe6 == 0xe2 && second & 0x18 != 0x08 && third >> 4 != 15 =>
            {
                Some(Self::Mp3)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.extension())
    }
}

/// What is known of a media file. Everything is what the file claims; absent is what could not be known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MediaFacts {
    /// Size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The format; absent also where it is one that we do not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Width and height of the picture, in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<(u32, u32)>,
}

/// Whether a file that is no known [`Container`] begins like a text: an error page, a JSON answer, a note. A playlist
/// (`#EXTM3U`) is a text that vendors take.
#[must_use]
pub fn is_text(start: &[u8]) -> bool {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let start = start.trim_ascii_start();
    if start.starts_with(b"#EXTM3U") {
        return false;
    }
    let whole = match std::str::from_utf8(start) {
        Ok(text) => text,
        // The last character may be cut off.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !whole.is_empty() && !whole.contains(|c: char| c.is_control() && !c.is_ascii_whitespace())
}

/// What a file is expected to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaKind {
    /// Moving pictures.
    Video,
    /// Sound.
    Audio,
}

impl fmt::Display for MediaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Video => "video",
            Self::Audio => "audio",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_recognised_by_their_first_bytes() {
        let ebml = |kind: &str| {
            [
                b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01B\x82\x88".as_slice(),
                kind.as_bytes(),
            ]
            .concat()
        };
        let cases: [(&[u8], Container); 16] = [
            (b"\0\0\0\x20ftypisom\0\0\x02\0", Container::Mp4),
            (b"\0\0\0\x14ftypqt  \0\0\x02\0", Container::Mov),
            (b"\0\0\0\x20ftypM4A \0\0\x02\0", Container::M4a),
            (b"\0\0\0\x08wide\0\0\x02\0mdat", Container::Mov),
            (&ebml("webm"), Container::Webm),
            (&ebml("matroska"), Container::Mkv),
            (b"RIFF\x24\x80\0\0AVI LIST", Container::Avi),
            (b"RIFF\x24\x80\0\0WAVEfmt ", Container::Wav),
            (b"OggS\0\x02", Container::Ogg),
            (b"fLaC\0\0\0\x22", Container::Flac),
            (b"ID3\x04\0\0", Container::Mp3),
            (b"\xff\xfb\x90\x64", Container::Mp3),
            (b"\xff\xf3\x40\xc0", Container::Mp3),
            (b"\xff\xf1\x50\x80", Container::Aac),
            (b"\xff\xf9\x50\x80", Container::Aac),
            (b"RF64\xff\xff\xff\xffWAVEds64", Container::Wav),
        ];
        for (start, container) in cases {
            assert_eq!(Container::sniff(start), Some(container), "{start:?}");
        }
    }

    #[test]
    fn other_content_is_not_media() {
        let cases: [&[u8]; 9] = [
            b"",
            b"<!DOCTYPE html><html><body>Not found</body></html>",
            b"{\"error\":\"expired\"}",
            b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>",
            b"\0\0\0\x20fty",
            b"RIFF\x24\x80\0\0WEBPVP8 ",
            b"\x1a\x45\xdf\xa3\0\0\0\0",
            b"\xff\xfe<\0h\0t\0m\0l\0",
            b"\xff\xff\xff\xff",
        ];
        for start in cases {
            assert_eq!(Container::sniff(start), None, "{start:?}");
        }
    }

    #[test]
    fn texts_are_told_from_unknown_formats() {
        for text in [
            "<!DOCTYPE html><html><body>Not found</body></html>",
            "\u{feff}\r\n <?xml version=\"1.0\"?>",
            "{\"error\":\"expired\"}",
            "not a video",
            "找不到",
        ] {
            assert!(is_text(text.as_bytes()), "{text}");
        }
        assert!(is_text(&"找不到".as_bytes()[..8]), "cut off");
        for other in [
            &b"#EXTM3U\n#EXT-X-VERSION:3\n"[..],
            b"",
            b"  ",
            b"\0\0\x01\xba\x44\0\x04\0",
            b"\x47\x40\x11\x10\0",
            b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
        ] {
            assert!(!is_text(other), "{other:?}");
        }
    }

    #[test]
    fn extensions_name_their_container() {
        for container in Container::ALL {
            assert_eq!(
                Container::from_extension(container.extension()),
                Some(container)
            );
            assert!(container.can_be(MediaKind::Video) || container.can_be(MediaKind::Audio));
        }
        assert_eq!(Container::from_extension("MP4"), Some(Container::Mp4));
        assert_eq!(Container::from_extension("exe"), None);
    }
}
