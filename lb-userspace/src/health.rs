//! Health: which backends answer, found by probing each of them in turn.
//!
//! [`state`] decides from outcomes whether a backend is up and [`schedule`] when to probe it
//! next; both are pure. [`probe`] asks one backend once, [`driver`] runs the probes of all
//! backends and reports what they found. Nothing here acts on the verdict: the controller does.

pub mod driver;
pub mod probe;
pub mod schedule;
pub mod state;
