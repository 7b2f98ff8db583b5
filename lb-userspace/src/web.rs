//! Metrics for Prometheus and a page for browsers, over HTTP. Nothing can be changed there.
//!
//! | request | answer |
//! |---|---|
//! | `GET /metrics` | 200, what [`metrics`](crate::metrics) says |
//! | `GET /` and its files | 200, the page |
//! | `GET /api/…` | 200, JSON that the page is made from |
//! | `POST /api/plan` | 200, the [`Plan`](crate::admin::proto::change::Plan) of the configuration in the body |
//! | the same where no token is configured | 403, a [`Problem`](crate::admin::proto::Problem) |
//! | another path | 404, a [`Problem`](crate::admin::proto::Problem) |
//! | another method | 405, the same |
//! | without the token that is configured | 401, the same |
//!
//! All of it has a thread and a runtime of its own, and looks at finished status values only: a
//! scraper that is slow, or that asks all the time, holds up neither the control loop nor a probe.
//! An address that cannot be had is reported and tried again; packets do not care.
//!
//! Who else is on the host may look at what is shown on loopback, so clients' addresses are not. And
//! what a configuration would change is told those alone who bring a token along: the controller reads
//! the files that it names, and has work to do.

mod api;
mod discreet;
mod driver;
mod guard;
mod page;
mod plan;
mod routes;
mod speak;
mod tls;

pub use self::driver::{Handle, Web};
