//! The steps by which a backend loses its weight and gets it back.
//!
//! | from | down | up |
//! |---|---|---|
//! | 1 | ½ | |
//! | ½ | ¼ | 1 |
//! | ¼ | 0 | ½ |
//! | ⅛ | 0 | ¼ |
//! | 0 | | ⅛ |
//!
//! Steps are at least 20 s apart. Upwards they wait until the hold is over, which doubles each time
//! that a backend which got weight back loses it again. Few steps: each is a publication, after
//! which the flows of the slots that moved are remembered for a while.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::settings::{STEP, WELL_FOR};
use crate::{
    health::event::Cause,
    model::{Ejection, Fraction},
};

/// A backend that loses weight so soon after it had it all back has relapsed.
const RELAPSE: Duration = Duration::from_mins(10);

/// How much of its weight a backend has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rung {
    /// Nothing: it takes no new flows.
    Out,
    /// An eighth.
    Eighth,
    /// A quarter.
    Quarter,
    /// A half.
    Half,
    /// All of it.
    #[default]
    Full,
}

impl Rung {
    /// The part of the weight.
    pub const fn fraction(self) -> Fraction {
        match self {
            Self::Out => Fraction::NONE,
            Self::Eighth => Fraction::one_of(8),
            Self::Quarter => Fraction::one_of(4),
            Self::Half => Fraction::one_of(2),
            Self::Full => Fraction::FULL,
        }
    }

    /// The next one down.
    #[must_use]
    pub const fn down(self) -> Self {
        match self {
            Self::Full => Self::Half,
            Self::Half => Self::Quarter,
            Self::Quarter | Self::Eighth | Self::Out => Self::Out,
        }
    }

    /// The next one up.
    #[must_use]
    pub const fn up(self) -> Self {
        match self {
            Self::Out => Self::Eighth,
            Self::Eighth => Self::Quarter,
            Self::Quarter => Self::Half,
            Self::Half | Self::Full => Self::Full,
        }
    }
}

/// What is found of a backend in a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It is as good as its peers.
    Well,
    /// It is not, and not so bad that something must be done.
    Doubtful,
    /// It must lose weight.
    Bad,
    /// It must lose all of its weight at once.
    Hopeless,
}

/// How far a backend is demoted, as a later monitor can go on with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demotion {
    /// Where it is.
    pub rung: Rung,
    /// Why.
    pub cause: Option<Cause>,
    /// Until when it is held there.
    pub held: Duration,
    /// Whether it has been getting weight back since it last lost any.
    pub rising: bool,
    /// How often it lost weight again after it had got some back.
    pub relapses: u32,
}

/// Where one backend stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ladder {
    rung: Rung,
    /// When it last moved.
    moved: Option<Duration>,
    /// Until when it gets no weight back.
    held: Duration,
    well_since: Option<Duration>,
    /// Whether it has been getting weight back since it last lost any.
    rising: bool,
    relapses: u32,
}

impl Ladder {
    /// A backend with its whole weight.
    pub(super) const fn new() -> Self {
        Self {
            rung: Rung::Full,
            moved: None,
            held: Duration::ZERO,
            well_since: None,
            rising: true,
            relapses: 0,
        }
    }

    /// A backend that lost weight before anybody looked. It is as if it had moved at zero.
    pub(super) const fn resumed(demotion: &Demotion) -> Self {
        Self {
            rung: demotion.rung,
            moved: Some(Duration::ZERO),
            held: demotion.held,
            well_since: None,
            rising: demotion.rising,
            relapses: demotion.relapses,
        }
    }

    /// What [`Ladder::resumed`] goes on with; `None` where nothing is missing.
    pub(super) fn demotion(&self) -> Option<Demotion> {
        (self.rung < Rung::Full).then_some(Demotion {
            rung: self.rung,
            cause: None,
            held: self.held,
            rising: self.rising,
            relapses: self.relapses,
        })
    }

    pub(super) const fn rung(&self) -> Rung {
        self.rung
    }

    /// Since when it has been as good as its peers.
    pub(super) const fn well_since(&self) -> Option<Duration> {
        self.well_since
    }

    /// The earliest time of the next step upwards, if it is well until then.
    pub(super) fn next_rise(&self, now: Duration) -> Duration {
        let well = self.well_since.unwrap_or(now) + WELL_FOR;
        let step = self.moved.map_or(now, |at| at + STEP);
        well.max(step).max(self.held)
    }

    /// Takes what was found; answers which rung it should have instead of its own.
    pub(super) fn judge(&mut self, now: Duration, finding: Finding) -> Option<Rung> {
        if finding == Finding::Well {
            self.well_since.get_or_insert(now);
        } else {
            self.well_since = None;
        }
        let apart = self.moved.is_none_or(|at| now.saturating_sub(at) >= STEP);
        let to = match finding {
            _ if !apart => return None,
            Finding::Hopeless => Rung::Out,
            Finding::Bad => self.rung.down(),
            Finding::Well if now >= self.next_rise(now) => self.rung.up(),
            Finding::Well | Finding::Doubtful => return None,
        };
        (to != self.rung).then_some(to)
    }

    /// Moves to another rung; a first `hold` is that of the configuration. Answers how long it is
    /// held there.
    pub(super) fn move_to(&mut self, rung: Rung, now: Duration, hold: Duration) -> Duration {
        if rung > self.rung {
            self.rising = true;
            self.rung = rung;
            self.moved = Some(now);
            return Duration::ZERO;
        }
        // Further down in one go is no relapse, and neither is a first time after long.
        let lately = self
            .moved
            .is_some_and(|at| now.saturating_sub(at) < RELAPSE);
        if self.rung == Rung::Full && !lately {
            self.relapses = 0;
        } else if self.rising {
            self.relapses += 1;
        }
        self.rising = false;
        let hold =
            (hold * 2_u32.saturating_pow(self.relapses.min(16))).min(hold * Ejection::LONGEST_HOLD);
        self.rung = rung;
        self.moved = Some(now);
        self.held = now + hold;
        hold
    }

    /// Undoes a step.
    pub(super) fn undo(&mut self, rung: Rung, now: Duration) {
        self.rung = rung;
        self.moved = Some(now);
        self.held = now;
        self.rising = rung == Rung::Full;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_mins(1);

    fn seconds(at: u64) -> Duration {
        Duration::from_secs(at)
    }

    /// Follows what is found until `end`; answers the steps with their times.
    fn follow(ladder: &mut Ladder, from: u64, end: u64, finding: Finding) -> Vec<(u64, Rung)> {
        let mut steps = Vec::new();
        for at in from..end {
            if let Some(rung) = ladder.judge(seconds(at), finding) {
                ladder.move_to(rung, seconds(at), HOLD);
                steps.push((at, rung));
            }
        }
        steps
    }

    #[test]
    fn it_goes_down_in_steps_is_held_and_returns_in_steps() {
        use Rung::{Eighth, Full, Half, Out, Quarter};
        let mut ladder = Ladder::new();
        assert_eq!(
            follow(&mut ladder, 100, 200, Finding::Bad),
            [(100, Half), (120, Quarter), (140, Out)]
        );
        // Held until 200, and well for 30 s by 230.
        assert_eq!(
            follow(&mut ladder, 200, 400, Finding::Well),
            [(230, Eighth), (250, Quarter), (270, Half), (290, Full)]
        );
    }

    #[test]
    fn a_relapse_doubles_the_hold_up_to_ten_times() {
        let mut ladder = Ladder::new();
        let mut now = 1000;
        for hold in [60, 120, 240, 480, 600, 600] {
            let steps = follow(&mut ladder, now, now + 1, Finding::Hopeless);
            assert_eq!(steps, [(now, Rung::Out)]);
            let steps = follow(&mut ladder, now + 1, now + 2000, Finding::Well);
            assert_eq!(steps[0], (now + hold, Rung::Eighth), "a hold of {hold} s");
            now = steps[3].0 + 100;
        }
        now += 601;
        follow(&mut ladder, now, now + 1, Finding::Bad);
        let steps = follow(&mut ladder, now + 1, now + 2000, Finding::Well);
        assert_eq!(steps, [(now + 60, Rung::Full)], "long ago is forgiven");
    }

    #[test]
    fn one_that_is_resumed_goes_on_where_it_was() {
        let mut ladder = Ladder::new();
        assert_eq!(ladder.demotion(), None);
        follow(&mut ladder, 1000, 1021, Finding::Bad);
        let demotion = ladder.demotion().unwrap();
        assert_eq!(
            (demotion.rung, demotion.held),
            (Rung::Quarter, seconds(1080))
        );
        // Another clock begins at 1030.
        let kept = Demotion {
            held: seconds(1080 - 1030),
            ..demotion
        };
        let mut resumed = Ladder::resumed(&kept);
        assert_eq!(resumed.demotion(), Some(kept));
        let steps = follow(&mut resumed, 0, 100, Finding::Well);
        assert_eq!(
            steps,
            [(50, Rung::Half), (70, Rung::Full)],
            "held, and well for 30 s"
        );
        let mut resumed = Ladder::resumed(&kept);
        let steps = follow(&mut resumed, 0, 100, Finding::Bad);
        assert_eq!(steps, [(20, Rung::Out)], "further down, and not at once");
    }

    #[test]
    fn doubt_moves_nothing_and_puts_off_the_return() {
        let mut ladder = Ladder::new();
        assert!(follow(&mut ladder, 0, 100, Finding::Doubtful).is_empty());
        follow(&mut ladder, 100, 101, Finding::Bad);
        assert!(follow(&mut ladder, 101, 300, Finding::Doubtful).is_empty());
        let steps = follow(&mut ladder, 300, 400, Finding::Well);
        assert_eq!(steps, [(330, Rung::Full)]);
    }
}
