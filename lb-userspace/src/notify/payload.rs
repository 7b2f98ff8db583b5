//! How notifications look to those who take them.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::alert::{Item, Key, Notification};
use crate::model::Severity;

/// What the receiver is told about the teller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct From {
    /// The host: the label `instance`, so that load balancers of one VIP are told apart.
    pub(super) instance: String,
    /// The receiver's name.
    pub(super) receiver: String,
    /// The URL of the folder of runbooks.
    pub(super) runbooks: Arc<str>,
    /// The incidents that alerts belong to, by their names.
    pub(super) incidents: Vec<(Key, String)>,
}

impl From {
    fn incident(&self, item: &Item) -> Option<&str> {
        let mut of = self.incidents.iter();
        let found = of.find(|(key, _)| *key == item.key)?;
        Some(&found.1)
    }
}

/// A time as RFC 3339 has it.
fn time(ms: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(ms);
    humantime::format_rfc3339_millis(time).to_string()
}

fn labels(item: &Item, from: &From) -> Map<String, Value> {
    let own = item.key.labels().into_iter();
    let labels = own.chain([("instance", from.instance.as_str())]);
    labels
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect()
}

fn annotations(item: &Item, from: &From) -> Value {
    let mut annotations = json!({
        "summary": item.summary,
        "description": item.key.name.meaning(),
        "remedy": item.key.name.remedy(),
        "runbook_url": format!("{}{}", from.runbooks, item.key.name.runbook()),
    });
    if let Some(incident) = from.incident(item) {
        annotations["incident"] = incident.into();
    }
    annotations
}

/// What `POST /api/v2/alerts` of Alertmanager takes. Alerts that are on end by themselves after
/// `lasts`, unless they are said again.
pub(super) fn alertmanager(
    notification: &Notification,
    from: &From,
    now_ms: u64,
    lasts: Duration,
) -> Value {
    let alert = |item: &Item| {
        let ends = item.ended_ms.unwrap_or(now_ms + lasts.as_millis() as u64);
        json!({
            "labels": labels(item, from),
            "annotations": annotations(item, from),
            "startsAt": time(item.since_ms),
            // It refuses an end before the beginning.
            "endsAt": time(ends.max(item.since_ms + 1)),
        })
    };
    notification.items.iter().map(alert).collect()
}

/// What Alertmanager's own webhooks send, version 4.
pub(super) fn webhook(notification: &Notification, from: &From) -> Value {
    let group = notification.service.as_ref();
    let group = group.map_or_else(|| json!({}), |service| json!({ "service": service }));
    let sets: Vec<_> = notification
        .items
        .iter()
        .map(|item| labels(item, from))
        .collect();
    let common: Map<String, Value> = sets.first().map_or_else(Map::new, |first| {
        let in_all =
            |name: &String, value: &Value| sets.iter().all(|set| set.get(name) == Some(value));
        let common = first.iter().filter(|(name, value)| in_all(name, value));
        common
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    });
    let alerts: Vec<Value> = notification
        .items
        .iter()
        .zip(&sets)
        .map(|(item, labels)| {
            json!({
                "status": status(item.ended_ms.is_none()),
                "labels": labels,
                "annotations": annotations(item, from),
                "startsAt": time(item.since_ms),
                // Alertmanager writes the zero of its language where there is no end yet.
                "endsAt": item.ended_ms.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), time),
                "generatorURL": "",
                "fingerprint": fingerprint(labels),
            })
        })
        .collect();
    json!({
        "version": "4",
        "groupKey": format!("{{}}:{{service=\"{}\"}}", notification.service.as_deref().unwrap_or("")),
        "truncatedAlerts": 0,
        "status": status(notification.is_firing()),
        "receiver": from.receiver,
        "groupLabels": group,
        "commonLabels": common,
        "commonAnnotations": {},
        "externalURL": "",
        "alerts": alerts,
    })
}

const fn status(firing: bool) -> &'static str {
    if firing { "firing" } else { "resolved" }
}

/// The same for the same labels, and nothing else.
fn fingerprint(labels: &Map<String, Value>) -> String {
    // The map is sorted by name.
    let text = Value::Object(labels.clone()).to_string();
    hex::encode(&Sha256::digest(text)[..8])
}

/// What a webhook of Slack takes.
pub(super) fn slack(notification: &Notification, from: &From) -> Value {
    let attachment = |item: &Item| {
        let (word, colour) = match (item.ended_ms, item.key.severity) {
            (Some(_), _) => ("resolved", "good"),
            (None, Severity::Page) => ("firing", "danger"),
            (None, Severity::Ticket) => ("firing", "warning"),
            (None, Severity::Info) => ("firing", "#439FE0"),
        };
        let (name, severity) = (item.key.name, item.key.severity);
        let mut text = escape(&item.summary);
        if let Some(incident) = from.incident(item) {
            text.extend(["\nincident ", incident]);
        }
        if item.ended_ms.is_none() {
            text.extend(["\n_", &escape(name.remedy()), "_"]);
        }
        json!({
            "color": colour,
            "title": format!("{word}: {name} ({severity})"),
            "text": text,
            "fallback": format!("{word}: {name}: {}", item.summary),
            "mrkdwn_in": ["text"],
        })
    };
    let attachments: Vec<Value> = notification.items.iter().map(attachment).collect();
    let text = format!("{}: {}", from.instance, notification.describe());
    json!({ "text": escape(&text), "attachments": attachments })
}

/// Slack gives these three a meaning.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A line of JSON for each alert, each ending with a line break.
pub(super) fn lines(notification: &Notification, from: &From) -> String {
    let line = |item: &Item| {
        let line = json!({
            "at": time(notification.at_ms),
            "status": status(item.ended_ms.is_none()),
            "again": notification.again,
            "labels": labels(item, from),
            "annotations": annotations(item, from),
            "startsAt": time(item.since_ms),
            "endsAt": item.ended_ms.map(time),
        });
        format!("{line}\n")
    };
    notification.items.iter().map(line).collect()
}

/// A line for people about an alert, without line breaks.
pub(super) fn sentence(item: &Item) -> String {
    let (name, severity) = (item.key.name, item.key.severity);
    let word = status(item.ended_ms.is_none());
    let line = format!("{word} {severity} {name}: {}", item.summary);
    line.replace(char::is_control, " ")
}

/// The signature of a body that was sent at a time, in seconds since the Unix epoch: the
/// HMAC-SHA256 of time, full stop and body, in hexadecimal digits after `v1=`.
pub(super) fn signature(secret: &[u8], at_s: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(format!("{at_s}.").as_bytes());
    mac.update(body);
    format!("v1={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests;
