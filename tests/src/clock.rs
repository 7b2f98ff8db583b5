//! The wall clock, as the controller's JSON and the traffic client's records tell it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
///
/// # Panics
///
/// Where the clock stands before the epoch.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one reader of the wall clock here"
)]
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is set");
    u64::try_from(since.as_millis()).expect("milliseconds fit into 64 bits")
}
