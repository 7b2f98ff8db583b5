//! Is a host fit for the data plane? Facts are gathered, rules judge them, findings say so.
//!
//! [`gather`] asks the kernel; [`facts`], [`rules`] and [`finding`] are pure, so that every rule
//! is tested on facts that this machine does not have.

pub mod facts;
pub mod finding;
pub mod gather;
pub mod rules;
