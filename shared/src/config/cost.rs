//! What submissions are expected to cost, for budgets and until the vendor says.

use clap::Args;

/// Expected costs. Only workers need them.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Costs")]
pub struct CostConfig {
    /// Expected cost of a Sync.so generation in US dollars, for each second of its segments
    #[arg(long, env, default_value_t = 0.083, value_parser = amount)]
    pub sync_cost_per_second: f64,
    /// Expected cost of a Sync.so generation in US dollars, whatever its length
    #[arg(long, env, default_value_t = 0.0, value_parser = amount)]
    pub sync_cost_flat: f64,
    /// Expected cost of a GhostCut work in points, for each started 30 seconds
    #[arg(long, env, default_value_t = 1.0, value_parser = amount)]
    pub ghostcut_cost_per_30s: f64,
    /// Expected cost of a GhostCut work in points, where the length of its video is not known
    #[arg(long, env, default_value_t = 2.0, value_parser = amount)]
    pub ghostcut_cost_flat: f64,
}

fn amount(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(amount) if amount.is_finite() && amount >= 0.0 => Ok(amount),
        _ => Err("must be a number, 0 or more".to_owned()),
    }
}
