//! Probes of each kind against servers of this process.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use http_body_util::{BodyExt, Full};
use hyper::{Response, body::Bytes, header::HeaderMap, server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use regex::bytes::Regex;
use tokio::net::UdpSocket;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    model::{CommandProbe, GrpcProbe, TlsProbe, UdpProbe, Verify},
    trust::testing::Ca,
};

async fn ask(kind: ProbeKind, port: u16, timeout: Duration) -> Outcome {
    let http2 = matches!(kind, ProbeKind::Grpc(_));
    let tls = kind
        .tls()
        .map(|tls| Arc::new(Client::new(tls, http2).unwrap()));
    let subject = Subject {
        service: "web".into(),
        backend: "b1".into(),
        address: V4,
        check: Arc::new(check(kind, port, timeout)),
        tls,
    };
    super::super::run(&subject, Path::Direct).await
}

fn trusts(ca: &Ca) -> TlsProbe {
    TlsProbe {
        server_name: Some("web.test".to_owned()),
        ca: Some(ca.file()),
        verify: Verify::Yes,
        warn_before_expiry: TlsProbe::WARN_BEFORE_EXPIRY,
    }
}

/// An HTTP server over TLS that says `state: fine` and repeats the header `x-probe`.
async fn https(acceptor: TlsAcceptor) -> u16 {
    let (listener, port) = listen(V4).await;
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let answer = |request: Request<Incoming>| async move {
                    let wanted = request.headers().get("x-probe").is_some_and(|v| v == "yes")
                        && request.method() == "POST";
                    let status = if wanted { 200 } else { 403 };
                    let body = Full::new(Bytes::from_static(b"state: fine"));
                    Response::builder().status(status).body(body)
                };
                let _ = conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .await;
            });
        }
    });
    port
}

use hyper::{Request, body::Incoming};

fn post(tls: TlsProbe, body: Option<&str>) -> ProbeKind {
    ProbeKind::Http(HttpProbe {
        tls: Some(tls),
        method: "POST".to_owned(),
        headers: vec![("X-Probe".to_owned(), "yes".to_owned())],
        body: body.map(|pattern| BodyMatch::Pattern(Regex::new(pattern).unwrap())),
        ..HttpProbe::get("/")
    })
}

#[tokio::test]
async fn https_looks_at_certificate_method_headers_and_body() {
    let ca = Ca::new();
    let port = https(ca.server("web.test", 2200, b"")).await;
    let ask = |tls, body| ask(post(tls, body), port, LONG);
    let trusted = trusts(&ca);
    let said = |outcome: Outcome| outcome.to_string();
    assert_eq!(
        said(ask(trusted.clone(), Some("state: (fine|busy)$")).await),
        "HTTP 200"
    );
    assert_eq!(
        said(ask(trusted.clone(), Some("^fine")).await),
        "body does not match \"^fine\""
    );
    // Another name, another CA, and neither looked at.
    let other = TlsProbe {
        server_name: Some("other.test".to_owned()),
        ..trusted.clone()
    };
    let refused = said(ask(other.clone(), None).await);
    assert!(
        refused.contains("it is not for other.test but for"),
        "{refused}"
    );
    let anybody = TlsProbe {
        verify: Verify::No,
        ca: None,
        ..other
    };
    assert_eq!(said(ask(anybody, None).await), "HTTP 200");
    let plain = ProbeKind::Http(HttpProbe {
        tls: Some(trusted),
        ..HttpProbe::get("/")
    });
    let forbidden = super::kinds::ask(plain, port, LONG).await.to_string();
    assert_eq!(forbidden, "HTTP 403, expected 200-399");
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let (ca, other) = (Ca::new(), Ca::new());
    let port = https(ca.server("web.test", 2200, b"")).await;
    let outcome = ask(ProbeKind::Tls(trusts(&other)), port, LONG).await;
    let refused = outcome.to_string();
    assert!(refused.starts_with("certificate refused"), "{refused}");
    assert_eq!(outcome.verdict(), Some(Verdict::Fail));
}

#[tokio::test]
async fn a_certificate_that_expires_is_told_of_and_one_that_has_expired_refused() {
    let ca = Ca::new();
    let port = https(ca.server("web.test", 2200, b"")).await;
    let tls = TlsProbe {
        warn_before_expiry: Duration::from_hours(24 * 365 * 500),
        ..trusts(&ca)
    };
    let outcome = ask(ProbeKind::Tls(tls), port, LONG).await;
    assert!(outcome.result.as_ref().unwrap().expires_in().is_some());
    assert_eq!(outcome.verdict(), Some(Verdict::Pass));
    let well = ask(ProbeKind::Tls(trusts(&ca)), port, LONG).await;
    assert_eq!(well.to_string(), "TLS handshake done");

    let port = https(ca.server("web.test", 2001, b"")).await;
    let refused = ask(ProbeKind::Tls(trusts(&ca)), port, LONG)
        .await
        .to_string();
    assert!(
        refused.starts_with("certificate refused: it expired "),
        "{refused}"
    );
}

#[tokio::test]
async fn a_server_without_tls_fails_the_handshake() {
    let (listener, port) = listen(V4).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read(&mut [0; 1024]).await;
    });
    let outcome = ask(ProbeKind::Tls(trusts(&Ca::new())), port, LONG).await;
    assert!(
        matches!(outcome.result, Err(ProbeFailure::Handshake(_))),
        "{outcome}"
    );
}

/// A gRPC server that knows the states of some services.
async fn health_server(known: BTreeMap<&'static str, i32>, acceptor: Option<TlsAcceptor>) -> u16 {
    let (listener, port) = listen(V4).await;
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (known, acceptor) = (known.clone(), acceptor.clone());
            let answer = move |request: Request<Incoming>| {
                let known = known.clone();
                async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let body = request.into_body().collect().await?.to_bytes();
                    let asked = super::super::grpc::Question::decode(&body[5..])
                        .unwrap()
                        .service;
                    let mut trailers = HeaderMap::new();
                    let mut message = Vec::new();
                    if let Some(&status) = known.get(asked.as_str()) {
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        let answer = super::super::grpc::Answer { status }.encode_to_vec();
                        message = vec![0, 0, 0, 0, answer.len() as u8];
                        message.extend(answer);
                    } else {
                        trailers.insert("grpc-status", "5".parse().unwrap());
                    }
                    let body = Full::new(Bytes::from(message))
                        .with_trailers(std::future::ready(Some(Ok(trailers))));
                    Ok::<_, hyper::Error>(Response::new(body))
                }
            };
            tokio::spawn(async move {
                let builder = conn::http2::Builder::new(TokioExecutor::new());
                if let Some(acceptor) = acceptor {
                    let stream = acceptor.accept(stream).await.unwrap();
                    let _ = builder
                        .serve_connection(TokioIo::new(stream), service_fn(answer))
                        .await;
                } else {
                    let _ = builder
                        .serve_connection(TokioIo::new(stream), service_fn(answer))
                        .await;
                }
            });
        }
    });
    port
}

fn grpc(service: &str, tls: Option<TlsProbe>) -> ProbeKind {
    ProbeKind::Grpc(GrpcProbe {
        tls,
        service: service.to_owned(),
        host: None,
    })
}

#[tokio::test]
async fn grpc_servers_are_asked_for_their_health() {
    let known = BTreeMap::from([("", 1), ("sick", 2)]);
    let port = health_server(known.clone(), None).await;
    for (service, said) in [
        ("", "gRPC SERVING"),
        ("sick", "gRPC NOT_SERVING"),
        ("unknown", "gRPC does not know the service (NOT_FOUND)"),
    ] {
        assert_eq!(ask(grpc(service, None), port, LONG).await.to_string(), said);
    }
    let ca = Ca::new();
    let port = health_server(known, Some(ca.server("web.test", 2200, b"h2"))).await;
    let outcome = ask(grpc("", Some(trusts(&ca))), port, LONG).await;
    assert_eq!(outcome.to_string(), "gRPC SERVING");
}

#[tokio::test]
async fn a_datagram_is_sent_and_its_answer_judged() {
    let socket = UdpSocket::bind(SocketAddr::new(V4, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            if &buffer[..length] == b"ping" {
                socket.send_to(b"PONG 7", from).await.unwrap();
            }
        }
    });
    let probe = |send: &str, expect: Option<&str>| {
        ProbeKind::Udp(UdpProbe {
            send: send.into(),
            expect: expect.map(Into::into),
        })
    };
    assert_eq!(
        ask(probe("ping", Some("PONG")), port, LONG)
            .await
            .to_string(),
        "answered"
    );
    assert_eq!(
        ask(probe("ping", None), port, LONG).await.to_string(),
        "answered"
    );
    let other = ask(probe("ping", Some("pong")), port, LONG).await;
    assert_eq!(
        other.to_string(),
        "the answer does not contain what was expected: PONG 7"
    );
    let silent = ask(probe("hello", None), port, SHORT).await;
    assert_eq!(silent.verdict(), Some(Verdict::Fail));
    // Nobody listens there: the kernel says so at once.
    let unused = UdpSocket::bind(SocketAddr::new(V4, 0)).await.unwrap();
    let port = unused.local_addr().unwrap().port();
    drop(unused);
    let refused = ask(probe("ping", None), port, LONG).await;
    assert_eq!(refused.to_string(), "connection refused");
}

#[tokio::test]
async fn a_program_passes_by_its_exit_code_and_tells_why_not() {
    let sh = |script: &str| {
        let argv = ["/bin/sh", "-c", script];
        ProbeKind::Command(CommandProbe {
            argv: argv.map(str::to_owned).to_vec(),
        })
    };
    let told = ask(
        sh("echo $EVENKEEL_SERVICE/$EVENKEEL_BACKEND $EVENKEEL_ADDRESS; echo more"),
        7,
        LONG,
    );
    assert_eq!(told.await.to_string(), "web/b1 127.0.0.1");
    let failed = ask(sh("echo the disk is full >&2; exit 3"), 7, LONG).await;
    assert_eq!(failed.to_string(), "exit code 3: the disk is full");
    assert_eq!(failed.verdict(), Some(Verdict::Fail));
    let missing = ProbeKind::Command(CommandProbe {
        argv: vec!["/nonexistent/check".to_owned()],
    });
    assert_eq!(ask(missing, 7, LONG).await.verdict(), None);
}

#[tokio::test]
async fn a_program_that_takes_too_long_is_killed_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; wait", note.display());
    let kind = ProbeKind::Command(CommandProbe {
        argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), script],
    });
    let outcome = ask(kind, 7, SHORT).await;
    assert_eq!(
        outcome.to_string(),
        "no answer within 500 ms (the program still ran)"
    );
    let pid = std::fs::read_to_string(note).unwrap();
    let stat = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
    for _ in 0..1_000 {
        // A zombie is dead too, and waits for whoever inherited it.
        let state = std::fs::read_to_string(&stat).unwrap_or_default();
        if state.is_empty() || state.contains(") Z ") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("process {} still runs", pid.trim());
}
