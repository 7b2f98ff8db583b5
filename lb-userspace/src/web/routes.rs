//! What is answered.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderValue, Method, StatusCode, Uri, header::CONTENT_TYPE},
    middleware,
    response::{IntoResponse as _, Response},
    routing::get,
};
use tokio::sync::{Semaphore, mpsc, watch};

use super::{api, guard, page, plan};
use crate::{
    admin::{
        proto::{Problem, Status},
        server::change::Asked,
    },
    metrics,
    model::Secret,
};

/// What there is to be seen.
#[derive(Clone)]
pub(super) struct Site {
    status: watch::Receiver<Arc<Status>>,
    /// Where journal and history are.
    pub(super) directory: PathBuf,
    /// What only the controller can answer goes there.
    pub(super) asks: mpsc::Sender<Asked>,
    /// One at a time may ask what a configuration would change.
    pub(super) planning: Arc<Semaphore>,
    /// The metrics of a status: however many ask, they are written once, and lie in memory once.
    written: Arc<Mutex<(Weak<Status>, Bytes)>>,
}

impl Site {
    pub(super) fn new(
        status: watch::Receiver<Arc<Status>>,
        directory: &Path,
        asks: mpsc::Sender<Asked>,
    ) -> Self {
        Self {
            status,
            directory: directory.to_owned(),
            asks,
            planning: Arc::new(Semaphore::new(1)),
            written: Arc::default(),
        }
    }

    /// Everything, for those who bring the token along.
    pub(super) fn routes(&self, token: Option<Secret>) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .merge(page::routes())
            .merge(api::routes())
            .merge(plan::routes(token.as_ref()))
            .method_not_allowed_fallback(wrong_method)
            .fallback(unknown_path)
            .layer(middleware::from_fn_with_state(token, guard::admit))
            .with_state(self.clone())
    }

    /// The latest status. The guard of `borrow` holds a lock that the controller waits for: only the
    /// pointer is copied under it.
    pub(super) fn latest(&self) -> Arc<Status> {
        Arc::clone(&self.status.borrow())
    }

    fn metrics(&self) -> Bytes {
        let latest = self.latest();
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::ptr::eq(written.0.as_ptr(), &raw const *latest) {
            *written = (Arc::downgrade(&latest), metrics::text(&latest).into());
        }
        written.1.clone()
    }

    /// Gives back the memory of metrics that are not the latest any more.
    pub(super) fn forget(&self) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::ptr::eq(written.0.as_ptr(), Arc::as_ptr(&self.latest())) {
            *written = (Weak::new(), Bytes::new());
        }
    }
}

async fn metrics(State(site): State<Site>) -> Response {
    let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
    ([(CONTENT_TYPE, kind)], site.metrics()).into_response()
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let instead = if uri.path() == "/api/plan" {
        "POST"
    } else {
        "GET"
    };
    let why = format!("{} does not take {method}: use {instead}", uri.path());
    problem(StatusCode::METHOD_NOT_ALLOWED, why)
}

async fn unknown_path(uri: Uri) -> Response {
    let path = uri.path();
    let why = format!("there is nothing at {path}: the page is at /, metrics are at /metrics");
    problem(StatusCode::NOT_FOUND, why)
}

pub(super) fn problem(code: StatusCode, error: impl Into<String>) -> Response {
    let problem = Problem {
        error: error.into(),
        findings: Vec::new(),
    };
    (code, Json(problem)).into_response()
}
