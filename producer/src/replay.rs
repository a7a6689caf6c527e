//! What operators do to many dead letters at once, for the command line and for the HTTP API: preview, replay, discard.
//!
//! Works through a selection piece by piece, each in a transaction of its own, so that it can be killed anywhere and simply be
//! done again. Decides nothing about a job: that is `domain::resume`, under the job's lock.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::json;
use shared::crash::{self, Point};
use shared::db::{
    Candidate, Db, DbResult, Discarded, Letter, LetterFilter, Pace, Plan, RestartOrder,
};
use shared::domain::Vendor;
use shared::domain::resume::{How, Refusal, Resume};

/// Letters in one transaction.
pub const PIECE: i64 = 100;

/// What becomes of a selection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Tally {
    /// Letters looked at; jobs, where no letters are replayed.
    pub letters: u64,
    /// Those that go on.
    pub replayable: u64,
    /// What their stages will do first, and how many do it: `import`, `submit`, `search`, `poll`, `store`.
    pub first: BTreeMap<&'static str, u64>,
    /// What submitting anew may cost, by vendor.
    pub paid: BTreeMap<&'static str, Cost>,
    /// Those for which GhostCut is paid in a later stage, if all goes well.
    pub then_inpaint: u64,
    /// Those that do not, by why.
    pub refused: BTreeMap<&'static str, u64>,
}

/// What submitting anew may cost at one vendor, in its units: what the last submission of each job cost or reserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Cost {
    /// Submissions.
    pub submissions: u64,
    /// Their cost, as far as it is known.
    pub last_cost: f64,
    /// Those whose cost is not.
    pub unknown: u64,
}

/// What became of one letter.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The letter.
    pub letter: Letter,
    /// Where its job goes, or why it does not.
    pub to: Result<Resume, Refusal>,
    /// Where it pays: what the last submission cost.
    pub last_cost: Option<f64>,
    /// Whether GhostCut is paid in a later stage.
    pub then_inpaints: bool,
}

impl Tally {
    /// Counts one more.
    pub fn add(&mut self, replayed: &Replayed) {
        self.count(replayed.to, replayed.last_cost, replayed.then_inpaints);
    }

    /// Counts where one goes, or why it does not, what the last submission cost, and whether GhostCut is paid later.
    pub fn count(
        &mut self,
        to: Result<Resume, Refusal>,
        last_cost: Option<f64>,
        then_inpaints: bool,
    ) {
        self.letters += 1;
        match to {
            Ok(to) => {
                self.replayable += 1;
                self.then_inpaint += u64::from(then_inpaints);
                *self.first.entry(to.how.as_str()).or_default() += 1;
                if let Some(vendor) = to.pays() {
                    let cost = self.paid.entry(vendor.as_str()).or_default();
                    cost.submissions += 1;
                    match last_cost {
                        Some(last) => cost.last_cost += last,
                        None => cost.unknown += 1,
                    }
                }
            }
            Err(refusal) => *self.refused.entry(refusal.as_str()).or_default() += 1,
        }
    }

    /// The counts in words, one line each; `what` they are of, such as `dead letters`.
    #[must_use]
    pub fn lines(&self, what: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for how in How::ALL {
            let Some(count) = self.first.get(how.as_str()) else {
                continue;
            };
            lines.push(format!("{count:>7} {}", in_words(*how)));
        }
        for vendor in Vendor::ALL {
            if let Some(cost) = self.paid.get(vendor.as_str()) {
                let unknown = match cost.unknown {
                    0 => String::new(),
                    unknown => format!("; the cost of {unknown} is not known"),
                };
                lines.push(format!(
                    "        to be paid: {} to {vendor}, by their last cost {}{unknown}",
                    cost.submissions,
                    money(*vendor, cost.last_cost)
                ));
            }
        }
        match (self.paid.is_empty(), self.then_inpaint) {
            _ if self.replayable == 0 => {}
            (true, 0) => lines.push("        nothing is paid for".to_owned()),
            (_, 0) => {}
            (_, later) => lines.push(format!(
                "        to be paid later, when that is done: {later} to ghostcut"
            )),
        }
        for refusal in Refusal::ALL {
            if let Some(count) = self.refused.get(refusal.as_str()) {
                lines.push(format!(
                    "{count:>7} not replayable ({refusal}): {}",
                    refusal.explain()
                ));
            }
        }
        if lines.is_empty() {
            lines.push(format!("      0 {what}"));
        }
        lines
    }
}

/// An amount in the vendor's unit.
#[must_use]
pub fn money(vendor: Vendor, amount: f64) -> String {
    // As many decimals as cents need, and fractions of them that are there.
    let rounded = format!("{amount:.4}");
    let (whole, cents) = rounded.split_at(rounded.len() - 2);
    let text = if cents == "00" { whole } else { &rounded };
    match vendor {
        Vendor::Sync => format!("{text} USD"),
        Vendor::Ghostcut => format!("{text} points"),
    }
}

/// What a stage will do first, in words.
#[must_use]
pub const fn in_words(how: How) -> &'static str {
    match how {
        How::Import => "stream the input into the bucket first",
        How::Submit => "submit anew, which is paid for",
        How::Search => "search for a request whose answer was lost",
        How::Poll => "resume polling what is paid for",
        How::Store => "store a result that is there",
    }
}

/// A letter that was named by its number and that nothing can be done about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotOpen {
    /// Its number.
    pub id: i64,
    /// How it was closed; none when there is no such letter.
    pub closed: Option<String>,
}

impl fmt::Display for NotOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.closed {
            Some(how) => write!(f, "dead letter {} was {how} already", self.id),
            None => write!(f, "there is no dead letter {}", self.id),
        }
    }
}

/// Those of the letters that a filter names by their numbers that are not open: whoever names one means it, and is to be told before
/// anything is done.
///
/// # Errors
/// When the database is away.
pub async fn not_open(db: &Db, filter: &LetterFilter) -> DbResult<Vec<NotOpen>> {
    let mut ids = filter.ids.clone();
    ids.sort_unstable();
    ids.dedup();
    let mut not_open = Vec::new();
    for ids in ids.chunks(PIECE as usize) {
        let named = LetterFilter {
            ids: ids.to_vec(),
            closed: true,
            ..LetterFilter::default()
        };
        let letters = db.letters_after(&named, i64::MIN, PIECE).await?;
        for id in ids {
            let closed = match letters.iter().find(|letter| letter.id == *id) {
                Some(letter) if letter.resolved_at.is_none() => continue,
                Some(letter) => Some(letter.resolution.clone().unwrap_or_default()),
                None => None,
            };
            not_open.push(NotOpen { id: *id, closed });
        }
    }
    Ok(not_open)
}

/// What would become of a selection, or of the first `most` of it (in whole pieces).
///
/// # Errors
/// When the database is away.
pub async fn preview(
    db: &Db,
    filter: &LetterFilter,
    order: &RestartOrder,
    most: u64,
) -> DbResult<Tally> {
    let mut tally = Tally::default();
    let mut after = 0;
    while tally.letters < most {
        let letters = db.letters_after(filter, after, PIECE).await?;
        let Some(last) = letters.last() else {
            return Ok(tally);
        };
        after = last.id;
        let plans = db.plan_restart(order, &candidates(&letters)).await?;
        for replayed in paired(letters, plans) {
            tally.add(&replayed);
        }
    }
    Ok(tally)
}

/// Replays the next letters of a selection, those after `after`, at most `limit`, in one transaction. Empty: there are none.
///
/// # Errors
/// When the outcome is not known; replaying again is harmless.
pub async fn replay_piece(
    db: &Db,
    filter: &LetterFilter,
    order: &RestartOrder,
    after: i64,
    limit: i64,
    pace: &mut Pace,
) -> DbResult<Vec<Replayed>> {
    let letters = db.letters_after(filter, after, limit).await?;
    if letters.is_empty() {
        return Ok(Vec::new());
    }
    let plans = db.restart(order, &candidates(&letters), pace).await?;
    crash::point(Point::LettersReplayed);
    // A hint: dispatch has a timer.
    let _ = db.notify_due().await;
    Ok(paired(letters, plans))
}

/// Discards the next letters of a selection. Empty: there are none.
///
/// # Errors
/// When the outcome is not known; discarding again is harmless.
pub async fn discard_piece(
    db: &Db,
    filter: &LetterFilter,
    by: &str,
    reason: &str,
    after: i64,
) -> DbResult<Vec<(i64, Discarded)>> {
    let letters = db.letters_after(filter, after, PIECE).await?;
    let ids: Vec<i64> = letters.iter().map(|letter| letter.id).collect();
    let mut done = db.discard_letters(&ids, by, reason).await?;
    crash::point(Point::LettersDiscarded);
    done.sort_by_key(|(id, _)| *id);
    Ok(done)
}

/// Notes in the operators' trail that a selection is about to be worked through.
///
/// # Errors
/// Then it is not to be.
pub async fn note(
    db: &Db,
    by: &str,
    reason: &str,
    action: &str,
    filter: &LetterFilter,
) -> DbResult<()> {
    db.note_operation(
        by,
        reason,
        action,
        "dead_letters",
        &json!({ "filter": filter }),
    )
    .await
}

fn candidates(letters: &[Letter]) -> Vec<Candidate> {
    letters.iter().filter_map(Letter::candidate).collect()
}

/// Plans come in the order of the letters that name a job.
fn paired(letters: Vec<Letter>, plans: Vec<Plan>) -> Vec<Replayed> {
    let mut plans = plans.into_iter();
    letters
        .into_iter()
        .map(|letter| {
            let plan = match (letter.job_id, letter.epoch) {
                (Some(_), Some(_)) => plans.next(),
                _ => None,
            };
            let (to, last_cost, then_inpaints) = match plan {
                Some(plan) => (plan.to, plan.last_cost, plan.then_inpaints),
                None => (Err(Refusal::Undecidable), None, false),
            };
            Replayed {
                letter,
                to,
                last_cost,
                then_inpaints,
            }
        })
        .collect()
}
