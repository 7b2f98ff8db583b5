//! Questions and wishes that only the controller's task can answer.

use std::convert::Infallible;

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::stream;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{mpsc, oneshot};

use super::{Caller, problem, wrong_method};
use crate::admin::proto::{
    LogFilter, Problem, SetLogFilter,
    change::{Configuration, Finding, Imposed, Imposing, Outcome, Plan, Request, Rollback},
    drill::{self, Abort},
    explain::{self, Explanations},
    flows::{Flows, Query},
    incident::{self, Done},
    trace,
};

/// The longest request body, in bytes: a file with all backends that fit.
const MAX_BODY: usize = 16 * 1024 * 1024;
/// Lines that wait to be written to whoever reads slowly.
const LINES: usize = 256;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The user's number, where a person asks.
    pub uid: Option<u32>,
    /// The user's name, or what stands for it.
    pub name: String,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// What would this change?
    Plan(Request),
    /// Change it.
    Apply(Request),
    /// Keep the last change.
    Confirm,
    /// Go back.
    Rollback(Rollback),
    /// Which configurations are kept?
    Configurations,
    /// Override what the configuration says of a backend.
    Impose(Imposing),
    /// Open an incident, or do something about one.
    Incident(incident::Wish),
    /// Which flows are remembered?
    Flows(Query),
    /// What would become of packets?
    Explain(explain::Request),
    /// Which decisions are made? They are told line by line.
    Trace(Box<trace::Request>, Lines),
    /// Begin a drill, or say what it would do.
    Drill(drill::Request),
    /// End the drill that is on.
    AbortDrill(Abort),
    /// What is logged?
    Log,
    /// Log this.
    SetLog(SetLogFilter),
}

/// Where lines are told, each with its end.
#[derive(Clone, Debug)]
pub struct Lines(pub mpsc::Sender<Bytes>);

impl PartialEq for Lines {
    fn eq(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To [`Ask::Plan`].
    Plan(Box<Plan>),
    /// To [`Ask::Apply`], [`Ask::Confirm`] and [`Ask::Rollback`].
    Outcome(Box<Outcome>),
    /// To [`Ask::Configurations`].
    Configurations(Vec<Configuration>),
    /// To [`Ask::Impose`].
    Imposed(Box<Imposed>),
    /// To [`Ask::Incident`].
    Incident(Box<Done>),
    /// To [`Ask::Flows`].
    Flows(Box<Flows>),
    /// To [`Ask::Explain`].
    Explanations(Box<Explanations>),
    /// To [`Ask::Trace`]: what is told follows.
    Begun,
    /// To [`Ask::Drill`] and [`Ask::AbortDrill`].
    Drill(Box<drill::Answer>),
    /// To [`Ask::Log`] and [`Ask::SetLog`].
    Log(LogFilter),
}

/// Why something was not done. Everything is as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// What kind of reason it is.
    pub because: Because,
    /// What failed, why, and what to do.
    pub error: String,
    /// What the audit found, where that is why.
    pub findings: Vec<Finding>,
}

/// Kinds of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// What was asked for is wrong in itself.
    Invalid,
    /// What it is about does not exist.
    Unknown,
    /// It cannot be done as things are.
    Conflict,
    /// Something else is under way.
    Busy,
    /// The kernel or the disk refused.
    Failed,
}

impl Refused {
    /// A refusal without findings.
    #[must_use]
    pub fn new(because: Because, error: impl Into<String>) -> Self {
        Self {
            because,
            error: error.into(),
            findings: Vec::new(),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let code = match self.because {
            Because::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Because::Unknown => StatusCode::NOT_FOUND,
            Because::Conflict => StatusCode::CONFLICT,
            Because::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Because::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let problem = Problem {
            error: self.error,
            findings: self.findings,
        };
        (code, Json(problem)).into_response()
    }
}

/// Takes the answer.
pub type Answerer = oneshot::Sender<Result<Answer, Refused>>;

/// A question on its way to the controller's task.
#[derive(Debug)]
pub struct Asked {
    /// Who asks.
    pub by: Actor,
    /// What.
    pub ask: Ask,
    /// Where the answer goes.
    pub answer: Answerer,
}

/// What the routes below need.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) asks: mpsc::Sender<Asked>,
    pub(super) caller: Caller,
}

/// The routes of changes.
pub(super) fn routes(desk: Desk) -> Router {
    Router::new()
        .route("/v1/plan", post(plan).fallback(wrong_method))
        .route("/v1/apply", post(apply).fallback(wrong_method))
        .route("/v1/confirm", post(confirm).fallback(wrong_method))
        .route("/v1/rollback", post(rollback).fallback(wrong_method))
        .route("/v1/override", post(impose).fallback(wrong_method))
        .route("/v1/incident", post(incident).fallback(wrong_method))
        .route(
            "/v1/configurations",
            get(configurations).fallback(wrong_method),
        )
        .route("/v1/flows", post(flows).fallback(wrong_method))
        .route("/v1/explain", post(explain).fallback(wrong_method))
        .route("/v1/trace", post(trace).fallback(wrong_method))
        .route("/v1/drill", post(drill).fallback(wrong_method))
        .route("/v1/drill/abort", post(abort_drill).fallback(wrong_method))
        .route(
            "/v1/log",
            get(log_filter).post(set_log_filter).fallback(wrong_method),
        )
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(desk)
}

async fn plan(State(desk): State<Desk>, body: Bytes) -> Response {
    match read(&body) {
        Ok(request) => desk.ask(Ask::Plan(request)).await,
        Err(refusal) => *refusal,
    }
}

async fn apply(State(desk): State<Desk>, body: Bytes) -> Response {
    desk.change(read(&body).map(Ask::Apply)).await
}

async fn confirm(State(desk): State<Desk>) -> Response {
    desk.change(Ok(Ask::Confirm)).await
}

async fn rollback(State(desk): State<Desk>, body: Bytes) -> Response {
    desk.change(read(&body).map(Ask::Rollback)).await
}

async fn impose(State(desk): State<Desk>, body: Bytes) -> Response {
    desk.change(read(&body).map(Ask::Impose)).await
}

async fn incident(State(desk): State<Desk>, body: Bytes) -> Response {
    desk.change(read(&body).map(Ask::Incident)).await
}

async fn flows(State(desk): State<Desk>, body: Bytes) -> Response {
    match read(&body) {
        Ok(query) => desk.ask(Ask::Flows(query)).await,
        Err(refusal) => *refusal,
    }
}

async fn explain(State(desk): State<Desk>, body: Bytes) -> Response {
    match read(&body) {
        Ok(request) => desk.ask(Ask::Explain(request)).await,
        Err(refusal) => *refusal,
    }
}

/// Watching has packets cost more and shows what is in them: that is for those who may change.
async fn trace(State(desk): State<Desk>, body: Bytes) -> Response {
    let (lines, told) = mpsc::channel(LINES);
    let ask = read(&body).map(|request| Ask::Trace(Box::new(request), Lines(lines)));
    let begun = desk.change(ask).await;
    if begun.status() != StatusCode::OK {
        return begun;
    }
    desk.caller.stream();
    let lines = stream::unfold(told, async |mut told| {
        told.recv()
            .await
            .map(|line| (Ok::<_, Infallible>(line), told))
    });
    (
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(lines),
    )
        .into_response()
}

/// To ask what a drill would do is to look.
async fn drill(State(desk): State<Desk>, body: Bytes) -> Response {
    match read::<drill::Request>(&body) {
        Ok(request) if request.dry => desk.ask(Ask::Drill(request)).await,
        request => desk.change(request.map(Ask::Drill)).await,
    }
}

async fn abort_drill(State(desk): State<Desk>, body: Bytes) -> Response {
    desk.change(read(&body).map(Ask::AbortDrill)).await
}

async fn log_filter(State(desk): State<Desk>) -> Response {
    desk.ask(Ask::Log).await
}

async fn set_log_filter(State(desk): State<Desk>, body: Bytes) -> Response {
    desk.change(read(&body).map(Ask::SetLog)).await
}

async fn configurations(State(desk): State<Desk>) -> Response {
    desk.ask(Ask::Configurations).await
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Box<Response>> {
    serde_json::from_slice(body).map_err(|e| {
        Box::new(problem(
            StatusCode::BAD_REQUEST,
            format!("the request is not understood ({e}): are both of the same version?"),
        ))
    })
}

impl Desk {
    /// Asks for a change, which not everybody may who may look.
    async fn change(&self, ask: Result<Ask, Box<Response>>) -> Response {
        if !self.caller.may_change {
            let user = &self.caller.actor.name;
            let error = format!(
                "{user} may look and not change: ask for changes as root, as the controller's own \
                 user, or as a member of the group that 'change_group' under [admin] names"
            );
            return problem(StatusCode::FORBIDDEN, error);
        }
        match ask {
            Ok(ask) => self.ask(ask).await,
            Err(refusal) => *refusal,
        }
    }

    async fn ask(&self, ask: Ask) -> Response {
        let (answer, answered) = oneshot::channel();
        let asked = Asked {
            by: self.caller.actor.clone(),
            ask,
            answer,
        };
        self.caller.take_time();
        let ends = || {
            problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "the controller is about to end: ask the next one".to_owned(),
            )
        };
        if self.asks.send(asked).await.is_err() {
            return ends();
        }
        match answered.await {
            Ok(Ok(answer)) => Json(answer).into_response(),
            Ok(Err(refused)) => refused.into_response(),
            Err(_) => ends(),
        }
    }
}
