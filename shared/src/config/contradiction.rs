//! Settings that are good each and wrong together.

/// Everything that is wrong with the settings taken together.
#[derive(Debug, thiserror::Error)]
#[error("the configuration contradicts itself:\n  {}", .0.join("\n  "))]
pub struct Contradiction(pub Vec<String>);

impl Contradiction {
    /// None is good.
    ///
    /// # Errors
    /// The faults, if there are any.
    pub fn none(faults: Vec<String>) -> Result<(), Self> {
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Self(faults))
        }
    }
}
