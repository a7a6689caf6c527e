//! What goes wrong in the demo: when which worker is killed, and which of the vendors' answers get lost.

use std::time::{Duration, Instant};

use fleet::{Control, Snapshot};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sandbox::{Fault, FaultRule, Operation, Vendor, When};

use crate::site::Site;
use crate::view::View;

/// Share of the milestones after which the last worker is killed: what it held must still be seen to recover.
const LAST_KILL: f64 = 0.75;
/// How long to wait for a worker whose paid request is on its way, which is the worst moment.
const PATIENCE: Duration = Duration::from_secs(2);

/// The plan of a run and how far it has come.
pub(crate) struct Chaos {
    /// Milestones after which a worker is to be killed, in order.
    due: Vec<usize>,
    kills: usize,
    waiting_since: Option<Instant>,
    requests_get_lost: bool,
    random: StdRng,
}

impl Chaos {
    /// Spreads `kills` over a run that passes so many milestones.
    pub(crate) fn new(kills: u32, seed: u64, milestones: usize) -> Self {
        let step = (milestones.saturating_sub(1)) as f64 * LAST_KILL / f64::from(kills.max(1));
        Self {
            due: (0..kills)
                .map(|kill| 1 + (f64::from(kill) * step) as usize)
                .collect(),
            kills: 0,
            waiting_since: None,
            requests_get_lost: false,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Workers killed so far.
    pub(crate) const fn kills(&self) -> usize {
        self.kills
    }

    /// From the start on: the vendors accept, but some answers are late or never seen.
    pub(crate) async fn begin(&self, control: &Control) -> anyhow::Result<()> {
        let late = Fault::Delay {
            ms: 400,
            when: When::After,
        };
        for vendor in [Vendor::Sync, Vendor::Ghostcut] {
            let on_submit = |fault| FaultRule::new(vendor, Operation::Submit, fault);
            let certainly = FaultRule {
                skip: 1,
                ..on_submit(Fault::LoseAnswer).times(1)
            };
            control.add_fault(&certainly).await?;
            let sometimes = on_submit(Fault::LoseAnswer).with_probability(0.1);
            control.add_fault(&sometimes).await?;
            let often = on_submit(late.clone()).with_probability(0.4);
            control.add_fault(&often).await?;
        }
        Ok(())
    }

    /// Does what is due at this moment.
    pub(crate) async fn act(
        &mut self,
        site: &mut Site,
        now: &Snapshot,
        jobs_run: bool,
        view: &View,
    ) -> anyhow::Result<()> {
        // That GhostCut never got a request can be proved only beside another work of that time. Before
        // the first one, a request that gets lost would have to be left to a person.
        let provable = now.ghostcut > 0;
        if provable && !self.requests_get_lost {
            self.requests_get_lost = true;
            lose_requests(site.control()?).await?;
        }
        let passed = usize::try_from(now.sync + now.ghostcut + now.completed)?;
        let is_due = |kill: usize| self.due.get(kill).is_some_and(|due| passed >= *due);
        if !is_due(self.kills) || !jobs_run || !(provable || now.submitting_ghostcut == 0) {
            return Ok(());
        }
        let behind = is_due(self.kills + 1);
        let Some(victim) = self.victim(&site.workers(), now, behind) else {
            return Ok(());
        };
        self.waiting_since = None;
        let (victim, replacement) = site.replace_worker(victim).await?;
        self.kills += 1;
        let held = match now.paying.iter().filter(|name| **name == victim).count() {
            0 => String::new(),
            n => format!(" while it paid for {n}"),
        };
        view.say(&format!(
            "kill {} of {}: {victim}{held}; {replacement} takes its place",
            self.kills,
            self.due.len()
        ));
        Ok(())
    }

    /// A worker that pays right now; any, when nobody is about to, none did for a while, or the plan is behind.
    fn victim(&mut self, workers: &[&str], now: &Snapshot, behind: bool) -> Option<usize> {
        let pays = |name: &str| now.paying.iter().any(|paying| paying == name);
        if let Some(paying) = workers.iter().position(|name| pays(name)) {
            return Some(paying);
        }
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let hopeless = now.submitting_sync + now.submitting_ghostcut == 0;
        let any = behind || hopeless || since.elapsed() > PATIENCE;
        any.then(|| self.random.random_range(0..workers.len()))
    }
}

/// Some requests arrive late, some never.
async fn lose_requests(control: &Control) -> anyhow::Result<()> {
    let late = Fault::Delay {
        ms: 400,
        when: When::Before,
    };
    for vendor in [Vendor::Sync, Vendor::Ghostcut] {
        let on_submit = |fault| FaultRule::new(vendor, Operation::Submit, fault);
        let certainly = on_submit(Fault::LoseRequest).times(1);
        control.add_fault(&certainly).await?;
        let seldom = on_submit(Fault::LoseRequest).with_probability(0.03);
        control.add_fault(&seldom).await?;
        let often = on_submit(late.clone()).with_probability(0.2);
        control.add_fault(&often).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_spread_and_end_before_the_jobs_do() {
        let chaos = Chaos::new(5, 1, 64);
        assert_eq!(chaos.due, [1, 10, 19, 29, 38]);
        let one_job = Chaos::new(5, 1, 3);
        assert!(one_job.due.iter().all(|due| (1..3).contains(due)));
        assert!(Chaos::new(0, 1, 64).due.is_empty());
    }

    #[test]
    fn a_worker_that_pays_is_chosen_first() {
        let mut chaos = Chaos::new(1, 1, 64);
        let mut now = Snapshot {
            submitting_sync: 1,
            ..Snapshot::default()
        };
        let workers = ["a", "b"];
        assert_eq!(chaos.victim(&workers, &now, false), None, "waits for one");
        assert!(chaos.victim(&workers, &now, true).is_some(), "cannot wait");
        now.paying = vec!["gone".to_owned(), "b".to_owned()];
        assert_eq!(chaos.victim(&workers, &now, false), Some(1));
        now = Snapshot::default();
        assert!(chaos.victim(&workers, &now, false).is_some(), "none will");
    }
}
