//! Sends one notification to one receiver, once.

mod local;
mod web;

use std::{sync::Arc, time::Duration};

use tokio::time;

use self::web::Web;
use super::{
    alert::{Key, Notification},
    outbox::{Again, Failure},
    payload::{self, From},
};
use crate::{
    model::{Http, Receiver, Secret, Target, Text},
    secret,
};

/// How many repeats an alert outlives at Alertmanager where nobody says it again.
const LASTS: u32 = 4;

/// Sends to one receiver.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    receiver: Arc<Receiver>,
    from: From,
    web: Web,
}

impl Sender {
    pub(super) fn new(receiver: &Receiver, instance: &str, web: &Web) -> Self {
        Self {
            receiver: Arc::new(receiver.clone()),
            from: From {
                instance: instance.to_owned(),
                receiver: receiver.name.to_string(),
                runbooks: Arc::clone(&receiver.runbooks),
                incidents: Vec::new(),
            },
            web: match receiver.target.ca() {
                Some(ca) => Web::new(Some(ca)),
                None => web.clone(),
            },
        }
    }

    /// The same, that says which alerts belong to which incident.
    pub(super) fn about(&self, incidents: Vec<(Key, String)>) -> Self {
        let mut sender = self.clone();
        sender.from.incidents = incidents;
        sender
    }

    /// Sends it, within the receiver's time-out.
    ///
    /// # Errors
    /// Why it was not taken.
    pub(super) async fn send(
        &self,
        notification: &Notification,
        now_ms: u64,
    ) -> Result<(), Failure> {
        let limit = self.receiver.timeout;
        match time::timeout(limit, self.try_send(notification, now_ms)).await {
            Ok(result) => result,
            Err(_) => Err(later(format!(
                "it took longer than {}",
                humantime::format_duration(limit)
            ))),
        }
    }

    async fn try_send(&self, notification: &Notification, now_ms: u64) -> Result<(), Failure> {
        let from = &self.from;
        match &self.receiver.target {
            Target::Alertmanager(http) => {
                let lasts = (self.receiver.repeat * LASTS).max(Duration::from_mins(1));
                let body = payload::alertmanager(notification, from, now_ms, lasts);
                let url = format!("{}/api/v2/alerts", url(http)?.trim_end_matches('/'));
                self.web.post(&url, &headers(http)?, body.to_string()).await
            }
            Target::Webhook { http, secret } => {
                let body = payload::webhook(notification, from).to_string();
                let mut headers = headers(http)?;
                let at_s = now_ms / 1000;
                let mut add = |name: &str, value: String| headers.push((name.to_owned(), value));
                add(
                    "evenkeel-delivery",
                    format!("{}-{}", from.instance, notification.id),
                );
                add("evenkeel-timestamp", at_s.to_string());
                if let Some(secret) = secret {
                    let secret = reveal(secret)?;
                    let signature = payload::signature(secret.as_bytes(), at_s, body.as_bytes());
                    add("evenkeel-signature", signature);
                }
                self.web.post(&url(http)?, &headers, body).await
            }
            Target::Slack(http) => {
                let body = payload::slack(notification, from).to_string();
                self.web.post(&url(http)?, &headers(http)?, body).await
            }
            Target::Command(words) => {
                let body = payload::webhook(notification, from).to_string();
                local::command(words, body.as_bytes()).await
            }
            Target::Syslog(path) => local::syslog(path, notification).await,
            Target::File(path) => local::file(path, payload::lines(notification, from)).await,
        }
    }
}

/// Builds what all HTTP requests share, but for those whose receiver has a CA of its own.
pub(super) fn web() -> Web {
    Web::new(None)
}

/// A failure that may pass.
fn later(why: impl Into<String>) -> Failure {
    Failure {
        why: why.into(),
        again: Again::Later,
    }
}

fn url(http: &Http) -> Result<String, Failure> {
    text(&http.url)
}

fn headers(http: &Http) -> Result<Vec<(String, String)>, Failure> {
    let one = |(name, value): &(String, Text)| Ok((name.clone(), text(value)?));
    http.headers.iter().map(one).collect()
}

fn text(text: &Text) -> Result<String, Failure> {
    match text {
        Text::Plain(plain) => Ok(plain.clone()),
        Text::Secret(secret) => reveal(secret),
    }
}

fn reveal(secret: &Secret) -> Result<String, Failure> {
    secret::reveal(secret).map_err(|e| later(e.to_string()))
}
