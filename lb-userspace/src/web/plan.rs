//! What a configuration would change, for those who paste it into the page.

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::post,
};
use tokio::sync::oneshot;

use super::routes::{Site, problem};
use crate::{
    admin::{
        proto::change::Request,
        server::change::{Actor, Ask, Asked},
    },
    model::Secret,
};

/// The longest configuration, in bytes.
const MAX_BODY: usize = 4 * 1024 * 1024;
/// No form and no page of another site sends that without asking first, which nobody allows it.
const TOML: &str = "application/toml";

pub(super) fn routes(token: Option<&Secret>) -> Router<Site> {
    let route = if token.is_some() {
        post(plan)
    } else {
        post(refuse)
    };
    Router::new()
        .route("/api/plan", route)
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

async fn refuse() -> Response {
    let why = "what a configuration would change is told here only where http.token is set, to those \
               who bring it along; 'evenkeel plan FILE' asks the same at the terminal";
    problem(StatusCode::FORBIDDEN, why)
}

async fn plan(State(site): State<Site>, headers: HeaderMap, text: String) -> Response {
    if headers.get(CONTENT_TYPE).is_none_or(|kind| kind != TOML) {
        let why = format!("send the configuration as {TOML}");
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, why);
    }
    // The controller answers one after the other: whoever asks here must not be all of them.
    let Ok(_turn) = site.planning.try_acquire() else {
        let why = "somebody else's configuration is being looked at: ask again";
        return problem(StatusCode::SERVICE_UNAVAILABLE, why);
    };
    let (answer, answered) = oneshot::channel();
    let request = Request {
        file: "what was pasted".to_owned(),
        text,
        ..Request::default()
    };
    let asked = Asked {
        by: Actor {
            uid: None,
            name: "the page".to_owned(),
        },
        ask: Ask::Plan(request),
        answer,
    };
    let ends = || {
        let why = "the controller is about to end: ask the next one";
        problem(StatusCode::SERVICE_UNAVAILABLE, why)
    };
    if site.asks.send(asked).await.is_err() {
        return ends();
    }
    match answered.await {
        Ok(Ok(plan)) => Json(plan).into_response(),
        Ok(Err(refused)) => refused.into_response(),
        Err(_) => ends(),
    }
}
