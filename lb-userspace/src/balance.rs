//! (in the making)

pub mod maglev;
pub mod overlay;
