//! The alerts that there are: a closed list, because runbooks and routes name them.

use std::fmt;

/// How soon somebody has to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// For the record.
    Info,
    /// In working hours.
    Ticket,
    /// Now.
    Page,
}

impl Severity {
    /// Every severity with its word, the least first.
    pub const WORDS: [(&'static str, Self); 3] = [
        ("info", Self::Info),
        ("ticket", Self::Ticket),
        ("page", Self::Page),
    ];

    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Ticket => "ticket",
            Self::Page => "page",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Defines the alerts: name, usual severity, what it means, what to do.
macro_rules! alerts {
    ($($name:ident $severity:ident $meaning:literal $remedy:literal;)*) => {
        /// What an alert is about. A name never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum AlertName {
            $(#[doc = $meaning] $name,)*
        }

        impl AlertName {
            /// Every name, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name as it is written.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// How grave it is where nothing says otherwise.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// What it means, in one sentence without full stop.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }

            /// What to do about it, in one sentence without full stop.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }
        }
    };
}

alerts! {
    NoBackends Page
        "a service has no usable backend, so nobody serves"
        "see 'evenkeel status' for why each backend is out, and bring one back";
    Panic Page
        "so few backends are up that all that are not drained are used"
        "find out whether the backends or their check are broken: see the last probes in 'evenkeel status'";
    FleetDegraded Page
        "the backends are slow or fail as a whole, so nobody is demoted"
        "look for what they share: a database, a network, the load itself, a release";
    TrafficSkewed Page
        "new connections do not reach the backends in the intended shares"
        "see the cause in 'evenkeel status'; where a wrong weight is to blame, put it back";
    TableDrift Page
        "the kernel's tables are not the intended ones"
        "find out who writes to the pinned maps; where they are not repaired, restart the controller, which publishes the intended tables";
    TableSkewed Page
        "a backend's part of the table is not what its weight asks for"
        "see 'evenkeel events --kind publication' for the last change, and give the ring more slots";
    PublicationRefused Page
        "the kernel does not take the tables that follow from the present state"
        "see the reason in 'evenkeel events --kind refusal'; packets follow the tables before";
    BackendDown Ticket
        "a backend's health check fails, and it takes no new connections"
        "look at the backend: its last probe says what it answered";
    BackendDemoted Ticket
        "a backend is slower or fails more often than its peers and has lost weight"
        "look at the backend; its weight comes back by itself when it is well";
    BackendSlow Ticket
        "a backend is slower than its peers and keeps its weight"
        "look at the backend; 'evenkeel status' says why it keeps its weight";
    BackendFailing Ticket
        "a backend fails more often than its peers and keeps its weight"
        "look at the backend; 'evenkeel status' says why it keeps its weight";
    NeighbourUnresolved Ticket
        "the way to a backend is not known, so it cannot be sent anything new"
        "see whether it is on the network: 'ip neigh', 'ip route get'";
    WeightsSkewed Ticket
        "a configured weight is far from what the backend can take"
        "correct the weight, or the declared capacity";
    FloodSeen Ticket
        "a service is flooded with SYNs"
        "see whether its backends bear it; limit new connections for each source";
    JournalFailing Ticket
        "events are not written to disk and wait in memory"
        "see the reason in 'evenkeel status': a full or broken disk most likely";
    DeliveryFailing Ticket
        "notifications to a receiver are not delivered and wait"
        "see its last error in 'evenkeel status', then ask it: 'evenkeel notify test NAME'";
    AuditFailed Ticket
        "the audit found what will hurt when anything goes wrong"
        "see 'evenkeel audit', and do what it says";
    ConfigRejected Ticket
        "the configuration on disk is not valid, so the next start would fail"
        "see 'evenkeel check', and correct the file";
    DemotionsFrozen Info
        "a demotion did harm, and nobody is demoted for a while"
        "see whether the fleet is close to its capacity";
    Watchdog Info
        "the controller runs and can tell: this one is always firing"
        "be worried where it ceases";
    Test Info
        "somebody asked for a test of the notifications"
        "nothing";
}

/// The folder that the package puts the runbooks into.
pub const RUNBOOKS: &str = "/usr/share/doc/evenkeel/runbooks/";

impl AlertName {
    /// Takes a name as it is written.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|name| name.word() == word)
    }

    /// The name of the file of its runbook.
    #[must_use]
    pub fn runbook(self) -> String {
        format!("{}.md", self.word().to_lowercase())
    }

    /// Whether a filter may name it: the others are sent to who asks for them.
    #[must_use]
    pub const fn is_routed(self) -> bool {
        !matches!(self, Self::Watchdog | Self::Test)
    }
}

impl fmt::Display for AlertName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again_and_say_what_to_do() {
        for &name in AlertName::ALL {
            assert_eq!(AlertName::of(name.word()), Some(name));
            for words in [name.meaning(), name.remedy()] {
                assert!(!words.is_empty() && !words.ends_with('.'), "{words}");
            }
        }
        assert_eq!(AlertName::of("backenddown"), None);
    }

    /// `docs/alerts.md` is what the types say; `EVENKEEL_BLESS=1` writes it anew.
    #[test]
    fn the_list_names_every_alert_with_its_runbook() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/alerts.md");
        let mut text =
            "# Alerts\n\nWhat Evenkeel tells of, with its usual severity. `page`: somebody \
                        has to look now; `ticket`: in working hours; `info`: for the record. Each \
                        name leads to its [runbook](runbooks/README.md).\n\n\
                        | alert | severity | what it means | what to do |\n|---|---|---|---|\n"
                .to_owned();
        for name in AlertName::ALL {
            let (word, severity) = (name.word(), name.severity());
            let (meaning, remedy) = (name.meaning(), name.remedy());
            let (anchor, runbook) = (word.to_lowercase(), name.runbook());
            let row = format!(
                "| <a id=\"{anchor}\"></a>[`{word}`](runbooks/{runbook}) | {severity} | {meaning} | \
                 {remedy} |\n"
            );
            text.push_str(&row);
        }
        if std::env::var_os("EVENKEEL_BLESS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == text,
            "docs/alerts.md is not what the types say: regenerate it with `EVENKEEL_BLESS=1 cargo \
             test -p lb-userspace runbook`"
        );
    }
}
