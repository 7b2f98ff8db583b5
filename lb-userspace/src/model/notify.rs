//! Who is told of alerts, and how.

use std::{
    fmt,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{AlertName, Severity};

/// Somebody who is told of alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// What people call it; unique.
    pub name: Arc<str>,
    /// How it is told.
    pub target: Target,
    /// What it is told of.
    pub filter: Filter,
    /// Whether it is told that an alert is over.
    pub resolve: bool,
    /// How often it is told again of an alert that is still on.
    pub repeat: Duration,
    /// How often it is told that all is well with the teller; `None` for never.
    pub heartbeat: Option<Duration>,
    /// The most notifications in a minute: what would be more is told later, in one.
    pub per_minute: NonZeroU32,
    /// How long one delivery may take.
    pub timeout: Duration,
    /// The URL of the folder in which whoever reads it finds the runbooks, with a slash at its end.
    pub runbooks: Arc<str>,
}

impl Receiver {
    /// How often people are told again by default.
    pub const REPEAT: Duration = Duration::from_hours(4);
    /// How often Alertmanager is told again by default: it forgets what nobody repeats.
    pub const REPEAT_TO_ALERTMANAGER: Duration = Duration::from_mins(1);
    /// How long a delivery may take by default.
    pub const TIMEOUT: Duration = Duration::from_secs(5);
    /// The most notifications in a minute by default.
    pub const PER_MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(59);

    /// One with a file that is told of everything, for tests.
    #[cfg(test)]
    pub(crate) fn ops() -> Self {
        Self {
            name: "ops".into(),
            target: Target::File("/alerts".into()),
            filter: Filter {
                alerts: None,
                severity: Severity::Info,
                services: None,
            },
            resolve: true,
            repeat: Self::REPEAT,
            heartbeat: None,
            per_minute: Self::PER_MINUTE,
            timeout: Self::TIMEOUT,
            runbooks: "https://wiki.example.org/evenkeel/".into(),
        }
    }
}

/// What a receiver is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The alerts; `None` for all.
    pub alerts: Option<Vec<AlertName>>,
    /// The least severity.
    pub severity: Severity,
    /// The services, by name; `None` for all, and for what concerns no service.
    pub services: Option<Vec<Arc<str>>>,
}

/// How a receiver is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Prometheus Alertmanager's API, version 2.
    Alertmanager(Http),
    /// An HTTP POST of the shape that Alertmanager's own webhooks have, version 4.
    Webhook {
        /// Where to.
        http: Http,
        /// The key of the signature.
        secret: Option<Secret>,
    },
    /// A webhook that takes Slack's messages.
    Slack(Http),
    /// A program with its arguments, which reads the webhook's JSON.
    Command(Vec<String>),
    /// The socket of a syslog daemon; journald reads it as well.
    Syslog(PathBuf),
    /// A file, a line of JSON for each alert.
    File(PathBuf),
}

impl Target {
    /// The file of certificates that it trusts, where that is not the host's business.
    #[must_use]
    pub fn ca(&self) -> Option<&Path> {
        match self {
            Self::Alertmanager(http) | Self::Webhook { http, .. } | Self::Slack(http) => {
                http.ca.as_deref()
            }
            Self::Command(_) | Self::Syslog(_) | Self::File(_) => None,
        }
    }

    /// The word for it in the configuration.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Alertmanager(_) => "alertmanager",
            Self::Webhook { .. } => "webhook",
            Self::Slack(_) => "slack",
            Self::Command(_) => "command",
            Self::Syslog(_) => "syslog",
            Self::File(_) => "file",
        }
    }
}

/// Where an HTTP request goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// The URL.
    pub url: Text,
    /// Further header fields, in the order of their names.
    pub headers: Vec<(String, Text)>,
    /// A PEM file of certificates to trust, which is read when the receiver is set up; `None`
    /// trusts what the host trusts.
    pub ca: Option<PathBuf>,
}

/// A text that may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Text {
    /// It stands in the configuration.
    Plain(String),
    /// It stands elsewhere.
    Secret(Secret),
}

impl fmt::Debug for Text {
    /// Says where it is, and never what it is: a header in the configuration is a secret too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("plain"),
            Self::Secret(secret) => secret.fmt(f),
        }
    }
}

/// Where a secret is; it is read each time that it is needed, so that it can be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// In a file, without the line break at its end.
    File(PathBuf),
    /// In an environment variable of the controller.
    Env(String),
}

/// When incidents begin and end by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incidents {
    /// The least severity of an alert that opens one.
    pub opened_by: Severity,
    /// How long it must have been quiet.
    pub close_after: Duration,
}

impl Default for Incidents {
    fn default() -> Self {
        Self {
            opened_by: Severity::Page,
            close_after: Duration::from_mins(10),
        }
    }
}

/// When the controller audits what it runs by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// From one audit to the next.
    pub every: Duration,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            every: Duration::from_hours(1),
        }
    }
}
