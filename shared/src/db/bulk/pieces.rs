//! What one piece of an operation does, in the transaction and under the lock of its caller.

use std::collections::BTreeMap;

use diesel::sql_types::{BigInt, Jsonb, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{MAX_GROUPS, OperationRow, Piece, read, write};
use crate::db::DbResult;
use crate::db::dispatch::millis;
use crate::db::job_actions::{self, Canceled, Resumed};
use crate::db::job_list::{self, JobFilter, JobPlace};
use crate::db::letters::{self, Discarded, Letter, LetterFilter};
use crate::db::restart::{self, Candidate, Pace, RestartOrder};
use crate::domain::bulk::{BulkAction, BulkState, Canary, PIECE, piece, step};
use crate::domain::resume::{Refusal, Resume};

/// Letters of a group among which a canary is looked for: all of it is one transaction, and a stop waits for that.
const CANARY_SEARCH: usize = 1000;
/// What is found out in a piece.
#[derive(Default)]
struct Found {
    looked_at: i64,
    changed: i64,
    refused: BTreeMap<String, u64>,
    /// Where to go on; none: everything was looked at.
    position: Option<Value>,
    canaries: Option<Value>,
    /// The filter, where it is another one from now on.
    filter: Option<Value>,
}

impl Found {
    fn count(&mut self, refused: Option<&str>) {
        self.looked_at += 1;
        match refused {
            None => self.changed += 1,
            Some(why) => *self.refused.entry(why.to_owned()).or_default() += 1,
        }
    }
}

impl OperationRow {
    fn per_minute(&self) -> Option<u32> {
        self.per_minute.map(i32::unsigned_abs)
    }

    fn order(&self) -> RestartOrder {
        RestartOrder {
            by: self.actor.clone(),
            reason: self.reason.clone(),
            operation: Some(self.id),
            another_attempt: self.another_attempt,
        }
    }

    fn pace(&self) -> Pace {
        Pace {
            step: step(self.per_minute()),
            ..Pace::default()
        }
    }
}

/// Does the next piece and writes how far the operation has come.
pub(super) async fn next(
    connection: &mut AsyncPgConnection,
    operation: &OperationRow,
) -> DbResult<Piece> {
    let order = operation.order();
    let found = match operation.action.parse()? {
        BulkAction::Replay if operation.canary && operation.canaries.is_none() => {
            replay_canaries(connection, operation, &order).await?
        }
        BulkAction::Replay => replay_letters(connection, operation, &order).await?,
        BulkAction::Discard => discard_letters(connection, operation).await?,
        action => change_jobs(connection, operation, action, &order).await?,
    };
    advance(connection, operation, found).await
}

/// The next jobs, and what is done to them.
async fn change_jobs(
    connection: &mut AsyncPgConnection,
    operation: &OperationRow,
    action: BulkAction,
    order: &RestartOrder,
) -> DbResult<Found> {
    // Who asked for it has seen no job that was created or has ended since.
    let filter = JobFilter {
        upto: Some(operation.created_at),
        ..read::<JobFilter>(&operation.filter)?
    };
    let before: Option<JobPlace> = operation.position.as_ref().map(read).transpose()?;
    let limit = piece(operation.per_minute());
    let (places, next) = job_list::places(connection, &filter, before, limit).await?;
    let jobs: Vec<Uuid> = places.iter().map(|place| place.id).collect();
    let mut found = Found {
        position: next.as_ref().map(write).transpose()?,
        ..Found::default()
    };
    let (by, reason) = (&order.by, &order.reason);
    match action {
        BulkAction::Cancel => {
            for (_, canceled) in job_actions::cancel(connection, &jobs, by, reason).await? {
                found.count(match &canceled {
                    Canceled::Now | Canceled::Following => None,
                    Canceled::Before => Some("canceled"),
                    Canceled::Finished(status) => Some(status),
                    Canceled::Gone => Some("job_gone"),
                });
            }
        }
        BulkAction::Resume => {
            for (_, resumed) in job_actions::resume(connection, &jobs, by, reason).await? {
                found.count(match resumed {
                    Resumed::Now => None,
                    Resumed::Stays(_) => Some("not_resumable"),
                    Resumed::Over => Some("over"),
                    Resumed::Gone => Some("job_gone"),
                });
            }
        }
        BulkAction::Retry | BulkAction::Replay | BulkAction::Discard => {
            let candidate = |job: &Uuid| Candidate {
                job: *job,
                letter_epoch: None,
            };
            let candidates: Vec<_> = jobs.iter().map(candidate).collect();
            let mut pace = operation.pace();
            for plan in restart::restart(connection, order, &candidates, &mut pace).await? {
                found.count(plan.to.err().map(Refusal::as_str));
            }
        }
    }
    Ok(found)
}

/// Where the letters of an operation go on.
fn last_letter(operation: &OperationRow) -> DbResult<i64> {
    Ok(operation
        .position
        .as_ref()
        .map(read)
        .transpose()?
        .unwrap_or(0))
}

/// The next letters, put back.
async fn replay_letters(
    connection: &mut AsyncPgConnection,
    operation: &OperationRow,
    order: &RestartOrder,
) -> DbResult<Found> {
    let (filter, limit) = (read(&operation.filter)?, piece(operation.per_minute()));
    let letters =
        letters::after_letter(connection, &filter, last_letter(operation)?, limit).await?;
    let candidates: Vec<_> = letters.iter().filter_map(Letter::candidate).collect();
    let mut found = Found {
        position: letters.last().map(|letter| json!(letter.id)),
        ..Found::default()
    };
    for _ in candidates.len()..letters.len() {
        found.count(Some("undecidable"));
    }
    let mut pace = operation.pace();
    for plan in restart::restart(connection, order, &candidates, &mut pace).await? {
        found.count(plan.to.err().map(Refusal::as_str));
    }
    Ok(found)
}

/// The next letters, closed.
async fn discard_letters(
    connection: &mut AsyncPgConnection,
    operation: &OperationRow,
) -> DbResult<Found> {
    let (filter, limit) = (read(&operation.filter)?, piece(operation.per_minute()));
    let letters =
        letters::after_letter(connection, &filter, last_letter(operation)?, limit).await?;
    let ids: Vec<i64> = letters.iter().map(|letter| letter.id).collect();
    let mut found = Found {
        position: ids.last().map(|id| json!(id)),
        ..Found::default()
    };
    for (_, discarded) in
        letters::discard(connection, &ids, &operation.actor, &operation.reason).await?
    {
        found.count(match discarded {
            Discarded::Discarded => None,
            Discarded::Resolved => Some("closed"),
            Discarded::Gone => Some("gone"),
        });
    }
    Ok(found)
}

/// Of each group the first letter that can be replayed, put back. The others are looked at when the operation goes on; but a group of
/// which none can be is left alone.
async fn replay_canaries(
    connection: &mut AsyncPgConnection,
    operation: &OperationRow,
    order: &RestartOrder,
) -> DbResult<Found> {
    let mut filter: LetterFilter = read(&operation.filter)?;
    let mut found = Found::default();
    let mut canaries: Vec<Canary> = Vec::new();
    let mut candidates: Vec<Candidate> = Vec::new();
    for group in letters::groups(connection, &filter, None, MAX_GROUPS).await? {
        let of_group = LetterFilter {
            stage: Some(group.stage.clone()),
            class: Some(group.error_class.clone()),
            reason: Some(group.reason.clone()),
            ..filter.clone()
        };
        match first_replayable(connection, &of_group, order).await? {
            Ok((letter, candidate, to)) => {
                candidates.push(candidate);
                canaries.push(Canary {
                    stage: group.stage,
                    class: group.error_class,
                    reason: group.reason,
                    letter,
                    job: candidate.job,
                    put_into: to.stage,
                });
            }
            Err(refused) => {
                for why in refused {
                    found.count(Some(why.as_str()));
                }
                let group = (group.stage, group.error_class, group.reason);
                filter.except.push(group);
            }
        }
    }
    // What was planned without locks may have changed; then it is no canary.
    let mut pace = operation.pace();
    let plans = restart::restart(connection, order, &candidates, &mut pace).await?;
    let mut plans = plans.into_iter();
    canaries.retain_mut(|canary| match plans.next().map(|plan| plan.to) {
        Some(Ok(to)) => {
            canary.put_into = to.stage;
            found.count(None);
            true
        }
        Some(Err(_)) | None => false,
    });
    found.canaries = Some(write(&canaries)?);
    found.filter = Some(write(&filter)?);
    // With none there is nothing to wait for.
    found.position = canaries.is_empty().then(|| json!(0));
    Ok(found)
}

/// The first letter of a group that can be replayed; otherwise why none of those that were looked at can.
async fn first_replayable(
    connection: &mut AsyncPgConnection,
    group: &LetterFilter,
    order: &RestartOrder,
) -> DbResult<Result<(i64, Candidate, Resume), Vec<Refusal>>> {
    let (mut after, mut refused) = (0, Vec::new());
    while refused.len() < CANARY_SEARCH {
        let letters = letters::after_letter(connection, group, after, PIECE).await?;
        let Some(last) = letters.last() else {
            break;
        };
        after = last.id;
        let candidates: Vec<_> = letters.iter().filter_map(Letter::candidate).collect();
        let mut plans = restart::plan(connection, order, &candidates)
            .await?
            .into_iter();
        for letter in &letters {
            // Plans come in the order of the letters that name a job.
            let named = letter.candidate();
            let planned = named.and_then(|candidate| Some((candidate, plans.next()?.to)));
            refused.push(match planned {
                Some((candidate, Ok(to))) => return Ok(Ok((letter.id, candidate, to))),
                Some((_, Err(why))) => why,
                None => Refusal::Undecidable,
            });
        }
    }
    Ok(Err(refused))
}

/// Writes how far the operation has come. A canary piece waits for a person afterwards; otherwise no position means the end.
async fn advance(
    connection: &mut AsyncPgConnection,
    operation: &OperationRow,
    found: Found,
) -> DbResult<Piece> {
    let state = match (&found.position, &found.canaries) {
        (Some(_), _) => BulkState::Running,
        (None, Some(_)) => BulkState::Awaiting,
        (None, None) => BulkState::Done,
    };
    let mut refused: BTreeMap<String, u64> = read(&operation.refused)?;
    for (why, count) in found.refused {
        *refused.entry(why).or_default() += count;
    }
    let pause = step(operation.per_minute()) * u32::try_from(found.changed).unwrap_or(u32::MAX);
    diesel::sql_query(
        "UPDATE operations SET done = done + $2, changed = changed + $3, refused = $4, position = coalesce($5, position), \
             canaries = coalesce($6, canaries), filter = coalesce($9, filter), state = $7, updated_at = clock_timestamp(), \
             due_at = clock_timestamp() + make_interval(secs => $8 / 1000.0), \
             finished_at = CASE WHEN $7 = 'done' THEN clock_timestamp() END WHERE id = $1",
    )
    .bind::<BigInt, _>(operation.id)
    .bind::<BigInt, _>(found.looked_at)
    .bind::<BigInt, _>(found.changed)
    .bind::<Jsonb, _>(write(&refused)?)
    .bind::<Nullable<Jsonb>, _>(found.position)
    .bind::<Nullable<Jsonb>, _>(found.canaries)
    .bind::<Text, _>(state.as_str())
    .bind::<BigInt, _>(millis(pause))
    .bind::<Nullable<Jsonb>, _>(found.filter)
    .execute(connection)
    .await?;
    Ok(Piece {
        changed: found.changed,
        state,
    })
}
