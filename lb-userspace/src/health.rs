//! Health: which backends answer, found by probing each of them in turn.
//!
//! Pure are [`state`], which decides from outcomes whether a backend is up; [`outlier`], which
//! finds those that answer and underperform; [`slow_start`], how one that comes back gets its
//! weight; [`agent`], what a backend asks for; [`force`], what is left of each one's weight; [`schedule`], when to probe; and [`event`], what
//! there is to tell. [`probe`] asks one backend once, [`driver`] runs the probes of all backends
//! and reports what they found. Nothing here acts on a verdict: the controller does.

pub mod agent;
pub mod driver;
pub mod event;
pub mod force;
pub mod outlier;
pub mod probe;
pub mod schedule;
pub mod slow_start;
pub mod state;
