//! Files made here, of every format, told apart and measured; and hostile ones, which must never loop or read without bound.

use proptest::prelude::*;

use super::*;

/// What a parser makes of a file, read as `probe` reads it, and how many reads and bytes it took.
fn examine(
    container: Container,
    content: &[u8],
    size_known: bool,
) -> (Result<Timing, Stop>, usize, usize) {
    let mut file = Sparse::new(size_known.then_some(content.len() as u64));
    let mut bytes = 0;
    let mut add = |file: &mut Sparse, offset: u64, length: usize| {
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(content.len());
        let to = from.saturating_add(length).min(content.len());
        bytes += to - from;
        file.add(offset, Bytes::copy_from_slice(&content[from..to]));
        to - from
    };
    add(&mut file, 0, FIRST_BYTES);
    let mut reads = 1;
    loop {
        match timing(container, &file) {
            Err(Stop::Need { offset, length }) if reads < MAX_READS => {
                reads += 1;
                if add(&mut file, offset, length.max(NEXT_BYTES)) < length {
                    return (Err(Stop::Unknown), reads, bytes);
                }
            }
            other => return (other, reads, bytes),
        }
    }
}

fn mp4_box(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(content.len() + 8).unwrap().to_be_bytes();
    [&size, &kind[..], content].concat()
}

fn mvhd(version: u8, scale: u32, duration: u64) -> Vec<u8> {
    let mut content = vec![version, 0, 0, 0];
    if version == 0 {
        content.extend([0; 8]);
        content.extend(scale.to_be_bytes());
        content.extend(u32::try_from(duration).unwrap().to_be_bytes());
    } else {
        content.extend([0; 16]);
        content.extend(scale.to_be_bytes());
        content.extend(duration.to_be_bytes());
    }
    content.extend([0; 80]);
    mp4_box(b"mvhd", &content)
}

fn track(width: u32, height: u32) -> Vec<u8> {
    let mut content = vec![0; 76];
    content.extend((width << 16).to_be_bytes());
    content.extend((height << 16).to_be_bytes());
    mp4_box(b"trak", &mp4_box(b"tkhd", &content))
}

fn mp4(moov: &[Vec<u8>], media: usize, moov_first: bool) -> Vec<u8> {
    let ftyp = mp4_box(b"ftyp", b"isom\0\0\x02\0");
    let moov = mp4_box(b"moov", &moov.concat());
    let mdat = mp4_box(b"mdat", &vec![0xaa; media]);
    if moov_first {
        [ftyp, moov, mdat].concat()
    } else {
        [ftyp, mp4_box(b"free", b""), mdat, moov].concat()
    }
}

fn fragmented(duration: u64) -> Vec<u8> {
    let mehd = [&[1, 0, 0, 0][..], &duration.to_be_bytes()].concat();
    mp4_box(b"mvex", &mp4_box(b"mehd", &mehd))
}

/// An element with a size of eight bytes; `None` is the size of a live stream.
fn element(id: &[u8], size: Option<usize>, content: &[u8]) -> Vec<u8> {
    let size = size.map_or(u64::MAX >> 7, |size| size as u64);
    [id, &(1 << 56 | size).to_be_bytes(), content].concat()
}

fn whole(id: &[u8], content: &[u8]) -> Vec<u8> {
    element(id, Some(content.len()), content)
}

fn webm(live: bool, before_info: &[u8], duration: &[u8]) -> Vec<u8> {
    let info = [
        whole(&[0x2a, 0xd7, 0xb1], &[0x0f, 0x42, 0x40]),
        whole(&[0x44, 0x89], duration),
    ]
    .concat();
    let video = [whole(&[0xb0], &[0x02, 0x80]), whole(&[0xba], &[0x01, 0x68])].concat();
    let track = [whole(&[0xd7], &[1]), whole(&[0xe0], &video)].concat();
    let content = [
        before_info.to_vec(),
        whole(&[0x15, 0x49, 0xa9, 0x66], &info),
        whole(&[0x16, 0x54, 0xae, 0x6b], &whole(&[0xae], &track)),
        whole(&[0x1f, 0x43, 0xb6, 0x75], &[0; 1000]),
    ]
    .concat();
    let head = whole(&[0x1a, 0x45, 0xdf, 0xa3], &whole(&[0x42, 0x82], b"webm"));
    let size = (!live).then_some(content.len());
    [head, element(&[0x18, 0x53, 0x80, 0x67], size, &content)].concat()
}

fn chunk(id: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(content.len()).unwrap().to_le_bytes();
    let pad = vec![0; content.len() % 2];
    [&id[..], &size, content, &pad].concat()
}

fn wav(format: u16, rate: u32, data: usize, said: Option<u32>) -> Vec<u8> {
    let mut fmt = format.to_le_bytes().to_vec();
    fmt.extend([1, 0]);
    fmt.extend((rate / 2).to_le_bytes());
    fmt.extend(rate.to_le_bytes());
    fmt.extend([2, 0, 16, 0]);
    let mut content = b"WAVE".to_vec();
    content.extend(chunk(b"LIST", b"odd"));
    content.extend(chunk(b"fmt ", &fmt));
    let mut audio = chunk(b"data", &vec![0; data]);
    if let Some(said) = said {
        audio[4..8].copy_from_slice(&said.to_le_bytes());
    }
    content.extend(audio);
    chunk(b"RIFF", &content)
}

fn avi(main: u32, stream: u32, all: Option<u32>, more: usize) -> Vec<u8> {
    let mut avih = vec![0; 56];
    avih[16..20].copy_from_slice(&main.to_le_bytes());
    avih[32..36].copy_from_slice(&640_u32.to_le_bytes());
    avih[36..40].copy_from_slice(&360_u32.to_le_bytes());
    let mut strh = b"vids".to_vec();
    strh.resize(56, 0);
    for (at, value) in [(20, 1_u32), (24, 25), (32, stream)] {
        strh[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let mut headers = b"hdrl".to_vec();
    headers.extend(chunk(b"avih", &avih));
    headers.extend(chunk(
        b"LIST",
        &[&b"strl"[..], &chunk(b"strh", &strh)].concat(),
    ));
    if let Some(all) = all {
        let dmlh = chunk(b"dmlh", &all.to_le_bytes());
        headers.extend(chunk(b"LIST", &[&b"odml"[..], &dmlh].concat()));
    }
    let content = [&b"AVI "[..], &chunk(b"LIST", &headers)].concat();
    [chunk(b"RIFF", &content), vec![0; more]].concat()
}

/// Frames of MPEG-1 layer 3 at 44.1 kHz, mono: 128 kbit/s is index 9.
fn frames(count: usize, bitrate_index: u8, first: &[u8]) -> Vec<u8> {
    let kilobits = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160][usize::from(bitrate_index)];
    let mut frame = vec![0xff, 0xfb, bitrate_index << 4, 0xc0];
    frame.resize(144 * kilobits * 1000 / 44_100, 0x55);
    let mut file = frame.repeat(count);
    // After the head and 17 bytes of side information.
    file[21..21 + first.len()].copy_from_slice(first);
    file
}

fn flac() -> Vec<u8> {
    let packed = 48_000_u64 << 44 | 1 << 41 | 15 << 36 | 96_000;
    [
        &b"fLaC\0\0\0\x22"[..],
        &[0; 10],
        &packed.to_be_bytes(),
        &[0; 16],
    ]
    .concat()
}

#[test]
fn durations_are_those_of_the_files() {
    use Container as C;
    let common = [mvhd(0, 1000, 12_500), track(0, 0), track(640, 360)];
    let picture = Some((640, 360));
    let id3 = [&b"ID3\x04\0\0\0\0\x02\0"[..], &[0; 256]].concat();
    let xing = [&b"Xing\0\0\0\x01"[..], &1000_u32.to_be_bytes()].concat();
    let cbr = frames(500, 9, b"");
    let cbr_seconds = (cbr.len() * 8) as f64 / 128_000.0;
    for (name, container, file, expected) in [
        (
            "mp4, moov first",
            C::Mp4,
            mp4(&common, 300_000, true),
            Some((12.5, picture)),
        ),
        (
            "mp4, moov last",
            C::Mp4,
            mp4(&common, 30_000_000, false),
            Some((12.5, picture)),
        ),
        (
            "m4a, 64 bits",
            C::M4a,
            mp4(&[mvhd(1, 48_000, 48_000 * 9000)], 10, false),
            Some((9000.0, None)),
        ),
        (
            "fragmented",
            C::Mp4,
            mp4(&[mvhd(0, 1000, 0), fragmented(7000)], 10, true),
            Some((7.0, None)),
        ),
        (
            "fragmented, length unknown",
            C::Mp4,
            mp4(&[mvhd(0, 1000, 0)], 10, true),
            None,
        ),
        (
            "no timescale",
            C::Mov,
            mp4(&[mvhd(0, 0, 5)], 10, true),
            None,
        ),
        (
            "webm",
            C::Webm,
            webm(false, &[], &2500_f64.to_be_bytes()),
            Some((2.5, picture)),
        ),
        (
            "mkv, live",
            C::Mkv,
            webm(true, &whole(&[0xec], &[0; 90_000]), &2500_f32.to_be_bytes()),
            Some((2.5, picture)),
        ),
        (
            "webm, cluster first",
            C::Webm,
            webm(
                true,
                &element(&[0x1f, 0x43, 0xb6, 0x75], None, &[]),
                &[0; 8],
            ),
            None,
        ),
        (
            "webm, odd duration",
            C::Webm,
            webm(false, &[], &[0; 3]),
            None,
        ),
        ("avi", C::Avi, avi(50, 50, None, 0), Some((2.0, picture))),
        (
            "avi of several parts",
            C::Avi,
            avi(50, 50, Some(250), 9000),
            Some((10.0, picture)),
        ),
        (
            "avi of several parts, not told",
            C::Avi,
            avi(50, 50, None, 9000),
            None,
        ),
        ("avi that disagrees", C::Avi, avi(50, 60, None, 0), None),
        (
            "wav",
            C::Wav,
            wav(1, 16_000, 40_000, None),
            Some((2.5, None)),
        ),
        (
            "wav, streamed",
            C::Wav,
            wav(1, 16_000, 40_000, Some(u32::MAX)),
            Some((2.5, None)),
        ),
        (
            "wav that says too much",
            C::Wav,
            wav(3, 16_000, 40_000, Some(1 << 30)),
            Some((2.5, None)),
        ),
        (
            "wav, compressed",
            C::Wav,
            wav(0x55, 16_000, 40_000, None),
            None,
        ),
        (
            "mp3, counted",
            C::Mp3,
            [id3.clone(), frames(30, 9, &xing)].concat(),
            Some((1000.0 * 1152.0 / 44_100.0, None)),
        ),
        (
            "mp3, constant",
            C::Mp3,
            cbr.clone(),
            Some((cbr_seconds, None)),
        ),
        (
            "mp3, variable, not told",
            C::Mp3,
            [frames(100, 1, b""), frames(900, 10, b"")].concat(),
            None,
        ),
        ("flac", C::Flac, flac(), Some((2.0, None))),
        ("ogg", C::Ogg, b"OggS\0\x02".to_vec(), None),
    ] {
        assert!(Container::sniff(&file).is_some(), "{name}");
        let (found, reads, bytes) = examine(container, &file, true);
        match expected {
            Some((seconds, picture)) => {
                let found = found.unwrap_or_else(|stop| panic!("{name}: {stop:?}"));
                assert!((found.seconds - seconds).abs() < 0.001, "{name}: {found:?}");
                assert_eq!(found.picture, picture, "{name}");
            }
            None => assert_eq!(found, Err(Stop::Unknown), "{name}"),
        }
        assert!(reads <= 4 && bytes <= MAX_BYTES, "{name}: {reads} reads");
    }
}

#[test]
fn an_mp4_without_its_end_is_broken() {
    let file = mp4(&[mvhd(0, 1000, 12_500)], 300_000, false);
    for length in [file.len() - 200, 1000, 40] {
        let cut = &file[..length];
        let (found, _, _) = examine(Container::Mp4, cut, true);
        assert!(matches!(found, Err(Stop::Broken(_))), "{length}: {found:?}");
        // Nothing is certain where the size of the file is not known.
        let (found, _, _) = examine(Container::Mp4, cut, false);
        assert_eq!(found, Err(Stop::Unknown), "{length}");
    }
}

/// Files that would have a careless reader run for ever, overflow or read everything.
#[test]
fn hostile_files_are_given_up() {
    let huge = [&b"\0\0\0\x01moov"[..], &u64::MAX.to_be_bytes()].concat();
    let free = mp4_box(b"free", b"");
    for (name, container, file) in [
        (
            "zero-length boxes in moov",
            Container::Mp4,
            mp4(&[vec![0; 100_000]], 0, true),
        ),
        ("boxes without end", Container::Mp4, free.repeat(200_000)),
        (
            "a box of 2^64 bytes",
            Container::Mp4,
            [mp4_box(b"ftyp", b"isom"), huge.clone(), huge].concat(),
        ),
        (
            "a box smaller than its head",
            Container::Mp4,
            [&b"\0\0\0\x14ftypisom\0\0\0\0isom"[..], b"\0\0\0\x07free"].concat(),
        ),
        (
            "nothing but marks of length",
            Container::Webm,
            vec![0xff; 300_000],
        ),
        (
            "empty elements without end",
            Container::Webm,
            webm(true, &[0xec, 0x80].repeat(300_000), &[0; 8]),
        ),
        (
            "zero-length chunks",
            Container::Wav,
            [&b"RIFF\0\0\0\0WAVE"[..], &[0; 900_000]].concat(),
        ),
        (
            "an ID3 tag beyond the end",
            Container::Mp3,
            b"ID3\x04\0\0\x7f\x7f\x7f\x7f".to_vec(),
        ),
        (
            "sync without frames",
            Container::Mp3,
            [0xff, 0xfb].repeat(100_000),
        ),
    ] {
        for size_known in [true, false] {
            let (found, reads, bytes) = examine(container, &file, size_known);
            assert!(found.is_err(), "{name}: {found:?}");
            assert!(
                reads <= MAX_READS && bytes <= MAX_BYTES,
                "{name}: {reads} reads of {bytes} bytes"
            );
        }
    }
}

fn seed() -> impl Strategy<Value = (Container, Vec<u8>)> {
    prop_oneof![
        Just((
            Container::Mp4,
            mp4(&[mvhd(0, 1000, 12_500), track(640, 360)], 70_000, false)
        )),
        Just((
            Container::Mov,
            mp4(&[mvhd(1, 1000, 0), fragmented(9)], 10, true)
        )),
        Just((
            Container::Webm,
            webm(true, &whole(&[0xec], &[0; 70_000]), &2500_f64.to_be_bytes())
        )),
        Just((Container::Avi, avi(50, 50, Some(70), 9000))),
        Just((Container::Wav, wav(1, 16_000, 4000, None))),
        Just((Container::Mp3, frames(400, 9, b""))),
        Just((Container::Flac, flac())),
    ]
}

proptest! {
    /// Whatever a file says, reading it ends, within bounds, and without a panic.
    #[test]
    fn every_file_is_read_within_bounds(
        (container, mut file) in seed(),
        other in prop::sample::select(&Container::ALL[..]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
        heads in prop::collection::vec((0..400_usize, prop::sample::select(&[0_u8, 1, 0x7f, 0x80, 0xff][..])), 0..20),
        length in any::<prop::sample::Index>(),
        cut: bool,
        size_known: bool,
    ) {
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        for (at, byte) in heads {
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
        }
        if cut {
            file.truncate(length.index(file.len()));
        }
        for container in [container, other] {
            let (_, reads, bytes) = examine(container, &file, size_known);
            prop_assert!(reads <= MAX_READS && bytes <= MAX_BYTES);
        }
    }

    #[test]
    fn any_bytes_are_read_within_bounds(
        file in prop::collection::vec(any::<u8>(), 0..2000),
        container in prop::sample::select(&Container::ALL[..]),
        size_known: bool,
    ) {
        let (_, reads, bytes) = examine(container, &file, size_known);
        prop_assert!(reads <= MAX_READS && bytes <= MAX_BYTES);
    }
}
