//! The model is checked: with all guards in nothing is wrong, and with any one of them out something is.

mod broken;
mod recovery;
mod sound;
