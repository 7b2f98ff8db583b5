//! Is the load even? Three references, never one.
//!
//! A detector whose expectation comes from the configured weights cannot see an outage whose cause
//! *is* the weights. So the load is held against three references, the first two of them exactly:
//!
//! - R1: the configured weights against the declared capacities ([`config_reference`]), and the
//!   intended table's shares against the weights ([`table_reference`]);
//! - R2: the kernel's table against the intended one, slot by slot ([`drift`]);
//! - R3: the observed new flows against the shares of the table ([`Detector`]).
//!
//! R3 is a statistical test, and new flows are all that it looks at: packets and bytes are at the
//! mercy of single large flows. Every backend is watched by a bank of [CUSUMs](super::cusum) for
//! odds that are 1.08, 1.3 and 2 times as high or as low as intended. With the alarm threshold
//! `ln(6 · K · services · 2.592e6 / 0.1)` for K backends, all tests of all services together raise
//! at most 0.1 false alarms in a month of 2.592e6 seconds. Evidence is divided by the
//! [overdispersion](super::overdispersion) φ of the arrivals.
//!
//! # What simulation changed
//!
//! The tests simulate even, clumped, skewed and changing traffic. Measured against the plain method
//! (evidence and φ over the same windows, a warm-up of 60 s, φ frozen under suspicion, alarms
//! cleared by the same alternative that raised them):
//!
//! - The tests take every second as it comes; only φ is measured over windows long enough to expect
//!   five flows at the smallest share. The threshold allows for a look every second anyway. With
//!   one backend of a hundredth of the others' weight, at 100 flows/s, a doubled share of another
//!   backend is found after 6 s (95 %: 9 s) rather than 28 s (42 s).
//! - The warm-up lasts until φ rests on at least sixty independent comparisons. Three backends at
//!   1 flow/s in clumps of 8, with a restart every half hour, raised 31 false alarms in 1,000 hours
//!   after 60 s of warm-up, and none this way.
//! - Where φ is above 2, a single tick adds a limited part of the threshold. Clump sizes with a
//!   Pareto tail (mean 8, index 2.5) raised 127 false alarms in ten days of ten backends at
//!   100 flows/s, and none this way. Arrivals without clumps are not affected.
//! - φ is never frozen. Differences, winsorised, keep a skew from hiding itself: steady and wavering
//!   skews are found as soon as with a freeze. But where clumps of 8 began after quiet times, a φ
//!   frozen under suspicion never learned of them, and the false alarm lasted for as long as the
//!   simulation, six hours; this way it ends within one.
//! - An alarm is taken back by evidence against a milder skew than the one that raised it. A share
//!   4 % too high at 5,000 flows/s raised and cleared 78 alarms in four hours, and one this way.
//! - An even verdict claims only what could have been seen since the warm-up: at first that is a
//!   large skew over a short time.

mod assessment;
mod cause;
mod detector;
mod phrase;
mod power;
mod reference;

pub use assessment::{Assessment, Severity, Skew, Verdict, Why};
pub use cause::{Cause, Judgement, judge as cause};
pub use detector::{Detector, Settings};
pub use power::Detectable;
pub use reference::{
    Deviation, Drift, OwnerChange, SlotDifference, config_reference, drift, table_reference,
};

/// The odds ratios that every backend is tested for.
const BANK: [(f64, Severity); 6] = [
    (2.0, Severity::Page),
    (1.0 / 2.0, Severity::Page),
    (1.3, Severity::Warning),
    (1.0 / 1.3, Severity::Warning),
    (1.08, Severity::Ticket),
    (1.0 / 1.08, Severity::Ticket),
];
