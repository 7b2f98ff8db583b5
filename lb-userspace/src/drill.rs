//! Drills: incidents that are rehearsed, with what is expected of them and what was found.
//!
//! [`lever`] says how far a fault may go, [`sight`] what is seen of it in a status, [`watch`] when it
//! is ended before its time, [`course`] where a drill stands and what it was worth, [`text`] how that
//! reads; [`tabletop`] asks about what was recorded. All of it is a function of its arguments; `controller::drill`, `sandbox` and `cli::drill` do
//! it.

pub mod course;
pub mod lever;
pub mod sight;
pub mod tabletop;
pub mod text;
pub mod watch;
