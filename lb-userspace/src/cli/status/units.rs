//! Numbers, times and bars for people.

use std::time::Duration;

/// How many characters a full bar takes; its middle is the intended share.
const BAR_CELLS: usize = 10;
/// The head of a column of bars: nothing, as intended, twice that.
pub(super) const BAR_HEAD: &str = "0    1   2x";

/// A rate or count in at most three digits and a power of a thousand: `0`, `0.4`, `12.3k`.
pub(in crate::cli) fn short(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    let mut value = value.max(0.0);
    let mut units = ["", "k", "M", "G", "T", "P"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    // 999.5 would be printed as a thousand.
    while value >= 999.5 {
        let Some(next) = units.next() else { break };
        value /= 1000.0;
        unit = next;
    }
    let decimals =
        usize::from(value < 99.95 && (value > 0.0) && (!unit.is_empty() || value < 9.95));
    format!("{value:.decimals$}{unit}")
}

/// Numbers as a row of bars, the latest at the right, the highest as high as can be.
pub(in crate::cli) fn spark(numbers: &[f64], width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = &numbers[numbers.len().saturating_sub(width)..];
    let most = shown.iter().copied().fold(0.0, f64::max);
    let bar = |number: &f64| {
        if most <= 0.0 || *number <= 0.0 {
            return if most <= 0.0 { ' ' } else { BARS[0] };
        }
        BARS[((number / most * 8.0).ceil() as usize).clamp(1, 8) - 1]
    };
    shown.iter().map(bar).collect()
}

/// A fraction of one in per cent.
pub(in crate::cli) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// How long ago `then` was at `now`, both in milliseconds, in the two largest units: `3h 12m`.
pub(in crate::cli) fn ago(now: u64, then: u64) -> String {
    let passed = Duration::from_secs(now.saturating_sub(then) / 1000);
    let text = humantime::format_duration(passed).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Observed against intended: half full where they are equal, full from twice as much on. Below,
/// a mark shows the middle.
pub(in crate::cli) fn bar(observed: f64, intended: f64) -> String {
    let ratio = if intended > 0.0 {
        observed / intended
    } else if observed > 0.0 {
        2.0
    } else {
        0.0
    };
    let eighths = (ratio.clamp(0.0, 2.0) / 2.0 * (BAR_CELLS * 8) as f64).round() as usize;
    (0..BAR_CELLS)
        .map(|cell| match eighths.saturating_sub(cell * 8) {
            0 if cell == BAR_CELLS / 2 => '│',
            0 => ' ',
            filled => ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'][filled.min(8) - 1],
        })
        .collect::<String>()
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_short_at_every_size() {
        for (value, text) in [
            (0.0, "0"),
            (0.04, "0.0"),
            (0.44, "0.4"),
            (9.94, "9.9"),
            (12.3, "12"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (12_345.0, "12.3k"),
            (123_456.0, "123k"),
            (999_999.0, "1.0M"),
            (u64::MAX as f64, "18447P"),
            (f64::NAN, "-"),
            (f64::INFINITY, "-"),
        ] {
            assert_eq!(short(value), text, "{value}");
        }
    }

    #[test]
    fn times_have_two_units() {
        for (milliseconds, text) in [
            (0, "0s"),
            (999, "0s"),
            (61_000, "1m 1s"),
            (3_600_000, "1h"),
            (93_784_000, "1day 2h"),
        ] {
            assert_eq!(ago(1_000_000_000 + milliseconds, 1_000_000_000), text);
        }
        assert_eq!(ago(1, 2), "0s", "a clock that was set back");
    }

    #[test]
    fn bars_are_half_full_at_the_intended_share() {
        for (observed, intended, picture) in [
            (0.0, 0.5, "     │"),
            (0.25, 0.5, "██▌  │"),
            (0.5, 0.5, "█████│"),
            (0.5125, 0.5, "█████▏"),
            (0.75, 0.5, "███████▌"),
            (1.0, 0.5, "██████████"),
            (1.0, 0.1, "██████████"),
            (0.1, 0.0, "██████████"),
            (0.0, 0.0, "     │"),
            (f64::NAN, 0.5, "     │"),
        ] {
            assert_eq!(bar(observed, intended), picture, "{observed} of {intended}");
        }
    }

    #[test]
    fn bars_are_as_high_as_the_highest() {
        assert_eq!(spark(&[], 5), "");
        assert_eq!(spark(&[0.0, 0.0], 5), "  ");
        assert_eq!(spark(&[0.0, 1.0, 4.0, 8.0], 5), "▁▁▄█");
        assert_eq!(spark(&[9.0, 1.0, 2.0], 2), "▄█", "the latest");
    }
}
