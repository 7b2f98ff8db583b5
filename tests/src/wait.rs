//! Waiting for something to become true, with a deadline and a reason.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// How long to pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `check` succeeds, and answers what it found.
///
/// # Errors
///
/// The last failure of `check`, once `limit` has passed; it says what was awaited.
pub fn until<T>(
    what: impl Display,
    limit: Duration,
    mut check: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = now();
    loop {
        match check() {
            Ok(found) => return Ok(found),
            Err(reason) if start.elapsed() >= limit => {
                return Err(reason).with_context(|| format!("waited {limit:?} for {what}"));
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "waiting is what reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn answers_what_was_found() {
        let mut looks = 0;
        let found = until("the third look", Duration::from_secs(5), || {
            looks += 1;
            if looks == 3 {
                Ok(looks)
            } else {
                bail!("only look {looks}")
            }
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn says_what_was_awaited_and_why_it_was_not_found() {
        let error = until::<()>("spring", Duration::from_millis(20), || bail!("snow")).unwrap_err();
        assert_eq!(format!("{error:#}"), "waited 20ms for spring: snow");
    }
}
