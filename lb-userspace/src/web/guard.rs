//! Who may look.

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE},
    middleware::Next,
    response::Response,
};
use headers::{
    Authorization, HeaderMapExt as _,
    authorization::{Basic, Bearer},
};
use log::error;
use subtle::ConstantTimeEq as _;

use super::routes::problem;
use crate::{model::Secret, secret};

/// Lets a request through that brings the token along: as a bearer's, as Prometheus does it, or as a
/// password with any name, as browsers do.
pub(super) async fn admit(
    State(token): State<Option<Secret>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(token) = token else {
        return next.run(request).await;
    };
    let token = match secret::reveal(&token) {
        Ok(token) => token,
        Err(e) => {
            error!("http.token: {e}");
            let why = "the token is not known to the controller: see its log";
            return problem(StatusCode::SERVICE_UNAVAILABLE, why);
        }
    };
    let headers = request.headers();
    let bearer = headers.typed_get::<Authorization<Bearer>>();
    let basic = headers.typed_get::<Authorization<Basic>>();
    let brought = match (&bearer, &basic) {
        (Some(bearer), _) => bearer.token(),
        (None, Some(basic)) => basic.password(),
        (None, None) => "",
    };
    if token.as_bytes().ct_eq(brought.as_bytes()).into() {
        return next.run(request).await;
    }
    let why = "bring along the token that http.token names: 'Authorization: Bearer …'";
    let mut refusal = problem(StatusCode::UNAUTHORIZED, why);
    let ask = HeaderValue::from_static("Basic realm=\"evenkeel\"");
    refusal.headers_mut().insert(WWW_AUTHENTICATE, ask);
    refusal
}
