//! HTTP requests, in plain text or by TLS.

use std::{error::Error as _, fmt, path::Path, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, StatusCode, Uri,
    body::{Bytes, Incoming},
    header,
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::later;
use crate::{
    notify::outbox::{Again, Failure},
    trust,
};

/// How much of an answer is read, in bytes: enough to say why it is no.
const MOST: usize = 4096;
/// How much of it is shown, in characters.
const SHOWN: usize = 200;
/// How long a connection is kept for the next request.
const KEPT: Duration = Duration::from_secs(30);

/// A client that all receivers share; it follows no redirection, and keeps connections for a while.
#[derive(Clone)]
pub(in crate::notify) struct Web {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Why nobody is trusted.
    untrusted: Option<String>,
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Web").finish_non_exhaustive()
    }
}

impl Web {
    /// Trusts the certificates in a PEM file; without one, what the host trusts. Where there are
    /// none, others can still be asked in plain text.
    pub(super) fn new(ca: Option<&Path>) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_idle_timeout(KEPT)
            .pool_timer(TokioTimer::new());
        let trusted = trust::roots(ca);
        let untrusted = trusted.as_ref().err().map(ToString::to_string);
        let config = ClientConfig::builder()
            .with_root_certificates(trusted.unwrap_or_else(|_| RootCertStore::empty()))
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(config);
        Self {
            client: builder.build(connector.https_or_http().enable_http1().build()),
            untrusted,
        }
    }

    /// Sends JSON; any answer from 200 to 299 means that it was taken.
    pub(super) async fn post(
        &self,
        url: &str,
        headers: &[(String, String)],
        body: String,
    ) -> Result<(), Failure> {
        // The URL may be a secret: what is wrong with it must not show it.
        let uri: Uri = url.parse().map_err(|_| later("the URL cannot be parsed"))?;
        if let (Some("https"), Some(why)) = (uri.scheme_str(), &self.untrusted) {
            return Err(later(why.clone()));
        }
        let mut request = Request::post(&uri)
            .header(header::CONTENT_TYPE, "application/json")
            .header(
                header::USER_AGENT,
                concat!("evenkeel/", env!("CARGO_PKG_VERSION")),
            );
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::from(body))
            .map_err(|e| later(format!("cannot make the request: {e}")))?;
        let answer = self.client.request(request).await.map_err(|e| {
            let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16());
            let port = port.map_or_else(String::new, |port| format!(":{port}"));
            later(format!("cannot ask {host}{port}: {}", causes(&e)))
        })?;
        let (parts, body) = answer.into_parts();
        // Read also where it is yes: the connection is used again.
        let text = read(body).await;
        if parts.status.is_success() {
            return Ok(());
        }
        let told = parts.headers.get(header::RETRY_AFTER);
        let told = told.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let status = parts.status;
        let colon = if text.is_empty() { "" } else { ": " };
        Err(Failure {
            why: format!("answered {status}{colon}{text}"),
            again: again(status, told.map(Duration::from_secs)),
        })
    }
}

/// Whether the same request may yet be taken. What is refused for its content never is; a wrong
/// address or key is mended at the other end, or by the next configuration.
fn again(status: StatusCode, told: Option<Duration>) -> Again {
    match status {
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::UNPROCESSABLE_ENTITY => Again::Never,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            told.map_or(Again::Later, Again::After)
        }
        _ => Again::Later,
    }
}

/// The beginning of an answer, in one line.
async fn read(body: Incoming) -> String {
    let Ok(collected) = Limited::new(body, MOST).collect().await else {
        return String::new();
    };
    let text = String::from_utf8_lossy(&collected.to_bytes()).into_owned();
    let line = text.trim().replace(char::is_control, " ");
    line.chars().take(SHOWN).collect()
}

/// What hyper says is in the causes; the last one is the system's.
fn causes(error: &hyper_util::client::legacy::Error) -> String {
    let mut last = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        last = inner.to_string();
        cause = inner.source();
    }
    last
}

#[cfg(test)]
mod tests {
    use hyper::{Response, server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    use super::*;
    use crate::trust::testing::Ca;

    /// A receiver over TLS that takes everything; answers its port.
    async fn receiver(ca: &Ca) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = ca.server("localhost", 2200, b"");
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // One who does not trust it goes away in the handshake.
                if let Ok(stream) = acceptor.accept(stream).await {
                    let yes = service_fn(|_| async {
                        Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::new())))
                    });
                    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), yes);
                    tokio::spawn(served);
                }
            }
        });
        port
    }

    #[tokio::test]
    async fn a_receiver_with_a_ca_of_its_own_is_trusted_by_that_alone() {
        let (ca, other) = (Ca::new(), Ca::new());
        let url = format!("https://localhost:{}/hook", receiver(&ca).await);
        let post = |web: Web| {
            let url = url.clone();
            async move { web.post(&url, &[], "{}".to_owned()).await }
        };
        post(Web::new(Some(&ca.file()))).await.unwrap();
        let untrusted = post(Web::new(Some(&other.file()))).await.unwrap_err();
        assert!(untrusted.why.contains("certificate"), "{}", untrusted.why);
        let missing = post(Web::new(Some(Path::new("/nowhere/ca.pem")))).await;
        let why = missing.unwrap_err().why;
        assert!(why.contains("/nowhere/ca.pem"), "{why}");
    }

    #[test]
    fn only_what_is_refused_for_its_content_is_given_up() {
        for (status, expected) in [
            (400, Again::Never),
            (413, Again::Never),
            (422, Again::Never),
            (401, Again::Later),
            (404, Again::Later),
            (500, Again::Later),
            (503, Again::After(Duration::from_secs(7))),
            (429, Again::After(Duration::from_secs(7))),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                again(status, Some(Duration::from_secs(7))),
                expected,
                "{status}"
            );
        }
        assert_eq!(again(StatusCode::TOO_MANY_REQUESTS, None), Again::Later);
    }
}
