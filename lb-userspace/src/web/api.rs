//! What the page asks for, as JSON. It is made for the page and changes with it: programs ask the
//! admin API, or /metrics.

use std::path::PathBuf;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderValue, StatusCode, header::CACHE_CONTROL},
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task;

use super::{discreet::Discreet, routes::Site, routes::problem};
use crate::{
    admin::proto::{Alert, Verdict},
    causes::with_causes,
    history::{
        self,
        series::{Question, Series},
    },
    journal::{self, Filter},
};

/// Most points of an answer: more than a chart has pixels for show nothing more.
const POINTS: u64 = 600;
/// Most events of an answer.
const EVENTS: u32 = 200;
/// The longest time that is asked for, in seconds: as long as anything is kept.
const LONGEST_S: u64 = 31 * 24 * 3600;

pub(super) fn routes() -> Router<Site> {
    Router::new()
        .route("/api/overview", get(overview))
        .route("/api/services/{name}", get(service))
        .route("/api/services/{name}/history", get(past))
        .route("/api/services/{name}/events", get(events))
}

/// How far back.
#[derive(Debug, Deserialize)]
struct Back {
    since_s: u64,
}

#[derive(Serialize)]
struct Row<'s> {
    name: &'s str,
    key: &'s str,
    verdict: Verdict,
    message: String,
    serving: usize,
    backends: usize,
    new_flow_rate: f64,
}

fn fresh(value: impl Serialize) -> Response {
    let header = (CACHE_CONTROL, HeaderValue::from_static("no-store"));
    ([header], Json(value)).into_response()
}

async fn overview(State(site): State<Site>) -> Response {
    let status = site.latest();
    let discreet = Discreet::of(&status);
    let rows = status.services.iter().map(|service| Row {
        name: &service.name,
        key: &service.key,
        verdict: service.evenness.verdict,
        message: discreet.text(&service.evenness.message),
        serving: service.serving,
        backends: service.backends.len(),
        new_flow_rate: service.backends.iter().map(|b| b.new_flow_rate).sum(),
    });
    let alert = |alert: &Alert| Alert {
        summary: discreet.text(&alert.summary),
        ..alert.clone()
    };
    fresh(json!({
        "version": status.version,
        "now_ms": status.now_ms,
        "generation": status.generation,
        "as_intended": status.tables.as_intended,
        "alerts": status.alerts.iter().map(alert).collect::<Vec<_>>(),
        "services": rows.collect::<Vec<_>>(),
    }))
}

async fn service(State(site): State<Site>, Path(name): Path<String>) -> Response {
    let status = site.latest();
    let Some(found) = status.services.iter().find(|s| s.name == name) else {
        return unknown(&name);
    };
    let shown = Discreet::of(&status).service(found);
    fresh(json!({
        "now_ms": status.now_ms,
        "service": shown,
        "band": &*found.band.0,
    }))
}

async fn past(
    State(site): State<Site>,
    Path(name): Path<String>,
    Query(back): Query<Back>,
) -> Response {
    let now_s = site.latest().now_ms / 1000;
    let question = Question {
        service: name,
        from_s: now_s.saturating_sub(back.since_s.clamp(1, LONGEST_S)),
        until_s: now_s + 1,
        now_s,
        step_s: None,
        most: POINTS,
    };
    let read = move |directory: PathBuf| match Series::read(&directory, &question) {
        // It begins with the first point.
        Err(history::Error::Missing(_)) => Ok(Series::of(&question.service, 1, Vec::new())),
        other => other.map_err(|e| with_causes(&e)),
    };
    from_disk(&site, read).await
}

async fn events(
    State(site): State<Site>,
    Path(name): Path<String>,
    Query(back): Query<Back>,
) -> Response {
    let status = site.latest();
    let discreet = Discreet::of(&status);
    let now_ms = status.now_ms;
    let read = move |directory: PathBuf| {
        let filter = Filter {
            since_ms: Some(now_ms.saturating_sub(1000 * back.since_s.clamp(1, LONGEST_S))),
            service: Some(name),
            ..Filter::default()
        };
        let found = match journal::Reader::open(&directory) {
            Err(journal::Error::Missing(_)) => Ok(Vec::new()),
            reader => reader.and_then(|reader| reader.last(&filter, EVENTS)),
        };
        let found = found.map_err(|e| with_causes(&e))?;
        let event = |record: &journal::Record| {
            json!({
                "at_ms": record.at_ms,
                "kind": record.kind,
                "level": record.level,
                "backend": record.backend,
                "message": discreet.text(&record.message),
            })
        };
        Ok(found.iter().map(event).collect::<Vec<_>>())
    };
    from_disk(&site, read).await
}

/// Reads beside the thread that answers: a disk may be slow.
async fn from_disk<T: Serialize + Send + 'static>(
    site: &Site,
    read: impl FnOnce(PathBuf) -> Result<T, String> + Send + 'static,
) -> Response {
    let directory = site.directory.clone();
    match task::spawn_blocking(move || read(directory)).await {
        Ok(Ok(found)) => fresh(found),
        Ok(Err(why)) => problem(StatusCode::SERVICE_UNAVAILABLE, why),
        Err(broken) => problem(StatusCode::INTERNAL_SERVER_ERROR, broken.to_string()),
    }
}

fn unknown(name: &str) -> Response {
    let why = format!("there is no service \"{name}\"");
    problem(StatusCode::NOT_FOUND, why)
}
