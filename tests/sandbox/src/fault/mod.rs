//! Faults: rules that make a simulator misbehave on chosen requests, and the record of those that fired.
//! A rule changes nothing until a request matches it; what a fault does is carried out by the servers.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::truth::{Vendor, now_ms};

mod kind;

pub use kind::{Fault, IdForm, Operation, When};

/// Why a rule was refused.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// The fault cannot act there.
    #[error("this fault never acts on this vendor's operation")]
    NeverActs,
    /// `probability` outside 0..=1.
    #[error("probability must be between 0 and 1")]
    Probability,
}

/// When a fault strikes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// Which simulator.
    pub vendor: Vendor,
    /// Which operation.
    pub operation: Operation,
    /// Only if the request (path, query and body; for process, callback and result: id, marker, URLs,
    /// project and key of the work) contains this text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// Let this many matching requests pass first.
    #[serde(default)]
    pub skip: u64,
    /// Strike at most so often; absent: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Chance per matching request, 0..=1; absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// What happens.
    pub fault: Fault,
}

impl FaultRule {
    /// A rule that strikes every such request; narrow it by the methods below.
    pub fn new(vendor: Vendor, operation: Operation, fault: Fault) -> Self {
        Self {
            vendor,
            operation,
            contains: None,
            skip: 0,
            count: None,
            probability: None,
            fault,
        }
    }

    /// Strikes only the first `count` matching requests.
    pub fn times(self, count: u64) -> Self {
        Self {
            count: Some(count),
            ..self
        }
    }

    /// Strikes only requests that contain `text`.
    pub fn containing(self, text: impl Into<String>) -> Self {
        Self {
            contains: Some(text.into()),
            ..self
        }
    }

    /// Strikes with this chance.
    pub fn with_probability(self, probability: f64) -> Self {
        Self {
            probability: Some(probability),
            ..self
        }
    }
}

/// A rule with its id and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct ActiveRule {
    /// Id for removal.
    pub id: u64,
    /// The rule.
    #[serde(flatten)]
    pub rule: FaultRule,
    /// Requests that matched.
    pub matched: u64,
    /// Times it struck.
    pub fired: u64,
}

/// One stroke of a rule.
#[derive(Clone, Debug, Serialize)]
pub struct FiredFault {
    /// Epoch milliseconds.
    pub at: i64,
    /// Rule id.
    pub rule: u64,
    /// Which simulator.
    pub vendor: Vendor,
    /// Which operation.
    pub operation: Operation,
    /// What happened.
    pub fault: Fault,
}

#[derive(Default)]
struct Book {
    rules: Vec<ActiveRule>,
    fired: Vec<FiredFault>,
    last_id: u64,
}

/// All rules and what they did; rules are tried in the order they were added, and all that match strike.
pub struct Faults {
    seed: u64,
    book: Mutex<Book>,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            book: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule and returns its id.
    ///
    /// # Errors
    /// [`FaultError`] when the rule makes no sense.
    pub fn add(&self, rule: FaultRule) -> Result<u64, FaultError> {
        rule.fault.check(rule.vendor, rule.operation)?;
        if rule
            .probability
            .is_some_and(|chance| !(0.0..=1.0).contains(&chance))
        {
            return Err(FaultError::Probability);
        }
        let mut book = self.lock();
        book.last_id += 1;
        let id = book.last_id;
        book.rules.push(ActiveRule {
            id,
            rule,
            matched: 0,
            fired: 0,
        });
        Ok(id)
    }

    /// Removes a rule; `false` when there was none.
    pub fn remove(&self, id: u64) -> bool {
        let mut book = self.lock();
        let before = book.rules.len();
        book.rules.retain(|active| active.id != id);
        book.rules.len() < before
    }

    /// Removes all rules and the record.
    pub fn clear(&self) {
        let mut book = self.lock();
        book.rules.clear();
        book.fired.clear();
    }

    /// All rules.
    pub fn rules(&self) -> Vec<ActiveRule> {
        self.lock().rules.clone()
    }

    /// All strokes, oldest first.
    pub fn fired(&self) -> Vec<FiredFault> {
        self.lock().fired.clone()
    }

    /// The faults that strike this request; each is recorded as fired.
    pub(crate) fn strike(&self, vendor: Vendor, operation: Operation, subject: &str) -> Vec<Fault> {
        let mut book = self.lock();
        let Book { rules, fired, .. } = &mut *book;
        let mut struck = Vec::new();
        for active in rules {
            let rule = &active.rule;
            let matches = rule.vendor == vendor
                && rule.operation == operation
                && rule
                    .contains
                    .as_ref()
                    .is_none_or(|text| subject.contains(text));
            if !matches {
                continue;
            }
            active.matched += 1;
            let chance = unit_interval(self.seed, active.id, active.matched);
            let strikes = active.matched > rule.skip
                && rule.count.is_none_or(|count| active.fired < count)
                && rule.probability.is_none_or(|limit| chance < limit);
            if strikes {
                active.fired += 1;
                let fault = rule.fault.clone();
                fired.push(FiredFault {
                    at: now_ms(),
                    rule: active.id,
                    vendor,
                    operation,
                    fault: fault.clone(),
                });
                struck.push(fault);
            }
        }
        struck
    }
}

/// A number in 0..1 that depends on nothing but its arguments (SplitMix64).
pub(crate) fn unit_interval(seed: u64, stream: u64, number: u64) -> f64 {
    let mut z = seed
        .wrapping_add(stream.wrapping_mul(0xA076_1D64_78BD_642F))
        .wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(fault: Fault) -> FaultRule {
        FaultRule::new(Vendor::Ghostcut, Operation::Submit, fault)
    }

    #[test]
    fn a_rule_strikes_what_it_matches_so_often_as_it_may() {
        let faults = Faults::new(1);
        let once = FaultRule {
            skip: 1,
            ..rule(Fault::LoseAnswer).containing("job-1").times(1)
        };
        faults.add(once).unwrap();
        let strike = |text| {
            faults
                .strike(Vendor::Ghostcut, Operation::Submit, text)
                .len()
        };
        assert_eq!(strike("job-2"), 0);
        assert_eq!(strike("job-1"), 0, "skipped");
        assert_eq!(strike("job-1"), 1);
        assert_eq!(strike("job-1"), 0, "spent");
        assert_eq!(faults.fired().len(), 1);
        assert_eq!((faults.rules()[0].matched, faults.rules()[0].fired), (3, 1));
    }

    #[test]
    fn probability_is_seeded_and_about_right() {
        let run = |seed| {
            let faults = Faults::new(seed);
            faults
                .add(rule(Fault::LoseRequest).with_probability(0.25))
                .unwrap();
            (0..4000)
                .map(|_| faults.strike(Vendor::Ghostcut, Operation::Submit, "").len())
                .collect::<Vec<_>>()
        };
        let (first, again, other) = (run(7), run(7), run(8));
        assert_eq!(first, again);
        assert_ne!(first, other);
        let share = first.iter().sum::<usize>() as f64 / 4000.0;
        assert!((0.22..0.28).contains(&share), "{share}");
    }

    #[test]
    fn rules_that_could_never_act_are_refused() {
        let faults = Faults::new(1);
        let sync = |operation, fault| FaultRule::new(Vendor::Sync, operation, fault);
        assert!(
            faults
                .add(sync(
                    Operation::Submit,
                    Fault::Code {
                        code: 9999,
                        when: When::After
                    }
                ))
                .is_err()
        );
        assert!(
            faults
                .add(sync(Operation::Result, Fault::LoseAnswer))
                .is_err()
        );
        assert!(
            faults
                .add(rule(Fault::Delay {
                    ms: 1,
                    when: When::During
                }))
                .is_err()
        );
        assert!(
            faults
                .add(rule(Fault::LoseRequest).with_probability(1.5))
                .is_err()
        );
        assert!(faults.rules().is_empty());
    }
}
