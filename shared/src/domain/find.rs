//! What somebody who has some id means: an id of ours, the beginning of one, the marker that vendors are shown, or a vendor's own id.

use uuid::Uuid;

use super::search::Marker;

/// Fewest hexadecimal digits that an id is looked for by. Fewer find too many.
pub const MIN_DIGITS: usize = 6;

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sought {
    /// Ids of ours from the first to the second: one that is whole, or all that begin so.
    pub ids: Option<(Uuid, Uuid)>,
    /// The text itself: a vendor's id.
    pub text: String,
}

impl Sought {
    /// Reads what somebody has typed or pasted, blanks around it or not.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let text = text.trim();
        let marked = Marker::find(text).map(|marker| (marker.token, marker.token));
        Self {
            ids: marked.or_else(|| ids(text)).or_else(|| beginning(text)),
            // Vendors' ids that are UUIDs are in lower case.
            text: match text.parse::<Uuid>() {
                Ok(id) => id.to_string(),
                Err(_) => text.to_owned(),
            },
        }
    }
}

/// The job of a marker that is not whole.
fn beginning(text: &str) -> Option<(Uuid, Uuid)> {
    let job = text.strip_prefix("gf-")?;
    ids(job.get(..36).unwrap_or(job))
}

/// The ids that begin so, with or without hyphens, in upper or lower case.
fn ids(text: &str) -> Option<(Uuid, Uuid)> {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    // The id of a trace is a job's without its hyphens.
    let is_plain = !text.contains('-');
    let fits = |(at, letter): (usize, char)| match HYPHENS.contains(&at) && !is_plain {
        true => letter == '-',
        false => letter.is_ascii_hexdigit(),
    };
    let digits = text.chars().filter(|letter| *letter != '-').count();
    if !text.chars().enumerate().all(fits) || !(MIN_DIGITS..=32).contains(&digits) {
        return None;
    }
    let filled = |with: char| {
        let mut hex: String = text.chars().filter(|letter| *letter != '-').collect();
        hex.extend(std::iter::repeat_n(with, 32 - digits));
        hex.parse().ok()
    };
    Some((filled('0')?, filled('f')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001";

    fn range(text: &str) -> Option<(String, String)> {
        let ids = Sought::read(text).ids;
        ids.map(|(from, to)| (from.to_string(), to.to_string()))
    }

    #[test]
    fn ids_are_read_whole_or_from_their_beginning() {
        let whole = Some((ID.to_owned(), ID.to_owned()));
        assert_eq!(range(&format!("  {ID}\n")), whole);
        assert_eq!(range(&ID.to_uppercase()), whole);
        assert_eq!(range(&ID.replace('-', "")), whole, "a trace's id");
        assert_eq!(Sought::read(&ID.to_uppercase()).text, ID);
        let from = |from: &str, to: &str| Some((from.to_owned(), to.to_owned()));
        assert_eq!(
            range("7b0c6c7e-0f"),
            from(
                "7b0c6c7e-0f00-0000-0000-000000000000",
                "7b0c6c7e-0fff-ffff-ffff-ffffffffffff"
            )
        );
        assert_eq!(
            range("7b0c6c7e-"),
            from(
                "7b0c6c7e-0000-0000-0000-000000000000",
                "7b0c6c7e-ffff-ffff-ffff-ffffffffffff"
            )
        );
        for other in ["", "7b0c6", "7b0c6c-7e", "zb0c6c7e", &format!("{ID}0")] {
            assert_eq!(range(other), None, "{other}");
        }
    }

    #[test]
    fn a_marker_is_its_submission() {
        let marker = format!("gf-00000000-0000-0000-0000-000000000001-2-{ID}");
        let whole = Some((ID.to_owned(), ID.to_owned()));
        assert_eq!(range(&marker), whole);
        assert_eq!(range(&format!("https://s3/{marker}.mp4?a=b")), whole);
        for part in [
            format!("gf-{ID}"),
            format!("gf-{ID}-1-6f0f"),
            format!("gf-{}", &ID[..20]),
        ] {
            let found = range(&part).unwrap();
            assert!(found.0.as_str() <= ID && ID <= found.1.as_str(), "{part}");
        }
        assert_eq!(Sought::read(" 4711 ").text, "4711");
    }
}
