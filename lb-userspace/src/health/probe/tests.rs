use std::{
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU16,
};

use rustix::io::Errno;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::oneshot,
};

use super::{
    http::{BODY_LIMIT, request},
    *,
};
use crate::model::BodyMatch;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
/// For probes that must not run into their time-out, however busy the machine is.
const LONG: Duration = Duration::from_secs(20);
/// For probes that must.
const SHORT: Duration = Duration::from_millis(500);

fn check(kind: ProbeKind, port: u16, timeout: Duration) -> HealthCheck {
    HealthCheck {
        interval: timeout * 2,
        timeout,
        ..HealthCheck::new(kind, NonZeroU16::new(port).unwrap())
    }
}

fn get(body: Option<&str>) -> HttpProbe {
    HttpProbe {
        body: body.map(|text| BodyMatch::Text(text.to_owned())),
        ..HttpProbe::get("/health?deep=1")
    }
}

/// Probes a backend straight at its address.
async fn run(check: &HealthCheck, address: IpAddr) -> Outcome {
    super::run(&subject(check, address), Path::Direct).await
}

fn subject(check: &HealthCheck, address: IpAddr) -> Subject {
    Subject {
        service: "web".into(),
        backend: "b1".into(),
        address,
        check: Arc::new(check.clone()),
        tls: None,
    }
}

async fn listen(address: IpAddr) -> (TcpListener, u16) {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Reads a request up to its empty line.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(request).unwrap()
}

/// What a server does after it has read the request.
#[derive(Clone, Copy)]
enum After {
    Close,
    Hang,
    RepeatLast,
}

/// Serves one connection with an answer in parts, then probes it.
///
/// The server waits a moment between parts, so that they arrive apart.
async fn serve(parts: Vec<Vec<u8>>, after: After, probe: HttpProbe, timeout: Duration) -> Outcome {
    let (listener, port) = listen(V4).await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        read_request(&mut stream).await;
        for part in &parts {
            // The client may have seen enough.
            let _ = stream.write_all(part).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        match after {
            After::Close => {}
            After::Hang => std::future::pending().await,
            After::RepeatLast => while stream.write_all(parts.last().unwrap()).await.is_ok() {},
        }
    });
    let outcome = run(&check(ProbeKind::Http(probe), port, timeout), V4).await;
    server.abort();
    outcome
}

async fn answer(response: &str, body: Option<&str>) -> Result<Evidence, ProbeFailure> {
    serve(vec![response.into()], After::Close, get(body), LONG)
        .await
        .result
}

fn late(phase: Phase) -> Result<Evidence, ProbeFailure> {
    Err(ProbeFailure::NoAnswer {
        limit: SHORT,
        phase,
    })
}

#[tokio::test]
async fn tcp_passes_where_somebody_listens() {
    for address in [V4, V6] {
        let (_listener, port) = listen(address).await;
        let outcome = run(&check(ProbeKind::Tcp, port, LONG), address).await;
        assert_eq!(outcome.result, Ok(Evidence::Connected));
        assert_eq!(outcome.verdict(), Some(Verdict::Pass));
        assert_eq!(outcome.to_string(), "connected");
    }
}

#[tokio::test]
async fn a_closed_port_is_refused() {
    for address in [V4, V6] {
        // Bound and not listening: nobody else can take the port meanwhile.
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        };
        let socket = socket.unwrap();
        socket.bind((address, 0).into()).unwrap();
        let port = socket.local_addr().unwrap().port();
        for kind in [ProbeKind::Tcp, ProbeKind::Http(get(None))] {
            let outcome = run(&check(kind, port, LONG), address).await;
            assert_eq!(outcome.result, Err(ProbeFailure::Refused));
            assert_eq!(outcome.verdict(), Some(Verdict::Fail));
            assert_eq!(outcome.to_string(), "connection refused");
        }
    }
}

#[tokio::test]
async fn a_full_accept_queue_is_a_time_out_while_connecting() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((V4, 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // The kernel takes one more than the backlog, then drops the SYNs.
    let _queued = [
        TcpStream::connect(address).await.unwrap(),
        TcpStream::connect(address).await.unwrap(),
    ];
    let outcome = run(&check(ProbeKind::Tcp, address.port(), SHORT), V4).await;
    assert_eq!(outcome.result, late(Phase::Connecting));
    assert_eq!(outcome.to_string(), "no answer within 500 ms (connecting)");
    assert!(outcome.took >= SHORT);
}

#[tokio::test]
async fn a_tcp_probe_does_not_wake_the_application() {
    let (listener, port) = listen(V4).await;
    for _ in 0..50 {
        let outcome = run(&check(ProbeKind::Tcp, port, LONG), V4).await;
        assert_eq!(outcome.result, Ok(Evidence::Connected));
    }
    let listener = listener.into_std().unwrap();
    let accepted = (0..50).take_while(|_| listener.accept().is_ok()).count();
    // A probe that is held up between its two system calls completes the handshake.
    assert!(accepted <= 5, "{accepted} of 50 probes were accepted");
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// The sockets in `TIME_WAIT` of a port on either side, on 127.0.0.1.
fn time_waits(port: u16) -> usize {
    let port = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let in_time_wait = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, remote, state) = (words.next(), words.next(), words.next());
        state == Some("06")
            && [local, remote]
                .iter()
                .flatten()
                .any(|end| end.ends_with(&port))
    };
    table.lines().filter(in_time_wait).count()
}

#[tokio::test]
async fn no_probe_leaves_time_wait_behind() {
    let (listener, port) = listen(V4).await;
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await
                .unwrap();
        }
    });
    for _ in 0..20 {
        let outcome = run(&check(ProbeKind::Http(get(Some("ok"))), port, LONG), V4).await;
        assert_eq!(outcome.result, Ok(Evidence::Http(200)));
    }
    server.abort();
    assert_eq!(time_waits(port), 0);

    let (listener, port) = listen(V4).await;
    for _ in 0..20 {
        run(&check(ProbeKind::Tcp, port, LONG), V4)
            .await
            .result
            .unwrap();
    }
    drop(listener);
    assert_eq!(time_waits(port), 0);
}

#[tokio::test]
async fn the_request_names_host_and_sender() {
    for (address, host, expected) in [
        (V4, None, "127.0.0.1:PORT"),
        (V6, None, "[::1]:PORT"),
        (V6, Some("shop.example"), "shop.example"),
    ] {
        let (listener, port) = listen(address).await;
        let (sent, request) = oneshot::channel();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            sent.send(read_request(&mut stream).await).unwrap();
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .await
                .unwrap();
        });
        let probe = HttpProbe {
            host: host.map(str::to_owned),
            ..get(None)
        };
        let outcome = run(&check(ProbeKind::Http(probe), port, LONG), address).await;
        assert_eq!(outcome.result, Ok(Evidence::Http(204)));
        assert_eq!(outcome.to_string(), "HTTP 204");
        let request = request.await.unwrap();
        let mut lines: Vec<_> = request.trim_end().lines().collect();
        assert_eq!(lines.remove(0), "GET /health?deep=1 HTTP/1.1");
        lines.sort_unstable();
        let host = format!("host: {}", expected.replace("PORT", &port.to_string()));
        let agent = concat!("user-agent: evenkeel/", env!("CARGO_PKG_VERSION"));
        assert_eq!(lines, ["connection: close", &host, agent]);
    }
}

#[test]
fn the_usual_port_is_not_named() {
    let port = NonZeroU16::new(80).unwrap();
    for (address, host) in [(V4, "127.0.0.1"), (V6, "[::1]")] {
        let check = HealthCheck::new(ProbeKind::Http(get(None)), port);
        let request = request(&get(None), &subject(&check, address)).unwrap();
        assert_eq!(request.headers()["host"], host);
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_made_says_nothing_of_the_backend() {
    let (_listener, port) = listen(V4).await;
    for (path, host) in [("/a b", None), ("/", Some("a\nb"))] {
        let (path, host) = (path.to_owned(), host.map(str::to_owned));
        let probe = HttpProbe {
            path,
            host,
            ..get(None)
        };
        let outcome = run(&check(ProbeKind::Http(probe), port, LONG), V4).await;
        assert_eq!(outcome.result, Err(ProbeFailure::InvalidRequest));
        assert_eq!(outcome.verdict(), None);
    }
}

#[test]
fn want_of_resources_says_nothing_of_the_backend() {
    let outcome = |errno: Errno| {
        let failure = ProbeFailure::of_io(&errno.into(), Phase::Connecting);
        Outcome {
            took: Duration::ZERO,
            result: Err(failure),
            instead: None,
        }
    };
    for errno in [
        Errno::MFILE,
        Errno::NFILE,
        Errno::ADDRNOTAVAIL,
        Errno::NOBUFS,
    ] {
        assert_eq!(outcome(errno).verdict(), None, "{errno}");
    }
    for (errno, message) in [
        (Errno::NETUNREACH, "network unreachable"),
        (Errno::HOSTUNREACH, "host unreachable"),
        (Errno::CONNRESET, "connection reset (connecting)"),
    ] {
        assert_eq!(outcome(errno).verdict(), Some(Verdict::Fail));
        assert_eq!(outcome(errno).to_string(), message);
    }
}

#[tokio::test]
async fn a_status_out_of_range_fails() {
    let result = answer("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", None).await;
    assert_eq!(
        result.unwrap_err().to_string(),
        "HTTP 503, expected 200-399"
    );

    let probe = HttpProbe {
        status: vec![200..=299, 404..=404],
        ..get(None)
    };
    let (ok, moved) = ("HTTP/1.1 404 Gone\r\n\r\n", "HTTP/1.1 301 Moved\r\n\r\n");
    let outcome = serve(vec![ok.into()], After::Close, probe.clone(), LONG).await;
    assert_eq!(outcome.result, Ok(Evidence::Http(404)));
    let outcome = serve(vec![moved.into()], After::Close, probe, LONG).await;
    assert_eq!(outcome.to_string(), "HTTP 301, expected 200-299, 404");
}

#[tokio::test]
async fn the_body_is_searched() {
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nall is ok";
    assert_eq!(
        answer(response, Some("is ok")).await,
        Ok(Evidence::Http(200))
    );
    let failure = answer(response, Some("fine")).await.unwrap_err();
    assert_eq!(failure.to_string(), "body does not contain \"fine\"");
    // A body without a length ends with the connection.
    assert_eq!(
        answer("HTTP/1.0 200 OK\r\n\r\nall is ok", Some("ok")).await,
        Ok(Evidence::Http(200))
    );
}

#[tokio::test]
async fn a_match_may_span_chunks() {
    let mut parts = vec![b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()];
    parts.extend(
        "xxstatstatus: fine"
            .bytes()
            .map(|byte| vec![b'1', 13, 10, byte, 13, 10]),
    );
    parts.push(b"0\r\n\r\n".to_vec());
    let outcome = serve(parts.clone(), After::Close, get(Some("status: fine")), LONG).await;
    assert_eq!(outcome.result, Ok(Evidence::Http(200)));
    let outcome = serve(parts, After::Close, get(Some("status: fined")), LONG).await;
    assert_eq!(
        outcome.to_string(),
        "body does not contain \"status: fined\""
    );
}

#[tokio::test]
async fn the_search_ends_at_64_kib() {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        BODY_LIMIT + 1
    );
    let body = |before: usize| format!("{head}{}end{}", "x".repeat(before), "x".repeat(2));
    let within = answer(&body(BODY_LIMIT - 4), Some("end")).await;
    assert_eq!(within, Ok(Evidence::Http(200)));
    let across = answer(&body(BODY_LIMIT - 2), Some("end")).await;
    assert_eq!(
        across,
        Err(ProbeFailure::Body {
            wanted: "end".to_owned()
        })
    );
}

#[tokio::test]
async fn an_endless_body_is_read_to_the_limit() {
    let head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    let parts = vec![head, vec![b'x'; 4_096]];
    let outcome = serve(parts.clone(), After::RepeatLast, get(Some("ok")), LONG).await;
    assert_eq!(
        outcome.result,
        Err(ProbeFailure::Body {
            wanted: "ok".to_owned()
        })
    );
    let outcome = serve(parts, After::RepeatLast, get(None), LONG).await;
    assert_eq!(outcome.result, Ok(Evidence::Http(200)));
}

#[tokio::test]
async fn a_body_that_stalls_is_cut_by_the_time_out() {
    let parts = vec![b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nok so far".to_vec()];
    let outcome = serve(parts.clone(), After::Hang, get(Some("well")), SHORT).await;
    assert_eq!(outcome.result, late(Phase::Reading));
    assert_eq!(
        outcome.to_string(),
        "no answer within 500 ms (reading the body)"
    );
    for body in [None, Some("ok")] {
        // Status and body are judged; that the rest does not come changes nothing.
        let outcome = serve(parts.clone(), After::Hang, get(body), SHORT).await;
        assert_eq!(outcome.result, Ok(Evidence::Http(200)));
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_cut_by_the_time_out() {
    // It never accepts.
    let (_listener, port) = listen(V4).await;
    let outcome = run(&check(ProbeKind::Http(get(None)), port, SHORT), V4).await;
    assert_eq!(outcome.result, late(Phase::Waiting));
    assert_eq!(
        outcome.to_string(),
        "no answer within 500 ms (waiting for the response)"
    );
    // It accepts and reads.
    let outcome = serve(Vec::new(), After::Hang, get(None), SHORT).await;
    assert_eq!(outcome.result, late(Phase::Waiting));
}

#[tokio::test]
async fn a_server_that_hangs_up_is_not_taken_for_a_slow_one() {
    assert_eq!(
        answer("", None).await,
        Err(ProbeFailure::Closed(Phase::Waiting))
    );
    assert_eq!(
        answer("HTTP/1.1 200 OK\r\nConte", None).await.unwrap_err(),
        { ProbeFailure::Closed(Phase::Waiting) }
    );
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nall is ";
    assert_eq!(
        answer(cut, Some("ok")).await,
        Err(ProbeFailure::Closed(Phase::Reading))
    );

    let (listener, port) = listen(V4).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.set_zero_linger().unwrap();
    });
    let outcome = run(&check(ProbeKind::Http(get(None)), port, LONG), V4).await;
    assert_eq!(
        outcome.to_string(),
        "connection reset (waiting for the response)"
    );
}

#[tokio::test]
async fn garbage_is_not_http() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\0\x01\x02\x03\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
    ] {
        let result = answer(garbage, None).await;
        assert_eq!(
            result,
            Err(ProbeFailure::NotHttp(Phase::Waiting)),
            "{garbage:?}"
        );
    }
    let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    assert_eq!(
        answer(chunk, Some("ok")).await,
        Err(ProbeFailure::NotHttp(Phase::Reading))
    );
}

#[tokio::test]
async fn huge_headers_are_refused() {
    let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(HEAD_LIMIT));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(101));
    for response in [long, many] {
        assert_eq!(
            answer(&response, None).await,
            Err(ProbeFailure::HeadTooLarge)
        );
    }
    let failure = ProbeFailure::HeadTooLarge.to_string();
    assert_eq!(
        failure,
        "the response has more than 100 headers or 64 KiB of them"
    );
    let endless = vec![b"HTTP/1.1 200 OK\r\n".to_vec(), b"A: b\r\n".repeat(1_000)];
    let outcome = serve(endless, After::RepeatLast, get(None), LONG).await;
    assert_eq!(outcome.result, Err(ProbeFailure::HeadTooLarge));
}

mod kinds;
