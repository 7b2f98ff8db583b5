//! Changes of a running system: what they do, what they cannot do, and what overrides them.
//!
//! Pure rules over plain data: the controller says what is before and after, and does it.

pub mod fixed;
pub mod overrides;
pub mod plan;
