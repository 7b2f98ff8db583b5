use std::{net::TcpListener as StdListener, path::Path, sync::Arc};

use axum::http::{Request, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::*;
use crate::{
    audit::testing::status,
    model::{Certificate, Secret},
    trust::{self, testing::Ca},
};

fn anywhere() -> HttpServer {
    HttpServer {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        ..HttpServer::default()
    }
}

/// A server, whose status stays what it is as long as the sender lives.
fn start(config: &HttpServer) -> (Web, watch::Sender<Arc<Status>>) {
    let (sender, receiver) = watch::channel(Arc::new(status(|_| ())));
    let nowhere = Path::new("/nowhere");
    // Nobody answers what only a controller can.
    let (asks, _) = mpsc::channel(1);
    let web = Web::start(config.clone(), nowhere, receiver, asks).unwrap();
    (web, sender)
}

/// What its condition is once that is as it should be.
async fn once(web: &Web, is: impl Fn(&Http) -> bool) -> Http {
    loop {
        let condition = web.handle().condition();
        if is(&condition) {
            return condition;
        }
        time::sleep(Duration::from_millis(5)).await;
    }
}

/// Where it listens.
async fn port(web: &Web) -> u16 {
    let condition = once(web, |seen| !seen.listening.is_empty()).await;
    condition.listening[0].port()
}

/// The code and the text of an answer; nothing where there is none.
async fn ask(
    method: &str,
    url: String,
    authorization: Option<&str>,
    ca: Option<&Path>,
) -> Option<(StatusCode, String)> {
    let roots = ca.map_or_else(RootCertStore::empty, |ca| trust::roots(Some(ca)).unwrap());
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
    let connector = connector.https_or_http().enable_http1().build();
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let mut request = Request::builder().method(method).uri(url);
    if let Some(value) = authorization {
        request = request.header(AUTHORIZATION, value);
    }
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let answer = client.request(request).await.ok()?;
    let code = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    Some((code, String::from_utf8(body.to_vec()).unwrap()))
}

async fn get(url: String) -> (StatusCode, String) {
    ask("GET", url, None, None).await.unwrap()
}

#[tokio::test]
async fn metrics_follow_the_status_and_nothing_can_be_sent() {
    let (web, sender) = start(&anywhere());
    let url = format!("http://127.0.0.1:{}/metrics", port(&web).await);
    let (code, text) = get(url.clone()).await;
    assert_eq!(code, StatusCode::OK);
    assert!(text.contains("\nevenkeel_generation{} 1.0\n"), "{text}");
    sender.send_replace(Arc::new(status(|status| status["generation"] = 2.into())));
    assert!(
        get(url.clone())
            .await
            .1
            .contains("\nevenkeel_generation{} 2.0\n")
    );
    let posted = ask("POST", url.clone(), None, None).await.unwrap();
    assert_eq!(posted.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(get(url + "/x").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_and_had_once_it_is_free() {
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let mut config = anywhere();
    config.listen.push(at);
    let (web, _sender) = start(&config);
    let seen = once(&web, |seen| !seen.failures.is_empty()).await;
    let [failure] = &*seen.failures else {
        panic!("{seen:?}")
    };
    assert!(failure.contains(&at.to_string()), "{failure}");
    assert!(failure.contains("ss -ltnp"), "{failure}");
    // The other one is there.
    assert_eq!(seen.listening.len(), 1);
    drop(taken);
    let seen = once(&web, |seen| seen.failures.is_empty()).await;
    assert!(seen.listening.contains(&at), "{seen:?}");
    // A change leaves what stays alone, and gives up the rest.
    config.listen = vec![at];
    web.follow(&config);
    once(&web, |seen| seen.listening == [at]).await;
    assert_eq!(get(format!("http://{at}/metrics")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn who_has_no_token_sees_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "open sesame\n").unwrap();
    let config = HttpServer {
        token: Some(Secret::File(file.clone())),
        ..anywhere()
    };
    let (web, _sender) = start(&config);
    let url = format!("http://127.0.0.1:{}/metrics", port(&web).await);
    let with = async |value: Option<&str>| {
        let answer = ask("GET", url.clone(), value, None).await;
        answer.unwrap().0
    };
    assert_eq!(with(None).await, StatusCode::UNAUTHORIZED);
    assert_eq!(with(Some("Bearer open")).await, StatusCode::UNAUTHORIZED);
    assert_eq!(with(Some("Bearer open sesame")).await, StatusCode::OK);
    // "me:open sesame"
    let basic = "Basic bWU6b3BlbiBzZXNhbWU=";
    assert_eq!(with(Some(basic)).await, StatusCode::OK);
    let (_, text) = get(url.replace("metrics", "elsewhere")).await;
    assert!(!text.contains("elsewhere"), "{text}");
    // It is read anew, and where that fails nobody gets in.
    std::fs::write(&file, "open barley").unwrap();
    assert_eq!(with(Some(basic)).await, StatusCode::UNAUTHORIZED);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(with(Some(basic)).await, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_certificate_that_is_replaced_is_served_from_the_next_connection_on() {
    let (ca, other) = (Ca::new(), Ca::new());
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate {
        chain: folder.path().join("http.pem"),
        key: folder.path().join("http.key"),
    };
    let put = |ca: &Ca| {
        let (chain, key) = ca.pem("localhost");
        std::fs::write(&certificate.chain, chain).unwrap();
        std::fs::write(&certificate.key, key).unwrap();
    };
    put(&ca);
    let config = HttpServer {
        certificate: Some(certificate.clone()),
        ..anywhere()
    };
    let (web, _sender) = start(&config);
    let url = format!("https://localhost:{}/metrics", port(&web).await);
    let trusting = async |ca: &Ca| {
        let answer = ask("GET", url.clone(), None, Some(&ca.file())).await;
        answer.map(|(code, _)| code)
    };
    assert_eq!(trusting(&ca).await, Some(StatusCode::OK));
    assert_eq!(trusting(&other).await, None);
    let plain = url.replace("https", "http");
    assert_eq!(ask("GET", plain, None, None).await, None);
    put(&other);
    assert_eq!(trusting(&other).await, Some(StatusCode::OK));
    std::fs::write(&certificate.key, "no key").unwrap();
    assert_eq!(trusting(&other).await, None);
    put(&ca);
    assert_eq!(trusting(&ca).await, Some(StatusCode::OK));
}
