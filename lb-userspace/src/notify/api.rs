//! What the admin API has to say of notifications.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/notify/test` | 200, a list of [`Tested`](crate::admin::proto::Tested), one of each receiver |
//! | `POST /v1/notify/test/NAME` | the same of one receiver |
//! | either, with nobody to test | 404, [`Problem`] |

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::post,
};
use tokio::sync::watch;

use super::driver::{Handle, NoReceiver};
use crate::admin::proto::Problem;

/// The routes, to be merged into those of the API.
///
/// They ask whoever is at work: a change of the configuration puts others in their place.
pub fn routes(handles: watch::Receiver<Handle>) -> Router {
    Router::new()
        .route("/v1/notify/test", post(test_all))
        .route("/v1/notify/test/{name}", post(test_one))
        .with_state(handles)
}

async fn test_all(State(handles): State<watch::Receiver<Handle>>) -> Response {
    let handle = handles.borrow().clone();
    answer(&handle, None).await
}

async fn test_one(
    State(handles): State<watch::Receiver<Handle>>,
    Path(name): Path<String>,
) -> Response {
    let handle = handles.borrow().clone();
    answer(&handle, Some(name)).await
}

async fn answer(handle: &Handle, receiver: Option<String>) -> Response {
    let error = match handle.test(receiver).await {
        Ok(tested) => return Json(tested).into_response(),
        Err(error) => error,
    };
    let code = match error {
        NoReceiver::None | NoReceiver::Named(_) => StatusCode::NOT_FOUND,
        NoReceiver::Busy => StatusCode::SERVICE_UNAVAILABLE,
    };
    let problem = Problem {
        error: error.to_string(),
        findings: Vec::new(),
    };
    (code, Json(problem)).into_response()
}
