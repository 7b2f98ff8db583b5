//! The drills that there are: rehearsals of incidents, each with what is believed of it.

use std::fmt;

use super::AlertName;

/// Defines the drills: word, alert, what is done, what is believed, the verdict that is expected.
macro_rules! drills {
    ($($name:ident $word:literal $alert:expr, $fault:literal $hypothesis:literal $expected:literal;)*) => {
        /// A rehearsal of an incident.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Drill {
            $(#[doc = $fault] $name,)*
        }

        impl Drill {
            /// Every drill with its word.
            pub const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$name),)*];

            /// Its word.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The alert that tells of it, where one does.
            #[must_use]
            pub const fn alert(self) -> Option<AlertName> {
                match self { $(Self::$name => $alert,)* }
            }

            /// What is done, in one sentence without full stop.
            #[must_use]
            pub const fn fault(self) -> &'static str {
                match self { $(Self::$name => $fault,)* }
            }

            /// What is believed of it, likewise.
            #[must_use]
            pub const fn hypothesis(self) -> &'static str {
                match self { $(Self::$name => $hypothesis,)* }
            }

            /// The verdict that is expected, likewise.
            #[must_use]
            pub const fn expected(self) -> &'static str {
                match self { $(Self::$name => $expected,)* }
            }
        }
    };
}

drills! {
    Skew "skew" Some(AlertName::WeightsSkewed),
        "a backend gets more of the ring than its configured weight says"
        "a wrong weight is found by itself, somebody is told, and putting it right restores evenness, with no request lost"
        "the weights are named as the cause, with the backend";
    Kill "kill" Some(AlertName::BackendDown),
        "a backend dies"
        "it gets no new connections once its check has failed, somebody is told, and it comes back by itself"
        "the backend is down";
    Slow "slow" Some(AlertName::BackendDemoted),
        "a backend answers, and slowly"
        "it loses its weight although its check passes, somebody is told, and it gets the weight back once it is quick"
        "the backend is demoted for being slow";
    Errors "errors" Some(AlertName::BackendDemoted),
        "a part of a backend's answers are errors"
        "it loses its weight although most of its checks pass, somebody is told, and it gets the weight back once it is well"
        "the backend is demoted for failing";
    Drift "drift" Some(AlertName::TableDrift),
        "slots of the kernel's table go to another backend than is planned"
        "the difference is found within ten seconds or so and put right, somebody is told, and no request is lost"
        "the kernel's table is not the intended one";
    FleetSlow "fleet-slow" Some(AlertName::FleetDegraded),
        "all backends answer slowly, as with a slow database behind them"
        "somebody is told that the fleet is slow, and nobody is demoted for it"
        "the fleet is slow as a whole, and no backend loses weight";
    ControllerCrash "controller-crash" None,
        "the controller is killed, and started again"
        "the kernel goes on forwarding, and no request fails"
        "the controller does not answer, and clients do not notice";
    NotifyTest "notify-test" None,
        "every receiver of notifications is sent a test"
        "every receiver takes it"
        "every receiver takes the test";
    Rollback "rollback" None,
        "a change is put in force and not confirmed"
        "it is taken back by itself, with no request lost"
        "the configuration before is in force again";
    HeavyClient "heavy-client" Some(AlertName::TrafficSkewed),
        "one client opens as many connections as all others together, to a service that spreads by source"
        "the skew is found, and laid to the client and not to the table or the weights"
        "a heavy client is named as the cause";
    Tabletop "tabletop" None,
        "a recorded timeline is shown step by step, and questions are asked about it"
        "whoever is on call finds cause and remedy from what the product shows"
        "the answers name what the journal knew";
}

impl Drill {
    /// Takes a drill by its word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        let found = Self::WORDS.iter().find(|(own, _)| *own == word);
        found.map(|(_, drill)| *drill)
    }

    /// Whether the controller itself brings the fault about: in what it plans or publishes, or in what
    /// it takes a backend's answers for.
    #[must_use]
    pub const fn is_planned(self) -> bool {
        matches!(self, Self::Skew | Self::Drift | Self::Rollback) || self.strikes()
    }

    /// Whether it strikes a backend: what its checks find, and packets on their way to it.
    #[must_use]
    pub const fn strikes(self) -> bool {
        matches!(self, Self::Kill | Self::Slow | Self::Errors)
    }

    /// Whether no request may be lost by it.
    #[must_use]
    pub const fn loses_nothing(self) -> bool {
        matches!(
            self,
            Self::Skew | Self::Drift | Self::Rollback | Self::ControllerCrash
        )
    }
}

impl fmt::Display for Drill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_again() {
        for &(word, drill) in Drill::WORDS {
            assert_eq!((Drill::of(word), drill.word()), (Some(drill), word));
            for words in [drill.fault(), drill.hypothesis(), drill.expected()] {
                assert!(!words.is_empty() && !words.ends_with('.'), "{words}");
            }
        }
        assert_eq!(Drill::of("Skew"), None);
    }
}
